"""Checks of what a sweep searches with: does the sampler take this space, these objectives, this early stopping?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sweeps.nearest import nearest_hint
from sweeps.samplers import CmaEsSpec, GridSpec, TpeSpec
from sweeps.schedule import AshaSpec
from sweeps.sequences import LISTED_CELLS
from sweeps.space import Space
from wmcore.errors import InputError
from wmcore.spec import canonical_json

if TYPE_CHECKING:
    from sweeps.spec import SearchSpec

SAMPLER, SCHEDULER, WARM = "search.sampler", "search.scheduler", "search.warm_start"


def check_search(search: SearchSpec) -> None:
    """Checks the parts of a search against each other.

    Raises:
        InputError: the first misfit, with its dotted path in the sweep.
    """
    _grid_is_countable(search)
    _budget_is_known(search)
    _cmaes_has_room(search)
    _objectives_differ(search)
    _model_is_used(search)
    _sampler_options_have_effect(search)
    _scheduler_options_have_effect(search)
    _warm_start_is_used(search)
    for index, point in enumerate(search.warm_start.points):
        _warm_point_is_possible(search.space, f"{WARM}.points.{index}", point)
    _warm_points_fit(search)


def _grid_is_countable(search: SearchSpec) -> None:
    sampler, space = search.sampler, search.space
    if not isinstance(sampler, GridSpec):
        return
    for path, distribution in space.items():
        if distribution.size() is None:
            raise InputError(
                f"search.space.{path}.{distribution.key}",
                "must be a choice, int, logint or quantised, because the grid sampler tries every value, and "
                f"{distribution.key} is continuous",
                value=distribution.ends(),
                remedy="Write for example quantised: [low, high, step], or another sampler.",
            )
    cells = space.size()
    assert cells is not None
    listed = sampler.seed is not None or any(distribution.when for _, distribution in space.items())
    if listed and cells > LISTED_CELLS:
        what = f"{SAMPLER}.seed" if sampler.seed is not None else f"{SAMPLER}.kind"
        why = "a random order" if sampler.seed is not None else "conditions (when)"
        raise InputError(
            what,
            f"must be for a grid of at most {LISTED_CELLS} cells if it has {why}, and this one has {cells}",
            value=sampler.seed if sampler.seed is not None else sampler.kind,
            remedy="Search fewer values, or write sampler: {kind: sobol}.",
        )
    if search.trials is not None and search.trials > cells:
        raise InputError(
            "search.trials",
            f"must be at most {cells}: the grid has only so many cells",
            value=search.trials,
            remedy="Leave it out to try them all.",
        )


def _budget_is_known(search: SearchSpec) -> None:
    if search.trials is None and not isinstance(search.sampler, GridSpec):
        raise InputError(
            "search.trials",
            "is missing: only the grid sampler knows how many trials there are",
            remedy="Write a number.",
        )


def _cmaes_has_room(search: SearchSpec) -> None:
    if not isinstance(search.sampler, CmaEsSpec):
        return
    remedy = "Write sampler: {kind: tpe}"
    for path, distribution in search.space.items():
        where = f"search.space.{path}"
        if distribution.key == "choice":
            raise InputError(
                f"{where}.choice",
                "must be a range: the cmaes sampler moves a normal distribution, which needs numbers in order",
                value=distribution.ends(),
                remedy=f"{remedy}, or search it in another sweep.",
            )
        if distribution.when is not None:
            raise InputError(
                f"{where}.when",
                "must be left out: the cmaes sampler needs the same paths in every trial",
                value=distribution.when,
                remedy=f"{remedy}, or leave the condition out.",
            )
    if len(search.space.paths) < 2:
        raise InputError(
            f"{SAMPLER}.kind",
            "must be for a space of at least 2 paths, and this one has 1",
            value="cmaes",
            remedy=f"{remedy}.",
        )


def _objectives_differ(search: SearchSpec) -> None:
    objectives = search.objectives
    for index, objective in enumerate(objectives):
        if objective.metric in [other.metric for other in objectives[:index]]:
            raise InputError(
                f"search.objective.{index}.metric",
                "must be another metric: an earlier objective has the same one",
                value=objective.metric,
                remedy="Remove one of the two.",
            )
    if len(objectives) > 1 and isinstance(search.sampler, CmaEsSpec):
        raise InputError(
            f"{SAMPLER}.kind",
            f"must be another sampler: cmaes improves one objective, and search.objective lists {len(objectives)}",
            value="cmaes",
            remedy="Write sampler: {kind: nsga2} or {kind: tpe}.",
        )
    if len(objectives) > 1 and search.scheduler.kind != "none":
        raise InputError(
            f"{SCHEDULER}.kind",
            f"must be none: early stopping with several objectives is not defined, and search.objective lists "
            f"{len(objectives)}",
            value=search.scheduler.kind,
            remedy="Write scheduler: {kind: none}, or keep one objective.",
        )


def _model_is_used(search: SearchSpec) -> None:
    sampler, trials = search.sampler, search.budget
    for name in ("startup_trials", "population"):
        value = getattr(sampler, name, None)
        if value is not None and value > trials and value != type(sampler).model_fields[name].default:
            raise InputError(
                f"{SAMPLER}.{name}",
                f"must be at most search.trials, which is {trials}, or {sampler.kind} learns of no outcome and every "
                "trial is random",
                value=value,
                remedy="Write less, or sampler: {kind: random}.",
            )


def _sampler_options_have_effect(search: SearchSpec) -> None:
    sampler = search.sampler
    if not isinstance(sampler, TpeSpec):
        return
    if not sampler.synchronous and sampler.batch != TpeSpec().batch:
        raise InputError(
            f"{SAMPLER}.batch",
            "has no effect: only a synchronous tpe suggests in batches",
            value=sampler.batch,
            remedy="Write synchronous: true beside it, or leave it out.",
        )
    if sampler.synchronous and search.scheduler.kind != "none":
        raise InputError(
            f"{SAMPLER}.synchronous",
            f"cannot make results independent of timing beside {search.scheduler.kind}, which stops a trial by those "
            "that reported before it",
            value=True,
            remedy="Write scheduler: {kind: none}, or leave it out.",
        )


def _scheduler_options_have_effect(search: SearchSpec) -> None:
    scheduler = search.scheduler
    if not isinstance(scheduler, AshaSpec) or scheduler.judge_by == "lower_bound":
        return
    if scheduler.confidence != AshaSpec.model_fields["confidence"].default:
        raise InputError(
            f"{SCHEDULER}.confidence",
            "has no effect where trials are judged by their mean",
            value=scheduler.confidence,
            remedy="Write judge_by: lower_bound beside it, or leave it out.",
        )


def _warm_start_is_used(search: SearchSpec) -> None:
    warm, sampler = search.warm_start, search.sampler.kind
    given = [
        name for name in ("points", "sweep", "best") if getattr(warm, name) != type(warm).model_fields[name].default
    ]
    if given and sampler == "grid":
        raise InputError(
            f"{WARM}.{given[0]}",
            "has no effect: the grid sampler tries every cell",
            value=warm.model_dump(mode="json")[given[0]],
            remedy="Leave it out, or write another sampler.",
        )
    if warm.best and warm.sweep is None:
        raise InputError(
            f"{WARM}.best",
            "has no effect without the folder of an earlier sweep",
            value=warm.best,
            remedy=f"Name the folder under {WARM}.sweep.",
        )
    if warm.sweep is not None and not warm.best and sampler != "tpe":
        raise InputError(
            f"{WARM}.sweep",
            f"has no effect: of the samplers only tpe learns from an earlier sweep, and this is {sampler}",
            value=warm.sweep,
            remedy="Write best: 1 or more beside it to try its best points first, or sampler: {kind: tpe}.",
        )


def _warm_point_is_possible(space: Space, where: str, point: dict[str, Any]) -> None:
    if not point:
        raise InputError(where, "must name at least one path of the space", value=point, remedy="Remove it.")
    for path, value in point.items():
        if path not in space.paths:
            remedy = f"{nearest_hint(path, space.paths)} Searched are {', '.join(space.paths)}."
            raise InputError(f"{where}.{path}", "is not a path of this space", remedy=remedy.strip())
        distribution = space.root[path]
        if not distribution.holds(value):
            raise InputError(
                f"{where}.{path}",
                f"must be a value of search.space.{path}, which is {distribution.key}: {distribution.written()}",
                value=value,
                remedy="Change it, or widen the space.",
            )
        for parent, allowed in space.conditions.needs[path].items():
            if parent not in point or not space.conditions.active(point, path):
                wanted = " or ".join(map(repr, allowed))
                raise InputError(
                    f"{where}.{path}",
                    f"has no effect unless {parent} is {wanted} at the same point: elsewhere it is not searched",
                    value=value,
                    remedy=f"Give {parent} as well, or leave it out.",
                )


def _warm_points_fit(search: SearchSpec) -> None:
    warm, trials, seen = search.warm_start, search.budget, list[str]()
    for index, point in enumerate(warm.points):
        text = canonical_json(search.space.decode(search.space.encode(point)))
        if text in seen:
            raise InputError(
                f"{WARM}.points.{index}",
                f"repeats the point {seen.index(text)} of the list",
                value=point,
                remedy="Remove one of the two.",
            )
        seen.append(text)
    if len(warm.points) > trials:
        raise InputError(
            f"{WARM}.points",
            f"must hold at most {trials} points, as many as search.trials, and holds {len(warm.points)}",
            remedy="Remove some, or raise search.trials.",
        )
    if len(warm.points) + warm.best > trials:
        raise InputError(
            f"{WARM}.best",
            f"must leave no more first points than search.trials, which is {trials}, and there are "
            f"{len(warm.points)} under points",
            value=warm.best,
            remedy=f"Write {trials - len(warm.points)} or less.",
        )
