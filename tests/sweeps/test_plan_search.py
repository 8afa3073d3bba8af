"""The search as a plan plays it: known answers of early stopping, without training."""

from __future__ import annotations

import numpy as np
import pytest

from sweeps.planning.costs import Cost, Costs
from sweeps.planning.fates import Fates, course, play
from sweeps.planning.variants import FAR_APART, Variant, spread_out, variants_of
from tests.fixtures.sweeps import small_sweep

COST = Cost(start=2.0, step=0.1, evaluation=0.5, save=0.25, finish=3.0, checkpoint_bytes=1000.0)
TO_END = 2.0 + 40 * 0.1 + 4 * 0.75 + 3.0
"""Of a small trial: 40 steps, evaluated every 10."""


def played(at_once: int = 1, gap: float = 0.0, cost: Cost = COST, **changes) -> Fates:
    spec = small_sweep(**changes)
    return play(spec, [(spec.trial, cost)], at_once, gap)


def unstopped(**changes) -> dict:
    return {"search.scheduler": {"kind": "none"}, **changes}


def test_a_course_meets_rungs_at_the_evaluations_after_them():
    trial = small_sweep().trial
    found = course(trial, COST, [1, 10, 15, 40, 41])
    assert [step for step, _ in found.rungs] == [10, 10, 20]
    assert found.rungs[0][1] == pytest.approx(2.0 + 1.0 + 0.75)
    assert found.rungs[2][1] == pytest.approx(2.0 + 2.0 + 1.5)
    assert (found.seconds, found.steps) == (pytest.approx(TO_END), 40)


@pytest.mark.parametrize(("trials", "at_once", "rounds"), [(5, 1, 5), (5, 2, 3), (6, 2, 3), (5, 9, 1)])
def test_without_early_stopping_the_time_is_exact(trials, at_once, rounds):
    fates = played(at_once, gap=0.5, **unstopped(**{"search.trials": trials}))
    np.testing.assert_allclose(fates.seconds, rounds * (TO_END + 0.5))
    np.testing.assert_array_equal(fates.steps, 40)
    np.testing.assert_array_equal(fates.saved, 0)


def test_a_very_long_search_grows_in_proportion():
    fates = played(2, **unstopped(**{"search.trials": 100_000}))
    np.testing.assert_allclose(fates.seconds, 50_000 * TO_END)


def test_batches_wait_for_their_slowest():
    tpe = {"search.sampler": {"kind": "tpe", "synchronous": True, "batch": 3}, "search.trials": 6}
    np.testing.assert_allclose(played(2, **unstopped(**tpe)).seconds, 4 * TO_END)
    free = {"search.sampler": {"kind": "tpe"}, "search.trials": 6}
    np.testing.assert_allclose(played(2, **unstopped(**free)).seconds, 3 * TO_END)


def test_one_in_many_goes_on_only_as_the_best_so_far():
    """With a reduction of at least the number of trials, the expected number that go on is the harmonic number."""
    asha = {"kind": "asha", "grace": 20, "reduction": 12}
    steps = played(**{"search.scheduler": asha, "search.trials": 12}).steps
    passed = (steps * 12 - 12 * 20) / 20
    assert np.all((passed >= 1) & (passed <= 12))
    expected = sum(1 / n for n in range(1, 13))
    spread = np.sqrt(sum(1 / n * (1 - 1 / n) for n in range(1, 13)))
    assert abs(passed.mean() - expected) < 4 * spread / np.sqrt(len(passed))


def test_every_second_goes_on_with_a_reduction_of_two():
    """The n-th trial at the rung goes on if it is among the best n // 2, at least one: chance max(1, n // 2) / n."""
    asha = {"kind": "asha", "grace": 20, "reduction": 2}
    passed = played(**{"search.scheduler": asha, "search.trials": 9}).steps * 9 / 20 - 9
    chances = np.array([max(1, n // 2) / n for n in range(1, 10)])
    spread = np.sqrt(np.sum(chances * (1 - chances)))
    assert abs(passed.mean() - chances.sum()) < 4 * spread / np.sqrt(len(passed))


def test_harder_stopping_saves_more():
    saved = [
        played(**{"search.scheduler": {"kind": "asha", "grace": 10, "reduction": r}, "search.trials": 30}).saved.mean()
        for r in (4, 6, 10)  # one rung each
    ]
    assert 0 < saved[0] < saved[1] < saved[2] < 1 - (2.0 + 1.0 + 0.75) / TO_END


def test_more_at_once_is_faster_and_never_below_one_trial():
    walls = [played(n, **{"search.trials": 12}).seconds.mean() for n in (1, 2, 4, 12, 40)]
    assert walls == sorted(walls, reverse=True)
    assert walls[0] > 1.5 * walls[1] > 1.5**2 * walls[2]
    assert walls[-1] == walls[-2] >= TO_END


def test_it_says_the_same_twice():
    np.testing.assert_array_equal(played(2).seconds, played(2).seconds)


def test_a_space_of_cells_ends_the_search():
    cells = {"model.cell": {"choice": ["vanilla", "gru"]}}
    assert small_sweep(**{"search.space": cells, "search.trials": 9}).search.most_trials == 2
    assert small_sweep(**{"search.trials": 9}).search.most_trials == 9


SIZES = {"model.cell": {"choice": ["vanilla", "gru"]}, "model.hidden_size": {"choice": [8, 16, 512]}}


def test_each_family_is_probed_at_its_ends_and_between_if_they_are_far_apart():
    chosen = variants_of(small_sweep(**{"search.space": SIZES, "search.trials": 4})).to_probe()
    found = {(v.trial.model.model_dump()["cell"], v.trial.model.model_dump()["hidden_size"]) for v in chosen}
    assert found == {(cell, size) for cell in ("vanilla", "gru") for size in (8, 16, 512)}
    near = {**SIZES, "model.hidden_size": {"choice": [8, 9, 10]}}
    chosen = variants_of(small_sweep(**{"search.space": near, "search.trials": 4})).to_probe()
    assert {v.trial.model.model_dump()["hidden_size"] for v in chosen} == {8, 10}
    assert max(v.work for v in chosen) < FAR_APART * min(v.work for v in chosen)


def test_what_costs_nothing_is_probed_once():
    rates = {"training.optimizer.lr": {"loguniform": [1e-4, 1e-2]}}
    assert len(variants_of(small_sweep(**{"search.space": rates})).to_probe()) == 1


def test_longer_trials_and_larger_batches_are_more_work():
    space = {"training.batch_size": {"choice": [8, 16]}, "task.steps": {"choice": [3, 6]}}
    drawn = variants_of(small_sweep(**{"search.space": space, "search.trials": 4})).drawn
    work = {(v.trial.training.batch_size, v.trial.task.model_dump()["steps"]): v.work for v in drawn}
    assert work[16, 6] == 2 * work[8, 6] == 2 * work[16, 3] == 4 * work[8, 3]


def test_variants_are_the_same_every_time():
    spec = small_sweep()
    assert [v.trial for v in variants_of(spec).drawn] == [v.trial for v in variants_of(spec).drawn]
    assert variants_of(spec).parameters()[0] < variants_of(spec).parameters()[1]


def test_spread_out_takes_even_ranks():
    variants = variants_of(small_sweep(**{"search.space": SIZES, "search.trials": 4})).drawn
    works = sorted(v.work for v in variants)
    assert spread_out(variants, 1)[0].work == works[len(works) // 2]
    assert [v.work for v in spread_out(variants, 2)] == [works[len(works) // 4], works[3 * len(works) // 4]]


def at(cost: Cost, **changes: float) -> Cost:
    return Cost(**{**vars(cost), **changes})


class TestCosts:
    def variant(self, hidden: int, family: str = "gru") -> Variant:
        return Variant(small_sweep().trial, (("model.cell", family),), parameters=hidden, length=1)

    def test_a_line_between_what_was_measured_and_level_beyond(self):
        costs = Costs([(self.variant(300), at(COST, step=0.3)), (self.variant(100), at(COST, step=0.1))])
        for parameters, step in ((100, 0.1), (300, 0.3), (150, 0.15), (50, 0.1), (900, 0.3)):
            found = costs.of(self.variant(parameters))
            assert found.step == pytest.approx(step)
            assert at(found, step=0.1) == COST

    def test_families_do_not_mix_and_an_unknown_one_is_their_mean(self):
        costs = Costs([(self.variant(100, "gru"), at(COST, step=0.2)), (self.variant(100, "lstm"), at(COST, step=0.6))])
        assert costs.of(self.variant(500, "gru")).step == pytest.approx(0.2)
        assert costs.of(self.variant(500, "lstm")).step == pytest.approx(0.6)
        assert costs.of(self.variant(500, "vanilla")).step == pytest.approx(0.4)
