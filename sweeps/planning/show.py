"""A plan for a terminal."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from sweeps.storage import existing_part

if TYPE_CHECKING:
    from sweeps.planning.estimate import Estimate, Span
    from sweeps.planning.probe import Probe

BUSY = 0.5
"""Load per CPU from which on a user is told."""


def show_facts(console: Console, name: str, facts: Mapping[str, str]) -> None:
    """What the spec alone says."""
    console.print(_pairs(facts, name))


def show_estimate(console: Console, estimate: Estimate, probe: Probe, storage: Path) -> None:
    """Time by stage, and what else the sweep takes."""
    console.print()
    table = Table("stage", "time", "from", "to", pad_edge=False, show_edge=False, box=None)
    for column in table.columns[1:]:
        column.justify = "right"
    for stage, span in estimate.stages.items():
        table.add_row(stage.lower(), *_row(span))
    table.add_row("[bold]in all", *(f"[bold]{cell}" for cell in _row(estimate.total)))
    console.print(table)
    console.print()
    console.print(_pairs(_resources(estimate, probe, storage)))
    if probe.load > BUSY * probe.cpus:
        load = f"load {probe.load:.1f} on {probe.cpus} CPUs"
        console.print(f"Other work keeps this machine busy ({load}): these are times beside it.")
    for problem in dict.fromkeys(analysed.problem for analysed in probe.analyses if analysed.problem):
        console.print(f"An analysis failed on an untrained network: {problem}", markup=False, soft_wrap=True)


def _resources(estimate: Estimate, probe: Probe, storage: Path) -> dict[str, str]:
    free = shutil.disk_usage(existing_part(storage)).free
    rows = {
        "trials at once": f"{probe.at_once}, on {probe.device}",
        "a trial to its end": _range(estimate.to_end, duration),
        "disk": f"{_range(estimate.disk_bytes, size)}; {size(free)} are free",
        "memory": size(estimate.memory_bytes),
    }
    if estimate.gpu_bytes:
        rows["GPU memory"] = f"{size(estimate.gpu_bytes)} for {probe.at_once} trials, beside CUDA's own"
    if estimate.saved is not None:
        rows["early stopping saves"] = (
            f"{100 * estimate.saved.low:.0f} to {100 * estimate.saved.high:.0f} % of the search"
        )
    return rows


def _row(span: Span) -> tuple[str, str, str]:
    more = "more than " if span.at_least else ""
    if span.low == span.high:
        return more + duration(span.mean), "", ""
    return more + duration(span.mean), duration(span.low), "" if span.at_least else duration(span.high)


def _range(span: Span, unit: Callable[[float], str]) -> str:
    more = "more than " if span.at_least else ""
    low, high = unit(span.low), unit(span.high)
    return more + (low if low == high else f"{low} to {high}")


def duration(seconds: float) -> str:
    """Seconds, minutes or hours, with two or three figures."""
    for limit, unit, name in ((99.5, 1, "s"), (99.5 * 60, 60, "min")):
        if seconds < limit:
            return f"{_figures(seconds / unit)} {name}"
    return f"{_figures(seconds / 3600)} h"


def size(amount: float) -> str:
    """MB or GB (powers of ten)."""
    return f"{_figures(amount / 1e6)} MB" if amount < 0.9995e9 else f"{_figures(amount / 1e9)} GB"


def _figures(value: float) -> str:
    return f"{value:,.0f}" if value >= 9.95 else f"{value:.1f}"


def _pairs(rows: Mapping[str, str], title: str | None = None) -> Table:
    table = Table(show_header=False, pad_edge=False, show_edge=False, title=title, title_justify="left")
    for name, value in rows.items():
        table.add_row(f"[dim]{name}[/]", value)
    return table
