"""The Optuna study: what it is told, and that one rebuilt from records goes on as the live one would."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import TrialState

from sweeps.bookkeeper import Bookkeeper
from sweeps.ledger import Ledger, TrialRecord
from sweeps.search import Study
from sweeps.spec import SearchSpec
from tests.fixtures.sweeps import new_folder, report, small_sweep, train

NUMBERS = {
    "training.optimizer.lr": {"loguniform": [1.0e-4, 3.0e-2]},
    "model.hidden_size": {"int": [8, 32]},
    "model.dropout": {"uniform": [0.0, 0.4]},
}
SPACE = {
    "model.cell": {"choice": ["vanilla", "gru"]},
    **NUMBERS,
    "training.optimizer.weight_decay": {"loguniform": [1.0e-5, 1.0e-2], "when": {"model.cell": "gru"}},
}
CELLS = {
    "model.cell": {"choice": ["vanilla", "gru"]},
    "model.hidden_size": {"quantised": [8, 32, 8]},
    "training.batch_size": {"choice": [4, 8, 16], "when": {"model.cell": "gru"}},
}
SAMPLERS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "tpe": ({"kind": "tpe", "seed": 5, "startup_trials": 2}, SPACE),
    "random": ({"kind": "random", "seed": 5}, SPACE),
    "grid": ({"kind": "grid", "seed": 5}, CELLS),
    "sobol": ({"kind": "sobol", "seed": 5}, SPACE),
    "cmaes": ({"kind": "cmaes", "seed": 5, "population": 4}, NUMBERS),
    "nsga2": ({"kind": "nsga2", "seed": 5, "population": 4}, SPACE),
}
"""Each with a space that it takes."""


def search(**changes: Any) -> SearchSpec:
    return small_sweep(**{"search.space": SPACE, **{f"search.{k}": v for k, v in changes.items()}}).search


def new_book(folder: Path, **changes: Any) -> Bookkeeper:
    spec = small_sweep(**{"search.space": SPACE, **changes})
    return Bookkeeper(spec, new_folder(spec, folder), folder / "stimuli", [])


def asked(study: Study, numbers: list[int]) -> list[dict[str, Any]]:
    """The points that a study suggests for these trials, one after the other."""
    points = []
    for number in numbers:
        suggestion = next(study.suggestions(number))
        study.bind(suggestion, f"trial {number}")
        points.append(suggestion.point)
    return points


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
    assert [t.user_attrs.get("reason") for t in (diverged, broken)] == [
        "diverged by step 10: nonfinite_loss in 1 of 1 replicates",
        "the worker died",
    ]
    assert diverged.user_attrs["nonfinite_loss"] == 1
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


@pytest.mark.parametrize("sampler", ["random", "grid", "sobol"])
def test_suggestions_of_a_sequence_depend_on_the_seed_and_the_number_of_trials_alone(sampler):
    spec, space = SAMPLERS[sampler]
    of_seed = {
        seed: asked(Study(search(sampler={**spec, "seed": seed}, space=space, trials=12)), list(range(12)))
        for seed in (5, 6)
    }
    assert len({json.dumps(point) for point in of_seed[5]}) == 12
    assert of_seed[5] != of_seed[6]
    # Outcomes do not matter, and neither does what is still running.
    told = Study(search(sampler=spec, space=space, trials=12))
    for number, point in enumerate(of_seed[5]):
        suggestion = next(told.suggestions(number))
        assert suggestion.point == point
        told.bind(suggestion, f"{number}")
        if number % 3:
            told.tell(TrialRecord(number, f"{number}", point, state="failed", reason="broke"))


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_rebuilt_study_equals_the_live_one_and_goes_on_as_it_would(tmp_path, sampler):
    spec, space = SAMPLERS[sampler]
    book = new_book(
        tmp_path,
        **{
            "search.sampler": spec,
            "search.space": space,
            "search.trials": 16,
            "search.scheduler": {"kind": "asha", "grace": 10, "reduction": 2},
        },
    )
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
    records = Ledger(book.ledger.path).in_order()
    assert {"finished", "pruned", "failed", "planned"} == {t.state for t in records}
    rebuilt = Study(book.spec.search, records)
    assert held(rebuilt) == held(book.study)

    before = {json.dumps(t.point) for t in records}
    live, again = (asked(study, list(range(9, 15))) for study in (book.study, rebuilt))
    assert live == again
    assert not before & {json.dumps(point) for point in again}
    assert len({json.dumps(point) for point in again}) == 6


@pytest.mark.parametrize("sampler", ["cmaes", "nsga2"])
def test_an_evolution_goes_on_where_it_was(tmp_path, sampler):
    """Killed after every trial, it suggests what it would have without: its generations come from the ledger."""

    def climb(folder: Path, killed: bool) -> list[dict[str, Any]]:
        spec = {"kind": sampler, "seed": 2, "population": 6}
        changes = {"search.sampler": spec, "search.space": NUMBERS, "search.trials": 60}
        book = new_book(folder, **{**changes, "search.scheduler": {"kind": "none"}})
        for _ in range(60):
            if killed:
                book = Bookkeeper(book.spec, book.folder, book.stimuli, [])
            trial_id = book.next_trial()["trial_id"]
            train(book, trial_id, [goodness(book.ledger.trials[trial_id].point)] * 4)
        return [trial.point for trial in book.ledger.in_order()]

    def goodness(point: dict[str, Any]) -> float:
        return 1 - abs(math.log(point["training.optimizer.lr"] / 3e-3)) / 10 - abs(point["model.dropout"] - 0.1)

    whole = climb(tmp_path / "whole", killed=False)
    assert climb(tmp_path / "killed", killed=True) == whole
    first, last = ([goodness(point) for point in part] for part in (whole[:12], whole[-12:]))
    assert sum(last) > sum(first)


@pytest.mark.parametrize("sampler", ["tpe", "random", "sobol", "grid", "nsga2"])
def test_a_used_up_space_ends_without_training_anything_twice(tmp_path, sampler):
    spec = SAMPLERS[sampler][0]
    changes = {"search.space": CELLS, "search.sampler": spec, "search.scheduler": {"kind": "none"}}
    book = new_book(tmp_path, **changes, **{"search.trials": 16 if sampler == "grid" else 50})
    ids = []
    while (config := book.next_trial()) is not None:
        ids.append(config["trial_id"])
        train(book, ids[-1], [0.5, 0.6, 0.7, 0.8])
    assert len(ids) == len(set(ids)) == 4 + 4 * 3
    assert book.remaining == 0
    events = [json.loads(line) for line in book.ledger.path.read_text().splitlines()]
    assert [e["event"] for e in events].count("exhausted") == (sampler != "grid")
    assert sampler == "grid" or "16 different trials" in events[-1]["reason"]
    assert book.next_trial() is None
    assert len(book.ledger.path.read_text().splitlines()) == len(events)
    # A driver that starts again knows it, too.
    again = Bookkeeper(book.spec, book.folder, book.stimuli, [])
    assert again.next_trial() is None
    assert again.remaining == 0


def test_different_points_that_make_the_same_trial_are_one_trial(tmp_path):
    """N-back sorts its features, so that both orders are the same variant."""
    space = {"task.features": {"choice": [["location", "category"], ["category", "location"]]}}
    book = new_book(tmp_path, **{"search.space": space, "search.trials": 2, "search.sampler": SAMPLERS["random"][0]})
    first = book.next_trial()
    assert book.next_trial() is None
    assert list(book.ledger.trials) == [first["trial_id"]]
    assert book.ledger.exhausted


@pytest.mark.parametrize("sampler", ["random", "sobol"])
def test_a_resume_anywhere_in_a_small_space_changes_nothing(tmp_path, sampler):
    """Where most suggestions are known already, the sequence gives way to the cells that are left at the same place."""
    changes = {
        "search.space": {"model.hidden_size": {"int": [2, 65]}},
        "search.sampler": {"kind": sampler, "seed": 1},
        "search.trials": 64,
    }
    whole = new_book(tmp_path / "whole", **changes)
    while whole.next_trial() is not None:
        pass
    points = [trial.point for trial in whole.ledger.in_order()]
    assert len(points) == 64
    killed = new_book(tmp_path / "killed", **changes)
    while killed.next_trial() is not None:
        killed = Bookkeeper(killed.spec, killed.folder, killed.stimuli, [])
        for _ in range(len(killed.ledger.trials)):
            killed.next_trial()  # those that are unfinished come first
    assert [trial.point for trial in killed.ledger.in_order()] == points


@pytest.mark.parametrize("sampler", ["cmaes", "nsga2"])
def test_the_ledger_is_right_where_the_sampler_would_suggest_another_point(tmp_path, sampler):
    """As after an update of Optuna."""
    book = new_book(tmp_path, **{"search.sampler": SAMPLERS[sampler][0], "search.space": NUMBERS, "search.trials": 8})
    for config in iter(book.next_trial, None):
        train(book, config["trial_id"], [0.6] * 4)
    records = Ledger(book.ledger.path).in_order()
    records[3].point["model.hidden_size"] = 40 - records[3].point["model.hidden_size"]
    rebuilt = Study(book.spec.search, records)
    assert [rebuilt.space.decode(trial.params) for trial in rebuilt.own_trials()] == [trial.point for trial in records]
