"""How long a sweep will still train, from its ledger's records alone."""

from __future__ import annotations

from collections.abc import Sequence

from sweeps.ledger import TrialRecord


def seconds_left(trials: Sequence[TrialRecord], budget: int, steps: int, at_once: int) -> float | None:
    """Estimated wall time until every trial has ended.

    A running trial is expected to go on to its last step at its own speed. One that has not begun, or has not
    reported, is expected to cost what ended trials cost on average, pruned ones included; before any has ended, what
    the running ones cost in full. Reused trials cost nothing and say nothing.

    Args:
        trials: all records.
        budget: trials of the sweep in the end.
        steps: optimiser steps of a whole trial, where its point does not say.
        at_once: trials that run at the same time.

    Returns:
        Seconds; None while nothing is known.
    """
    rests, full, waiting = [], [], max(0, budget - len(trials))
    for trial in trials:
        if trial.state == "running" and trial.seconds and trial.step:
            per_step, whole = trial.seconds / trial.step, trial.point.get("training.steps", steps)
            rests.append(per_step * max(0, whole - trial.step))
            full.append(per_step * whole)
        elif not trial.ended:
            waiting += 1
    costs = [trial.seconds for trial in trials if trial.ended and trial.seconds] or full
    if waiting and not costs:
        return None
    typical = sum(costs) / len(costs) if waiting else 0.0
    # The last trials end one after the other, however many could run.
    longest = max([*rests, typical])
    return max((sum(rests) + waiting * typical) / max(1, at_once), longest)
