"""Several objectives: what Optuna is told, and what a trial needs to count."""

from __future__ import annotations

import math
import statistics
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import TrialState

from sweeps.bookkeeper import Bookkeeper
from sweeps.ledger import Ledger
from sweeps.search import Study
from tests.fixtures.sweeps import evaluation, final, new_folder, small_sweep

OBJECTIVES = [{"metric": "select/accuracy"}, {"metric": "select/accuracy_lures", "mode": "min"}]


def new_book(folder: Path, **changes: Any) -> Bookkeeper:
    base = {"search.objective": OBJECTIVES, "search.scheduler": {"kind": "none"}, "search.trials": 30}
    spec = small_sweep(**{**base, "search.sampler": {"kind": "nsga2", "seed": 1, "population": 6}, **changes})
    return Bookkeeper(spec, new_folder(spec, folder), folder / "stimuli", [])


def train(book: Bookkeeper, trial_id: str, pairs: list[tuple[float, float]]) -> None:
    for i, (accuracy, alarms) in enumerate(pairs, start=1):
        shown = evaluation(10 * i, accuracy, **{"select/accuracy_lures": alarms})
        result = {"evaluation": shown, "done": i == len(pairs), "notes": [], "seconds": 1.0, "final": final(accuracy)}
        assert not book.decide(trial_id, shown)
        book.reported(trial_id, result)


def test_optuna_holds_the_values_of_one_set_of_weights(tmp_path):
    """The report that is best by the first objective, and not the best of each."""
    book = new_book(tmp_path)
    trial_id = book.next_trial()["trial_id"]
    train(book, trial_id, [(0.6, 0.1), (0.9, 0.4), (0.8, 0.2), (0.7, 0.05)])
    assert book.study.study.trials[0].values == [0.9, 0.4]
    assert [d.name for d in book.study.study.directions] == ["MAXIMIZE", "MINIMIZE"]
    assert book.ledger.trials[trial_id].values(book.spec.search.objectives) == (0.9, 0.4)
    rebuilt = Study(book.spec.search, Ledger(book.ledger.path).in_order())
    assert rebuilt.study.trials[0].values == [0.9, 0.4]


@pytest.mark.parametrize("sampler", [{"kind": "tpe", "seed": 1}, {"kind": "nsga2", "seed": 1}])
def test_a_missing_objective_fails_the_trial(tmp_path, sampler):
    book = new_book(tmp_path, **{"search.sampler": sampler})
    trial_id = book.next_trial()["trial_id"]
    train(book, trial_id, [(0.6, 0.1), (0.9, math.nan), (0.8, 0.2), (0.7, 0.05)])
    record = book.ledger.trials[trial_id]
    assert (record.state, record.reason) == ("failed", "select/accuracy_lures was not a number at the best evaluation")
    assert book.study.study.trials[0].state is TrialState.FAIL


@pytest.mark.parametrize("kind", ["tpe", "nsga2"])
def test_a_search_moves_towards_the_front(tmp_path, kind):
    """Both objectives get better with the learning rate up to 0.02; the cell trades one against the other."""
    sampler = {"kind": kind, "seed": 1, **({"population": 10} if kind == "nsga2" else {})}
    book = new_book(tmp_path, **{"search.sampler": sampler, "search.trials": 100})
    while (config := book.next_trial()) is not None:
        point = book.ledger.trials[config["trial_id"]].point
        far = abs(math.log(point["training.optimizer.lr"] / 0.02)) / 10
        gru = point["model.cell"] == "gru"
        train(book, config["trial_id"], [(0.9 - far - 0.1 * gru, 0.1 + far - 0.05 * gru)] * 4)
    fars = [abs(math.log(t.point["training.optimizer.lr"] / 0.02)) for t in book.ledger.in_order()]
    assert statistics.median(fars[-40:]) < statistics.median(fars[:20])
    # The best trial of each cell is on the front.
    front = {t.user_attrs["trial_id"] for t in book.study.study.best_trials}
    for cell in ("gru", "vanilla"):
        mine = [t for t in book.ledger.in_order() if t.point["model.cell"] == cell]
        best = min(mine, key=lambda t: abs(math.log(t.point["training.optimizer.lr"] / 0.02)))
        assert best.trial_id in front
