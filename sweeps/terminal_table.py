"""The table of variants for a terminal, as wide as the terminal is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console, ConsoleOptions, RenderResult
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from sweeps.ledger import Ledger, TrialRecord
from sweeps.overview import replicates_text
from sweeps.spec import SweepSpec
from sweeps.table import Score, Variant, baselines, digits, ranked, variant

_COLOURS = {
    "finished": "green",
    "reused": "green",
    "running": "cyan",
    "pruned": "yellow",
    "failed": "red",
    "planned": "dim",
}
_GAP = 2
_FRONT = "*"
_NOTE_WIDTHS = (18, 60)
"""Columns that notes need in the table, or they follow below it; and columns that they take at most."""


class TrialsTable:
    """The variants, the best first: the objectives on the selection split and the first one on the test split, what was
    searched, notes, and the baselines.

    It shows the ledger as it is when this object is made, whatever is appended later.
    """

    def __init__(self, spec: SweepSpec, ledger: Ledger, limit: int | None = None, *, cut: bool = False) -> None:
        """Args:
        limit: variants at most; running ones are then among them, and a line says how many there are more.
        cut: every variant takes one line, whatever does not fit into it.
        """
        trials, objectives = ranked(spec, ledger), spec.search.objectives
        self._rows = [variant(spec, trial, front) for trial, front in _chosen(trials, limit)]
        self._more, self._cut = len(trials) - len(self._rows), cut
        self._several, self._paths = len(objectives) > 1, spec.search.space.paths
        self._figures = ["select", "test"]
        if self._several:
            self._figures = [_spaced(name) for name in (*(o.name for o in objectives), f"test {objectives[0].name}")]
        result = next((trial.result for trial, _ in trials if trial.result is not None), None)
        scores = [baselines(objective, result, "select") for objective in objectives]
        scores.append(baselines(objectives[0], result, "test"))
        self._baselines = {
            policy: ["" if (score := of.get(policy)) is None else digits(score) for of in scores]
            for policy in dict.fromkeys(name for of in scores for name in of)
        }
        legend = [f"{_FRONT} on the Pareto front"] if any(row.front for row in self._rows) else []
        self._legend = "; ".join(filter(None, [*legend, replicates_text(spec)]))

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        bare = self._table()
        room = options.max_width - Measurement.get(console, options, bare).maximum - _GAP
        longest = max((len(row.note) for row in self._rows), default=0)
        least, most = _NOTE_WIDTHS
        beside = longest > 0 and room >= min(least, longest)
        yield self._table(min(room, longest, most)) if beside else bare
        if longest and not beside and not self._cut:
            for row in self._rows:
                if row.note:
                    yield Text(f"trial {row.number}: {row.note}")
        if self._legend:
            yield Text(self._legend, style="dim")

    def _table(self, note_width: int = 0) -> Table:
        """With a column of notes, if it has a width."""
        table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
        lines = [self._line(row) for row in self._rows]
        policies = [["", policy, "", *of] for policy, of in self._baselines.items()]
        fixed = ["trial", "state", "steps", *self._figures]
        for i, name in enumerate(fixed):
            # As wide as its figures: longer names are wrapped.
            width = max(map(len, [*name.split(), *(line[i] for line in [*lines, *policies])]))
            table.add_column(name, width=width, justify="left" if name == "state" else "right")
        for path in self._paths:
            table.add_column(_spaced(path.rpartition(".")[2]), justify="right", overflow="fold")
        if note_width:
            table.add_column("note", width=note_width)

        for row, line in zip(self._rows, lines, strict=True):
            cells = [*line, *(_setting(row.point, path) for path in self._paths), *([row.note] if note_width else [])]
            texts = [Text(cell, no_wrap=self._cut, overflow="ellipsis" if self._cut else None) for cell in cells]
            texts[1].stylize(_COLOURS[row.label])
            table.add_row(*texts)
        if self._more:
            table.add_row("...", Text(f"{self._more} more", style="dim"))
        if policies:
            table.add_section()
            for name, policy, *cells in policies:
                table.add_row(name, Text(policy, style="dim"), *cells)
        return table

    def _line(self, row: Variant) -> list[str]:
        number = f"{row.number}{_FRONT if row.front else ' '}" if self._several else str(row.number)
        return [number, row.label, str(row.step), *map(_compact, (*row.values, row.tests[0]))]


def _chosen(trials: list[tuple[TrialRecord, bool]], limit: int | None) -> list[tuple[TrialRecord, bool]]:
    """The best, and of the running ones up to half of what there is room for."""
    if limit is None or len(trials) <= limit:
        return trials
    running = [trial.trial_id for trial, _ in trials if trial.state == "running"][: limit // 2]
    best = [trial.trial_id for trial, _ in trials if trial.state != "running"][: limit - len(running)]
    shown = {*running, *best}
    return [pair for pair in trials if pair[0].trial_id in shown]


def _compact(score: Score | None) -> str:
    return "" if score is None else str(score).replace(" ", "")


def _spaced(name: str) -> str:
    return name.replace("_", " ")


def _setting(point: Mapping[str, Any], path: str) -> str:
    """A searched value; nothing where another value of the space makes it meaningless."""
    if path not in point:
        return ""
    value = point[path]
    return f"{value:.3g}" if isinstance(value, float) else str(value)
