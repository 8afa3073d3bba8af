"""The Optuna study: what it is told, and that one rebuilt from records goes on as the live one would."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import TrialState

from sweeps.bookkeeper import Bookkeeper
from sweeps.ledger import Ledger
from sweeps.search import Study
from sweeps.spec import SearchSpec
from tests.fixtures.sweeps import new_folder, report, small_sweep, train

SAMPLERS = {"tpe": {"kind": "tpe", "seed": 5, "startup_trials": 2}, "random": {"kind": "random", "seed": 5}}
SPACE = {
    "model.cell": {"choice": ["vanilla", "gru"]},
    "training.optimizer.lr": {"loguniform": [1.0e-4, 3.0e-2]},
    "model.hidden_size": {"int": [8, 32]},
    "model.dropout": {"uniform": [0.0, 0.4]},
}


def search(**changes: Any) -> SearchSpec:
    return small_sweep(**{"search.space": SPACE, **{f"search.{k}": v for k, v in changes.items()}}).search


def new_book(folder: Path, **changes: Any) -> Bookkeeper:
    spec = small_sweep(**{"search.space": SPACE, **changes})
    return Bookkeeper(spec, new_folder(spec, folder), folder / "stimuli", [])


def held(study: Study) -> list[tuple]:
    """Everything that Optuna holds, dropped suggestions aside, which belong to no trial."""
    trials = [t for t in study.study.trials if t.state is not TrialState.FAIL or t.intermediate_values]
    return [(t.state, t.params, t.distributions, t.intermediate_values, t.values) for t in trials]


def test_a_live_study_is_told_every_outcome(tmp_path):
    book = new_book(tmp_path, **{"search.trials": 5, "search.scheduler": {"kind": "asha", "grace": 10, "reduction": 2}})
    ids = [book.next_trial()["trial_id"] for _ in range(5)]
    assert train(book, ids[0], [0.6, 0.9, 0.7, 0.8]) == "finished"
    assert train(book, ids[1], [0.7, 0.2]) == "pruned"
    report(book, ids[2], 10, accuracy=0.8, loss=math.nan)
    book.failed(ids[3], "the worker died")

    finished, pruned, diverged, broken, waiting = book.study.study.trials
    assert (finished.state, finished.value) == (TrialState.COMPLETE, 0.9)  # its best report
    assert finished.intermediate_values == {10: 0.6, 20: 0.9, 30: 0.7, 40: 0.8}
    assert pruned.state is TrialState.PRUNED
    assert pruned.intermediate_values == {10: 0.7, 20: 0.2}
    assert diverged.state is TrialState.FAIL
    assert (broken.state, broken.intermediate_values) == (TrialState.FAIL, {})
    assert waiting.state is TrialState.RUNNING
    assert [book.study.search.space.decode(t.params) for t in book.study.study.trials] == [
        book.ledger.trials[i].point for i in ids
    ]
    assert all(t.values is None for t in (diverged, broken, waiting))
    assert book.study.study.best_trial.number == 0


def test_less_is_better_in_min_mode(tmp_path):
    book = new_book(tmp_path, **{"search.objective.mode": "min", "search.scheduler": {"kind": "none"}})
    trial_id = book.next_trial()["trial_id"]
    train(book, trial_id, [0.6, 0.2, 0.7, 0.8])
    assert book.study.study.best_value == 0.2
    assert book.study.study.direction.name == "MINIMIZE"


def test_a_trial_without_one_finite_value_fails_with_a_reason(tmp_path):
    """Optuna has no COMPLETE without a value."""
    book = new_book(tmp_path)
    trial_id = book.next_trial()["trial_id"]
    assert train(book, trial_id, [math.nan] * 4) == "failed"
    assert "select/accuracy" in book.ledger.trials[trial_id].reason
    assert book.study.study.trials[0].state is TrialState.FAIL
    assert Study(book.spec.search, Ledger(book.ledger.path).in_order()).study.trials[0].state is TrialState.FAIL


def test_random_suggestions_are_a_pure_function_of_seed_number_and_attempt():
    def points(study: Study, numbers: list[int], attempt: int = 0) -> dict[int, dict]:
        return {number: study.point(study.ask(number, attempt)) for number in numbers}

    spec = search(sampler=SAMPLERS["random"])
    numbers = list(range(12))
    forwards, backwards = points(Study(spec), numbers), points(Study(spec), numbers[::-1])
    assert forwards == backwards
    for name in SPACE:
        assert len({json.dumps(point[name]) for point in forwards.values()}) > 1
    assert len({p["training.optimizer.lr"] for p in forwards.values()}) == 12
    other_attempt = points(Study(spec), numbers, attempt=1)
    other_seed = points(Study(search(sampler={"kind": "random", "seed": 6})), numbers)
    for number in numbers:
        assert forwards[number] != other_attempt[number]
        assert forwards[number] != other_seed[number]


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_rebuilt_study_equals_the_live_one_and_goes_on_as_it_would(tmp_path, sampler):
    changes = {
        "search.sampler": SAMPLERS[sampler],
        "search.trials": 20,
        "search.scheduler": {"kind": "asha", "grace": 10, "reduction": 2},
    }
    book = new_book(tmp_path, **changes)
    for i in range(9):
        trial_id = book.next_trial()["trial_id"]
        match i:
            case 2:
                book.failed(trial_id, "broke")
            case 3 | 4:
                pass  # waiting
            case 5:
                report(book, trial_id, 10, 0.95)  # running
            case _:
                train(book, trial_id, [0.5 + 0.04 * ((7 * i) % 11), *[0.6 + 0.01 * i] * 3])
    states = [t.state for t in book.ledger.in_order()]
    assert {"finished", "pruned", "failed", "planned", "running"} == {*states, "running"}
    records = Ledger(book.ledger.path).in_order()
    rebuilt = Study(book.spec.search, records)
    assert held(rebuilt) == held(book.study)

    before = {json.dumps(t.point) for t in records}
    live, again = ([s.point(s.ask(number, 0)) for number in range(9, 15)] for s in (book.study, rebuilt))
    assert live == again
    assert not before & {json.dumps(point) for point in again}
    assert len({json.dumps(point) for point in again}) == 6


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_used_up_space_ends_without_training_anything_twice(tmp_path, sampler):
    space = {"model.cell": {"choice": ["vanilla", "gru"]}, "model.hidden_size": {"int": [8, 10]}}
    changes = {
        "search.space": space,
        "search.sampler": SAMPLERS[sampler],
        "search.trials": 50,
        "search.scheduler": {"kind": "none"},
    }
    book = new_book(tmp_path, **changes)
    ids = []
    while (config := book.next_trial()) is not None:
        ids.append(config["trial_id"])
        train(book, ids[-1], [0.5, 0.6, 0.7, 0.8])
    assert len(ids) == len(set(ids)) == 6
    assert book.remaining == 0
    events = [json.loads(line) for line in book.ledger.path.read_text().splitlines()]
    assert [e["event"] for e in events].count("exhausted") == 1
    assert events[-1]["event"] == "exhausted"
    assert "6 different trials" in events[-1]["reason"]
    assert book.next_trial() is None
    assert len(book.ledger.path.read_text().splitlines()) == len(events)
    # A driver that starts again knows it, too.
    again = Bookkeeper(book.spec, book.folder, book.stimuli, [])
    assert again.next_trial() is None
    assert again.remaining == 0


def test_different_points_that_make_the_same_trial_are_one_trial(tmp_path):
    """N-back sorts its features, so that both orders are the same variant."""
    space = {"task.features": {"choice": [["location", "category"], ["category", "location"]]}}
    book = new_book(tmp_path, **{"search.space": space, "search.trials": 2, "search.sampler": SAMPLERS["random"]})
    first = book.next_trial()
    assert book.next_trial() is None
    assert list(book.ledger.trials) == [first["trial_id"]]
    assert book.ledger.exhausted
