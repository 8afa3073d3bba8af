"""The table of variants: what every view (progress, status, closing table, report) shows of a sweep."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

from sweeps.ledger import Ledger, TrialRecord
from sweeps.spec import SweepSpec

_COLOURS = {"finished": "green", "running": "cyan", "pruned": "yellow", "failed": "red", "planned": "dim"}


@dataclass(frozen=True)
class Variant:
    """One row.

    Attributes:
        value: best report of the objective so far, with the step it was made at; None before the first.
        test: the objective's figure on the test split, with the weights that were best on selection; finished only.
    """

    number: int
    trial_id: str
    state: str
    step: int
    point: dict[str, Any]
    value: float | None
    best_step: int | None
    test: float | None
    reason: str


def test_metric(spec: SweepSpec) -> str:
    """The objective's counterpart on the test split."""
    return "test/" + spec.search.leading.metric.partition("/")[2]


def variants(spec: SweepSpec, ledger: Ledger) -> list[Variant]:
    """All trials, the best first: finished before pruned before the rest, then by value, then by number."""
    objective = spec.search.leading
    sign = -1 if objective.mode == "max" else 1
    order = {"finished": 0, "pruned": 1, "running": 2, "planned": 3, "failed": 4}

    def key(row: Variant) -> tuple[int, float, int]:
        return order[row.state], sign * row.value if row.value is not None else float("inf"), row.number

    return sorted((_row(spec, trial) for trial in ledger.trials.values()), key=key)


def _row(spec: SweepSpec, trial: TrialRecord) -> Variant:
    best = trial.best(spec.search.leading.metric, spec.search.leading.mode)
    metrics = (trial.result or {}).get("metrics", {})
    return Variant(
        number=trial.number,
        trial_id=trial.trial_id,
        state=trial.state,
        step=trial.step,
        point=trial.point,
        value=best[1] if best else None,
        best_step=best[0] if best else None,
        test=metrics.get(test_metric(spec)),
        reason=trial.reason,
    )


def baselines(spec: SweepSpec, ledger: Ledger, split: str) -> dict[str, float]:
    """Policy -> its score on the objective's metric, on the very trials of the best finished variant."""
    metric = spec.search.leading.metric.partition("/")[2]
    for row in variants(spec, ledger):
        result = ledger.trials[row.trial_id].result
        if result is not None:
            policies = result["baselines"].get(split, {})
            return {name: scores[metric] for name, scores in policies.items() if scores.get(metric) is not None}
    return {}


def summary(spec: SweepSpec, ledger: Ledger) -> str:
    """One line: counts."""
    counts = ledger.counts()
    running = sum(trial.state == "running" for trial in ledger.trials.values())
    return (
        f"{counts['planned']} of {spec.search.budget} trials: {counts['finished']} finished, "
        f"{counts['pruned']} pruned, {counts['failed']} failed, {running} running"
    )


def rich_table(spec: SweepSpec, ledger: Ledger, *, title: str = "", limit: int | None = None) -> Table:
    """The table for a terminal: the objective on the selection and the test split, with the baselines below."""
    rows = variants(spec, ledger)
    table = Table(title=title or None, title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    for name in ("trial", "state", "steps", "select", "test"):
        table.add_column(name, justify="left" if name == "state" else "right", no_wrap=True)
    for path in spec.search.space.paths:
        table.add_column(path.rpartition(".")[2], justify="right", overflow="fold")
    for row in rows[:limit]:
        table.add_row(
            str(row.number),
            f"[{_COLOURS[row.state]}]{row.state}[/]",
            str(row.step),
            _figure(row.value),
            _figure(row.test),
            *(_setting(row.point.get(path)) for path in spec.search.space.paths),
        )
    chosen, tested = (baselines(spec, ledger, split) for split in ("select", "test"))
    if chosen:
        table.add_section()
        for name in chosen:
            table.add_row("", f"[dim]{name}[/]", "", _figure(chosen[name]), _figure(tested.get(name)))
    return table


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _setting(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
