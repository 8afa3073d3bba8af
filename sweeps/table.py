"""The variants of a sweep in order, with all that every view (progress, status, closing table, report) says of them."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sweeps.ledger import Ledger, TrialRecord
from sweeps.objectives import ObjectiveSpec
from sweeps.pareto import front_members
from sweeps.spec import SweepSpec

_ORDER = {"finished": 0, "pruned": 1, "running": 2, "planned": 3, "failed": 4}


@dataclass(frozen=True)
class Score:
    """The mean of a variant's replicates.

    Attributes:
        spread: sample standard deviation over the replicates; None for a single one.
    """

    mean: float
    spread: float | None = None

    def __str__(self) -> str:
        shown = digits(self.mean)
        if self.spread is None:
            return shown
        return f"{shown} ± {self.spread:.3f}" if _is_plain(self.mean) else f"{shown} ± {self.spread:.2g}"


@dataclass(frozen=True)
class Variant:
    """One row.

    Attributes:
        values: by objective, at the report that is best by the first one, with the step it was made at; None before
            the first report.
        tests: by objective, on the test split, with the weights of that report; finished trials only.
        front: no finished trial is better in one objective without being worse in another; with one objective, False.
        source: the sweep that a reused trial was trained in; otherwise an empty string.
        note: what else there is to say: divergence, failures, the driver's notes.
    """

    number: int
    trial_id: str
    state: str
    step: int
    point: dict[str, Any]
    values: tuple[Score | None, ...]
    best_step: int | None
    tests: tuple[Score | None, ...]
    front: bool
    source: str
    note: str

    @property
    def value(self) -> float | None:
        """The first objective."""
        return None if self.values[0] is None else self.values[0].mean

    @property
    def label(self) -> str:
        """The state as it is shown."""
        return "reused" if self.source else self.state


def test_metric(objective: ObjectiveSpec) -> str:
    """An objective's counterpart on the test split."""
    return f"test/{objective.name}"


def ranked(spec: SweepSpec, ledger: Ledger) -> list[tuple[TrialRecord, bool]]:
    """All trials, the best first, and whether each is on the Pareto front: finished before pruned before the rest,
    with several objectives the front before the others, then by the first objective, then by number."""
    objective, trials = spec.search.leading, list(ledger.trials.values())
    several = len(spec.search.objectives) > 1
    members = front_members(trials, spec.search.objectives) if several else set()

    def key(trial: TrialRecord) -> tuple[int, bool, float, int]:
        best = trial.best(objective.metric, objective.mode)
        worth = math.inf if best is None else -objective.sign * best[1]
        return _ORDER[trial.state], trial.trial_id not in members, worth, trial.number

    return [(trial, trial.trial_id in members) for trial in sorted(trials, key=key)]


def variants(spec: SweepSpec, ledger: Ledger) -> list[Variant]:
    """The rows of all trials, in the order of ``ranked``."""
    return [variant(spec, trial, front) for trial, front in ranked(spec, ledger)]


def variant(spec: SweepSpec, trial: TrialRecord, front: bool) -> Variant:
    """The row of a trial."""
    leading, result = leading_score(spec, trial), trial.result or {}
    values = trial.values(spec.search.objectives) or (None,) * len(spec.search.objectives)
    others = (None if value is None else Score(value) for value in values[1:])
    best = trial.best(spec.search.leading.metric, spec.search.leading.mode)
    return Variant(
        number=trial.number,
        trial_id=trial.trial_id,
        state=trial.state,
        step=trial.step,
        point=trial.point,
        values=(leading, *others),
        best_step=None if best is None else best[0],
        tests=tuple(_final(result, test_metric(objective)) for objective in spec.search.objectives),
        front=front,
        source=trial.source,
        note=note(spec, trial),
    )


def replicates_of(spec: SweepSpec, trial: TrialRecord) -> int:
    """Networks that a trial trains."""
    return int(trial.point.get("replicates", spec.trial.replicates))


def leading_score(spec: SweepSpec, trial: TrialRecord) -> Score | None:
    """The first objective at its best report so far, with its spread over replicates."""
    best = trial.best(spec.search.leading.metric, spec.search.leading.mode)
    return None if best is None else Score(best[1], _spread(trial.replicates.get(best[0], ())))


def note(spec: SweepSpec, trial: TrialRecord) -> str:
    """What else there is to say of a trial, the shortest first."""
    networks = replicates_of(spec, trial)
    parts = [f"from {trial.source}"] if trial.source else []
    # The reason of a failure may have named it already.
    diverged = {kind: count for kind, count in trial.divergence.items() if count and kind not in trial.reason}
    parts += [f"{kind.replace('_', ' ')} {count}/{networks}" for kind, count in diverged.items()]
    before = trial.failures - (trial.state == "failed")
    parts += [f"failed {'once' if before == 1 else f'{before} times'} before"] if before > 0 else []
    return "; ".join([*parts, *([trial.reason] if trial.reason else []), *trial.notes])


def _final(result: Mapping[str, Any], metric: str) -> Score | None:
    """A figure of a finished trial's result."""
    mean = result.get("metrics", {}).get(metric)
    return None if mean is None else Score(mean, _spread(result.get("replicates", {}).get(metric, ())))


def _spread(values: Sequence[float | None]) -> float | None:
    found = [value for value in values if value is not None]
    return statistics.stdev(found) if len(found) > 1 else None


def baselines(objective: ObjectiveSpec, result: Mapping[str, Any] | None, split: str) -> dict[str, float]:
    """Policy -> its score on an objective's metric, on the very trials of a result (None: there are none)."""
    policies = result["baselines"].get(split, {}) if result is not None else {}
    return {name: scores[objective.name] for name, scores in policies.items() if scores.get(objective.name) is not None}


def digits(value: float) -> str:
    """A figure: three decimals, or three digits where those would hide it."""
    return f"{value:.3f}" if _is_plain(value) else f"{value:.3g}"


def _is_plain(value: float) -> bool:
    return value == 0 or 0.01 <= abs(value) < 1000
