"""Several objectives: which trials no other trial beats in all of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sweeps.ledger import TrialRecord
from sweeps.objectives import ObjectiveSpec


def front(values: ArrayLike, signs: ArrayLike) -> NDArray[np.int64]:
    """Non-dominated sorting (Goldberg 1989): the rank of each row, 0 for the Pareto front.

    A row dominates another if it is nowhere worse and somewhere better. Rank r holds the rows that only rows of ranks
    below r dominate. Equal rows share a rank. Rows with a NaN come last and are never on the front.

    Args:
        values: (N, K), K objectives of N rows.
        signs: (K,), 1 where larger is better, -1 where smaller is.

    Returns:
        (N,) ranks.
    """
    # Adding 0 makes -0.0 equal to 0.0, which are different rows to numpy otherwise.
    scores = np.asarray(values, dtype=float) * np.asarray(signs, dtype=float) + 0.0
    complete = np.flatnonzero(~np.isnan(scores).any(axis=1))
    distinct, which = np.unique(scores[complete], axis=0, return_inverse=True)
    found, rank = np.full(len(distinct), -1), 0
    # From the best in the first objective down: what dominates a row comes before it.
    left = np.arange(len(distinct))[::-1]
    while len(left):
        candidates = left
        while len(candidates):
            best = candidates[0]
            found[best] = rank
            candidates = candidates[(distinct[candidates] > distinct[best]).any(axis=1)]
        left = left[found[left] < 0]
        rank += 1
    ranks = np.full(len(scores), max(rank, 1))
    ranks[complete] = found[which.reshape(-1)]
    return ranks


def front_members(trials: Sequence[TrialRecord], objectives: Sequence[ObjectiveSpec]) -> set[str]:
    """Trial ids on the Pareto front of the finished trials, each judged by one set of weights: its best by the first
    objective."""
    finished = [trial for trial in trials if trial.state == "finished"]
    values = [trial.values(objectives) for trial in finished]
    table = np.array([(None,) * len(objectives) if row is None else row for row in values], dtype=float)
    ranks = front(table.reshape(-1, len(objectives)), [objective.sign for objective in objectives])
    return {trial.trial_id for trial, rank in zip(finished, ranks, strict=True) if rank == 0}
