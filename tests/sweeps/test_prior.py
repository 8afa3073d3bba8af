"""Warm starts: what is tried first, and what an earlier sweep teaches the sampler."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import optuna
import pytest
import yaml
from optuna.trial import TrialState

from sweeps.bookkeeper import Bookkeeper
from sweeps.export import export_optuna
from sweeps.ledger import Ledger
from sweeps.loading import load_sweep
from sweeps.prior import first_points, known_trials, read_prior
from sweeps.search import TRIAL_ID, rebuilt
from tests.fixtures.sweeps import SMALL, new_folder, small_sweep, train
from wmcore.errors import InputError

BASE: dict[str, Any] = {"search.scheduler": {"kind": "none"}, "search.trials": 6}


def new_book(storage: Path, **changes: Any) -> Bookkeeper:
    spec = small_sweep(**{**BASE, **changes})
    folder = new_folder(spec, storage)
    book = Bookkeeper(spec, folder, storage / "stimuli", [])
    if (prior := read_prior(spec)) is not None:
        book.ledger.append("warmed", **prior)
        book = Bookkeeper(spec, folder, storage / "stimuli", [])
    return book


@pytest.fixture
def earlier(tmp_path: Path) -> Bookkeeper:
    """Twelve random trials: the nearer the learning rate is to 0.01, the better; one failed, one is pending."""
    changes = {"search.sampler": {"kind": "random", "seed": 7}, "search.trials": 14}
    book = new_book(tmp_path / "earlier", **changes)
    ids = [config["trial_id"] for config in iter(book.next_trial, None)]
    for trial_id in ids[:12]:
        lr = book.ledger.trials[trial_id].point["training.optimizer.lr"]
        train(book, trial_id, [0.9 - 20 * abs(lr - 0.01)] * 4)
    book.failed(ids[12], "broke")
    return book


@pytest.mark.parametrize("kind", ["tpe", "random", "sobol", "nsga2"])
def test_listed_points_are_tried_first_and_completed_at_random(tmp_path, kind):
    points = [{"model.cell": "gru", "training.optimizer.lr": 0.02}, {"model.cell": "vanilla"}]
    changes = {"search.sampler": {"kind": kind, "seed": 1}, "search.warm_start": {"points": points}}
    book = new_book(tmp_path / "a", **changes)
    while book.next_trial() is not None:
        pass
    tried = [trial.point for trial in book.ledger.in_order()]
    assert tried[0] == points[0]
    assert tried[1]["model.cell"] == "vanilla"
    assert 1e-4 <= tried[1]["training.optimizer.lr"] <= 3e-2
    assert len(tried) == 6
    # The same again, and after a restart in the middle of them.
    again = new_book(tmp_path / "b", **changes)
    again.next_trial()
    again = Bookkeeper(again.spec, again.folder, again.stimuli, [])
    while again.next_trial() is not None:
        pass
    assert [trial.point for trial in again.ledger.in_order()] == tried


def test_a_point_listed_twice_or_known_is_one_trial(tmp_path):
    points = [{"model.cell": "gru", "training.optimizer.lr": 0.02}]
    book = new_book(tmp_path, **{"search.warm_start": {"points": points}})
    first = book.next_trial()
    assert first is not None
    again = Bookkeeper(book.spec, book.folder, book.stimuli, [])
    ids = [config["trial_id"] for config in iter(again.next_trial, None)]
    assert len(ids) == len(set(ids)) == 6


def test_an_earlier_sweep_informs_the_sampler(tmp_path, earlier):
    """After its random start TPE looks where the earlier sweep did well; without it it knows nothing."""
    sampler = {"kind": "tpe", "seed": 2, "startup_trials": 6}
    warm = new_book(
        tmp_path / "warm", **{"search.sampler": sampler, "search.warm_start": {"sweep": str(earlier.folder)}}
    )
    cold = new_book(tmp_path / "cold", **{"search.sampler": sampler})
    distance = {}
    for name, book in (("warm", warm), ("cold", cold)):
        points = [book.ledger.trials[c["trial_id"]].point for c in iter(book.next_trial, None)]
        distance[name] = sum(abs(point["training.optimizer.lr"] - 0.01) for point in points)
    assert distance["warm"] < 0.8 * distance["cold"]
    states = [t.state for t in warm.study.study.trials]
    assert states.count(TrialState.COMPLETE) == 12
    assert states.count(TrialState.FAIL) == 1
    assert states.count(TrialState.RUNNING) == 6
    # They count for nothing else.
    assert warm.ledger.counts()["planned"] == 6


def test_what_is_known_stays_known_without_the_earlier_sweep(tmp_path, earlier):
    book = new_book(tmp_path / "warm", **{"search.warm_start": {"sweep": str(earlier.folder), "best": 2}})
    first = first_points(book.spec.search, book.ledger.warm)
    earlier.ledger.path.unlink()
    again = Bookkeeper(book.spec, book.folder, book.stimuli, [])
    assert first_points(again.spec.search, again.ledger.warm) == first
    assert len(known_trials(again.ledger.warm)) == 13


def test_the_best_of_an_earlier_sweep_are_tried_first(tmp_path, earlier):
    listed = {"model.cell": "gru", "training.optimizer.lr": 0.029}
    changes = {"search.warm_start": {"sweep": str(earlier.folder), "best": 2, "points": [listed]}}
    book = new_book(tmp_path / "warm", **changes)
    for _ in range(3):
        book.next_trial()
    ranked = sorted(earlier.ledger.in_order()[:12], key=lambda t: abs(t.point["training.optimizer.lr"] - 0.01))
    assert [t.point for t in book.ledger.in_order()] == [listed, *(t.point for t in ranked[:2])]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"search.objective.mode": "min"}, "same objective"),
        ({"trial.training.steps": 50}, "trial.training.steps: 40 -> 50"),
        ({"trial.task.n": [2]}, "trial.task.n: [1] -> [2]"),
        ({"trial.training.batch_size": 64, "trial.model.hidden_size": 4}, "trial.model.hidden_size: 16 -> 4; trial.tr"),
        ({"search.space": {"model.hidden_size": {"int": [8, 9]}}}, "no ended trial"),
    ],
)
def test_a_sweep_that_cannot_teach_is_refused(tmp_path, earlier, change, says):
    with pytest.raises(InputError) as caught:
        new_book(tmp_path / "warm", **{"search.warm_start": {"sweep": str(earlier.folder)}, **change})
    assert caught.value.where == "search.warm_start.sweep"
    assert says in str(caught.value)
    assert str(earlier.folder) in str(caught.value)


NUMBERS = {"training.optimizer.lr": {"loguniform": [1.0e-4, 3.0e-2]}, "model.hidden_size": {"int": [8, 32]}}


def points_in(book: Bookkeeper, trials: list[optuna.trial.FrozenTrial]) -> dict[str, dict[str, Any]]:
    return {trial.user_attrs[TRIAL_ID]: book.spec.search.space.decode(trial.params) for trial in trials}


@pytest.mark.parametrize("kind", ["cmaes", "nsga2", "tpe"])
def test_a_warm_study_is_rebuilt_and_exported_as_it_was(tmp_path, kind):
    """Optuna seeds the suggestions of cmaes by the number of its entries, so that none may be left out."""
    random = {"search.space": NUMBERS, "search.sampler": {"kind": "random", "seed": 7}}
    earlier = new_book(tmp_path / "earlier", **random)
    for config in iter(earlier.next_trial, None):
        train(earlier, config["trial_id"], [0.6] * 4)
    sampler = {"kind": kind, "seed": 2, **({} if kind == "tpe" else {"population": 4})}
    warm = {"search.warm_start": {"sweep": str(earlier.folder), "best": 2}}
    book = new_book(
        tmp_path / "warm", **{"search.space": NUMBERS, "search.sampler": sampler, "search.trials": 14}, **warm
    )
    for number, config in enumerate(iter(book.next_trial, None)):
        train(book, config["trial_id"], [0.5 + 0.02 * (7 * number % 11)] * 4)
    ledger = Ledger(book.ledger.path)
    points = {trial.trial_id: trial.point for trial in ledger.in_order()}
    assert points_in(book, rebuilt(book.spec.search, ledger).own_trials()) == points
    assert export_optuna(book.spec, ledger, tmp_path / "study.db") == 14
    exported = optuna.load_study(study_name=book.spec.name, storage=f"sqlite:///{tmp_path / 'study.db'}")
    assert points_in(book, exported.trials) == points


def test_a_listed_point_that_was_known_leaves_nothing_in_the_study(tmp_path):
    """With this seed the second point is completed to the first."""
    space = {"model.hidden_size": {"int": [8, 20]}, "training.batch_size": {"int": [4, 6]}}
    points = [{"model.hidden_size": 8, "training.batch_size": 4}, {"model.hidden_size": 8}]
    changes = {"search.space": space, "search.trials": 14, "search.warm_start": {"points": points}}
    book = new_book(tmp_path, **changes, **{"search.sampler": {"kind": "cmaes", "seed": 2, "population": 4}})
    assert first_points(book.spec.search, ())[1] == points[0]
    for number, config in enumerate(iter(book.next_trial, None)):
        train(book, config["trial_id"], [0.5 + 0.02 * (7 * number % 11)] * 4)
    again = rebuilt(book.spec.search, Ledger(book.ledger.path)).study.trials
    assert [trial.params for trial in again] == [trial.params for trial in book.study.study.trials]


def test_more_best_points_than_there_are_are_refused(tmp_path, earlier):
    warm = {"sweep": str(earlier.folder), "best": 13}
    with pytest.raises(InputError, match="must be at most 12") as caught:
        new_book(tmp_path / "warm", **{"search.trials": 20, "search.warm_start": warm})
    assert (caught.value.where, caught.value.value) == ("search.warm_start.best", 13)


def test_other_values_where_both_search_and_other_seeds_are_no_obstacle(tmp_path):
    """What the trial itself names counts for nothing where every variant has its own."""
    space = {"training.steps": {"choice": [20, 40]}, "training.optimizer.lr": {"loguniform": [1.0e-4, 3.0e-2]}}
    earlier = new_book(tmp_path / "earlier", **{"search.space": space})
    for config in iter(earlier.next_trial, None):
        train(earlier, config["trial_id"], [0.6] * 4)
    changes = {"search.space": space, "trial.training.steps": 80, "trial.seed": 9, "trial.replicates": 2}
    book = new_book(tmp_path / "warm", **changes, **{"search.warm_start": {"sweep": str(earlier.folder)}})
    assert len(known_trials(book.ledger.warm)) == 6


def test_a_sweep_that_has_begun_is_loaded_without_the_earlier_one(tmp_path, earlier):
    """``wmsweep run`` goes on with it, as ``resume`` does."""
    data = yaml.safe_load(SMALL)
    data["search"] |= {"scheduler": {"kind": "none"}, "warm_start": {"sweep": str(earlier.folder), "best": 1}}
    file, storage = tmp_path / "warm.yaml", tmp_path / "warm"
    file.write_text(yaml.safe_dump(data))
    spec = load_sweep(file, storage=storage)
    with pytest.raises(InputError) as caught:
        load_sweep(file, ["search.warm_start.best=13", "search.trials=20"])
    assert str(caught.value).startswith("--set: search.warm_start.best is 13, but it must be at most 12")
    ledger = Ledger(new_folder(spec, storage) / "ledger.jsonl")
    shutil.move(earlier.folder, tmp_path / "gone")
    with pytest.raises(InputError, match="must be the folder of an earlier sweep"):
        load_sweep(file, storage=storage)
    ledger.append("planned", number=0, trial_id="t", point={})
    assert load_sweep(file, storage=storage) == spec
    with pytest.raises(InputError, match="must be the folder of an earlier sweep"):
        load_sweep(file)
