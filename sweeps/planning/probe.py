"""The timed probe: as many processes as trials would run at once measure at the same time, on the Ray of the sweep."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray

from sweeps.banks import stimulus_specs
from sweeps.cluster import check_cluster, connected, slots
from sweeps.folder import stimuli_folder
from sweeps.native_output import stderr_in
from sweeps.planning.costs import Cost, mean_of
from sweeps.planning.measure import Analysed, StimulusCost
from sweeps.planning.prober import gather, probers
from sweeps.planning.stand_in import Missing, provide_banks
from sweeps.planning.variants import Variant, Variants, spread_out
from sweeps.spec import SweepSpec
from sweeps.storage import existing_part
from wmcore.errors import WmsweepError

TRAINING_SECONDS, STIMULI_SECONDS = 8.0, 1.0
"""Optimiser steps, and features, are timed for about so long in all."""
TRIALS_LIMIT_S, STIMULI_LIMIT_S, ANALYSES_LIMIT_S = 600.0, 120.0, 60.0
"""What takes longer is given up."""

Say = Callable[[str], None]


@dataclass(frozen=True)
class Probe:
    """What was measured.

    Attributes:
        cpus: of the Ray.
        at_once: trials that run at the same time.
        device: ``cpu`` or ``cuda``.
        ray_seconds: until Ray had started, or was connected to.
        worker_seconds: until the processes for the trials could begin.
        trials: variants with their costs.
        stimuli: those that are not on disk yet, each with its cost.
        analyses: of the networks that were analysed in time; empty without analyses.
        unfinished: networks whose analyses took longer than ``ANALYSES_LIMIT_S``.
        trial_bytes: memory of a process that trains, beside what it shares with others.
        worker_bytes: the same once it has rendered and analysed, too.
        gpu_bytes: GPU memory of a trial; 0 on CPU.
        load: processes that wanted a CPU of this machine in the minute before (0 where Ray is elsewhere).
    """

    cpus: int
    at_once: int
    device: str
    ray_seconds: float
    worker_seconds: float
    trials: list[tuple[Variant, Cost]]
    stimuli: list[tuple[Missing, StimulusCost]]
    analyses: list[Analysed]
    unfinished: int
    trial_bytes: int
    worker_bytes: int
    gpu_bytes: int
    load: float


def probe(spec: SweepSpec, variants: Variants, storage: Path, say: Say, address: str | None = None) -> Probe:
    """Measures on a Ray that is started here, or on the one at ``address``; leaves nothing behind.

    Args:
        spec: the sweep.
        variants: of its space.
        storage: its banks are used, if it holds them; nothing else there is touched.
        say: told what is being measured.
        address: as of ``connected``.

    Raises:
        InputError: the cluster cannot run the sweep, or the task's stimuli are too few.
        WmsweepError: a trial cannot be timed.
    """
    # Workers on other machines see the storage, and not this machine's temporary folder.
    where = None if address is None else existing_part(storage)
    with tempfile.TemporaryDirectory(prefix="wmsweep-plan-", dir=where, ignore_cleanup_errors=True) as name:
        folder = Path(name)
        with stderr_in(folder / "libraries.log"):
            say("Starting Ray")
            load, began = os.getloadavg()[0] if address is None else 0.0, time.perf_counter()
            with connected(address):
                ray_seconds = time.perf_counter() - began
                check_cluster(spec, folder)
                return _probe(spec, variants, storage, folder, say, ray_seconds, load)


def _probe(
    spec: SweepSpec, variants: Variants, storage: Path, folder: Path, say: Say, ray_seconds: float, load: float
) -> Probe:
    cpus, at_once = max(1, int(ray.cluster_resources().get("CPU", 1))), min(slots(spec), spec.search.most_trials)
    say("Writing random features in place of those that are not made yet")
    stimuli = folder / "stimuli"
    missing = provide_banks(stimulus_specs(spec), stimuli_folder(storage), stimuli)
    say("Starting the processes of trials")
    with probers(spec.resources, at_once) as (actors, worker_seconds):
        trials = _trials(actors, variants.to_probe(), stimuli, folder, say)
        trained = ray.get([actor.state.remote() for actor in actors])
        rendered = [(stand_in, _rendered(actors[:cpus], stand_in, say)) for stand_in in missing]
        networks = spec.checkpoints.best * spec.trial.replicates
        found = _analyses(spec, actors[: min(cpus, networks)], variants, stimuli, folder, say)
        states = gather([actor.state.remote() for actor in actors], 0.0 if None in found else 10.0)
    return Probe(
        cpus=cpus,
        at_once=at_once,
        device=trained[0][0],
        ray_seconds=ray_seconds,
        worker_seconds=worker_seconds,
        trials=trials,
        stimuli=rendered,
        analyses=[analysed for analysed in found if analysed is not None],
        unfinished=found.count(None),
        trial_bytes=max(state[1] for state in trained),
        worker_bytes=max(state[1] for state in (*trained, *filter(None, states))),
        gpu_bytes=max(state[2] for state in trained),
        load=load,
    )


def _trials(
    actors: Sequence[Any], chosen: Sequence[Variant], stimuli: Path, folder: Path, say: Say
) -> list[tuple[Variant, Cost]]:
    """Every actor times every variant, each beginning with another one, so that unlike ones run side by side."""
    refs = []
    for number, actor in enumerate(actors):
        for i in range(len(chosen)):
            which = (i + number) % len(chosen)
            checkpoints = folder / f"trial_{number}_{which}"
            seconds = TRAINING_SECONDS / len(chosen)
            refs.append((which, actor.trial.remote(chosen[which].trial, stimuli, checkpoints, seconds)))
    found = gather(
        [ref for _, ref in refs], TRIALS_LIMIT_S, lambda done: say(f"Timing variants: {done} of {len(refs)} done")
    )
    costs = {
        which: [c for (w, _), c in zip(refs, found, strict=True) if w == which and c] for which in range(len(chosen))
    }
    if not all(costs.values()):
        raise WmsweepError(
            f"A few optimiser steps of {len(chosen)} variants took more than {TRIALS_LIMIT_S / 60:g} min: the sweep "
            "cannot be timed. Make its networks or batches smaller, or leave the timing out with --no-probe."
        )
    return [(variant, mean_of(Cost, costs[which])) for which, variant in enumerate(chosen)]


def _rendered(actors: Sequence[Any], missing: Missing, say: Say) -> StimulusCost:
    say("Timing renders and features")
    found = gather([actor.stimuli.remote(missing.spec, STIMULI_SECONDS) for actor in actors], STIMULI_LIMIT_S)
    if None in found:
        raise WmsweepError(f"A few renders and their features took more than {STIMULI_LIMIT_S:g} s.")
    return mean_of(StimulusCost, found)


def _analyses(
    spec: SweepSpec, actors: Sequence[Any], variants: Variants, stimuli: Path, folder: Path, say: Say
) -> list[Analysed | None]:
    if not spec.analyses:
        return []
    say("Timing the analyses of untrained networks")
    chosen = spread_out(variants.drawn, len(actors))
    refs = [
        actor.analyses.remote(variant.trial, stimuli, folder / f"network_{i}", spec.analyses, spec.recording)
        for i, (actor, variant) in enumerate(zip(actors, chosen, strict=True))
    ]
    return gather(refs, ANALYSES_LIMIT_S)
