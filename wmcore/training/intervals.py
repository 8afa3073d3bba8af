"""95 % intervals of a variant's final figures: over replicates, or over trials where there is only one."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from itertools import pairwise

import numpy as np
from scipy.special import stdtrit
from torch import Tensor

from wmcore.tasks.base import Task
from wmcore.trials import TrialBatch

BLOCKS = 20
Interval = tuple[float, float]


def over_replicates(values: Mapping[str, Sequence[float]], proportions: Collection[str]) -> dict[str, Interval]:
    """Student's interval of the mean of R >= 2 replicates, by name; that of a proportion ends at 0 and 1."""
    intervals = {}
    for name, found in values.items():
        mean, error, n = _mean_and_error(np.asarray(found, dtype=float))
        half = stdtrit(n - 1, 0.975) * error if n > 1 else float("nan")
        low, high = (0.0, 1.0) if name in proportions else (-np.inf, np.inf)
        intervals[name] = float(np.clip(mean - half, low, high)), float(np.clip(mean + half, low, high))
    return intervals


def over_trials(
    task: Task, outputs: Tensor, batch: TrialBatch, estimates: Mapping[str, float], proportions: Collection[str], n: int
) -> dict[str, Interval]:
    """The interval of each metric of one network, by batch means: the metric's spread over disjoint blocks of trials.

    Works for any metric, ratios included, at the price of few degrees of freedom. For a proportion p with standard
    error s it is Wilson's interval at the effective size p (1 - p) / s^2, or at ``n`` where all blocks are alike (p of
    0 or 1). A metric that fewer than two blocks define has a NaN interval.

    Args:
        estimates: the metrics on all trials.
        proportions: which of them are shares in [0, 1].
        n: trials behind the metric that has the fewest.
    """
    blocks = min(BLOCKS, batch.size // 2)
    edges = np.linspace(0, batch.size, blocks + 1).astype(int)
    parts = [task.metrics(outputs[a:b], batch.rows(a, b)) for a, b in pairwise(edges)]
    intervals = {}
    for name, estimate in estimates.items():
        _, error, defined = _mean_and_error(np.array([part[name] for part in parts]))
        if defined < 2:
            intervals[name] = float("nan"), float("nan")
            continue
        quantile = float(stdtrit(defined - 1, 0.975))
        if name in proportions:
            size = estimate * (1 - estimate) / error**2 if error > 0 else n
            intervals[name] = _wilson(estimate, size if size > 0 else n, quantile)
        else:
            intervals[name] = estimate - quantile * error, estimate + quantile * error
    return intervals


def _wilson(p: float, n: float, z: float) -> Interval:
    """Wilson (1927, doi:10.1080/01621459.1927.10502953): stays inside [0, 1] and has width at p = 0 and 1."""
    centre = (p + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * np.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    # At p = 0 and 1 the interval ends there, which rounding must not undo.
    return min(p, max(0.0, float(centre - half))), max(p, min(1.0, float(centre + half)))


def _mean_and_error(values: np.ndarray) -> tuple[float, float, int]:
    """Mean, standard error and number of the values that are numbers."""
    values = values[~np.isnan(values)]
    n = len(values)
    if n < 2:
        return float("nan"), float("nan"), n
    return float(values.mean()), float(values.std(ddof=1) / np.sqrt(n)), n
