"""Figures of a decoding, drawn from its result alone: curves over age, and maps of source step x read step."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from wmcore.analyses.base import AnalysisResult, column, select
from wmcore.analyses.decoding_table import CELL, ENOUGH

_NULL = "0.85"
# Okabe & Ito's colour-blind safe palette; black first, for results without features.
_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")
_MOST_PANELS = 12
_ASIDE = 0.17  # step-0 markers stand this much to the right of their age


def draw(result: AnalysisResult) -> dict[str, Figure]:
    """``by_age``, and ``map_<property>`` for each property."""
    table = result.table
    columns = [name for name in table.columns if name.startswith(CELL)]
    figures = {"by_age": _curves(select(table, {"measure": "balanced_accuracy_by_age"}), columns)}
    contexts = select(table, {"measure": "balanced_accuracy"})
    for name in dict.fromkeys(column(contexts, "property")):
        figures[f"map_{name}"] = _maps(select(contexts, {"property": name}), name, columns)
    return figures


def _curves(table: pd.DataFrame, columns: list[str]) -> Figure:
    """Rows: properties; columns: values of the first cell condition; lines: the others (the features)."""
    properties = list(dict.fromkeys(column(table, "property")))
    across, line_columns = (columns[:1], columns[1:]) if len(columns) > 1 else ([], columns)
    panels = _combinations(table, across)[:_MOST_PANELS]
    lines = _combinations(table, line_columns)[: len(_COLORS)]
    width, height = max(2.6 * len(panels), 4.2) + 0.9, 1.95 * len(properties) + 2.25
    figure = Figure(figsize=(width, height))
    # Fixed margins in inches: constrained layout takes seconds on this many axes.
    figure.subplots_adjust(0.75 / width, 1.35 / height, 1 - 0.1 / width, 1 - 0.95 / height, 0.08, 0.14)
    axes = figure.subplots(len(properties), len(panels), sharex=True, sharey="row", squeeze=False)
    handles: dict[str, Any] = {}
    for i, name in enumerate(properties):
        for j, panel in enumerate(panels):
            ax = axes[i, j]
            here = select(table, {"property": name, **panel})
            for k, line in enumerate(lines):
                rows = select(here, line).sort_values("age")
                later, first = (select(rows, {"first_item": value}) for value in (False, True))
                if len(later):
                    _curve(ax, later, k)
                if len(first):
                    _first_item(ax, first, k)
            _chance(ax, here, handles)
            ax.set_ylim(0, 1.03)
            if f"{CELL}n" in panel:
                handles["age = n: needed for the last time"] = ax.axvline(
                    panel[f"{CELL}n"], color="0.45", lw=1, ls=(0, (1, 2)), zorder=0
                )
            ax.set_xticks(np.unique(column(table, "age")))
            ax.spines[["top", "right"]].set_visible(False)
            if i == 0 and panel:
                ax.set_title(_title(panel), fontsize=10)
            if j == 0:
                ax.set_ylabel(f"{_words(name)}\nbalanced accuracy", fontsize=9)
            if i == len(properties) - 1:
                ax.set_xlabel("age of the item (steps)", fontsize=9)
    title = "Decoding of shown items by age\nlines: mean over items shown from step 1 on; crosses: the item of step 0"
    figure.suptitle(title + _underpowered(table), fontsize=9.5)
    known = bool((column(table, "relevance") != "").any())
    colors = {_title(line) or "all trials": _line(k, True) for k, line in enumerate(lines)}
    if known:
        colors |= {"property asked for": _line(-1, True), "property not asked for": _line(-1, False)}
    crosses = Line2D([], [], color=_COLORS[-1], marker="x", ms=5, ls="none")
    handles = colors | {"step 0 (starts from an empty state)": crosses} | handles
    figure.legend(list(handles.values()), list(handles), loc="lower center", ncols=3, fontsize=8.5, frameon=False)
    return figure


def _line(k: int, solid: bool) -> Line2D:
    """A legend's sample; k = -1 is a black line that shows a style alone."""
    marker = "" if k < 0 else _MARKERS[k]
    return Line2D([], [], color=_COLORS[k], marker=marker, ms=4.5, lw=2.2 if solid else 1.3, ls="-" if solid else "--")


def _curve(ax: Axes, rows: pd.DataFrame, k: int) -> None:
    age = column(rows, "age")
    solid = column(rows, "relevance")[0] in ("relevant", "")
    low, high = column(rows, "ci_low"), column(rows, "ci_high")
    ax.fill_between(age, low, high, color=_COLORS[k], alpha=0.18, lw=0, zorder=2)
    ax.plot(
        age,
        column(rows, "estimate"),
        color=_COLORS[k],
        ls="-" if solid else "--",
        lw=2.2 if solid else 1.3,
        marker=_MARKERS[k],
        ms=4.5,
        mfc=_COLORS[k] if solid else "white",
        zorder=4 if solid else 3,
    )


def _first_item(ax: Axes, rows: pd.DataFrame, k: int) -> None:
    """Crosses with their intervals, joined to nothing: items of step 0 are another measurement."""
    x = column(rows, "age") + _ASIDE
    width = 1.6 if column(rows, "relevance")[0] in ("relevant", "") else 0.9
    ax.vlines(x, column(rows, "ci_low"), column(rows, "ci_high"), color=_COLORS[k], lw=0.8, alpha=0.6, zorder=2)
    ax.plot(x, column(rows, "estimate"), color=_COLORS[k], ls="none", marker="x", ms=4.5, mew=width, zorder=4)


def _underpowered(table: pd.DataFrame) -> str:
    """A line that names the properties with too few trials of a class, or nothing."""
    few = table.take(np.flatnonzero(column(table, "rarest") < ENOUGH))
    least = {name: column(select(few, {"property": name}), "rarest").min() for name in column(few, "property")}
    if not least:
        return ""
    listed = ", ".join(f"{_words(name)} ({count})" for name, count in least.items())
    return f"\nunder-powered, rarest class below {ENOUGH} trials: {listed}"


def _chance(ax: Axes, rows: pd.DataFrame, handles: dict[str, Any]) -> None:
    """Chance, and of the panel's lines the widest null band and the highest ceiling; bars and dashes for step 0."""
    handles["chance"] = ax.axhline(float(column(rows, "chance").mean()), color="0.3", lw=1, ls=":", zorder=1)
    for first in (False, True):
        part = select(rows, {"first_item": first})
        ages = np.unique(column(part, "age"))
        if not ages.size:
            continue
        per_age = [select(part, {"age": age}) for age in ages]
        low = [column(one, "null_low").min() for one in per_age]
        high = [column(one, "null_high").max() for one in per_age]
        ceiling = [column(one, "ceiling").max() for one in per_age]
        if first:
            ax.vlines(ages + _ASIDE, low, high, color=_NULL, lw=3.5, zorder=1)
            ax.plot(ages + _ASIDE, ceiling, color="0.3", ls="none", marker="_", ms=6, zorder=1)
            continue
        handles["null (95 %)"] = ax.fill_between(ages, low, high, color=_NULL, lw=0, zorder=1)
        if np.isfinite(ceiling).any():
            (line,) = ax.plot(ages, ceiling, color="0.3", lw=1, ls="-.", zorder=1)
            handles["ceiling (readout when shown)"] = line


def _maps(table: pd.DataFrame, name: str, columns: list[str]) -> Figure:
    """Small multiples, one lower-triangular map per cell."""
    cells = _combinations(table, columns)[:_MOST_PANELS]
    across = len({cell[columns[1]] for cell in cells}) if len(columns) > 1 else min(len(cells), 3)
    down = -(-len(cells) // across)
    steps = int(column(table, "read_step").max()) + 1
    width, height = max(2.5 * across, 2.9) + 1.75, 2.75 * down + 1.35
    figure = Figure(figsize=(width, height))
    figure.subplots_adjust(0.6 / width, 0.55 / height, 1 - 1.15 / width, 1 - 1 / height, 0.06, 0.14)
    axes = figure.subplots(down, across, squeeze=False, sharex=True, sharey=True)
    low = float(column(table, "chance").min())
    image = None
    for ax, cell in zip(axes.flat, cells, strict=False):
        rows = select(table, cell)
        grid = np.full((steps, steps), np.nan)
        shown = (column(rows, name) for name in ("source_step", "read_step", "estimate", "p_value"))
        for source, read, estimate, p_value in zip(*shown, strict=True):
            grid[source, read] = estimate
            _value(ax, (read, source), estimate, p_value, low, steps)
        image = ax.imshow(grid, vmin=low, vmax=1, cmap="cividis", origin="upper")
        if cell:
            asked = ": asked for" if bool(column(rows, "relevant")[0]) else ""
            ax.set_title(_title(cell) + asked, fontsize=9, weight="bold" if asked else "normal")
        ax.set_xticks(range(steps))
        ax.set_yticks(range(steps))
        ax.spines[:].set_visible(False)
    for ax in list(axes.flat)[len(cells) :]:
        ax.set_visible(False)
    for ax in axes[-1]:
        ax.set_xlabel("state read at step t", fontsize=9)
    for ax in axes[:, 0]:
        ax.set_ylabel("item shown at step s", fontsize=9)
    if image is not None:
        bar = figure.colorbar(image, cax=figure.add_axes((1 - 0.95 / width, 0.25, 0.2 / width, 0.5)))
        bar.set_label("balanced accuracy (bottom: chance)", fontsize=9)
    note = "brackets: within the null (p > 0.05, uncorrected)"
    few = int(column(table, "rarest").min())
    if few < ENOUGH:
        note += f"\nunder-powered: fewer than {ENOUGH} trials of the rarest class ({few})"
    figure.suptitle(f"Decoding of {_words(name)}\n{note}", fontsize=9.5)
    return figure


def _value(ax: Axes, place: tuple[int, int], estimate: float, p_value: float, low: float, steps: int) -> None:
    shade = colormaps["cividis"]((estimate - low) / max(1 - low, 1e-9))
    dark = 0.299 * shade[0] + 0.587 * shade[1] + 0.114 * shade[2] < 0.5
    text = f"{estimate:.2f}".removeprefix("0")
    ax.text(
        *place,
        f"({text})" if p_value > 0.05 else text,
        ha="center",
        va="center",
        fontsize=7.5 if steps <= 6 else max(3.0, 45 / steps),
        color="white" if dark else "black",
    )


def _combinations(table: pd.DataFrame, columns: list[str]) -> list[dict[str, Any]]:
    """Values of the columns that occur together, in the order of the table."""
    if not columns:
        return [{}]
    rows = zip(*(column(table, name) for name in columns), strict=True)
    return [dict(zip(columns, row, strict=True)) for row in dict.fromkeys(rows)]


def _title(cell: dict[str, Any]) -> str:
    parts = [_part(key.removeprefix(CELL), value) for key, value in cell.items()]
    return ", ".join(parts)


def _part(name: str, value: Any) -> str:
    if name == "n":
        return f"{value}-back"
    return f"{value} task" if name == "feature" else f"{_words(name)} {value}"


def _words(name: str) -> str:
    return name.replace("_", " ")
