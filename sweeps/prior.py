"""What an earlier sweep tells a new one: read once, kept in the new sweep's ledger."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sweeps.folder import differences, read_folder
from sweeps.ledger import TrialRecord
from sweeps.spec import SearchSpec, SweepSpec
from wmcore.errors import InputError
from wmcore.seeding import numpy_generator
from wmcore.spec import with_paths


def read_prior(spec: SweepSpec) -> dict[str, Any] | None:
    """The fields of a ``warmed`` event: the ended trials of the sweep that ``search.warm_start`` names, at points of
    this space; None if it names none.

    Raises:
        InputError: it is no sweep's folder, had other objectives, has no trial at a point of this space, trained
            something else there, or has fewer finished trials than are to be tried first.
    """
    named = spec.search.warm_start.sweep
    if named is None:
        return None
    where = "search.warm_start.sweep"
    earlier, ledger = read_folder(Path(named).expanduser())
    if earlier.search.objectives != spec.search.objectives:
        raise InputError(
            where, "must have the same objective as this sweep", value=named, remedy="Name another sweep, or none."
        )
    fitting = [trial for trial in ledger.in_order() if trial.ended and spec.search.space.contains(trial.point)]
    if not fitting:
        raise InputError(
            where, "has no ended trial at a point of this space", value=named, remedy="Name another sweep, or none."
        )
    for trial in fitting:
        if changes := differences(_comparable(earlier, trial.point), _comparable(spec, trial.point), "trial"):
            raise InputError(
                where,
                f"trained other variants at points of this space ({'; '.join(changes)}): values cannot be compared",
                value=named,
                remedy="Train the same, or leave it out.",
            )
    best, finished = spec.search.warm_start.best, sum(trial.state == "finished" for trial in fitting)
    if best > finished:
        raise InputError(
            "search.warm_start.best",
            f"must be at most {finished}: so many trials of that sweep have finished at points of this space",
            value=best,
            remedy="Write less, or name another sweep.",
        )
    metrics = [objective.metric for objective in spec.search.objectives]
    trials = [
        {
            "trial_id": trial.trial_id,
            "point": trial.point,
            "state": trial.state,
            "reports": [[step, {m: values.get(m) for m in metrics}] for step, values in trial.reports.items()],
        }
        for trial in fitting
    ]
    return {"source": earlier.name, "trials": trials}


def _comparable(spec: SweepSpec, point: Mapping[str, Any]) -> dict[str, Any]:
    """What is trained at a point, but for which networks of the variant, and how many: other seeds and replicates are
    other samples of the same value."""
    variant = with_paths(spec.trial.model_dump(mode="json"), point)
    return {name: value for name, value in variant.items() if name not in ("seed", "replicates")}


def known_trials(warm: Sequence[Mapping[str, Any]]) -> list[TrialRecord]:
    """The trials of a ``warmed`` event, as a study takes them."""
    return [
        TrialRecord(
            number,
            trial["trial_id"],
            dict(trial["point"]),
            state=trial["state"],
            reports=dict(trial["reports"]),
        )
        for number, trial in enumerate(warm)
    ]


def first_points(search: SearchSpec, warm: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What is tried first: the points of the spec, completed at random, then the best of the earlier sweep."""
    listed = [
        search.space.completed(point, numpy_generator(search.sampler.seed or 0, "warm_start", number))
        for number, point in enumerate(search.warm_start.points)
    ]
    leading = search.leading
    finished = [(trial.best(leading.metric, leading.mode), trial) for trial in known_trials(warm)]
    ranked = sorted(
        ((best[1], trial) for best, trial in finished if best is not None and trial.state == "finished"),
        key=lambda pair: -leading.sign * pair[0],
    )
    best = [trial.point for _, trial in ranked[: search.warm_start.best]]
    return listed + [point for point in best if point not in listed]
