"""The figure of a geometry result, drawn from it alone."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from wmcore.analyses.base import AnalysisResult, column, select
from wmcore.analyses.cells import cell_title, cells_in
from wmcore.analyses.palette import CEILING, COLORS, NULL
from wmcore.analyses.rdm_regression import MODELS

_WIDTH = 0.36


def draw(result: AnalysisResult) -> Figure:
    """Bars with interval, null and ceiling: participation ratio, unique variances, partial correlations by cell."""
    table = result.table
    cells = cells_in(table)
    figure = Figure(figsize=(max(9.0, 1.2 * len(cells) + 6), 3.6), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    _bars(left, table, ["participation_ratio"], "participation ratio (dimensions)")
    _bars(middle, table, [f"unique_variance_{name}" for name in MODELS], "unique variance of distances (R²)")
    _bars(right, table, [f"partial_correlation_{name}" for name in MODELS], "partial rank correlation")
    handles, labels = middle.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, fontsize=8.5, frameon=False)
    return figure


def _bars(ax: Axes, table: pd.DataFrame, measures: list[str], title: str) -> None:
    cells = cells_in(table)
    for k, measure in enumerate(measures):
        rows = [(i, select(table, {"measure": measure, **cell})) for i, cell in enumerate(cells)]
        rows = [(i, one) for i, one in rows if len(one)]
        if not rows:
            continue
        x = np.array([i for i, _ in rows]) + (k - (len(measures) - 1) / 2) * (_WIDTH + 0.04)
        own = pd.concat([one for _, one in rows])
        name = measure.rpartition("_")[2] if len(measures) > 1 else None
        bar_label = "" if name is None else "same items" if name == "item" else "same items at the same rank"
        ax.bar(x, column(own, "estimate"), width=_WIDTH, color=COLORS[k], alpha=0.75, label=bar_label)
        ax.vlines(x, column(own, "ci_low"), column(own, "ci_high"), color="black", lw=1.3, zorder=4)
        low, high = column(own, "null_low"), column(own, "null_high")
        first = k == 0
        ax.bar(x, high - low, bottom=low, width=_WIDTH, color="0.45", alpha=0.6, label="null (95 %)" if first else "")
        ax.hlines(column(own, "null"), x - _WIDTH / 2, x + _WIDTH / 2, color="0.3", lw=1.2, ls=":")
        ceiling, label = column(own, "ceiling"), "ceiling" if first else ""
        ax.hlines(ceiling, x - _WIDTH / 2, x + _WIDTH / 2, color=CEILING, lw=2, label=label, zorder=4)
    ax.axhline(0, color=NULL, lw=0.8, zorder=0)
    ax.set_xticks(range(len(cells)), [cell_title(cell) for cell in cells], fontsize=8.5)
    ax.set_title(title, fontsize=9.5)
    ax.spines[["top", "right"]].set_visible(False)
