"""Timing of the parts of a sweep, in the process that calls. No Ray here."""

from __future__ import annotations

import io
import math
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch
from PIL import Image

from sweeps.planning.costs import Cost
from wmcore.spec import with_paths
from wmcore.stimuli.feature_bank import object_features
from wmcore.stimuli.image_bank import render_object
from wmcore.stimuli.spec import StimulusSpec
from wmcore.training.fit import TrainingRun
from wmcore.training.trial_spec import TrialSpec

T = TypeVar("T")
BLOCK = 16
"""Trials are drawn for so many optimiser steps at once: whole blocks carry their share of it."""


@dataclass(frozen=True)
class StimulusCost:
    """Attributes:
    load: seconds until renderer and backbone are ready, first use included.
    render: seconds for one render.
    features: seconds for the features of one render in all its places.
    render_bytes: size of one render on disk.
    """

    load: float
    render: float
    features: float
    render_bytes: float


@dataclass(frozen=True)
class Analysed:
    """An untrained network that was recorded and analysed.

    Attributes:
        seconds: for everything.
        bytes: what it left on disk.
        copied_bytes: the part of it that MLflow gets a copy of.
        problem: why an analysis failed; empty where none did.
    """

    seconds: float
    bytes: int
    copied_bytes: int
    problem: str


def measure_trial(
    trial: TrialSpec,
    stimuli: Path,
    folder: Path,
    device: str | torch.device = "cpu",
    threads: int = 1,
    seconds: float = 1.0,
) -> Cost:
    """Times the parts of a trial; trains about ``seconds`` long, and two steps at least.

    Args:
        stimuli: the banks.
        folder: receives a checkpoint.
        device: as of ``fit``.
        threads: as of ``fit``.
    """
    shown, tests = trial.evaluation.trials, trial.evaluation.test_trials
    rough = TrainingRun(_paced(trial, 1, tests), stimuli=stimuli, device=device, threads=threads)
    rough.advance()  # what comes first allocates, compiles and draws
    evaluation, _ = _timed(lambda: rough.evaluate("select", shown))
    both, _ = _timed(rough.advance)
    every = _steps_within(seconds, max(both - evaluation, both / 10), trial.evaluation.every_steps)
    final = evaluation / shown * tests * len(trial.task.final_splits())
    shorter = max(trial.task.least_trials(), 2, math.ceil(tests * min(1.0, seconds / 2 / final)))
    paced = _paced(trial, every, min(shorter, tests))

    start, run = _timed(lambda: TrainingRun(paced, stimuli=stimuli, device=device, threads=threads))
    first, _ = _timed(lambda: run.evaluate("select", shown))
    evaluation, _ = _timed(lambda: run.evaluate("select", shown))
    training, _ = _timed(run.advance)
    save, path = _timed(lambda: run.save(folder))
    finish, _ = _timed(run.finish)
    return Cost(
        start=start + max(0.0, first - evaluation),
        step=max(training - evaluation, training / 10) / every,
        evaluation=evaluation,
        save=save,
        finish=finish * tests / paced.evaluation.test_trials,
        checkpoint_bytes=sum(file.stat().st_size for file in path.iterdir()),
    )


def measure_stimuli(spec: StimulusSpec, seconds: float = 1.0) -> StimulusCost:
    """Times renders of the first object, and features of some of them for about ``seconds``.

    Raises:
        MissingPartError: the renderer or the weights are not there.
    """
    mesh, views = spec.objects.meshes()[0], spec.views.views()
    load, renderer = _timed(spec.renderer.build)
    with renderer:
        first, _ = _timed(lambda: render_object(renderer, mesh, views[:1]))
        rendering, pictures = _timed(lambda: render_object(renderer, mesh, views))
    file = io.BytesIO()
    Image.fromarray(pictures[len(pictures) // 2]).save(file, format="png")
    loading, backbone = _timed(spec.backbone.build)
    warming, _ = _timed(lambda: object_features(backbone, pictures[:1]))
    spent, done = 0.0, 0
    for picture in pictures:
        spent, done = spent + _timed(lambda shown=picture[None]: object_features(backbone, shown))[0], done + 1
        if spent > seconds:
            break
    return StimulusCost(
        load=load + first + loading + warming,
        render=rendering / len(views),
        features=spent / done,
        render_bytes=len(file.getvalue()),
    )


def peak_memory(device: torch.device) -> tuple[int, int]:
    """Bytes that this process has held at most, without files that are mapped into others as well (libraries); and on
    its GPU, without the context (0 on CPU)."""
    unit = 1 if sys.platform == "darwin" else 1024
    resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    status = Path("/proc/self/status")
    if status.exists():
        resident -= sum(int(line.split()[1]) * 1024 for line in status.read_text().splitlines() if "RssFile:" in line)
    return resident, torch.cuda.max_memory_reserved(device) if device.type == "cuda" else 0


def _timed(work: Callable[[], T]) -> tuple[float, T]:
    began = time.perf_counter()
    done = work()
    return time.perf_counter() - began, done


def _paced(trial: TrialSpec, every: int, test_trials: int) -> TrialSpec:
    """The trial with an evaluation every ``every`` steps."""
    changes = {
        # Twice as many, because ``every`` may be twice as long: a curriculum must have time for its last stage.
        "training.steps": 2 * max(trial.training.steps, every),
        "evaluation.every_steps": every,
        "evaluation.test_trials": test_trials,
    }
    return TrialSpec.parse(with_paths(trial.model_dump(mode="json"), changes))


def _steps_within(seconds: float, step: float, most: int) -> int:
    """Optimiser steps that take about so long: whole blocks if it is more than one."""
    steps = min(max(2, int(seconds / step)), max(2, most))
    return steps // BLOCK * BLOCK if steps > BLOCK else steps
