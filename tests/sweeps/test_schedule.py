"""Asynchronous successive halving: known answers, and a replay that gives the same rungs."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sweeps.ledger import TrialRecord
from sweeps.objectives import ObjectiveSpec
from sweeps.schedule import Asha, AshaSpec, NeverStop, NoSchedulerSpec, replay, score, stopping_rule

EVERY, STEPS = 10, 100
VALUES = st.one_of(st.sampled_from([0.1, 0.5, 0.9, math.nan]), st.floats(0, 1))


def play(rule: Asha, curves: list[list[float]], turns: list[int]) -> list[TrialRecord]:
    """Trains trials in lockstep order of ``turns`` under a rule, as the bookkeeper does; their ledger records."""
    trials = [TrialRecord(i, f"t{i}", {}) for i in range(len(curves))]
    for turn in turns:
        trial = trials[turn % len(trials)]
        if trial.ended:
            continue
        step = trial.step + EVERY
        value = curves[trial.number][step // EVERY - 1]
        # Tune does not ask the scheduler about a last result.
        stopped = step < STEPS and rule.stops(trial.trial_id, step, value)
        trial.reports[step] = {"select/a": None if math.isnan(value) else value, "train/loss": 1.0}
        trial.replicates[step] = [trial.reports[step]["select/a"]]
        trial.step = step
        trial.state = "pruned" if stopped else "finished" if step == STEPS else "running"
    return trials


def test_rungs_lie_at_powers_of_the_reduction_below_the_full_budget():
    assert sorted(Asha(10, 3, 100, "max").rungs) == [10, 30, 90]
    assert sorted(Asha(10, 3, 90, "max").rungs) == [10, 30]
    assert sorted(Asha(50, 2, 60, "max").rungs) == [50]
    assert Asha(10, 3, 10, "max").rungs == {}


def test_known_answers_in_order_of_arrival():
    rule = Asha(10, 2, 40, "max")
    # One of one goes on; one of two; one of three; two of four ...
    arrivals = [(0.5, False), (0.4, True), (0.6, False), (0.55, False), (0.52, True), (0.58, False), (0.1, True)]
    assert [rule.stops(f"t{i}", 10, value) for i, (value, _) in enumerate(arrivals)] == [stop for _, stop in arrivals]
    # The next rung knows nothing of the first one.
    assert [rule.stops(name, 20, value) for name, value in (("t0", 0.1), ("t2", 0.7), ("t3", 0.6))] == [
        False,
        False,
        True,
    ]
    assert {step: len(rung) for step, rung in rule.rungs.items()} == {10: 7, 20: 3}


def test_the_order_of_arrival_decides():
    good_first, bad_first = Asha(10, 2, 40, "max"), Asha(10, 2, 40, "max")
    assert [good_first.stops(n, 10, v) for n, v in (("good", 0.9), ("bad", 0.1))] == [False, True]
    assert [bad_first.stops(n, 10, v) for n, v in (("bad", 0.1), ("good", 0.9))] == [False, False]
    assert good_first.rungs == bad_first.rungs


def test_a_third_goes_on():
    rule = Asha(10, 3, 40, "max")
    # Rising values: each newcomer is the best so far. Then 7, 8 and 9 values hold 2, 2 and 3 places.
    assert not any(rule.stops(f"up{i}", 10, i / 10) for i in range(6))
    assert [rule.stops(f"down{i}", 10, 0.5 - i / 100) for i in range(3)] == [False, True, True]


def test_less_is_better_in_min_mode():
    rule = Asha(10, 2, 40, "min")
    assert [rule.stops(n, 10, v) for n, v in (("a", 0.5), ("b", 0.6), ("c", 0.4))] == [False, True, False]


@pytest.mark.parametrize("mode", ["max", "min"])
def test_nan_is_worse_than_every_number(mode):
    rule = Asha(10, 2, 40, mode)
    assert not rule.stops("first", 10, math.nan)  # nothing is better
    assert not rule.stops("a", 10, 0.5)
    assert rule.stops("b", 10, math.nan)


def test_equal_values_go_on_together():
    rule = Asha(10, 2, 40, "max")
    assert not any(rule.stops(f"t{i}", 10, 0.5) for i in range(5))


def test_a_rung_takes_the_first_report_and_asks_once():
    rule = Asha(20, 2, 100, "max")
    rule.stops("best", 20, 0.9)
    assert not rule.stops("late", 10, 0.0)
    assert rule.stops("late", 30, 0.1)  # its first report at or after step 20
    assert not rule.stops("late", 30, 0.1)  # a report that is made again is not judged again
    assert rule.rungs[20] == {"best": 0.9, "late": 0.1}


def test_the_full_budget_is_never_judged():
    rule = Asha(10, 3, 40, "max")
    rule.stops("best", 10, 0.9)
    rule.stops("best", 30, 0.9)
    assert not rule.stops("leaps", 40, 0.0)
    assert not rule.stops("leaps", 50, 0.0)
    assert rule.rungs == {10: {"best": 0.9}, 30: {"best": 0.9}}


def test_no_rule_stops_nothing():
    objective = ObjectiveSpec(metric="select/a", mode="min")
    rule = stopping_rule(NoSchedulerSpec(), objective, 100)
    assert isinstance(rule, NeverStop)
    assert not any(rule.stops("t", step, math.nan) for step in range(200))
    asha = stopping_rule(AshaSpec(grace=20, reduction=2), objective, 100)
    assert isinstance(asha, Asha)
    assert (sorted(asha.rungs), asha.sign) == ([20, 40, 80], -1)


@settings(deadline=None, max_examples=150)
@given(st.data(), st.sampled_from(["max", "min"]), st.sampled_from([10, 20, 50]), st.integers(2, 4))
def test_any_history_obeys_the_rule_and_its_replay_gives_the_same_rungs(data, mode, grace, reduction):
    count = data.draw(st.integers(1, 6))
    curves = data.draw(st.lists(st.lists(VALUES, min_size=10, max_size=10), min_size=count, max_size=count))
    turns = data.draw(st.lists(st.integers(0, count - 1), max_size=60))
    live = Asha(grace, reduction, STEPS, mode)
    trials = play(live, curves, turns)

    for trial in trials:
        if trial.state == "pruned":
            assert trial.step >= grace
            assert trial.step in live.rungs
            assert trial.step < STEPS
    sign = 1 if mode == "max" else -1
    for milestone, rung in live.rungs.items():
        goes_on = {name: held for name, held in rung.items() if not _stopped_at(trials, name, milestone)}
        assert not rung or max(goes_on.values(), default=None) == max(rung.values())
        for name, held in rung.items():
            shown = next(t for t in trials if t.trial_id == name).reports[milestone]["select/a"]
            assert held == (-math.inf if shown is None else sign * shown)

    again = Asha(grace, reduction, STEPS, mode)
    replay(again, trials, NoSchedulerSpec(), ObjectiveSpec(metric="select/a"))
    assert again.rungs == live.rungs
    # And so the same decisions from here on.
    assert again.stops("new", grace, 0.5) == live.stops("new", grace, 0.5)


def _stopped_at(trials: list[TrialRecord], name: str, step: int) -> bool:
    trial = next(t for t in trials if t.trial_id == name)
    return trial.state == "pruned" and trial.step == step


def test_a_diverged_report_was_never_judged_and_is_not_replayed():
    """The bookkeeper ends a trial that has diverged without asking the rule."""
    diverged = TrialRecord(0, "t", {}, state="failed", step=10, divergence={"nonfinite_loss": 1})
    diverged.replicates[10] = [0.9]
    rule = Asha(10, 2, 40, "max")
    replay(rule, [diverged], NoSchedulerSpec(), ObjectiveSpec(metric="select/a"))
    assert rule.rungs == {10: {}, 20: {}}


class TestScore:
    """What of a variant's replicates is judged."""

    VALUES = (0.6, 0.7, 0.8)
    BOUND = AshaSpec(grace=10, judge_by="lower_bound", confidence=0.9)

    def test_the_mean(self):
        for spec in (NoSchedulerSpec(), AshaSpec(grace=10)):
            assert score(spec, ObjectiveSpec(metric="select/a"), self.VALUES) == pytest.approx(0.7)

    @pytest.mark.parametrize(("mode", "sign"), [("max", -1), ("min", 1)])
    def test_the_pessimistic_end_of_the_interval(self, mode, sign):
        # Student's t with 2 degrees of freedom at 0.9 is 1.8856; the standard error is 0.1 / sqrt(3).
        half = 1.885618 * 0.1 / math.sqrt(3)
        found = score(self.BOUND, ObjectiveSpec(metric="select/a", mode=mode), self.VALUES)
        assert found == pytest.approx(0.7 + sign * half, rel=1e-6)

    def test_a_replicate_without_a_value_makes_the_score_nan(self):
        for spec in (AshaSpec(grace=10), self.BOUND):
            assert math.isnan(score(spec, ObjectiveSpec(metric="select/a"), (0.6, None, 0.8)))

    def test_one_lucky_seed_is_stopped_by_the_bound_and_not_by_the_mean(self):
        objective = ObjectiveSpec(metric="select/a")
        even, lucky = (0.70, 0.71, 0.72), (0.5, 0.6, 1.1)
        for spec, stopped in ((AshaSpec(grace=10), False), (self.BOUND, True)):
            rule = Asha(10, 3, 40, "max")
            assert not rule.stops("even", 10, score(spec, objective, even))
            assert rule.stops("lucky", 10, score(spec, objective, lucky)) is stopped

    def test_a_replay_judges_by_the_bound_too(self):
        trial = TrialRecord(0, "t", {}, replicates={10: list(self.VALUES)}, step=10)
        rule, objective = Asha(10, 3, 40, "max"), ObjectiveSpec(metric="select/a")
        replay(rule, [trial], self.BOUND, objective)
        assert rule.rungs[10] == {"t": score(self.BOUND, objective, self.VALUES)}
