"""The figure of a behaviour result, drawn from it alone."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from wmcore.analyses.base import AnalysisResult, column, select
from wmcore.analyses.cells import cell_title, cells_in
from wmcore.analyses.palette import COLORS, NULL

_TYPES = ("transposition", "intrusion", "repetition")


def draw(result: AnalysisResult) -> Figure:
    """Item accuracy by rank, error types, and transpositions by distance; a colour for each cell."""
    table = result.table
    cells = cells_in(table)
    figure = Figure(figsize=(10.5, 3.4), layout="constrained")
    curves, types, distances = figure.subplots(1, 3, width_ratios=[1.1, 1.2, 1])
    _curves(curves, table, cells)
    overall = table.take(np.flatnonzero(table["rank"].isna() & table["measure"].isin(_TYPES)))
    _bars(types, overall, cells, "measure", list(_TYPES))
    types.set_ylabel("share of responses (last step)", fontsize=9)
    types.set_title("errors; repetitions are also one of the other two", fontsize=9)
    far = select(table, {"measure": "transposition_by_distance"})
    ranks = sorted({int(value) for value in column(far, "distance")})
    _bars(distances, far, cells, "distance", ranks)
    distances.set_xlabel("distance in ranks", fontsize=9)
    distances.set_ylabel("share of possible transpositions", fontsize=9)
    distances.set_title("an item reported at another rank", fontsize=9)
    for ax in (curves, types, distances):
        ax.spines[["top", "right"]].set_visible(False)
    handles, labels = curves.get_legend_handles_labels()
    bars, names = types.get_legend_handles_labels()
    known = dict(zip(labels, handles, strict=True)) | {n: b for n, b in zip(names, bars, strict=True) if "null" in n}
    figure.legend(list(known.values()), list(known), loc="outside lower center", ncols=5, fontsize=8, frameon=False)
    return figure


def _curves(ax: Axes, table: pd.DataFrame, cells: list) -> None:
    items = select(table, {"measure": "item_accuracy"})
    for k, cell in enumerate(cells):
        for steps in ("all", "last"):
            rows = select(items, {**cell, "steps": steps}).sort_values("rank")
            x = column(rows, "rank").astype(int) + 1 + 0.04 * (k - (len(cells) - 1) / 2)
            label = cell_title(cell) if steps == "all" else "last step of the response" if k == 0 else None
            color = COLORS[k % len(COLORS)]
            if steps == "all":
                ax.vlines(x, column(rows, "ci_low"), column(rows, "ci_high"), color=color, lw=1.4)
            ax.plot(
                x,
                column(rows, "estimate"),
                color=color,
                marker="o" if steps == "all" else "x",
                ms=4,
                lw=1.4 if steps == "all" else 0.9,
                ls="-" if steps == "all" else "--",
                label=label,
            )
    ax.axhline(float(column(items, "null").mean()), color="0.3", lw=1, ls=":", label="chance")
    ax.set_ylim(0, 1.04)
    ax.set_xticks(np.unique(column(items, "rank").astype(int)) + 1)
    ax.set_xlabel("serial position", fontsize=9)
    ax.set_ylabel("item accuracy", fontsize=9)
    n = int(column(items, "n").max())
    ax.set_title(f"serial-position curves (all response steps), n = {n}", fontsize=9)


def _bars(ax: Axes, rows: pd.DataFrame, cells: list, key: str, values: list) -> None:
    width = 0.8 / max(len(cells), 1)
    for k, cell in enumerate(cells):
        for i, value in enumerate(values):
            one = select(rows, {**cell, key: value})
            if not len(one):
                continue
            x = i + (k - (len(cells) - 1) / 2) * width
            ax.bar(x, column(one, "estimate")[0], width * 0.9, color=COLORS[k % len(COLORS)])
            ax.vlines(x, column(one, "ci_low")[0], column(one, "ci_high")[0], color="0.2", lw=1.2)
            ax.hlines(column(one, "null")[0], x - width / 2, x + width / 2, color="0.2", lw=1.2, ls="--")
            ax.bar(
                x,
                column(one, "null_high")[0] - column(one, "null_low")[0],
                width,
                bottom=column(one, "null_low")[0],
                color=NULL,
                alpha=0.7,
                label="null: errors spread evenly" if k == i == 0 else None,
            )
    ax.set_xticks(range(len(values)), [str(value) for value in values], fontsize=8.5)
    ax.set_ylim(bottom=0)
