"""The processes that measure: Ray actors, each with a trial's share of the machine."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray
import torch
from ray.exceptions import RayError, RayTaskError

from analysis_jobs.analyse import Item, analyse_one
from sweeps.planning.costs import Cost
from sweeps.planning.measure import Analysed, StimulusCost, measure_stimuli, measure_trial, peak_memory
from sweeps.spec import ResourceSpec
from wmcore.analyses.base import AnalysisSpec
from wmcore.errors import WmsweepError
from wmcore.recording import RecordingSpec
from wmcore.stimuli.spec import StimulusSpec
from wmcore.training.fit import TrainingRun
from wmcore.training.trial_spec import TrialSpec

START_LIMIT_S = 120.0
RECORDING = "recording.zarr"
"""What of an analysed network's folder MLflow gets no copy of."""


class Prober:
    """Measures one thing at a time, beside others that do the same."""

    def __init__(self, threads: int) -> None:
        self.threads = threads
        # Ray shows an actor only the devices that it was given.
        self.device = torch.device("cuda" if ray.get_gpu_ids() and torch.cuda.is_available() else "cpu")
        torch.set_num_threads(threads)

    def state(self) -> tuple[str, int, int]:
        """The device's type, and ``peak_memory`` so far."""
        return self.device.type, *peak_memory(self.device)

    def trial(self, trial: TrialSpec, stimuli: Path, folder: Path, seconds: float) -> Cost:
        """As ``measure_trial``."""
        return measure_trial(trial, stimuli, folder, self.device, self.threads, seconds)

    def stimuli(self, spec: StimulusSpec, seconds: float) -> StimulusCost:
        """As ``measure_stimuli``."""
        return measure_stimuli(spec, seconds)

    def analyses(
        self,
        trial: TrialSpec,
        stimuli: Path,
        folder: Path,
        analyses: Sequence[AnalysisSpec],
        recording: RecordingSpec,
    ) -> Analysed:
        """Records and analyses an untrained network."""
        torch.set_num_threads(1)
        checkpoint = TrainingRun(trial, seeds=[0], stimuli=stimuli).save(folder / "checkpoints")
        began = time.perf_counter()
        outcomes = analyse_one(Item(checkpoint, folder / "analyses", stimuli), analyses, recording)
        seconds = time.perf_counter() - began
        files = [file for file in (folder / "analyses").rglob("*") if file.is_file()]
        return Analysed(
            seconds=seconds,
            bytes=sum(file.stat().st_size for file in files),
            copied_bytes=sum(file.stat().st_size for file in files if RECORDING not in file.parts),
            problem=next((outcome.error for outcome in outcomes if outcome.error), ""),
        )


@contextmanager
def probers(resources: ResourceSpec, count: int) -> Iterator[tuple[list[Any], float]]:
    """So many actors, and the seconds until all were ready; they end with the block.

    Raises:
        WmsweepError: they do not start.
    """
    began = time.perf_counter()
    actor: Any = ray.remote(Prober)
    share = {"num_cpus": resources.cpu, "num_gpus": resources.gpu}
    found: list[Any] = [actor.options(**share).remote(max(1, int(resources.cpu))) for _ in range(count)]
    try:
        if None in gather([prober.state.remote() for prober in found], START_LIMIT_S):
            raise WmsweepError(
                f"The {count} processes of the probe have not started in {START_LIMIT_S:g} s: is Ray busy?"
            )
        yield found, time.perf_counter() - began
    finally:
        for prober in found:
            ray.kill(prober)


def gather(refs: Sequence[Any], limit: float, told: Callable[[int], None] = lambda done: None) -> list[Any]:
    """What actors return, in the order of ``refs``; None for those that have not after ``limit`` seconds.

    Args:
        told: called with the number of results so far.

    Raises:
        WmsweepError: an actor raised one, or has died.
    """
    deadline, waiting, done = time.monotonic() + limit, list(refs), []
    try:
        while waiting and (left := deadline - time.monotonic()) > 0:
            ready, waiting = ray.wait(waiting, timeout=left)
            done += ready
            ray.get(ready)
            told(len(done))
        return [ray.get(ref) if ref in done else None for ref in refs]
    except RayTaskError as error:
        if isinstance(error.cause, WmsweepError):
            raise error.cause from error
        raise
    except RayError as error:
        said = str(error).strip().splitlines()
        raise WmsweepError(f"A process of the probe has died ({said[0] if said else type(error).__name__}).") from error
