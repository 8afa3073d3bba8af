"""The figure of a trajectories result, drawn from it alone."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from wmcore.analyses.base import AnalysisResult, column, select
from wmcore.analyses.palette import COLORS
from wmcore.analyses.phases import from_arrays
from wmcore.analyses.phases_figures import mark, short

_NUMBERED = 12  # steps up to which each is a numbered point of its path


def draw(result: AnalysisResult) -> Figure:
    """Mean paths in the first two components, variances beside their nulls, components over steps with intervals."""
    table, arrays = result.table, result.arrays
    labels = [str(label) for label in arrays["labels"]]
    colors = _colors(len(labels))
    figure = Figure(figsize=(9.5, 7.2), layout="constrained")
    grid = figure.add_gridspec(3, 3, height_ratios=[1.15, 1.15, 1])
    _paths(figure.add_subplot(grid[:2, :2]), result, labels, colors)
    _scree(figure.add_subplot(grid[0, 2]), table)
    _separation(figure.add_subplot(grid[1, 2]), table, str(arrays["color_by"]))
    first = None
    for k in range(3):
        first = figure.add_subplot(grid[2, k], sharex=first, sharey=first)
        _over_time(first, result, k, colors)
    return figure


def draw_overall(result: AnalysisResult) -> Figure:
    """The mean of all trials of each cell in the first two components, and three components over steps.

    Marks stand where a phase begins.
    """
    arrays = result.arrays
    labels, phases = [str(label) for label in arrays["overall_labels"]], from_arrays(arrays)
    colors = _colors(len(labels))
    figure = Figure(figsize=(10.0, max(4.2, 1.5 * len(labels) + 1.5)), layout="constrained")
    grid = figure.add_gridspec(len(labels), 2, width_ratios=[1, 1.25])
    ax = figure.add_subplot(grid[:, 0])
    over = None
    for k, (label, own) in enumerate(zip(labels, phases, strict=True)):
        path = arrays["overall"][k][: own.steps]
        ax.plot(path[:, 0], path[:, 1], color=colors[k], lw=1.8, marker="o", ms=2, label=label)
        for name, (start, _) in own.borders().items():
            ax.plot(*path[start, :2], color=colors[k], marker="D", ms=6, mec="white")
            ax.annotate(
                short(name), path[start, :2], xytext=(5, 4), textcoords="offset points", fontsize=7, color=colors[k]
            )
        over = figure.add_subplot(grid[k, 1], sharex=over, sharey=over)
        steps = np.arange(len(path))
        for j, style in zip(range(3), ("-", "--", ":"), strict=True):
            low, high = arrays["overall_ci_low"][k][: own.steps, j], arrays["overall_ci_high"][k][: own.steps, j]
            over.fill_between(steps, low, high, color=colors[k], alpha=0.25, lw=0)
            over.plot(steps, path[:, j], color=colors[k], ls=style, lw=1.4, label=f"PC {j + 1}")
        mark(over, own)
        over.set_ylabel(f"{label}\nmean, 95 %", fontsize=9)
        over.spines[["top", "right"]].set_visible(False)
        if k == 0:
            over.legend(fontsize=7.5, frameon=False, ncols=3)
    if over is not None:
        over.set_xlabel("step", fontsize=9)
        over.xaxis.set_major_locator(MaxNLocator(integer=True))
    share = column(select(result.table, {"measure": "explained_variance"}), "estimate")
    ax.set_xlabel(f"PC 1 ({share[0]:.0%} of variance)")
    ax.set_ylabel(f"PC 2 ({share[1]:.0%} of variance)")
    ax.set_title("Mean trajectories of all trials; marks: a phase begins", fontsize=10)
    ax.legend(fontsize=8.5, frameon=False)
    ax.set_aspect("equal", adjustable="datalim")
    ax.spines[["top", "right"]].set_visible(False)
    return figure


def _paths(ax: Axes, result: AnalysisResult, labels: list[str], colors: list) -> None:
    arrays = result.arrays
    for path, k in zip(arrays["sample"], arrays["sample_condition"], strict=True):
        if k >= 0:
            ax.plot(path[:, 0], path[:, 1], color=colors[k], lw=0.5, alpha=0.22, zorder=1)
    for k, (path, label) in enumerate(zip(arrays["mean"], labels, strict=True)):
        ax.plot(path[:, 0], path[:, 1], color=colors[k], lw=2, label=label, zorder=3)
        numbered = len(path) <= _NUMBERED
        size = np.where(numbered | (np.arange(len(path)) == 0), 105, 8)
        ax.scatter(path[:, 0], path[:, 1], s=size, color=colors[k], edgecolor="white", zorder=4)
        for step, point in enumerate(path):
            if np.isfinite(point[:2]).all() and (numbered or step == 0):
                ax.annotate(
                    str(step), point[:2], ha="center", va="center", color="white", fontsize=7, zorder=5, weight="bold"
                )
    share = column(select(result.table, {"measure": "explained_variance"}), "estimate")
    ax.set_xlabel(f"PC 1 ({share[0]:.0%} of variance)")
    ax.set_ylabel(f"PC 2 ({share[1]:.0%} of variance)")
    n = int(column(result.table, "n").max())
    numbers = " (numbers: step)" if arrays["mean"].shape[1] <= _NUMBERED else " (0: first step)"
    ax.set_title(f"Mean trajectories{numbers} and single trials (thin, cut off); n = {n}", fontsize=10)
    columns = 1 if len(labels) <= 8 else 3
    ax.legend(title=str(arrays["color_by"]).replace("_", " "), fontsize=8.5, title_fontsize=8.5, ncols=columns)
    _view(ax, arrays["mean"][..., :2].reshape(-1, 2))
    ax.spines[["top", "right"]].set_visible(False)


def _view(ax: Axes, points: np.ndarray) -> None:
    """Equal scales around the mean paths; single trials that leave the view are cut off."""
    low, high = np.nanmin(points, axis=0), np.nanmax(points, axis=0)
    half = 0.65 * max(float((high - low).max()), 1e-9)
    middle = (low + high) / 2
    ax.set_aspect("equal", adjustable="box")
    ax.set_xlim(middle[0] - half, middle[0] + half)
    ax.set_ylim(middle[1] - half, middle[1] + half)


def _scree(ax: Axes, table: pd.DataFrame) -> None:
    rows = select(table, {"measure": "explained_variance"})
    x = column(rows, "component").astype(int)
    ax.fill_between(x, column(rows, "null_low"), column(rows, "null_high"), color="0.8", lw=0)
    ax.plot(x, column(rows, "null"), color="0.5", ls="--", lw=1.2, label="null: units shuffled")
    _points(ax, x, rows, "states")
    ratio = select(table, {"measure": "participation_ratio"})
    ax.set_title(
        f"participation ratio {column(ratio, 'estimate')[0]:.1f} (null {column(ratio, 'null')[0]:.0f})", fontsize=9
    )
    ax.set_xlabel("component", fontsize=9)
    ax.set_ylabel("share of variance", fontsize=9)
    ax.set_ylim(bottom=0)
    ax.legend(fontsize=8, frameon=False)
    ax.spines[["top", "right"]].set_visible(False)


def _separation(ax: Axes, table: pd.DataFrame, name: str) -> None:
    rows = select(table, {"measure": "condition_variance"})
    x = column(rows, "time").astype(int)
    ax.fill_between(x, column(rows, "null_low"), column(rows, "null_high"), color="0.8", lw=0)
    ax.plot(x, column(rows, "null"), color="0.5", ls="--", lw=1.2, label="null: trials shuffled")
    _points(ax, x, rows, "states")
    ax.set_title(f"variance explained by {name.replace('_', ' ')}", fontsize=9)
    ax.set_xlabel("step", fontsize=9)
    ax.set_ylabel("share of variance", fontsize=9)
    ax.set_ylim(bottom=0)
    ax.set_xticks(x if len(x) <= 12 else x[:: len(x) // 6])
    ax.legend(fontsize=8, frameon=False)
    ax.spines[["top", "right"]].set_visible(False)


def _points(ax: Axes, x: np.ndarray, rows: pd.DataFrame, label: str) -> None:
    # Drawn as a span: a bootstrap interval need not hold the estimate, and an error bar must.
    ax.vlines(x, column(rows, "ci_low"), column(rows, "ci_high"), color=COLORS[0], lw=1.5)
    ax.plot(x, column(rows, "estimate"), color=COLORS[0], marker="o", ms=4, lw=1.2, label=label)


def _over_time(ax: Axes, result: AnalysisResult, k: int, colors: list) -> None:
    arrays = result.arrays
    steps = np.arange(arrays["mean"].shape[1])
    for c, color in enumerate(colors):
        ax.fill_between(
            steps, arrays["mean_ci_low"][c, :, k], arrays["mean_ci_high"][c, :, k], color=color, alpha=0.25, lw=0
        )
        ax.plot(steps, arrays["mean"][c, :, k], color=color, marker="o", ms=3, lw=1.5)
    ax.axhline(0, color="0.6", lw=0.8, ls=":")
    ax.set_xticks(steps if len(steps) <= 12 else steps[:: len(steps) // 6])
    ax.set_xlabel("step", fontsize=9)
    ax.set_ylabel(f"PC {k + 1} (mean, 95 %)", fontsize=9)
    ax.spines[["top", "right"]].set_visible(False)


def _colors(count: int) -> list:
    return list(COLORS[:count]) if count <= len(COLORS) else list(colormaps["viridis"](np.linspace(0, 0.95, count)))
