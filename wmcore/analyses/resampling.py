"""Stable folds, group permutations, bootstrap weights and jackknife intervals that the analyses share."""

from __future__ import annotations

import numpy as np
from scipy.stats import t as student

from wmcore.hashing import splitmix64


def stable_fold(groups: np.ndarray, folds: int) -> np.ndarray:
    """The fold of each group id: a fixed 64-bit hash modulo ``folds``.

    It depends on the id alone, so that a group is in the same fold in every context, process and run.

    Args:
        groups: (N,) integer ids.

    Returns:
        (N,) integers in 0..folds-1.
    """
    return (splitmix64(groups) % np.uint64(folds)).astype(np.int64)


def group_permutations(groups: np.ndarray, draws: int, generator: np.random.Generator) -> np.ndarray:
    """Row numbers that hand every group the labels of another one (of its first row).

    The labels of one group stay together, so that a null keeps the dependence within groups.

    Args:
        groups: (N,) integer ids; with ids that are all different this is a plain permutation of the rows.

    Returns:
        (N, draws) row numbers: ``labels[result[:, d]]`` is the d-th shuffled labelling.
    """
    _, first, member = np.unique(groups, return_index=True, return_inverse=True)
    order = np.tile(np.arange(first.size)[:, None], (1, draws))
    return first[generator.permuted(order, axis=0)][member]


def bootstrap_weights(groups: np.ndarray, draws: int, generator: np.random.Generator) -> np.ndarray:
    """How often each row is drawn when whole groups are drawn with replacement: (draws, N) float32."""
    _, member = np.unique(groups, return_inverse=True)
    size = int(member.max()) + 1
    counts = generator.multinomial(size, np.full(size, 1 / size), size=draws)
    return counts.astype(np.float32)[:, member]


def interval(draws: np.ndarray, axis: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """The 2.5 % and 97.5 % quantiles along ``axis``; NaN draws are left out (all NaN gives NaN)."""
    moved = np.moveaxis(np.asarray(draws, dtype=np.float64), axis, 0)
    flat = np.sort(moved.reshape(moved.shape[0], -1), axis=0)  # NaN sorts to the end
    valid = (~np.isnan(flat)).sum(axis=0)
    bounds = []
    for q in (0.025, 0.975):
        place = q * np.maximum(valid - 1, 0)
        low = np.floor(place).astype(int)
        high = np.minimum(low + 1, np.maximum(valid - 1, 0))
        column = np.arange(flat.shape[1])
        value = flat[low, column] + (place - low) * (flat[high, column] - flat[low, column])
        bounds.append(value.reshape(moved.shape[1:]))
    return bounds[0], bounds[1]


def jackknife_interval(replicates: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """95 % intervals of estimates by the delete-a-group jackknife (Shao & Tu 1995, doi:10.1007/978-1-4612-0795-5).

    Where copies of one group must not be on both sides of a split, a bootstrap would put them there; leaving groups
    out does not.

    Args:
        replicates: (1 + g, ...) the estimate from all groups, then those without one of g blocks of groups.

    Returns:
        Estimate -/+ the 97.5 % point of Student's t (g - 1 degrees of freedom) times the standard error.
    """
    left_out = replicates[1:]
    size = len(left_out)
    error = np.sqrt((size - 1) / size * ((left_out - left_out.mean(axis=0)) ** 2).sum(axis=0))
    half = student.ppf(0.975, size - 1) * error
    return replicates[0] - half, replicates[0] + half
