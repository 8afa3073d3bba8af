"""The figure of a perturbation result, drawn from it alone."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from wmcore.analyses.base import AnalysisResult, column, select
from wmcore.analyses.cells import cell_title, cells_in
from wmcore.analyses.palette import CEILING, COLORS

_CONTROLS = {
    "control_covariance": ("null: equal norm, where states vary", "--"),
    "control_isotropic": ("equal norm, any direction", ":"),
    "control_other_code": ("same values, another code", "-."),
}


def draw(result: AnalysisResult) -> Figure:
    """Rows: the edited variable, and the others; columns: cells; lines: variables, and the mean of each control."""
    table = result.table
    cells = cells_in(table)
    measures = {
        "replaced": "answers with the new value\n(rate)",
        "changed_elsewhere": "changed answers about the\nothers (rate)",
    }
    figure = Figure(figsize=(max(3.4 * len(cells) + 0.9, 5.5), 5.8), layout="constrained")
    axes = figure.subplots(2, len(cells), squeeze=False, sharex=True, sharey=True)
    for line, (measure, text) in zip(axes, measures.items(), strict=True):
        for ax, cell in zip(line, cells, strict=True):
            rows = select(table, {"measure": measure, **cell})
            for k, name in enumerate(dict.fromkeys(column(rows, "variable"))):
                own = select(rows, {"variable": name})
                x, color = column(own, "alpha"), COLORS[k % (len(COLORS) - 1)]
                ax.fill_between(x, column(own, "ci_low"), column(own, "ci_high"), color=color, alpha=0.2, lw=0)
                ax.plot(x, column(own, "estimate"), color=color, marker="o", ms=4, lw=1.5, label=name.replace("_", " "))
            alphas = np.unique(column(rows, "alpha"))
            for control, (label, style) in _CONTROLS.items():
                means = [column(select(rows, {"alpha": alpha}), control).mean() for alpha in alphas]
                ax.plot(alphas, means, color="0.45", ls=style, lw=1.2, label=label)
            if measure == "replaced":
                ceiling = float(column(rows, "ceiling").mean())
                ax.axhline(ceiling, color=CEILING, lw=2, label="ceiling: right without an edit")
                ax.set_title(cell_title(cell), fontsize=9)
            else:
                ax.set_xlabel("size of the edit (alpha)", fontsize=9)
            ax.set_ylim(-0.03, 1.05)
            ax.spines[["top", "right"]].set_visible(False)
        line[0].set_ylabel(text, fontsize=9)
    handles, labels = axes[0, -1].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, fontsize=8, frameon=False)
    figure.suptitle("Answers after one value was replaced along its code", fontsize=10)
    return figure
