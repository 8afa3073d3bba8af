"""Pareto fronts: known answers, ties, what is not a number, and the definition itself."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sweeps.ledger import TrialRecord
from sweeps.objectives import ObjectiveSpec
from sweeps.pareto import front, front_members

A, B = ObjectiveSpec(metric="select/a"), ObjectiveSpec(metric="select/b", mode="min")


@pytest.mark.parametrize(
    ("values", "signs", "ranks"),
    [
        ([[1, 1], [2, 2], [3, 3]], [1, 1], [2, 1, 0]),
        ([[1, 1], [2, 2], [3, 3]], [-1, -1], [0, 1, 2]),
        ([[1, 3], [2, 2], [3, 1], [1, 2], [2, 1], [1, 1]], [1, 1], [0, 0, 0, 1, 1, 2]),
        ([[1, 3], [2, 2], [3, 1]], [1, -1], [2, 1, 0]),
        ([[1, 1], [1, 1], [1, 0], [1, 0]], [1, 1], [0, 0, 1, 1]),  # equal rows; better in one, equal in the other
        ([[0.0, 1], [-0.0, 1], [0.0, 0]], [1, 1], [0, 0, 1]),
        ([[math.nan, 9], [1, 1], [0, 0], [9, math.nan]], [1, 1], [2, 0, 1, 2]),
        ([[math.inf, 0], [0, math.inf], [1, 1], [-math.inf, 1]], [1, 1], [0, 0, 0, 1]),
        ([[3], [1], [3], [2]], [1], [0, 2, 0, 1]),
        ([[1, 0, 0], [0, 1, 0], [0, 0, 1], [0, 0, 0]], [1, 1, 1], [0, 0, 0, 1]),
    ],
)
def test_known_ranks(values, signs, ranks):
    assert front(values, signs).tolist() == ranks


def test_nothing_and_nothing_but_gaps():
    assert front(np.empty((0, 2)), [1, 1]).tolist() == []
    assert front([[math.nan, 1], [1, math.nan]], [1, 1]).tolist() == [1, 1]


@given(st.lists(st.tuples(*[st.integers(0, 4)] * 3), max_size=20))
def test_a_rank_is_the_longest_chain_of_rows_that_dominate(rows):
    signs = (1, -1, 1)

    def dominates(a: tuple[int, ...], b: tuple[int, ...]) -> bool:
        worth = [(s * x, s * y) for s, x, y in zip(signs, a, b, strict=True)]
        return all(x >= y for x, y in worth) and any(x > y for x, y in worth)

    def rank(row: tuple[int, ...]) -> int:
        return max((1 + rank(other) for other in set(rows) if dominates(other, row)), default=0)

    assert front(np.array(rows).reshape(-1, 3), signs).tolist() == [rank(row) for row in rows]


def test_a_trial_counts_with_the_report_that_is_best_by_the_first_objective():
    def record(trial_id: str, state: str, *reports: tuple[float | None, float | None]) -> TrialRecord:
        steps = {10 * i: {"select/a": a, "select/b": b} for i, (a, b) in enumerate(reports, start=1)}
        return TrialRecord(0, trial_id, {}, state=state, reports=steps)  # pyright: ignore[reportArgumentType]

    trials = [
        record("best of both", "finished", (0.5, 0.1), (0.9, 0.3)),
        # Its low second figure belongs to weights that are not kept.
        record("beaten", "finished", (0.1, 0.0), (0.8, 0.4)),
        record("trades", "finished", (0.7, 0.2)),
        record("without the second", "finished", (0.95, None)),
        record("silent", "finished"),
        record("still running", "running", (1.0, 0.0)),
        record("failed", "failed", (1.0, 0.0)),
    ]
    assert front_members(trials, (A, B)) == {"best of both", "trades"}
    assert front_members([], (A, B)) == set()
