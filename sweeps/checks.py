"""Checks that need a whole sweep spec: does every path exist, and does every point of the space make a trial?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from sweeps.banks import stimulus_specs
from sweeps.nearest import nearest_hint
from sweeps.path_checks import check_paths
from sweeps.schedule import AshaSpec
from sweeps.search_checks import check_search
from wmcore.errors import InputError
from wmcore.recording import resolve
from wmcore.spec import canonical_json

if TYPE_CHECKING:
    from sweeps.spec import SweepSpec
    from wmcore.training.trial_spec import TrialSpec

RANDOM_POINTS = 32
SELECTION = "select"
"""The split that variants are selected on."""


def check_sweep(spec: SweepSpec) -> None:
    """Checks that the parts of a sweep fit each other; reads nothing and draws from a fixed seed.

    Raises:
        InputError: the first misfit, with its dotted path in the sweep.
    """
    check_search(spec.search)
    check_paths(spec.search.space, spec.trial)
    _analyses_distinct(spec)
    _objective_decides(spec)
    _options_have_effect(spec)
    generator = np.random.default_rng(0)
    points = [*spec.search.space.corner_points(), *(spec.search.space.point(generator) for _ in range(RANDOM_POINTS))]
    for point in points:
        trial = _trial_at(spec, point)
        _metrics_are_reported(spec, trial, point)
        _replicates_differ(spec, trial, point)
        _evaluated_in_time(spec, trial, point)
        _recording_and_analyses_fit(spec, trial, point)
    _first_points_make_trials(spec)
    stimulus_specs(spec)


def _objective_decides(spec: SweepSpec) -> None:
    """In a sweep the best weights are those that are best by its objective."""
    given, fields = spec.trial.evaluation, type(spec.trial.evaluation).model_fields
    for name, decided in (("best_metric", spec.search.leading.metric), ("best_mode", spec.search.leading.mode)):
        if getattr(given, name) not in (fields[name].default, decided):
            raise InputError(
                f"trial.evaluation.{name}",
                f"has no effect in a sweep, where search.objective decides ({decided})",
                value=getattr(given, name),
                remedy="Leave it out.",
            )
        if f"evaluation.{name}" in spec.search.space.paths:
            raise InputError(
                f"search.space.evaluation.{name}",
                "has no effect, because search.objective decides which weights are best",
                remedy="Remove it.",
            )


def _options_have_effect(spec: SweepSpec) -> None:
    best, trials = spec.checkpoints.best, spec.search.budget
    if best > trials and spec.checkpoints != type(spec.checkpoints)():
        raise InputError(
            "checkpoints.best",
            f"must be at most search.trials, which is {trials}",
            value=best,
            remedy=f"Write {trials} or less.",
        )
    if spec.recording != type(spec.recording)() and not spec.analyses:
        raise InputError(
            "recording", "has no effect without analyses", remedy="Leave it out, or name an analysis under analyses."
        )


def _analyses_distinct(spec: SweepSpec) -> None:
    seen: set[str] = set()
    for index, analysis in enumerate(spec.analyses):
        text = analysis.canonical_json()
        if text in seen:
            raise InputError(
                f"analyses.{index}", "repeats an earlier analysis with the same fields", remedy="Remove one of the two."
            )
        seen.add(text)


def _trial_at(spec: SweepSpec, point: Mapping[str, Any]) -> TrialSpec:
    try:
        return spec.variant_at(point)
    except InputError as error:
        raise _blame(error, spec, point) from error


def _first_points_make_trials(spec: SweepSpec) -> None:
    """Those that leave no path out: what a sampler fills in is the space's own fault."""
    for index, given in enumerate(spec.search.warm_start.points):
        if not spec.search.space.contains(given):
            continue
        try:
            spec.variant_at(given)
        except InputError as error:
            rule = f"does not make a trial: {_fault(error)}"
            raise InputError(f"search.warm_start.points.{index}", rule, value=given, remedy=error.remedy) from error


def _blame(error: InputError, spec: SweepSpec, point: Mapping[str, Any]) -> InputError:
    """The same fault, told about the entry of the space that causes it."""
    for path, value in point.items():
        if error.where == path and error.has_value and error.value == value:
            remedy = error.remedy
            if isinstance(value, float) and "must be an integer" in error.rule:
                remedy = "Search it by int: [low, high]."
            return InputError(_entry(spec, path, value), error.rule, value=value, remedy=remedy)
    for path, value in point.items():
        parent = path.removesuffix(".kind")
        if parent != path and error.where.startswith(parent + "."):
            return InputError(
                _entry(spec, path, value),
                f"cannot change the kind alone, because the fields of the kinds differ (trial.{error.where})",
                value=value,
                remedy=f"Search the whole mapping instead: {parent}: {{choice: [{{kind: ...}}, {{kind: ...}}]}}.",
            )
    remedy, fault = error.remedy, _fault(error)
    for path, value in point.items():
        if error.where == path or error.where.startswith(path + "."):
            return InputError(
                _entry(spec, path, value), f"must fit the trial, where {fault}", value=value, remedy=remedy
            )
    rule = f"allows the point {_written(point)}, which does not fit: {fault}"
    return InputError("search.space", rule, remedy=remedy)


def _fault(error: InputError) -> str:
    """The message without its remedy, which goes to the end of the whole message."""
    return f"trial.{error}".removesuffix(f" {error.remedy}" if error.remedy else "").rstrip(".")


def _entry(spec: SweepSpec, path: str, value: Any) -> str:
    """The path in the sweep of the bound or choice that a value stands for; inside bounds, of the distribution."""
    distribution = spec.search.space.root[path]
    ends = distribution.ends()
    where = f"search.space.{path}.{distribution.key}"
    return f"{where}.{ends.index(value)}" if value in ends else where


def _metrics_are_reported(spec: SweepSpec, trial: TrialSpec, point: Mapping[str, Any]) -> None:
    several = len(spec.search.objectives) > 1
    for index, objective in enumerate(spec.search.objectives):
        where = f"search.objective.{index}.metric" if several else "search.objective.metric"
        _metric_is_reported(where, objective.metric, trial, point)


def _metric_is_reported(where: str, metric: str, trial: TrialSpec, point: Mapping[str, Any]) -> None:
    names = [f"{SELECTION}/{name}" for name in trial.task.metric_names()]
    if metric in names:
        return
    split, _, name = metric.rpartition("/")
    splits = trial.task.split_names()
    if split in splits and split != SELECTION and name in trial.task.metric_names():
        rule = f"must be measured on the split {SELECTION!r}: the others are measured once, after training"
        raise InputError(where, rule, value=metric, remedy=f"Write {SELECTION}/{name}.")
    if metric in trial.task.metric_names():
        rule = f"must name the split as well, as in {SELECTION}/{metric}"
        raise InputError(where, rule, value=metric, remedy=f"Write {SELECTION}/{metric}.")
    searched = [path for path in point if path.split(".")[0] == "task"]
    at = f" at {_written({path: point[path] for path in searched})}" if searched else ""
    rule = f"must be a metric that the task {_kind(trial)} reports{at}"
    remedy = f"{nearest_hint(metric, names)} Metrics: {', '.join(names)}."
    raise InputError(where, rule, value=metric, remedy=remedy.strip())


def _replicates_differ(spec: SweepSpec, trial: TrialSpec, point: Mapping[str, Any]) -> None:
    scheduler = spec.search.scheduler
    if isinstance(scheduler, AshaSpec) and scheduler.judge_by == "lower_bound" and trial.replicates == 1:
        at = f" (at {_written({'replicates': 1})})" if "replicates" in point else ""
        raise InputError(
            "search.scheduler.judge_by",
            f"must be mean where trial.replicates is 1, because one replicate has no spread{at}",
            value=scheduler.judge_by,
            remedy="Write judge_by: mean, or train 2 replicates or more.",
        )


def _evaluated_in_time(spec: SweepSpec, trial: TrialSpec, point: Mapping[str, Any]) -> None:
    steps, every = trial.training.steps, trial.evaluation.every_steps
    searched = [path for path in ("training.steps", "evaluation.every_steps") if path in point]
    at = f" (at {_written({path: point[path] for path in searched})})" if searched else ""
    if every > steps:
        raise InputError(
            "trial.evaluation.every_steps",
            f"must be at most training.steps, which is {steps}, or no evaluation ever happens{at}",
            value=every,
            remedy=f"Write {steps} or less.",
        )
    scheduler = spec.search.scheduler
    if not isinstance(scheduler, AshaSpec):
        return
    where, grace = "search.scheduler.grace", scheduler.grace
    if grace % every:
        raise InputError(
            where,
            f"must be a multiple of trial.evaluation.every_steps, which is {every}: trials are judged only then{at}",
            value=grace,
            remedy=f"Write {max(every, round(grace / every) * every)}.",
        )
    if grace >= steps:
        raise InputError(
            where,
            f"must be below trial.training.steps, which is {steps}, or no trial is ever stopped early{at}",
            value=grace,
            remedy="Lower it, or write scheduler: {kind: none}.",
        )


def _recording_and_analyses_fit(spec: SweepSpec, trial: TrialSpec, point: Mapping[str, Any]) -> None:
    recordable = trial.model.recordable()
    recording = resolve(spec.recording, recordable, trial.task.split_names())
    left_out = [name for name in recordable if name not in (recording.states or ())]
    conditions = {**trial.task.condition_dims(), "targets": ("trial", "time"), "lengths": ("trial",)}
    steps = trial.task.model_dump().get("steps")  # not every task has a fixed number
    for index, analysis in enumerate(spec.analyses):
        try:
            analysis.check(conditions, recording.states or (), steps, f"analyses.{index}")
            analysis.check_timing(trial.task.timing(), f"analyses.{index}")
            if analysis.needs_all_states and left_out:
                rule = f"needs all states of the network, and {', '.join(left_out)} will not be recorded"
                raise InputError(
                    f"analyses.{index}", rule, remedy=f"Write recording.states: [{', '.join(recordable)}]."
                )
        except InputError as error:
            searched = {path: value for path, value in point.items() if path.split(".")[0] in ("task", "model")}
            at = f" (at {_written(searched)})" if searched else ""
            rule = error.rule + at
            if not error.has_value:
                raise InputError(error.where, rule, remedy=error.remedy) from error
            raise InputError(error.where, rule, value=error.value, remedy=error.remedy) from error


def _kind(trial: TrialSpec) -> str:
    return str(trial.task.model_dump().get("kind"))


def _written(point: Mapping[str, Any]) -> str:
    return ", ".join(f"{path} = {canonical_json(value)}" for path, value in point.items())
