"""95 % intervals of a variant's final figures: over replicates, or over trials where there is only one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np
from scipy.special import stdtrit
from torch import Tensor

from wmcore.tasks.base import Task
from wmcore.trials import TrialBatch

BLOCKS = 20
Interval = tuple[float, float]


def over_replicates(values: Mapping[str, Sequence[float]]) -> dict[str, Interval]:
    """Student's interval of the mean of R >= 2 replicates, by name."""
    return {name: _student(np.asarray(v, dtype=float)) for name, v in values.items()}


def over_trials(
    task: Task, outputs: Tensor, batch: TrialBatch, estimates: Mapping[str, float], prefix: str
) -> dict[str, Interval]:
    """The interval of each metric of one network, by batch means: the metric's spread over disjoint blocks of trials.

    Works for any metric, ratios included, at the price of few degrees of freedom. A metric that fewer than two blocks
    define has a NaN interval. Centred at the estimate on all trials, whose names start with ``prefix`` (the split).
    """
    blocks = min(BLOCKS, batch.size // 2)
    edges = np.linspace(0, batch.size, blocks + 1).astype(int)
    parts = [task.metrics(outputs[a:b], batch.rows(a, b)) for a, b in pairwise(edges)]
    intervals = {}
    for name, estimate in estimates.items():
        low, high = _student(np.array([part[name.removeprefix(prefix)] for part in parts]))
        half = (high - low) / 2
        intervals[name] = (estimate - half, estimate + half)
    return intervals


def _student(values: np.ndarray) -> Interval:
    values = values[~np.isnan(values)]
    n = len(values)
    if n < 2:
        return float("nan"), float("nan")
    half = float(stdtrit(n - 1, 0.975) * values.std(ddof=1) / np.sqrt(n))
    return float(values.mean()) - half, float(values.mean()) + half
