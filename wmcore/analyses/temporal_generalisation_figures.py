"""Figures of a temporal generalisation, drawn from its result alone: decoding courses, and maps of step by step."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from wmcore.analyses.base import AnalysisResult, column, select
from wmcore.analyses.cells import cell_title, cells_in
from wmcore.analyses.palette import COLORS, NULL
from wmcore.analyses.phases import Phases, from_arrays
from wmcore.analyses.phases_figures import mark

_PANELS = (("all", "what the state tells"), ("direct", "without the other items"), ("position", "position of an item"))


def draw(result: AnalysisResult) -> dict[str, Figure]:
    """``course``, and ``matrix_<n>`` of the n-th cell."""
    phases = from_arrays(result.arrays)
    figures = {"course": _courses(result.table, phases)}
    for number, cell in enumerate(cells_in(result.table)):
        if (result.arrays["matrix_cell"] == number).any():
            figures[f"matrix_{number}"] = _matrices(result, number, cell_title(cell), phases[number])
    return figures


def _courses(table: pd.DataFrame, phases: list[Phases]) -> Figure:
    """A row for each cell: accuracy by step of all, of direct information, and of positions."""
    cells = cells_in(table)
    accuracy = select(table, {"measure": "balanced_accuracy"})
    names = list(dict.fromkeys(column(accuracy, "variable")))
    panels = [panel for panel in _PANELS if len(_rows(table, panel[0]))]
    width, height = 3.4 * len(panels) + 0.6, 2.0 * len(cells) + 1.5
    axes, figure = _grid(width, height, len(cells), len(panels), (0.75, 0.95, 0.15, 0.5))
    for line, cell, own in zip(axes, cells, phases, strict=True):
        for ax, (kind, title) in zip(line, panels, strict=True):
            _course(ax, select(_rows(table, kind), cell), names, kind)
            mark(ax, own)
            ax.spines[["top", "right"]].set_visible(False)
            if ax in axes[0]:
                ax.set_title(title, fontsize=9, pad=13)
            if ax in axes[-1]:
                ax.set_xlabel("step", fontsize=9)
        line[0].set_ylabel(f"{cell_title(cell)}\nbalanced accuracy", fontsize=9)
    axes[0, 0].set_ylim(0, 1.04)
    handles = {_words(name): Line2D([], [], color=_color(k), lw=1.8) for k, name in enumerate(names)}
    handles |= {
        "chance": Line2D([], [], color="0.3", lw=1, ls=":"),
        "chance for one who knows the other items": Line2D([], [], color="0.3", lw=1, ls="--"),
        "null (95 %): held-out labels shuffled": Line2D([], [], color=NULL, lw=6),
    }
    figure.legend(list(handles.values()), list(handles), loc="lower center", ncols=4, fontsize=8, frameon=False)
    return figure


def _rows(table: pd.DataFrame, kind: str) -> pd.DataFrame:
    if kind == "position":
        return select(table, {"measure": "position_accuracy"})
    return select(table, {"measure": "balanced_accuracy", "information": kind})


def _course(ax: Axes, rows: pd.DataFrame, names: list[str], kind: str) -> None:
    if not len(rows):
        return
    steps = np.unique(column(rows, "step").astype(int))
    each = [select(rows, {"step": step}) for step in steps]
    low, high = ([f(column(one, key)) for one in each] for f, key in ((np.min, "null_low"), (np.max, "null_high")))
    ax.fill_between(steps, low, high, color=NULL, lw=0, zorder=1)
    ax.axhline(float(column(rows, "chance").mean()), color="0.3", lw=1, ls=":", zorder=2)
    if kind == "all":
        ax.axhline(float(column(rows, "indirect_chance").mean()), color="0.3", lw=1, ls="--", zorder=2)
    for k, name in enumerate(names if kind != "position" else [None]):
        own = rows if name is None else select(rows, {"variable": name})
        if len(own):
            own, color = own.sort_values("step"), "0.15" if name is None else _color(k)
            x = column(own, "step").astype(int)
            ax.fill_between(x, column(own, "ci_low"), column(own, "ci_high"), color=color, alpha=0.2, lw=0, zorder=3)
            ax.plot(x, column(own, "estimate"), color=color, lw=1.6, marker="o", ms=2, zorder=4)


def _matrices(result: AnalysisResult, number: int, title: str, phases: Phases) -> Figure:
    """A row for each information and mean, a map for each variable."""
    arrays = result.arrays
    own = arrays["matrix_cell"] == number
    names = list(dict.fromkeys(arrays["matrix_of_variable"][own]))
    kinds = [("all", "kept"), ("all", "removed"), ("direct", "removed")]
    kinds = [kind for kind in kinds if kind[0] in arrays["matrix_of_information"][own]]
    steps = arrays["steps"][number]
    steps = steps[steps >= 0]
    edges = np.concatenate([steps, [steps[-1] + 1]]) - 0.5
    width, height = 2.35 * len(names) + 1.9, 2.35 * len(kinds) + 1.25
    axes, figure = _grid(width, height, len(kinds), len(names), (0.9, 0.5, 1.0, 0.75))
    chance = float(column(select(result.table, {"measure": "balanced_accuracy"}), "chance").min())
    image: Any = None
    for line, (information, mean) in zip(axes, kinds, strict=True):
        for ax, name in zip(line, names, strict=True):
            found = (
                own
                & (arrays["matrix_of_variable"] == name)
                & (arrays["matrix_of_information"] == information)
                & (arrays["matrix_of_mean"] == mean)
            )
            for m in np.flatnonzero(found):
                grid = arrays["matrix"][m][: len(steps), : len(steps)]
                image = ax.pcolormesh(edges, edges, grid, vmin=chance, vmax=1, cmap="cividis", rasterized=True)
                read = np.flatnonzero(np.isfinite(np.diag(grid)))
                chancy = (arrays["matrix_p"][m][np.ix_(read, read)] > 0.05).astype(float)
                if 0 < chancy.mean() < 1:
                    ax.contour(steps[read], steps[read], chancy, levels=[0.5], colors="white", linewidths=0.9)
            mark(ax, phases, across=True, names=ax in axes[0])
            ax.set_aspect("equal")
            if ax in axes[0]:
                ax.set_title(_words(str(name)), fontsize=9, pad=13)
            if ax in axes[-1]:
                ax.set_xlabel("tested at step", fontsize=8.5)
        words = {"all": "all information", "direct": "without other items"}[information]
        line[0].set_ylabel(f"{words}\nstep means {mean}\nfitted at step", fontsize=8)
    if image is not None:
        bar = figure.colorbar(image, cax=figure.add_axes((1 - 0.8 / width, 0.25, 0.18 / width, 0.5)))
        bar.set_label("balanced accuracy (bottom: chance)", fontsize=8.5)
    figure.suptitle(f"Decoders across time, {title}; white line: p = 0.05 against shuffled labels", fontsize=9.5)
    return figure


def _grid(
    width: float, height: float, down: int, across: int, margins: tuple[float, float, float, float]
) -> tuple[np.ndarray, Figure]:
    """Axes and figure with margins in inches (left, bottom, right, top): a layout engine takes seconds on this many."""
    figure = Figure(figsize=(width, height))
    left, bottom, right, top = margins
    figure.subplots_adjust(left / width, bottom / height, 1 - right / width, 1 - top / height, 0.12, 0.2)
    return figure.subplots(down, across, squeeze=False, sharex=True, sharey=True), figure


def _color(k: int) -> str:
    return COLORS[k % len(COLORS)]


def _words(name: str) -> str:
    return name.replace("_", " ")
