"""From measured parts to the time, disk and memory of a whole sweep."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from sweeps.planning.costs import Cost, Costs
from sweeps.planning.fates import play
from sweeps.planning.measure import StimulusCost
from sweeps.planning.probe import ANALYSES_LIMIT_S, Probe
from sweeps.planning.stand_in import Missing
from sweeps.planning.variants import Variants
from sweeps.schedule import NoSchedulerSpec
from sweeps.spec import SweepSpec

WORKERS_REFERENCE_S = 3.8
"""Until two processes of trials could begin on the machine of the constants below (2 cores, nothing else running).
They are scaled by what this takes here."""
OPEN_MLFLOW_S = 2.5
"""What opening MLflow adds to starting Ray, beside which it runs."""
START_TUNE_S = 4.2
"""Until Tune's first trial begins, beyond the start of its processes."""
BETWEEN_TRIALS_S = 0.3
"""From the end of a trial to the start of the next in its place."""
START_RENDERING_S = 11.0
"""Until Ray Data passes the first object on, beyond loading renderer and backbone."""
START_ANALYSES_S = 5.0
"""Until Ray Data has its first network in hand."""
REPORT_S = 1.3
BEGIN_AND_END_S = 10.0
"""Imports, stopping Ray, and the last of MLflow: outside of every stage."""
DRIVER_BYTES = 1.8e9
"""Memory of the driver and of Ray's own processes, with what all processes share."""
FEWEST_KEPT, USUALLY_KEPT, MOST_KEPT = 2, 3, 4
"""Checkpoints that a trial keeps: the last two and the best, as of each of them."""

RENDER_STAGE, SEARCH_STAGE, ANALYSE_STAGE = "Stimuli and features", "Train and search", "Record and analyse"
START_STAGE, REPORT_STAGE, OUTSIDE = "Start Ray and MLflow", "Write the report", "Begin and end"


@dataclass(frozen=True)
class Span:
    """An estimate with the range of 90 % of the cases; ``at_least`` if it may be far more."""

    low: float
    mean: float
    high: float
    at_least: bool = False

    def __add__(self, other: Span) -> Span:
        at_least = self.at_least or other.at_least
        return Span(self.low + other.low, self.mean + other.mean, self.high + other.high, at_least)


def exactly(value: float) -> Span:
    """A figure without a range."""
    return Span(value, value, value)


@dataclass(frozen=True)
class Estimate:
    """What a sweep takes.

    Attributes:
        stages: stage of the run -> seconds.
        saved: share of the search's time that early stopping saves; None without it.
        to_end: seconds of one trial that is trained to its end, over the variants.
        disk_bytes: in the storage, stimuli included if they are not made yet.
        memory_bytes: of all processes together.
        gpu_bytes: of all trials at once, without CUDA's own.
    """

    stages: dict[str, Span]
    saved: Span | None
    to_end: Span
    disk_bytes: Span
    memory_bytes: float
    gpu_bytes: float

    @property
    def total(self) -> Span:
        """Seconds of the whole run."""
        return sum(self.stages.values(), start=exactly(0.0))


def estimate(spec: SweepSpec, variants: Variants, probe: Probe) -> Estimate:
    """The sweep from its parts."""
    pace, costs = probe.worker_seconds / WORKERS_REFERENCE_S, Costs(probe.trials)
    trials = [(variant.trial, costs.of(variant)) for variant in variants.drawn]
    fates = play(spec, trials, probe.at_once, BETWEEN_TRIALS_S)
    stages = {
        OUTSIDE: exactly(BEGIN_AND_END_S * pace),
        START_STAGE: exactly(probe.ray_seconds + OPEN_MLFLOW_S * pace),
        RENDER_STAGE: exactly(sum(_rendering(missing, cost, probe, pace) for missing, cost in probe.stimuli)),
        SEARCH_STAGE: _range(fates.seconds) + exactly(probe.worker_seconds + START_TUNE_S * pace),
        ANALYSE_STAGE: _analysing(spec, probe, pace),
        REPORT_STAGE: exactly(REPORT_S * pace),
    }
    ends = [cost.until(trial, trial.training.steps) for trial, cost in trials]
    return Estimate(
        stages={name: span for name, span in stages.items() if span.mean > 0},
        saved=None if isinstance(spec.search.scheduler, NoSchedulerSpec) else _range(fates.saved),
        to_end=_range(np.array(ends)),
        disk_bytes=_disk(spec, [cost for _, cost in trials], probe),
        memory_bytes=DRIVER_BYTES + max(probe.at_once * probe.trial_bytes, _workers(spec, probe) * probe.worker_bytes),
        gpu_bytes=probe.at_once * probe.gpu_bytes,
    )


def _range(values: np.ndarray) -> Span:
    low, high = np.percentile(values, [5, 95])
    return Span(float(low), float(values.mean()), float(high))


def _rendering(missing: Missing, cost: StimulusCost, probe: Probe, pace: float) -> float:
    own = missing.renders * (cost.render + (cost.features if missing.with_features else 0.0))
    return START_RENDERING_S * pace + cost.load + own / probe.cpus + missing.write_seconds


def _networks(spec: SweepSpec) -> int:
    return min(spec.checkpoints.best, spec.search.most_trials) * spec.trial.replicates


def _workers(spec: SweepSpec, probe: Probe) -> int:
    """Networks that are analysed at once."""
    return min(probe.cpus, _networks(spec))


def _analysing(spec: SweepSpec, probe: Probe, pace: float) -> Span:
    if not spec.analyses:
        return exactly(0.0)
    seconds = [analysed.seconds for analysed in probe.analyses] + [ANALYSES_LIMIT_S] * probe.unfinished
    rounds = math.ceil(_networks(spec) / _workers(spec, probe))
    wall = START_ANALYSES_S * pace + (rounds - 1) * float(np.mean(seconds)) + max(seconds)
    return Span(wall, wall, wall, at_least=probe.unfinished > 0)


def _disk(spec: SweepSpec, costs: list[Cost], probe: Probe) -> Span:
    checkpoint = float(np.mean([cost.checkpoint_bytes for cost in costs]))
    each = spec.search.most_trials * checkpoint
    kept = Span(FEWEST_KEPT * each, USUALLY_KEPT * each, MOST_KEPT * each)
    analysed = [network.bytes + network.copied_bytes for network in probe.analyses]
    fixed = spec.checkpoints.best * checkpoint + _networks(spec) * float(np.mean(analysed or [0]))
    for missing, cost in probe.stimuli:
        fixed += missing.renders * cost.render_bytes + missing.feature_bytes
    return kept + Span(fixed, fixed, fixed, at_least=probe.unfinished > 0)
