"""Trajectories: principal components of the states, and the mean path of each condition through them.

Source: the population-trajectory view of Cunningham & Yu 2014 (doi:10.1038/nn.3776); participation ratio of Gao et al.
2017 (doi:10.1101/214262). Shapes: N trials, T steps, H units, P components, K conditions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.figure import Figure
from pydantic import Field

from wmcore.analyses import trajectories_figures
from wmcore.analyses.base import (
    PER_STEP,
    PER_TRIAL,
    AnalysisResult,
    AnalysisSpec,
    check_condition,
    check_state,
    first_state,
    require,
)
from wmcore.analyses.cells import cell_title, trials_within
from wmcore.analyses.phases import common_phases, to_arrays
from wmcore.analyses.resampling import bootstrap_weights, interval
from wmcore.errors import InputError
from wmcore.recording import condition_labels

if TYPE_CHECKING:
    from collections.abc import Sequence

    from wmcore.analyses.base import Conditions
    from wmcore.models.base import SequenceModel


class TrajectoriesSpec(AnalysisSpec):
    """Principal components of the hidden states and the mean trajectory of each condition."""

    kind: Literal["trajectories"] = "trajectories"
    color_by: str = "feature"
    """Condition, of whole numbers, whose values are drawn apart: (trial), or (trial, time) together with at_step."""
    at_step: Annotated[int, Field(ge=0)] | None = None
    """For a (trial, time) condition: the step whose value counts, e.g. the location of the item shown at step 0."""
    within: tuple[str, ...] | None = None
    """Conditions (trial) whose combinations have a mean trajectory of all their trials each, in the same components,
    with the borders of the phases that these share; null: the length of the sequence, if there is one."""
    state: str | None = None
    """The state to read; null: the first one recorded (the hidden state of an LSTM)."""
    components: Annotated[int, Field(ge=3, le=64)] = 10
    """P, principal components that are reported."""
    shuffles: Annotated[int, Field(ge=10)] = 20
    """Nulls of the variances: each unit's values shuffled over trials and steps."""
    permutations: Annotated[int, Field(ge=20)] = 200
    """Nulls of the separation: conditions shuffled over trials."""
    bootstraps: Annotated[int, Field(ge=50)] = 100
    """Resamplings of the trials for the 95 % intervals; each fits the components anew."""

    def check(self, conditions: Conditions, states: Sequence[str], steps: int | None, where: str) -> None:
        check_state(self.state, states, f"{where}.state")
        check_condition(self.color_by, conditions, f"{where}.color_by", (PER_TRIAL, PER_STEP))
        for i, name in enumerate(self.within or ()):
            check_condition(name, conditions, f"{where}.within.{i}", (PER_TRIAL,))
        per_step = conditions[self.color_by] == PER_STEP
        if self.at_step is None and per_step:
            rule = f"must be given, because {self.color_by} has a value at every step"
            raise InputError(f"{where}.at_step", rule, remedy="Write the step whose value counts, e.g. at_step: 0.")
        if self.at_step is not None and not per_step:
            rule = f"has no effect, because {self.color_by} has one value for the whole trial"
            raise InputError(f"{where}.at_step", rule, value=self.at_step, remedy="Leave it out.")
        if self.at_step is not None and steps is not None and self.at_step >= steps:
            rule = f"must be below {steps}, the number of steps of a trial"
            raise InputError(f"{where}.at_step", rule, value=self.at_step, remedy=f"Write {steps - 1} or less.")

    def compute(
        self, recording: xr.Dataset, model: SequenceModel | None, generator: np.random.Generator
    ) -> AnalysisResult:
        """Measures in the table, all against a null and with a 95 % interval over resampled trials.

        - ``explained_variance`` (share, by component): eigenvalue / total variance of all trials and steps.
        - ``participation_ratio`` (dimensions, 1..H): (sum of eigenvalues)^2 / sum of squared eigenvalues.
        - ``condition_variance`` (share, by step): between-condition variance of the state / its variance at that step.

        Arrays: ``mean`` (K, T, P), ``mean_ci_low``, ``mean_ci_high`` (pointwise, components fixed), ``loadings``
        (P, H), ``centre`` (H,), ``sample`` (some trials, T, P), ``sample_condition``, ``labels`` (K,);
        of the cells of ``within``: ``overall`` (C, T, P), ``overall_ci_low``, ``overall_ci_high``, ``overall_labels``,
        and the phases.

        Raises:
            InputError: the condition or state is not in the recording, or does not fit ``at_step``.
        """
        condition, labels = self._condition(recording)
        states = recording[first_state(recording, self.state, "trajectories.state")].values
        states = states.reshape(*states.shape[:2], -1).astype(np.float32)
        size, steps, units = states.shape
        lengths = recording["lengths"].values if "lengths" in recording else np.full(size, steps)
        inside = np.arange(steps) < lengths[:, None]
        count = min(self.components, units)

        rows, weight = states[inside], np.ones(int(inside.sum()), dtype=np.float32)
        trial = np.broadcast_to(np.arange(size)[:, None], (size, steps))[inside]
        power, axes = _spectrum(rows, weight)
        axes = axes[:, ::-1][:, :count].T
        axes *= np.where(axes[np.arange(count), np.abs(axes).argmax(axis=1)] < 0, -1, 1)[:, None]
        centre = rows.mean(axis=0)
        projected = (states - centre) @ axes.T

        weights = bootstrap_weights(np.arange(size), self.bootstraps, generator)
        boot = np.stack([_variances(_spectrum(rows, w[trial])[0], count) for w in weights])
        shuffled = (_shuffled(rows, generator) for _ in range(self.shuffles))
        null = np.stack([_variances(_spectrum(x, weight)[0], count) for x in shuffled])
        observed = _variances(power, count)
        table = [
            _row("explained_variance", observed[k], null[:, k], boot[:, k], size, component=k + 1) for k in range(count)
        ]
        table.append(_row("participation_ratio", observed[count], null[:, count], boot[:, count], size))

        one_hot = (condition[:, None] == np.arange(len(labels))).astype(np.float32)
        orders = generator.permuted(np.tile(np.arange(size)[:, None], (1, self.permutations)), axis=0)
        for t in range(steps):
            valid = inside[:, t] & (condition >= 0)
            table.append(self._separation(states[valid, t], one_hot[valid], orders, weights[:, valid], valid, t))
        mean, low, high = _means(projected, one_hot, inside, weights)
        chosen = _some_of_each(condition, len(labels), generator)
        arrays = {
            "mean": mean,
            "mean_ci_low": low,
            "mean_ci_high": high,
            "loadings": axes,
            "centre": centre,
            "sample": np.where(inside[chosen, :, None], projected[chosen], np.nan).astype(np.float32),
            "sample_condition": condition[chosen],
            "labels": np.array(labels, dtype=np.str_),
            "color_by": np.array(self.color_by if self.at_step is None else f"{self.color_by} at step {self.at_step}"),
        }
        arrays |= self._overall(recording, projected, inside, weights)
        frame = pd.DataFrame(table)
        for name in ("component", "time"):
            frame[name] = frame[name].astype("Int64")
        return AnalysisResult(frame, arrays)

    def figures(self, result: AnalysisResult) -> dict[str, Figure]:
        """``trajectories``: mean paths, variances beside their null, components over steps; and ``mean_trajectory``."""
        return {
            "trajectories": trajectories_figures.draw(result),
            "mean_trajectory": trajectories_figures.draw_overall(result),
        }

    def _overall(
        self, recording: xr.Dataset, projected: np.ndarray, inside: np.ndarray, weights: np.ndarray
    ) -> dict[str, np.ndarray]:
        """The mean trajectory of all trials of each cell, and its phases."""
        cells = trials_within(recording, self.within, "trajectories.within")
        one_hot = np.zeros((len(projected), len(cells)), dtype=np.float32)
        for c, (_, rows) in enumerate(cells):
            one_hot[rows, c] = 1
        mean, low, high = _means(projected, one_hot, inside, weights)
        titles = [cell_title(name) for name, _ in cells]
        return {
            "overall": mean,
            "overall_ci_low": low,
            "overall_ci_high": high,
            "overall_labels": np.array(titles, dtype=np.str_),
            **to_arrays([common_phases(recording, rows) for _, rows in cells]),
        }

    def _condition(self, recording: xr.Dataset) -> tuple[np.ndarray, list[str]]:
        """(N,) number of each trial's condition in the sorted list of values that occur, and their labels."""
        require(recording, [self.color_by], "trajectories.color_by", [("trial",), ("trial", "time")])
        values = recording[self.color_by].values
        if not (np.issubdtype(values.dtype, np.integer) or values.dtype == bool):
            raise InputError("trajectories.color_by", "must be a condition of whole numbers", value=self.color_by)
        if (values.ndim == 2) != (self.at_step is not None):
            rule = "must be given for a (trial, time) condition, and only for one"
            raise InputError("trajectories.at_step", rule, value=self.at_step)
        if self.at_step is not None:
            if self.at_step >= values.shape[1]:
                raise InputError("trajectories.at_step", f"must be below {values.shape[1]}", value=self.at_step)
            values = values[:, self.at_step]
        present, number = np.unique(values.astype(np.int64), return_inverse=True)
        names = condition_labels(recording).get(self.color_by)
        return number.reshape(-1), [names[v] if names and v >= 0 else str(v) for v in present]

    def _separation(
        self,
        states: np.ndarray,
        one_hot: np.ndarray,
        orders: np.ndarray,
        weights: np.ndarray,
        valid: np.ndarray,
        step: int,
    ) -> dict[str, Any]:
        # Permutations of all trials, restricted to the valid ones by rank: still uniform permutations of those.
        ranks = np.argsort(np.argsort(orders[valid], axis=0), axis=0) if not valid.all() else orders
        centred = states - states.mean(axis=0)
        total = float((centred**2).sum())
        shuffled = one_hot[ranks]  # (n, permutations, K)
        sums = np.tensordot(shuffled, centred, axes=(0, 0))
        null = _between(sums, one_hot.sum(axis=0)) / total if total else np.zeros(self.permutations)
        observed = float(_between((one_hot.T @ centred)[None], one_hot.sum(axis=0))[0] / total) if total else 0.0
        square = (centred**2).sum(axis=1)
        mass = weights.sum(axis=1)
        count = weights @ one_hot
        sums = np.stack([(one_hot * w[:, None]).T @ centred for w in weights])
        grand = sums.sum(axis=1) / mass[:, None]
        spread = weights @ square - mass * (grand**2).sum(axis=1)
        between = _between(sums, count) - mass * (grand**2).sum(axis=1)
        boot = np.divide(between, spread, out=np.zeros_like(between), where=spread > 0)
        row = _row("condition_variance", observed, null, boot, int(valid.sum()), time=step)
        row["warning"] = "" if total else "the state is constant at this step"
        return row


def _spectrum(rows: np.ndarray, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Eigenvalues (ascending) and eigenvectors (columns) of the weighted covariance of (M, H) rows."""
    share = weight / weight.sum()
    centred = (rows - share @ rows) * np.sqrt(share)[:, None]
    power, axes = np.linalg.eigh(centred.T @ centred)
    return np.maximum(power, 0), axes


def _variances(power: np.ndarray, count: int) -> np.ndarray:
    """Shares of the first components, then the participation ratio (H for a state without variance: undefined)."""
    total = power.sum()
    if total <= 0:
        return np.concatenate([np.zeros(count), [0.0]])
    return np.concatenate([power[::-1][:count] / total, [total**2 / (power**2).sum()]])


def _shuffled(rows: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    return np.ascontiguousarray(generator.permuted(rows.T.copy(), axis=1).T)


def _between(sums: np.ndarray, count: np.ndarray) -> np.ndarray:
    """(D,) sum over conditions of |sum of states|^2 / trials, for (D, K, H) sums and (K,) or (D, K) counts."""
    squares = (sums**2).sum(axis=2)
    return np.divide(squares, count, out=np.zeros_like(squares), where=count > 0).sum(axis=1)


def _means(
    projected: np.ndarray, one_hot: np.ndarray, inside: np.ndarray, weights: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(K, T, P) mean paths with pointwise 95 % bounds; NaN where no trial is that long."""
    size, steps, count = projected.shape
    flat = (projected * inside[..., None]).reshape(size, -1)
    sums = np.einsum("bn,nk,nj->bkj", weights, one_hot, flat, optimize=True).reshape(len(weights), -1, steps, count)
    mass = np.einsum("bn,nk,nt->bkt", weights, one_hot, inside.astype(np.float32), optimize=True)
    boot = np.divide(sums, mass[..., None], out=np.full(sums.shape, np.nan), where=mass[..., None] > 0)
    total = (one_hot.T @ flat).reshape(-1, steps, count)
    trials = (one_hot.T @ inside.astype(np.float32))[..., None]
    mean = np.divide(total, trials, out=np.full(total.shape, np.nan), where=trials > 0)
    low, high = interval(boot)
    return mean, low, high


def _some_of_each(condition: np.ndarray, conditions: int, generator: np.random.Generator, most: int = 12) -> np.ndarray:
    """Rows of a few trials of each condition, for the figure."""
    order = generator.permutation(len(condition))
    return np.concatenate([order[condition[order] == k][:most] for k in range(conditions)])


def _row(
    measure: str,
    estimate: float,
    null: np.ndarray,
    draws: np.ndarray,
    n: int,
    component: int | None = None,
    time: int | None = None,
) -> dict[str, Any]:
    ci_low, ci_high = interval(draws)
    null_low, null_high = interval(null)
    return {
        "measure": measure,
        "component": component,
        "time": time,
        "estimate": float(estimate),
        "null": float(null.mean()),
        "null_low": float(null_low),
        "null_high": float(null_high),
        "ceiling": np.nan,
        "ci_low": float(ci_low),
        "ci_high": float(ci_high),
        "n": n,
        "warning": "",
    }
