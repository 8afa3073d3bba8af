"""What a user sees while a sweep runs: a bar per stage and a live table of trials; plain lines where there is no
terminal."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeElapsedColumn
from rich.text import Text

from sweeps.ledger import Ledger, TrialRecord
from sweeps.overview import lines, time_left, trials_in_the_end
from sweeps.planning.show import duration
from sweeps.spec import SweepSpec
from sweeps.status import rows_that_fit
from sweeps.table import leading_score, note
from sweeps.terminal_table import TrialsTable

Update = Callable[[float, float], None]
_QUIET_SECONDS = 10.0
"""Without a terminal, at most one line of progress in this time."""
_SHARE = 0.1
"""Of the time, that drawing the trials takes at most, however many there are."""


class Display:
    """Shows stages; listens to the bookkeeper for trials."""

    def __init__(self, console: Console, spec: SweepSpec) -> None:
        self.console, self.spec = console, spec
        self.ledger: Ledger | None = None
        self._trials: RenderableType = Text()
        self._not_before = 0.0
        self._advance: Callable[[], None] = lambda: None
        self._progress = Progress(
            TextColumn("{task.description:<28}"),
            BarColumn(bar_width=30),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            _LeftColumn(),
            console=console,
        )

    @contextmanager
    def running(self) -> Iterator[None]:
        """Shows everything that happens inside."""
        if not self.console.is_terminal:
            yield
            return
        with Live(get_renderable=self._render, console=self.console, refresh_per_second=4):
            yield

    @contextmanager
    def stage(self, title: str, total: float | None = None) -> Iterator[Update]:
        """A bar; call what it gives with (done, total)."""
        with self._stage(title, total) as update:
            yield lambda done, total: update(done, total, None)

    @contextmanager
    def searching(self, ledger: Ledger) -> Iterator[None]:
        """The stage of trials: its bar counts optimiser steps' worth of ended trials, its table shows each."""
        with self._stage("Train and search", trials_in_the_end(self.spec, ledger)) as update:

            def search() -> None:
                # A running trial counts by the share of its steps.
                done = sum(1.0 if trial.ended else self._share(trial) for trial in ledger.trials.values())
                update(round(done, 2), trials_in_the_end(self.spec, ledger), time_left(self.spec, ledger))

            self.ledger, self._advance, self._not_before = ledger, search, 0.0
            self._advance()
            yield
        self.ledger, self._advance = None, lambda: None

    def planned(self, trial: TrialRecord) -> None:
        """A row appears."""
        self._advance()

    def reported(self, trial: TrialRecord, metrics: dict[str, float]) -> None:
        """A row changes."""
        self._advance()

    def noted(self, trial: TrialRecord) -> None:
        """A row has something to say."""
        if not self.console.is_terminal:
            self._say(f"trial {trial.number}: {trial.notes[-1]}")
        self._advance()

    def ended(self, trial: TrialRecord) -> None:
        """The bar moves."""
        self._advance()
        if not self.console.is_terminal:
            score, state = leading_score(self.spec, trial), "reused" if trial.source else trial.state
            shown = "" if score is None else f", {self.spec.search.leading.metric} {score}"
            said = note(self.spec, trial)
            self._say(f"trial {trial.number}: {state} at step {trial.step}{shown}{f' ({said})' if said else ''}")

    def _say(self, text: str) -> None:
        self.console.print(f"  {text}", soft_wrap=True, markup=False, highlight=False)

    def _share(self, trial: TrialRecord) -> float:
        return min(1.0, trial.step / trial.point.get("training.steps", self.spec.trial.training.steps))

    @contextmanager
    def _stage(self, title: str, total: float | None) -> Iterator[Callable[[float, float, float | None], None]]:
        """As ``stage``; the third number is the time that is left, where the stage knows better than its bar."""
        started = last = time.monotonic()
        task = self._progress.add_task(title, total=total, left=None)
        plain = not self.console.is_terminal
        if plain:
            self.console.print(f"{title} ...", markup=False, highlight=False)

        def update(done: float, total: float, left: float | None) -> None:
            nonlocal last
            self._progress.update(task, completed=done, total=total, left=left)
            if plain and time.monotonic() - last > _QUIET_SECONDS:
                last = time.monotonic()
                expected = f", about {duration(left)} left" if left else ""
                self._say(f"{title}: {done:.0f} of {total:.0f}, {last - started:.0f} s{expected}")

        yield update
        known = self._progress.tasks[task].total or 1
        self._progress.update(task, total=known, completed=known, left=0.0)
        if plain:
            self._say(f"{title}: done in {time.monotonic() - started:.1f} s")

    def _render(self) -> RenderableType:
        """Called a few times a second, by a thread of its own."""
        began = time.monotonic()
        if (ledger := self.ledger) is None:
            return self._progress
        if began >= self._not_before:
            lines_before = ledger.lines
            try:
                self._trials = self._draw(ledger)
            except RuntimeError:
                # The driver has appended a line while its trials were gone through: the next call draws them.
                if ledger.lines == lines_before:
                    raise
            self._not_before = began + (time.monotonic() - began) / _SHARE
        return Group(self._progress, self._trials)

    def _draw(self, ledger: Ledger) -> RenderableType:
        limit = rows_that_fit(self.console, len(self._progress.tasks))
        return Group(*map(Text, lines(self.spec, ledger)), TrialsTable(self.spec, ledger, limit, cut=True))


class _LeftColumn(ProgressColumn):
    """The time that is left of a stage: what the stage says, or what its bar's speed says."""

    def render(self, task: Task) -> Text:
        left = task.fields["left"] if task.fields["left"] is not None else task.time_remaining
        return Text("" if left is None or task.finished else f"left {duration(left)}", style="progress.remaining")
