"""What a user sees while a sweep runs: a bar per stage and a live table of trials; plain lines where there is no
terminal."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.text import Text

from sweeps.ledger import Ledger, TrialRecord
from sweeps.spec import SweepSpec
from sweeps.table import rich_table, summary

Update = Callable[[float, float], None]
_QUIET_SECONDS = 10.0
"""Without a terminal, at most one line of progress in this time."""
_ROWS = 16


class Display:
    """Shows stages; listens to the bookkeeper for trials."""

    def __init__(self, console: Console, spec: SweepSpec) -> None:
        self.console, self.spec = console, spec
        self.ledger: Ledger | None = None
        self._live: Live | None = None
        self._searched = 0.0
        self._search: Update = lambda done, total: None
        self._progress = Progress(
            TextColumn("{task.description:<28}"),
            BarColumn(bar_width=30),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(compact=True),
            console=console,
        )

    @contextmanager
    def running(self) -> Iterator[None]:
        """Shows everything that happens inside."""
        if not self.console.is_terminal:
            yield
            return
        with Live(get_renderable=self._render, console=self.console, refresh_per_second=4) as self._live:
            yield
        self._live = None

    @contextmanager
    def stage(self, title: str, total: float | None = None) -> Iterator[Update]:
        """A bar; call what it gives with (done, total)."""
        started = last = time.monotonic()
        task = self._progress.add_task(title, total=total)
        plain = not self.console.is_terminal
        if plain:
            self.console.print(f"{title} ...")

        def update(done: float, total: float) -> None:
            nonlocal last
            self._progress.update(task, completed=done, total=total)
            if plain and time.monotonic() - last > _QUIET_SECONDS:
                last = time.monotonic()
                self.console.print(f"  {title}: {done:.0f} of {total:.0f}, {last - started:.0f} s")

        yield update
        known = self._progress.tasks[task].total or 1
        self._progress.update(task, total=known, completed=known)
        if plain:
            self.console.print(f"  {title}: done in {time.monotonic() - started:.1f} s")

    @contextmanager
    def searching(self, ledger: Ledger) -> Iterator[None]:
        """The stage of trials: its bar counts optimiser steps' worth of ended trials, its table shows each."""
        with self.stage("Train and search", self.spec.search.budget) as update:
            self.ledger, self._search = ledger, update
            self._advance()
            yield
        self.ledger = None

    def planned(self, trial: TrialRecord) -> None:
        """A row appears."""

    def reported(self, trial: TrialRecord, metrics: dict[str, float]) -> None:
        """A row changes."""
        self._advance()

    def ended(self, trial: TrialRecord) -> None:
        """The bar moves."""
        self._advance()
        if not self.console.is_terminal and self.ledger is not None:
            best = trial.best(self.spec.search.leading.metric, self.spec.search.leading.mode)
            shown = f"{self.spec.search.leading.metric} {best[1]:.3f}" if best else trial.reason
            self.console.print(f"  trial {trial.number}: {trial.state} at step {trial.step}, {shown}")

    def _advance(self) -> None:
        if self.ledger is None:
            return
        # A running trial counts by the share of its steps: time left is then an estimate from work done.
        steps = self.spec.trial.training.steps
        done = sum(1.0 if t.ended else t.step / steps for t in self.ledger.trials.values())
        self._search(round(done, 2), self.spec.search.budget)

    def _render(self) -> RenderableType:
        if self.ledger is None:
            return self._progress
        return Group(
            self._progress,
            Text(summary(self.spec, self.ledger)),
            rich_table(self.spec, self.ledger, limit=_ROWS),
        )
