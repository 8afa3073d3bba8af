"""The figure of a speed result, drawn from it alone."""

from __future__ import annotations

from matplotlib.figure import Figure

from wmcore.analyses.base import AnalysisResult, column, select
from wmcore.analyses.cells import cell_title, cells_in
from wmcore.analyses.palette import COLORS, NULL
from wmcore.analyses.phases import from_arrays
from wmcore.analyses.phases_figures import mark


def draw(result: AnalysisResult) -> Figure:
    """Speed by step with its interval and null, and the borders of the phases, a panel for each cell."""
    table = select(result.table, {"measure": "speed"})
    cells = cells_in(table)
    figure = Figure(figsize=(7.0, 1.75 * len(cells) + 0.9), layout="constrained")
    axes = figure.subplots(len(cells), 1, squeeze=False, sharex=True, sharey=True)[:, 0]
    phases = [own for own in from_arrays(result.arrays) if own.steps > 1]
    for ax, cell, own in zip(axes, cells, phases, strict=True):
        rows = select(table, cell)
        x = column(rows, "step").astype(int) + 0.5  # between the steps that it joins
        null = ax.fill_between(x, column(rows, "null_low"), column(rows, "null_high"), color=NULL, lw=0, zorder=1)
        null.set_label("null (95 %): steps in random order")
        ax.fill_between(x, column(rows, "ci_low"), column(rows, "ci_high"), color=COLORS[0], alpha=0.3, lw=0, zorder=3)
        ax.plot(x, column(rows, "estimate"), color=COLORS[0], marker="o", ms=2.5, lw=1.5, zorder=4, label="mean, 95 %")
        mark(ax, own)
        ax.set_ylabel(f"{cell_title(cell)}\n$|h_{{t+1}} - h_t|$", fontsize=9)
        ax.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylim(bottom=0)
    axes[-1].set_xlabel("step t (plotted between t and t + 1)", fontsize=9)
    axes[0].set_title(
        f"Speed of the state (state units per step), n = {int(column(table, 'n').max())}", fontsize=9, pad=13
    )
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2, fontsize=8, frameon=False)
    return figure
