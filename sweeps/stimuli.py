"""The stage that makes a sweep's image and feature banks."""

from __future__ import annotations

from pathlib import Path

from analysis_jobs.render import prepare
from sweeps.banks import stimulus_specs
from sweeps.progress import Display
from sweeps.spec import SweepSpec
from wmcore.training.stages import tasks_of


def prepare_stimuli(spec: SweepSpec, folder: Path, display: Display) -> None:
    """Renders and encodes what is not on disk yet, through the connected Ray.

    Raises:
        GateError: the features do not carry the labels.
    """
    for stimuli in stimulus_specs(spec):
        with display.stage("Stimuli and features") as update:
            prepare(stimuli, folder, update)


def check_splits(spec: SweepSpec, folder: Path) -> None:
    """Draws a trial of every split of every task, so that stimuli that are too few are met before workers start.

    Raises:
        InputError: a split is too small for the task's sampling.
    """
    trials = (spec.trial_for(point) for point in spec.search.space.corner_points())
    tasks = {key: task for trial in trials for key, task in tasks_of(trial).items()}
    for task in tasks.values():
        task.build(folder).check_splits(spec.trial.seed)
