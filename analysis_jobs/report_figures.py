"""Figures of a sweep as a whole, from plain tables; colours are safe for colour-blind readers (Okabe & Ito 2008)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import cycle

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, Locator, LogLocator, MaxNLocator, NullFormatter

STATE_COLOURS = {
    "finished": "#0072B2",
    "reused": "#CC79A7",
    "pruned": "#E69F00",
    "failed": "#D55E00",
    "running": "#009E73",
    "planned": "#56B4E9",
}
_POLICY_LINES = (":", (0, (4, 2)), "-.", (0, (6, 2, 1, 2, 1, 2)))
"""Line styles of the baselines, in their order."""
_MARKERS = "xDs^v"
"""Markers of the baselines, in their order."""
_SERIES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
"""Colours of curves that are told apart."""
_CROWD = 40
"""Curves or points beyond which they are drawn small."""
_PANELS = 6
_LABELLED = 12
"""Variants on a front up to which each is given its number."""


def learning_curves(
    reports: pd.DataFrame,
    baselines: Mapping[str, float],
    metric: str,
    rungs: Sequence[int],
    replicates: pd.DataFrame | None = None,
) -> Figure:
    """Selection metric of every trial against optimiser steps and, below, of some of them replicate by replicate.

    Args:
        reports: columns trial, state, step, value (the mean of its replicates).
        baselines: policy -> score, drawn as horizontal lines.
        metric: name for the axis.
        rungs: steps at which trials may be stopped, drawn as vertical lines.
        replicates: columns trial, replicate, step, value, for a panel of each trial in it, in its order.
    """
    singled_out = [] if replicates is None else list(dict.fromkeys(replicates["trial"]))
    figure = Figure(figsize=(8, 6.6 if singled_out else 4.2), layout="constrained")
    grid = figure.add_gridspec(
        2 if singled_out else 1, max(1, len(singled_out)), height_ratios=[3, 2][: 1 + bool(singled_out)]
    )
    axes = figure.add_subplot(grid[0, :])
    groups, seen = dict(list(reports.groupby("trial", sort=True))), set()
    width = 1.5 if len(groups) <= _CROWD else 0.7
    for rows in groups.values():
        state = str(rows["state"].iloc[0])
        label = None if state in seen else state
        seen.add(state)
        axes.plot(rows["step"], rows["value"], color=STATE_COLOURS[state], lw=width, alpha=0.85, label=label)
        last = rows.dropna(subset=["value"]).tail(1)
        axes.plot(last["step"], last["value"], "o", ms=4, color=STATE_COLOURS[state])
    _draw_baselines(axes, baselines)
    for i, rung in enumerate(rungs):
        axes.axvline(rung, color="0.8", lw=1, zorder=0, label="early-stopping rung" if i == 0 else None)
    axes.set(xlabel="optimiser steps", ylabel=metric.replace("_", " "))
    axes.spines[["top", "right"]].set_visible(False)
    for i, trial in enumerate(singled_out):
        assert replicates is not None
        panel = figure.add_subplot(grid[1, i], sharex=axes, sharey=axes)
        _replicate_curves(panel, groups[trial], replicates.loc[replicates["trial"] == trial], baselines)
        panel.set(xlabel="optimiser steps", ylabel=metric.replace("_", " ") if i == 0 else "")
        panel.tick_params(labelleft=i == 0)
        panel.xaxis.set_major_locator(MaxNLocator(4, integer=True))  # shared with the axes above
    figure.legend(*_once(figure), loc="outside right center", frameon=False, fontsize=9)
    return figure


def _replicate_curves(axes: Axes, mean: pd.DataFrame, replicates: pd.DataFrame, baselines: Mapping[str, float]) -> None:
    """A variant's replicates, thin, and their mean."""
    colour, networks = STATE_COLOURS[str(mean["state"].iloc[0])], list(replicates.groupby("replicate", sort=True))
    for i, (_, rows) in enumerate(networks):
        label = "one replicate" if i == 0 else None
        axes.plot(rows["step"], rows["value"], color="0.45", lw=0.8, label=label)
    axes.plot(mean["step"], mean["value"], color=colour, lw=2)
    _draw_baselines(axes, baselines)
    axes.set_title(f"variant {mean['trial'].iloc[0]}, n = {len(networks)}", fontsize=10, loc="left")
    axes.spines[["top", "right"]].set_visible(False)


def training_history(history: pd.DataFrame, metrics: Sequence[str], name: str) -> Figure:
    """One variant as it trained: its loss, related selection metrics, and the stage of its curriculum if it had one.

    Args:
        history: column step, ``train/loss``, each of ``metrics``, and perhaps ``train/stage``; means over replicates.
        metrics: names as reported, ``select/...``.
        name: what they have in common, for the axis.
    """
    panels = ["train/loss", "metrics", *(["train/stage"] if "train/stage" in history else [])]
    figure = Figure(figsize=(8, 1.0 + 1.7 * len(panels)), layout="constrained")
    shared = None
    for i, panel in enumerate(panels):
        axes = figure.add_subplot(len(panels), 1, i + 1, sharex=shared)
        shared = shared or axes
        if panel == "metrics":
            for metric, colour, line in zip(metrics, cycle(_SERIES), cycle(("-", *_POLICY_LINES)), strict=False):
                label = _tick(metric.removeprefix("select/"), name)
                axes.plot(history["step"], history[metric], color=colour, ls=line, lw=1.5, label=label)
            axes.set_ylabel(name.replace("_", " "))
            axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False, fontsize=8)
        else:
            axes.plot(history["step"], history[panel], color=_SERIES[0], lw=1.5)
            axes.set_ylabel({"train/loss": "training loss", "train/stage": "stage"}[panel])
        if panel == "train/stage":
            axes.set_ylim(0.5, history[panel].to_numpy(dtype=float).max() + 0.5)
            axes.yaxis.set_major_locator(MaxNLocator(integer=True))
        axes.tick_params(labelbottom=i == len(panels) - 1)
        axes.spines[["top", "right"]].set_visible(False)
    figure.axes[-1].set_xlabel("optimiser steps")
    return figure


def pareto(points: pd.DataFrame, objectives: Mapping[str, str], baselines: Mapping[str, Mapping[str, float]]) -> Figure:
    """The first objective against each of the others: what a gain in the one costs in the other.

    Each panel joins the variants that are the best of it in its two objectives; the area that the staircase bounds is
    what some variant attains.

    Args:
        points: columns variant, front (on the Pareto front of all objectives) and one per objective.
        objectives: metric -> max or min; at least two, of which a panel is drawn for the first six others at most.
        baselines: policy -> metric -> score.
    """
    (first, *others) = list(objectives)
    others = others[:_PANELS]
    columns = min(3, len(others))
    rows = math.ceil(len(others) / columns)
    size = (8, 4.6) if columns == 1 else (3.2 * columns + 0.6, 3.3 * rows)
    figure = Figure(figsize=size, layout="constrained")
    front = points["front"].to_numpy(dtype=bool)
    area = 26 if len(points) <= _CROWD else 8
    for i, other in enumerate(others):
        axes = figure.add_subplot(rows, columns, i + 1)
        x, y = points[first].to_numpy(dtype=float), points[other].to_numpy(dtype=float)
        _draw_policies(axes, baselines, first, other)
        axes.scatter(x[~front], y[~front], s=area, color="0.65", label="finished variant")
        best = _staircase(x, y, objectives[first], objectives[other])
        steps = "steps-pre" if objectives[first] == "max" else "steps-post"
        axes.plot(x[best], y[best], color=STATE_COLOURS["finished"], lw=1.2, drawstyle=steps, zorder=1)
        axes.scatter(x[front], y[front], s=36, color=STATE_COLOURS["finished"], label="on the Pareto front")
        if columns == 1 and front.sum() <= _LABELLED:
            for number, place in zip(points["variant"][front], zip(x[front], y[front], strict=True), strict=True):
                axes.annotate(str(number), place, xytext=(5, 5), textcoords="offset points", fontsize=8)
        axes.set(xlabel=_directed(first, objectives), ylabel=_directed(other, objectives))
        axes.spines[["top", "right"]].set_visible(False)
    figure.legend(*_once(figure), loc="outside lower center", ncols=4, frameon=False, fontsize=9)
    return figure


def search_space(points: pd.DataFrame, metric: str, log: Sequence[str]) -> Figure:
    """The objective against each searched setting, one panel each.

    Args:
        points: columns state, value, and one per setting; where a setting does not apply it is missing.
        metric: name for the axis.
        log: settings with a logarithmic axis.
    """
    settings = [name for name in points.columns if name not in ("state", "value")]
    columns = min(3, len(settings))
    rows = math.ceil(len(settings) / columns)
    figure = Figure(figsize=(8, 2.6 * rows), layout="constrained")
    for i, name in enumerate(settings):
        axes = figure.add_subplot(rows, columns, i + 1)
        applies = points[name].notna()
        values = points.loc[applies, name].infer_objects()
        numeric = pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values)
        labels = sorted(set(values.astype(str)))
        x = np.array([float(v) if numeric else labels.index(str(v)) for v in values], dtype=float)
        for state, colour in STATE_COLOURS.items():
            chosen = np.asarray(points.loc[applies, "state"]) == state
            axes.scatter(x[chosen], np.asarray(points.loc[applies, "value"])[chosen], color=colour, s=24, alpha=0.85)
        if not numeric:
            axes.set_xticks(range(len(labels)), labels)
            axes.set_xlim(-0.5, len(labels) - 0.5)
        elif name in log:
            axes.set_xscale("log")
            axes.xaxis.set_minor_formatter(NullFormatter())
            axes.xaxis.set_major_locator(_few_ticks(float(np.max(x) / np.min(x))))
            axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.set_xlabel(name.rpartition(".")[2].replace("_", " "))
        if i % columns == 0:
            axes.set_ylabel(metric.replace("_", " "))
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def by_metric(scores: pd.DataFrame, name: str, policies: Sequence[str]) -> Figure:
    """One panel per split: related metrics side by side, each with its interval and its baselines.

    Args:
        scores: columns split, metric, estimate, ci_low, ci_high, and one per policy.
        name: what the metrics have in common, for the axis.
        policies: the baselines among the columns.
    """
    splits = len(set(scores["split"]))
    rows = math.ceil(splits / 2)
    figure = Figure(figsize=(9, 0.9 + 2.1 * rows), layout="constrained")
    shown = scores[["estimate", "ci_low", "ci_high", *policies]].to_numpy(dtype=float)
    least, most = float(np.nanmin(shown)), float(np.nanmax(shown))
    margin = 0.05 * (most - least or 1.0)
    for i, (split, panel) in enumerate(scores.groupby("split", sort=False)):
        axes = figure.add_subplot(rows, 2, i + 1)
        estimate = panel["estimate"].to_numpy(dtype=float)
        x = np.arange(len(panel))
        error = np.abs(panel[["ci_low", "ci_high"]].to_numpy(dtype=float).T - estimate)
        axes.errorbar(x, estimate, np.nan_to_num(error), fmt="o", ms=5, color="#0072B2", capsize=2)
        for policy, line in zip(policies, cycle(_POLICY_LINES), strict=False):
            label = policy.replace("_", " ") if i == 0 else ""
            axes.hlines(panel[policy], x - 0.4, x + 0.4, ls=line, color="0.35", lw=1.2, label=label)
        axes.set_xticks(x, [_tick(metric, name) for metric in panel["metric"]], rotation=60, ha="right", fontsize=7)
        axes.set_ylim(least - margin, most + margin)
        axes.set_title(str(split).replace("_", " "), fontsize=10, loc="left")
        if i % 2 == 0:
            axes.set_ylabel(name)
        if i < splits - 2:
            axes.set_xticklabels([])
        axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside lower center", ncols=len(policies), frameon=False, fontsize=9)
    return figure


def _staircase(x: np.ndarray, y: np.ndarray, x_mode: str, y_mode: str) -> list[int]:
    """Rows that no row beats in x and y, in ascending order of x."""
    better_x, better_y = (x if x_mode == "max" else -x), (y if y_mode == "max" else -y)
    best, kept = -math.inf, []
    for i in np.lexsort((-better_y, -better_x)):
        if better_y[i] > best and not math.isnan(better_x[i]):
            best = better_y[i]
            kept.append(int(i))
    return sorted(kept, key=lambda i: x[i])


def _draw_policies(axes: Axes, baselines: Mapping[str, Mapping[str, float]], first: str, other: str) -> None:
    """Each baseline at its two scores; a line where it has only one."""
    styles = zip(cycle(_MARKERS), cycle(_POLICY_LINES), strict=True)
    for (name, scores), (marker, line) in zip(baselines.items(), styles, strict=False):
        label = name.replace("_", " ")
        if first in scores and other in scores:
            axes.plot(scores[first], scores[other], marker, ms=7, zorder=3, color="0.35", label=label)
        elif first in scores:
            axes.axvline(scores[first], ls=line, lw=1.2, color="0.35", label=label)
        elif other in scores:
            axes.axhline(scores[other], ls=line, lw=1.2, color="0.35", label=label)


def _directed(metric: str, objectives: Mapping[str, str]) -> str:
    return f"{metric.replace('_', ' ')} ({'more' if objectives[metric] == 'max' else 'less'} is better)"


def _once(figure: Figure) -> tuple[list[Artist], list[str]]:
    """Handles and labels of all panels for one legend, each label once."""
    found: dict[str, Artist] = {}
    for axes in figure.axes:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            found.setdefault(label, handle)
    return list(found.values()), list(found)


def _few_ticks(ratio: float) -> Locator:
    """So many ticks on a logarithmic axis that their labels do not run into each other."""
    if ratio < 4:
        return MaxNLocator(3)
    return LogLocator(subs=(1, 2, 5) if ratio < 15 else (1,))


def _tick(metric: str, name: str) -> str:
    return metric.removeprefix(name).strip("_").replace("_", " ") or "overall"


def _draw_baselines(axes: Axes, baselines: Mapping[str, float]) -> None:
    for (name, score), line in zip(baselines.items(), cycle(_POLICY_LINES), strict=False):
        axes.axhline(score, ls=line, color="0.35", lw=1.2, label=name.replace("_", " "))
