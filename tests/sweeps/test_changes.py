"""Changes to a sweep that has run: more trials, failed ones again, and a kill between a report and its stop."""

from __future__ import annotations

import json
import math
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from sweeps import driver
from sweeps.bookkeeper import Bookkeeper
from sweeps.folder import checkpoints_of, open_folder, read_folder
from sweeps.ledger import Ledger
from sweeps.resume import extended, retry_failed
from sweeps.spec import SweepSpec
from sweeps.verify import verify
from tests.fixtures.sweeps import evaluation, new_folder, report, small_sweep, train
from wmcore.errors import InputError

CHANGES: dict[str, Any] = {"search.sampler": {"kind": "random", "seed": 1}, "search.trials": 3}


def new_book(storage: Path, **changes: Any) -> Bookkeeper:
    spec = small_sweep(**{**CHANGES, **changes})
    return Bookkeeper(spec, new_folder(spec, storage), storage / "stimuli", [])


def extend(book: Bookkeeper, more: int) -> SweepSpec:
    """As the driver does once all that can be refused has passed."""
    spec = extended(book.spec, book.ledger, more)
    book.ledger.append("extended", trials=spec.search.budget)
    return spec


def identity(book: Bookkeeper) -> str:
    check = verify(book.spec, book.folder, Ledger(book.ledger.path))[0]
    assert check.holds, check
    return check.figures


def test_an_extended_sweep_goes_on_as_a_longer_one_would(tmp_path):
    book, longer = new_book(tmp_path / "a"), new_book(tmp_path / "b", **{"search.trials": 7})
    for config in iter(book.next_trial, None):
        train(book, config["trial_id"], [0.5] * 4)
    spec = extend(book, 4)
    assert spec.search.budget == 7
    again = Bookkeeper(spec, book.folder, book.stimuli, [])
    assert again.remaining == 4
    for config in iter(again.next_trial, None):
        train(again, config["trial_id"], [0.5] * 4)
    for config in iter(longer.next_trial, None):
        train(longer, config["trial_id"], [0.5] * 4)
    assert list(again.ledger.trials) == list(longer.ledger.trials)
    assert identity(again).startswith("7 = 7 finished")
    # Whoever opens the folder sees the longer sweep, with the spec that it was begun with.
    assert read_folder(book.folder)[0].search.budget == 7
    assert open_folder(book.spec, book.folder.parent)[1].search.budget == 7
    assert extended(spec, Ledger(book.ledger.path), 1).search.budget == 8


def test_a_used_up_space_cannot_be_extended(tmp_path):
    space = {"model.cell": {"choice": ["vanilla", "gru"]}}
    book = new_book(tmp_path, **{"search.space": space})
    while book.next_trial() is not None:
        pass
    assert book.ledger.exhausted
    before = book.ledger.path.read_bytes()
    with pytest.raises(InputError) as caught:
        extended(book.spec, book.ledger, 5)
    assert caught.value.where == "--trials"
    assert "2 different ones" in str(caught.value)
    grid = new_book(
        tmp_path / "grid", **{"search.space": space, "search.sampler": {"kind": "grid"}, "search.trials": 2}
    )
    with pytest.raises(InputError) as caught:
        extended(grid.spec, grid.ledger, 1)
    assert "--trials is 1" in str(caught.value)
    assert "2 different ones" in str(caught.value)
    assert book.ledger.path.read_bytes() == before
    assert Ledger(grid.ledger.path).extended_to is None


@pytest.mark.parametrize("ended_before", [8, 10])
def test_an_extended_sweep_in_batches_does_not_depend_on_when_it_was_extended(tmp_path, ended_before):
    sampler = {"kind": "tpe", "seed": 3, "startup_trials": 3, "synchronous": True, "batch": 4}
    changes = {"search.sampler": sampler, "search.scheduler": {"kind": "none"}, "search.trials": 10}

    def drive(book: Bookkeeper, most: int) -> None:
        while most and (config := book.next_trial()) is not None:
            lr = book.ledger.trials[config["trial_id"]].point["training.optimizer.lr"]
            train(book, config["trial_id"], [0.9 - 10 * abs(lr - 0.01)] * 4)
            most -= 1

    tables = []
    for name, most in (("late", 100), ("early", ended_before)):
        book = new_book(tmp_path / name, **changes)
        drive(book, most)
        again = Bookkeeper(extend(book, 6), book.folder, book.stimuli, [])
        drive(again, 100)
        tables.append(list(again.ledger.trials))
    assert len(tables[0]) == 16
    assert tables[0] == tables[1]


def test_only_failures_are_retried(tmp_path):
    book = new_book(tmp_path, **{"search.scheduler": {"kind": "none"}})
    finished, broken, diverged = (book.next_trial()["trial_id"] for _ in range(3))
    train(book, finished, [0.9] * 4)
    report(book, broken, 10, 0.95)
    book.failed(broken, "the worker died")
    report(book, diverged, 10, 0.5, float("nan"))
    for trial_id in (broken, diverged):
        (checkpoints_of(book.folder, trial_id).at(10)).mkdir(parents=True)
    assert identity(book) == "3 = 1 finished + 0 pruned + 2 failed + 0 pending"

    assert len(retry_failed(book.folder, book.ledger)) == 2
    assert identity(book) == "3 = 1 finished + 0 pruned + 0 failed + 2 pending"
    # What broke goes on from its last checkpoint; what diverged starts anew, and its checkpoints are kept aside.
    assert list(book.ledger.trials[broken].reports) == [10]
    assert checkpoints_of(book.folder, broken).steps() == [10]
    assert book.ledger.trials[diverged].reports == {}
    assert checkpoints_of(book.folder, diverged).steps() == []
    assert (
        checkpoints_of(book.folder, diverged).folder.parent / "checkpoints_of_failure_1" / "step_000000010"
    ).exists()

    again = Bookkeeper(book.spec, book.folder, book.stimuli, [])
    served = [config["trial_id"] for config in iter(again.next_trial, None)]
    assert served == [broken, diverged]
    train(again, broken, [0.95, 0.9, 0.9, 0.9])
    train(again, diverged, [0.9, 0.9, 0.9, 0.9])
    assert identity(again) == "3 = 3 finished + 0 pruned + 0 failed + 0 pending"
    assert again.ledger.trials[diverged].failures == 1
    assert retry_failed(again.folder, again.ledger) == []


@pytest.mark.parametrize("refused", ["--trials", "ray"])
def test_what_is_refused_has_retried_nothing(tmp_path, monkeypatch, refused):
    """A space that is used up, or a Ray that cannot be reached: the folder stays as it was."""
    book = new_book(tmp_path)
    trial_id = book.next_trial()["trial_id"]
    report(book, trial_id, 10, 0.5, math.nan)
    book.ledger.append("exhausted", reason="used up")
    checkpoint = checkpoints_of(book.folder, trial_id).folder / "step_000000010"
    checkpoint.mkdir(parents=True)
    before = book.ledger.path.read_bytes()

    def no_ray(address: str | None) -> None:
        raise InputError("ray", "cannot be reached")

    tracker = SimpleNamespace(wait_until_open=lambda: None)
    monkeypatch.setattr(driver, "connected", no_ray)
    monkeypatch.setattr(driver, "Tracker", lambda *_: nullcontext(tracker))
    with pytest.raises(InputError, match=refused):
        driver.resume_sweep(book.folder, Console(quiet=True), more=3 * (refused == "--trials"), retry=True)
    assert book.ledger.path.read_bytes() == before
    assert checkpoint.exists()


def test_a_stop_is_not_lost_with_the_driver(tmp_path):
    book = new_book(tmp_path)
    good, bad = (book.next_trial()["trial_id"] for _ in range(2))
    report(book, good, 10, 0.9)
    report(book, bad, 10, 0.2)
    assert book.ledger.trials[bad].state == "pruned"
    lines = book.ledger.path.read_text().splitlines(keepends=True)
    assert json.loads(lines[-1])["event"] == "pruned"
    book.ledger.path.write_text("".join(lines[:-1]))
    assert Ledger(book.ledger.path).trials[bad].state == "planned"
    again = Bookkeeper(book.spec, book.folder, book.stimuli, [])
    assert again.ledger.trials[bad].state == "pruned"
    assert next(config["trial_id"] for config in iter(again.next_trial, None)) == good
    assert identity(again) == "2 = 0 finished + 1 pruned + 0 failed + 1 pending"


def test_seconds_go_on_after_a_restart(tmp_path):
    book = new_book(tmp_path)
    trial_id = book.next_trial()["trial_id"]
    report(book, trial_id, 10, 0.9)
    again = Bookkeeper(book.spec, book.folder, book.stimuli, [])
    assert again.next_trial()["seconds"] == pytest.approx(1.0)
    # Tune starts an actor whose worker died with the config that it had: it counts on from there.
    again.started(trial_id)
    report(again, trial_id, 20, 0.9)  # 2 s by the actor's clock
    again.started(trial_id)
    result = {"evaluation": evaluation(30, 0.9), "done": False, "notes": [], "seconds": 1.5}
    again.reported(trial_id, result)
    assert again.ledger.trials[trial_id].seconds == pytest.approx(2.5)


def test_the_bound_on_trials_holds_for_more_of_them(tmp_path):
    book = new_book(tmp_path)
    with pytest.raises(InputError, match="must leave the sweep at most 1000000 trials, and it has 3"):
        extended(book.spec, book.ledger, 10**9)
