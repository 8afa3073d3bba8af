"""Where a sweep stands, seen from any terminal: from its folder's ledger alone, while a driver works on it or not."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from sweeps.folder import holder, read_folder
from sweeps.ledger import Ledger
from sweeps.overview import has_ended, lines, time_left_text
from sweeps.spec import SweepSpec
from sweeps.terminal_table import TrialsTable

SECONDS = 1.0
"""Between two looks at a ledger that is followed."""
_SHARE = 0.1
"""Of its time, that following a long ledger spends at most on reading and showing it: the cores are the sweep's."""
_ROWS = 200
"""Rows of a table that is printed once; the report has them all."""


def show(folder: Path, console: Console) -> None:
    """Prints where a sweep stands. Writes nothing.

    Raises:
        InputError: it is not the folder of a sweep.
    """
    spec, ledger = read_folder(folder)
    console.print(_view(spec, ledger, folder, holder(folder), TrialsTable(spec, ledger, _ROWS)))


def follow(folder: Path, console: Console, seconds: float = SECONDS) -> None:
    """Shows where a sweep stands until it has ended and no driver is at work on it any more, or until Ctrl-C. Where
    there is no terminal: a line whenever something has changed, and the table at the end. Writes nothing.

    Raises:
        InputError: it is not the folder of a sweep.
    """
    with suppress(KeyboardInterrupt):
        (_follow_live if console.is_terminal else _follow_plainly)(folder, console, seconds)


def _follow_live(folder: Path, console: Console, seconds: float) -> None:
    with Live(console=console, auto_refresh=False) as live:
        for spec, ledger, driver in _looks(folder, seconds):
            table = TrialsTable(spec, ledger, rows_that_fit(console), cut=True)
            live.update(_view(spec, ledger, folder, driver, table), refresh=True)


def _follow_plainly(folder: Path, console: Console, seconds: float) -> None:
    said = ""
    for spec, ledger, driver in _looks(folder, seconds):
        if (line := "; ".join(_texts(spec, ledger, folder, driver))) != said:
            said = line
            console.print(line, soft_wrap=True, markup=False, highlight=False)
    show(folder, console)


def _looks(folder: Path, seconds: float) -> Iterator[tuple[SweepSpec, Ledger, str]]:
    """Spec, ledger and driver, again and again until the sweep has ended and is left alone."""
    (spec, ledger), began = read_folder(folder), time.monotonic()
    read = _bytes(ledger)
    while True:
        driver = holder(folder)
        yield spec, ledger, driver
        if has_ended(spec, ledger) and not driver:
            return
        time.sleep(max(seconds, (time.monotonic() - began) / _SHARE))
        began = time.monotonic()
        if (there := _bytes(ledger)) != read:
            read, known, ledger = there, ledger, Ledger(ledger.path)
            if (ledger.spec, ledger.extended_to) != (known.spec, known.extended_to):
                # It was extended, made anew or removed.
                spec, ledger = read_folder(folder)


def closing(spec: SweepSpec, ledger: Ledger) -> RenderableType:
    """What a command that ran a sweep leaves on the terminal."""
    first, *rest = map(Text, lines(spec, ledger))
    return Group(Text(), first, TrialsTable(spec, ledger, _ROWS), *rest)


def rows_that_fit(console: Console, beside: int = 0) -> int:
    """Rows of a table that is shown live: what is taller than the terminal cannot be redrawn.

    Args:
        beside: lines that something else takes up.
    """
    lines_around = 18  # texts, some of them wrapped, and the table's head, baselines and legend
    return max(4, console.height - lines_around - beside)


def _view(spec: SweepSpec, ledger: Ledger, folder: Path, driver: str, table: TrialsTable) -> RenderableType:
    return Group(*map(Text, _texts(spec, ledger, folder, driver)), table)


def _texts(spec: SweepSpec, ledger: Ledger, folder: Path, driver: str) -> list[str]:
    texts = (*lines(spec, ledger), time_left_text(spec, ledger), _driver_text(spec, ledger, folder, driver))
    return [text for text in texts if text]


def _driver_text(spec: SweepSpec, ledger: Ledger, folder: Path, driver: str) -> str:
    """Who is at work, and on what."""
    ended = has_ended(spec, ledger)
    if driver:
        return f"Driven by {driver}." + (" Training has ended; analyses and the report follow." if ended else "")
    return "" if ended else f"No driver is at work on it: `wmsweep resume {folder}` goes on."


def _bytes(ledger: Ledger) -> int:
    return ledger.path.stat().st_size if ledger.path.exists() else 0
