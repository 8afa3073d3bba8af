"""Figures of a subspaces result, drawn from it alone: maps of all pairs, angle by rank distance, and time courses."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from wmcore.analyses.base import AnalysisResult, column, select
from wmcore.analyses.cells import cell_title, cells_in
from wmcore.analyses.palette import CEILING, COLORS, NULL


def draw(result: AnalysisResult) -> dict[str, Figure]:
    """``maps_<moment>`` for each moment, ``distance`` and, if there is one, ``course``."""
    table = result.table
    pairs = select(table, {"subspace": "full"})
    moments = list(dict.fromkeys(column(pairs, "moment")))
    figures = {f"maps_{moment.replace('.', '_')}": _maps(pairs, moment) for moment in moments}
    figures["distance"] = _distances(table, moments)
    if len(select(table, {"measure": "share_of_encoding"})) or len(select(table, {"measure": "share_in_readout"})):
        figures["course"] = _courses(table, [str(moment) for moment in result.arrays["course"]])
    return figures


def _maps(pairs: pd.DataFrame, moment: str) -> Figure:
    """A row for each cell: V of all ordered pairs, mean angles, and V with interval, null and ceiling."""
    here = select(pairs, {"moment": moment})
    cells = cells_in(here)
    figure = Figure(figsize=(10.5, 2.75 * len(cells) + 1.2), layout="constrained")
    axes = figure.subplots(len(cells), 3, squeeze=False, width_ratios=[1, 1, 1.75])
    for line, cell in zip(axes, cells, strict=True):
        rows = select(here, cell)
        ratio, angle = (select(rows, {"measure": name}) for name in ("variance_ratio", "mean_angle"))
        names = list(dict.fromkeys(column(ratio, "variable")))
        _map(line[0], ratio, names, "estimate", 1.0, "share V of row's variance\nin column's subspace", cell)
        _map(line[1], angle, names, "estimate", 90.0, "mean principal angle (deg)", cell)
        _bars(line[2], ratio, names)
    handles, labels = axes[0, 2].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, fontsize=8, frameon=False)
    d = int(column(select(here, {"measure": "variance_ratio"}), "dimensions")[0])
    figure.suptitle(
        f"Subspaces of the variables at {moment} (d = {d}; diagonal: the other half, the ceiling)", fontsize=10
    )
    return figure


def _map(
    ax: Axes, rows: pd.DataFrame, names: list[str], value: str, top: float, title: str, cell: dict[str, Any]
) -> None:
    grid = np.full((len(names), len(names)), np.nan)
    scale = np.degrees(1.0) if top > 1 else 1.0
    for variable, other, estimate in zip(*(column(rows, key) for key in ("variable", "other", value)), strict=True):
        p, q = names.index(variable), names.index(other)
        grid[p, q] = estimate * scale
        if top > 1:
            grid[q, p] = grid[p, q]
    cmap = colormaps["cividis"]
    ax.imshow(grid, vmin=0, vmax=top, cmap=cmap)
    for (p, q), number in np.ndenumerate(grid):
        red, green, blue, _ = cmap(number / top)
        dark = 0.299 * red + 0.587 * green + 0.114 * blue < 0.5
        text = f"{number:.0f}" if top > 1 else f"{number:.2f}"
        ax.text(q, p, text, ha="center", va="center", fontsize=9, color="white" if dark else "black")
    ax.set_xticks(range(len(names)), [_words(name) for name in names], fontsize=8)
    ax.set_yticks(range(len(names)), [_words(name) for name in names], fontsize=8)
    if top == 1:
        ax.set_ylabel(cell_title(cell), fontsize=9, weight="bold")
    ax.set_title(title, fontsize=9)
    ax.spines[:].set_visible(False)


def _bars(ax: Axes, rows: pd.DataFrame, names: list[str]) -> None:
    off = rows.take(np.flatnonzero(column(rows, "variable") != column(rows, "other")))
    x = np.arange(len(off))
    low, high = column(off, "null_low"), column(off, "null_high")
    ax.bar(
        x,
        high - low,
        bottom=low,
        width=0.8,
        color=NULL,
        label="null: random in the state's covariance, which holds the codes (95 %)",
    )
    shuffled = column(off, "null_shuffled")
    ax.plot(x, shuffled, ls="none", marker="x", ms=4.5, color="0.45", label="null: labels shuffled")
    ax.axhline(float(column(off, "null_random")[0]), color="0.45", lw=1, ls=":", label="null: random, d / H")
    ax.hlines(column(off, "ceiling"), x - 0.4, x + 0.4, color=CEILING, lw=2, label="ceiling: same variable, other half")
    ax.vlines(x, column(off, "ci_low"), column(off, "ci_high"), color=COLORS[0], lw=1.5)
    ax.plot(x, column(off, "estimate"), ls="none", marker="o", ms=4.5, color=COLORS[0], label="V (95 %)")
    ends = zip(column(off, "variable"), column(off, "other"), strict=True)
    crowded = len(off) > 6
    texts = [f"{names.index(p)}→{names.index(q)}" for p, q in ends]
    ax.set_xticks(x, texts, fontsize=8, rotation=45 if crowded else 0)
    ax.set_xlabel("ordered pair (positions of the variables)", fontsize=8.5)
    ax.set_ylabel("V", fontsize=9)
    ax.set_ylim(0, 1.03)
    ax.spines[["top", "right"]].set_visible(False)


def _distances(table: pd.DataFrame, moments: list[str]) -> Figure:
    """Mean angle of every pair by the distance of its variables, for each cell and moment."""
    angles = select(table, {"measure": "mean_angle"})
    cells = cells_in(angles)
    figure = Figure(figsize=(2.9 * len(cells) + 0.9, 2.7 * len(moments) + 1.2), layout="constrained")
    axes = figure.subplots(len(moments), len(cells), squeeze=False, sharey=True)
    for i, moment in enumerate(moments):
        for ax, cell in zip(axes[i], cells, strict=True):
            here = select(angles, {"moment": moment, **cell})
            for k, subspace in enumerate(("full", "reliable")):
                rows = select(here, {"subspace": subspace})
                if len(rows):
                    _angles(ax, rows, k, subspace)
            ax.set_title(f"{cell_title(cell)}, {moment}", fontsize=9)
            ax.set_xlabel("distance of the ranks", fontsize=9)
            ax.set_ylim(0, 92)
            ax.spines[["top", "right"]].set_visible(False)
        axes[i, 0].set_ylabel("mean principal angle (deg)", fontsize=9)
    handles, labels = axes[0, -1].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2, fontsize=8, frameon=False)
    figure.suptitle("Angle between subspaces by rank distance (0: same rank, other half)", fontsize=10)
    return figure


def _angles(ax: Axes, rows: pd.DataFrame, k: int, subspace: str) -> None:
    shift = 0.08 * (2 * k - 1)
    x = column(rows, "distance").astype(float) + shift
    shown = {key: np.degrees(column(rows, key).astype(float)) for key in ("estimate", "ci_low", "ci_high")}
    null = {key: float(np.degrees(column(rows, key)).mean()) for key in ("null_low", "null_high", "null_random")}
    span = (-0.3, float(column(rows, "distance").max()) + 0.3)
    label = f"d = {int(column(rows, 'dimensions')[0])} ({subspace})"
    ax.fill_between(
        span,
        null["null_low"],
        null["null_high"],
        color=COLORS[k],
        alpha=0.18,
        lw=0,
        label=f"null in the covariance (holds the codes), {label}",
    )
    ax.plot(span, [null["null_random"]] * 2, color=COLORS[k], lw=1, ls=":", label=f"random, {label}")
    ax.vlines(x, shown["ci_low"], shown["ci_high"], color=COLORS[k], lw=1.3)
    ax.plot(x, shown["estimate"], ls="none", marker="os"[k], ms=4.5, color=COLORS[k], label=f"pairs, {label}")
    ax.set_xticks(np.unique(column(rows, "distance").astype(int)))


def _courses(table: pd.DataFrame, moments: list[str]) -> Figure:
    """Share of each code in its own subspace when shown and in the readout's, by moment."""
    measures = {
        "share_of_encoding": "share of the code when shown\nthat lies in its subspace now",
        "share_in_readout": "share of the code now that lies\nin the readout's row space",
    }
    measures = {name: text for name, text in measures.items() if len(select(table, {"measure": name}))}
    cells = cells_in(select(table, {"measure": next(iter(measures))}))
    figure = Figure(figsize=(3.7 * len(cells) + 0.9, 2.9 * len(measures) + 0.9), layout="constrained")
    axes = figure.subplots(len(measures), len(cells), squeeze=False, sharey=True, sharex="col")
    for line, (measure, text) in zip(axes, measures.items(), strict=True):
        for ax, cell in zip(line, cells, strict=True):
            rows = select(table, {"measure": measure, **cell})
            present = [moment for moment in moments if moment in set(column(rows, "moment"))]
            for k, name in enumerate(dict.fromkeys(column(rows, "variable"))):
                own = select(rows, {"variable": name})
                x = np.array([present.index(moment) for moment in column(own, "moment")])
                color = COLORS[k % len(COLORS)]
                ax.fill_between(x, column(own, "ci_low"), column(own, "ci_high"), color=color, alpha=0.2, lw=0)
                ax.plot(x, column(own, "estimate"), color=color, marker="o", ms=3.5, lw=1.5, label=_words(name))
                ax.plot(x, column(own, "ceiling"), color=color, lw=1, ls="-.")
            low, high = _extremes(rows, present)
            ax.fill_between(range(len(present)), low, high, color=NULL, lw=0, zorder=0, label="null (95 %)")
            ax.set_xticks(
                range(len(present)), [_words(moment) for moment in present], rotation=60, ha="right", fontsize=7.5
            )
            ax.set_ylim(0, 1.03)
            ax.set_title(cell_title(cell), fontsize=9)
            ax.spines[["top", "right"]].set_visible(False)
        line[0].set_ylabel(text, fontsize=9)
    handles, labels = axes[0, -1].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=6, fontsize=8, frameon=False)
    figure.suptitle("Codes over time (dash-dotted: ceiling, the same code in the other half)", fontsize=10)
    return figure


def _extremes(rows: pd.DataFrame, moments: list[str]) -> tuple[list[float], list[float]]:
    """Of all variables, the lowest and the highest bound of the null at each moment."""
    own = [select(rows, {"moment": moment}) for moment in moments]
    return [column(one, "null_low").min() for one in own], [column(one, "null_high").max() for one in own]


def _words(name: str) -> str:
    return name.replace("_", " ")
