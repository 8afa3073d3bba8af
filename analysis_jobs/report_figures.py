"""Figures of a sweep as a whole, from plain tables; colours are safe for colour-blind readers (Okabe & Ito 2008)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import cycle

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, Locator, LogLocator, MaxNLocator, NullFormatter

STATE_COLOURS = {
    "finished": "#0072B2",
    "pruned": "#E69F00",
    "failed": "#D55E00",
    "running": "#009E73",
    "planned": "#56B4E9",
}
_POLICY_LINES = (":", (0, (4, 2)), "-.", (0, (6, 2, 1, 2, 1, 2)))
"""Line styles of the baselines, in their order."""


def learning_curves(reports: pd.DataFrame, baselines: Mapping[str, float], metric: str, rungs: Sequence[int]) -> Figure:
    """Selection metric of every trial against optimiser steps.

    Args:
        reports: columns trial, state, step, value.
        baselines: policy -> score, drawn as horizontal lines.
        metric: name for the axis.
        rungs: steps at which trials may be stopped, drawn as vertical lines.
    """
    figure = Figure(figsize=(8, 4.2), layout="constrained")
    axes = figure.add_subplot()
    seen: set[str] = set()
    for _, rows in reports.groupby("trial", sort=True):
        state = str(rows["state"].iloc[0])
        label = None if state in seen else state
        seen.add(state)
        axes.plot(rows["step"], rows["value"], color=STATE_COLOURS[state], lw=1.5, alpha=0.85, label=label)
        last = rows.dropna(subset=["value"]).tail(1)
        axes.plot(last["step"], last["value"], "o", ms=4, color=STATE_COLOURS[state])
    _draw_baselines(axes, baselines)
    for i, rung in enumerate(rungs):
        axes.axvline(rung, color="0.8", lw=1, zorder=0, label="early-stopping rung" if i == 0 else None)
    axes.set(xlabel="optimiser steps", ylabel=metric.replace("_", " "))
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside right center", frameon=False, fontsize=9)
    return figure


def search_space(points: pd.DataFrame, metric: str, log: Sequence[str]) -> Figure:
    """The objective against each searched setting, one panel each.

    Args:
        points: columns state, value, and one column per setting.
        metric: name for the axis.
        log: settings with a logarithmic axis.
    """
    settings = [name for name in points.columns if name not in ("state", "value")]
    columns = min(3, len(settings))
    rows = math.ceil(len(settings) / columns)
    figure = Figure(figsize=(8, 2.6 * rows), layout="constrained")
    for i, name in enumerate(settings):
        axes = figure.add_subplot(rows, columns, i + 1)
        values = points[name]
        numeric = pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values)
        labels = sorted(set(values.astype(str)))
        x = np.array([float(v) if numeric else labels.index(str(v)) for v in values], dtype=float)
        for state, colour in STATE_COLOURS.items():
            chosen = np.asarray(points["state"]) == state
            axes.scatter(x[chosen], np.asarray(points["value"])[chosen], color=colour, s=24, alpha=0.85)
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


def _few_ticks(ratio: float) -> Locator:
    """So many ticks on a logarithmic axis that their labels do not run into each other."""
    if ratio < 4:
        return MaxNLocator(3)
    return LogLocator(subs=(1, 2, 5) if ratio < 15 else (1,))


def _tick(metric: str, name: str) -> str:
    return metric.removeprefix(name).strip("_").replace("_", " ") or "overall"


def _draw_baselines(axes, baselines: Mapping[str, float]) -> None:
    for (name, score), line in zip(baselines.items(), cycle(_POLICY_LINES), strict=False):
        axes.axhline(score, ls=line, color="0.35", lw=1.2, label=name.replace("_", " "))
