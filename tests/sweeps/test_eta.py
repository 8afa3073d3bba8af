"""The time that is left: known answers."""

from __future__ import annotations

from typing import Any

import pytest

from sweeps.eta import seconds_left
from sweeps.ledger import TrialRecord


def trial(state: Any, step: int = 0, seconds: float = 0.0, **more: Any) -> TrialRecord:
    return TrialRecord(0, "", more.pop("point", {}), state=state, step=step, seconds=seconds, **more)


FULL, PRUNED = trial("finished", 100, 50.0), trial("pruned", 20, 10.0)


@pytest.mark.parametrize(
    ("trials", "budget", "at_once", "seconds"),
    [
        # 2 are left, at the mean of 50 and 10 s.
        ([FULL, PRUNED], 4, 1, 60.0),
        ([FULL, PRUNED], 4, 2, 30.0),
        ([FULL, PRUNED], 2, 1, 0.0),
        ([FULL, PRUNED, trial("planned")], 4, 1, 60.0),
        # A running one goes on at its own speed: 75 steps at 1 s; then 1 at 30 s.
        ([FULL, PRUNED, trial("running", 25, 25.0)], 4, 1, 105.0),
        # Before any has ended, those that are running are the measure: 100 steps at 1 s.
        ([trial("running", 25, 25.0)], 3, 1, 75.0 + 200.0),
        # One without a report counts like one that has not begun.
        ([FULL, trial("running")], 2, 1, 50.0),
        # However many could run at once, the last one takes its time.
        ([trial("running", 25, 25.0), trial("running", 75, 75.0)], 2, 2, 75.0),
        ([FULL], 3, 10, 50.0),
        # A reused trial cost nothing and says nothing.
        ([FULL, trial("finished", 100, 0.0, source="earlier")], 3, 1, 50.0),
        ([trial("finished", 100, 0.0, source="earlier")], 3, 1, None),
        ([], 3, 1, None),
        ([trial("running")], 1, 1, None),
        ([trial("failed", 0, 0.0)], 1, 1, 0.0),
        # A trial whose point says how long it is.
        ([trial("running", 25, 25.0, point={"training.steps": 50})], 1, 1, 25.0),
    ],
)
def test_known_answers(trials, budget, at_once, seconds):
    assert seconds_left(trials, budget, 100, at_once) == (None if seconds is None else pytest.approx(seconds))
