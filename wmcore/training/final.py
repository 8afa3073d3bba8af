"""What training gives: the final figures of the best weights, with their intervals and beside chance."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from wmcore.tasks.base import Task
from wmcore.training.divergence import at_chance, count
from wmcore.training.evaluation import Evaluation, scores, summary
from wmcore.training.intervals import Interval, over_replicates, over_trials
from wmcore.training.trial_spec import TrialSpec
from wmcore.trials import TrialBatch

Shown = tuple[list[TrialBatch], list[Tensor]]
"""Each replicate's fixed trials of a split, and the outputs for them."""


@dataclass(frozen=True)
class FitResult:
    """What training gives.

    Attributes:
        history: one evaluation per ``evaluation.every_steps``.
        best_step: the step whose weights were best on the selection split.
        final: the task's final splits with the best weights.
        intervals: the same names -> 95 % interval, over ``interval_unit`` (replicates, or trials of a single one).
        n: how many of those units.
        baselines: split -> policy -> metric -> score on the same trials (replicate 0's).
        sampling: split -> achieved rates of the sampling.
        divergence: kind -> number of replicates that show it with the best weights: silent and saturated on ``select``,
            at_chance on ``test``. What was fatal on the way is in the history.
    """

    history: list[Evaluation]
    best_step: int
    final: Evaluation
    intervals: dict[str, Interval]
    interval_unit: str
    n: int
    baselines: dict[str, dict[str, dict[str, float]]]
    sampling: dict[str, dict[str, float]]
    divergence: dict[str, int]


def fit_result(
    trial: TrialSpec,
    task: Task,
    history: list[Evaluation],
    best_step: int,
    show: Callable[[str, int], Shown],
    activity: Sequence[str],
) -> FitResult:
    """Scores the task's final splits.

    Args:
        history: all evaluations of the training.
        best_step: the step whose weights ``show`` uses.
        show: split and number of trials -> what the networks do there.
        activity: ``silent`` or ``saturated`` for each replicate whose best weights are.
    """
    values, intervals, baselines, sampling = {}, {}, {}, {}
    kinds, replicates = list(activity), 0
    for split in trial.task.final_splits():
        batches, outputs = show(split, trial.evaluation.test_trials)
        found, replicates = scores(task, batches, outputs), len(batches)
        each = _over_trials(trial, task, batches, outputs, found) if split == "test" or replicates == 1 else []
        if split == "test":
            kinds += _at_chance(trial, task, batches, each)
        own = over_replicates(found, trial.task.proportions()) if replicates > 1 else each[0]
        values |= {f"{split}/{name}": value for name, value in found.items()}
        intervals |= {f"{split}/{name}": interval for name, interval in own.items()}
        baselines[split] = task.baselines(batches[0])
        sampling[split] = task.sampling_summary(batches[0])
    return FitResult(
        history=history,
        best_step=best_step,
        final=summary(history[-1].step, values),
        intervals=intervals,
        interval_unit="replicates" if replicates > 1 else "trials",
        n=replicates if replicates > 1 else trial.evaluation.test_trials,
        baselines=baselines,
        sampling=sampling,
        divergence=count(kinds),
    )


def _over_trials(
    trial: TrialSpec,
    task: Task,
    batches: Sequence[TrialBatch],
    outputs: Sequence[Tensor],
    found: Mapping[str, Sequence[float]],
) -> list[dict[str, Interval]]:
    """The intervals over trials of each replicate's metrics, which are ``found``."""
    each = []
    for i, (batch, shown) in enumerate(zip(batches, outputs, strict=True)):
        estimates = {name: values[i] for name, values in found.items()}
        least = batch.size // trial.task.least_trials()
        each.append(over_trials(task, shown, batch, estimates, trial.task.proportions(), least))
    return each


def _at_chance(
    trial: TrialSpec, task: Task, batches: Sequence[TrialBatch], each: Sequence[Mapping[str, Interval]]
) -> list[str]:
    """``at_chance`` once for each replicate of which the metric that decides the best weights says so."""
    rule = trial.evaluation
    name = rule.best_metric.removeprefix("select/")
    return [
        "at_chance"
        for batch, intervals in zip(batches, each, strict=True)
        if at_chance(intervals[name], task.baselines(batch)["chance"][name], rule.best_mode)
    ]
