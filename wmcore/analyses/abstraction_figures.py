"""Figures of an abstraction result, drawn from it alone: estimates with interval, null and ceiling, by cell."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from wmcore.analyses.base import AnalysisResult, column, select
from wmcore.analyses.cells import cell_title, cells_in
from wmcore.analyses.palette import CEILING, COLORS, NULL


def draw(result: AnalysisResult) -> dict[str, Figure]:
    """``contexts`` and ``transfer``."""
    table = result.table
    contexts = [
        ("CCGP (balanced accuracy)", {"measure": "ccgp"}),
        ("parallelism (mean cosine)", {"measure": "parallelism"}),
    ]
    ranks = {"measure": "transfer_across_ranks"}
    transfers = [
        ("code of one rank on another,\nwhen shown (balanced accuracy)", ranks | {"phase": "encoding"}),
        ("code of one rank on another,\nin memory (balanced accuracy)", ranks | {"phase": "memory"}),
        ("code of a shorter list\n(balanced accuracy)", {"measure": "transfer_across_cells"}),
        ("additivity (held-out R²)", {"measure": "additivity"}),
    ]
    return {
        "contexts": _grid(table, contexts, "Codes in other contexts (a | b: code of a, contexts made of b)"),
        "transfer": _grid(table, transfers, "Codes at other ranks and lengths (a → b: code of a, value of b)"),
    }


def _grid(table: pd.DataFrame, lines: list[tuple[str, dict[str, str]]], title: str) -> Figure:
    lines = [(text, chosen) for text, chosen in lines if len(select(table, chosen))]
    cells = cells_in(table)
    size = (3.4 * len(cells) + 0.9, 2.7 * len(lines) + 0.9)
    figure = Figure(figsize=(max(size[0], 5.0), size[1]), layout="constrained")
    axes = figure.subplots(len(lines), len(cells), squeeze=False, sharey="row")
    for line, (text, chosen) in zip(axes, lines, strict=True):
        for ax, cell in zip(line, cells, strict=True):
            rows = select(table, chosen | cell)
            if len(rows):
                _points(ax, rows, _names(rows, chosen["measure"]))
            else:
                ax.set_axis_off()
            ax.set_title(cell_title(cell), fontsize=9)
        line[0].set_ylabel(text, fontsize=9)
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, fontsize=8.5, frameon=False)
    figure.suptitle(title, fontsize=10)
    return figure


def _points(ax: Axes, rows: pd.DataFrame, names: Sequence[str]) -> None:
    x = np.arange(len(rows))
    low, high = column(rows, "null_low"), column(rows, "null_high")
    ax.bar(x, high - low, bottom=low, width=0.8, color=NULL, label="null (95 %)")
    ax.hlines(column(rows, "ceiling"), x - 0.4, x + 0.4, color=CEILING, lw=2, label="ceiling")
    ax.vlines(x, column(rows, "ci_low"), column(rows, "ci_high"), color=COLORS[0], lw=1.5)
    ax.plot(x, column(rows, "estimate"), ls="none", marker="o", ms=4.5, color=COLORS[0], label="estimate (95 %)")
    if "chance" in rows and np.isfinite(column(rows, "chance")[0]):
        ax.axhline(float(column(rows, "chance")[0]), color="0.3", lw=1, ls=":", label="chance")
    ax.set_xticks(
        x, names, fontsize=7.5, rotation=60 if len(rows) > 3 else 0, ha="right" if len(rows) > 3 else "center"
    )
    ax.set_ylim(min(-0.05, float(low.min()) - 0.05), 1.05)
    ax.spines[["top", "right"]].set_visible(False)


def _names(rows: pd.DataFrame, measure: str) -> list[str]:
    if measure == "additivity":
        return ["all"]
    ends = [(_short(p), _short(q)) for p, q in zip(column(rows, "variable"), column(rows, "other"), strict=True)]
    if measure in ("ccgp", "parallelism"):
        return [f"{p} | {q}" for p, q in ends]
    if measure == "transfer_across_ranks":
        return [f"{p}→{q}" for p, q in ends]
    more = zip(ends, column(rows, "source"), column(rows, "alignment"), strict=True)
    return [f"{_short(source)}: {p}→{q} ({alignment})" for (p, q), source, alignment in more]


def _short(name: str) -> str:
    return name.replace("item_", "").replace("length ", "L").replace("_", " ")
