"""A trial that another sweep of the storage has finished is taken over, and never trained again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import pytest

from sweeps.bookkeeper import Bookkeeper
from sweeps.folder import best_checkpoint, checkpoints_of, trial_folder
from sweeps.ledger import Ledger
from sweeps.reuse import FinishedElsewhere
from sweeps.trial_lock import hold_trial
from sweeps.verify import verify
from tests.fixtures.sweeps import new_folder, small_sweep, train
from wmcore.training.fit import TrainingRun

CHANGES: dict[str, Any] = {
    "search.sampler": {"kind": "random", "seed": 1},
    "search.scheduler": {"kind": "none"},
    "search.trials": 4,
}


def new_book(storage: Path, name: str, **changes: Any) -> Bookkeeper:
    spec = small_sweep(name=name, **{**CHANGES, **changes})
    folder = new_folder(spec, storage)
    return Bookkeeper(spec, folder, storage / "stimuli", [], FinishedElsewhere(storage, but=folder))


def checkpointed(book: Bookkeeper, trial_id: str, stimuli: Path) -> None:
    """Untrained weights as the checkpoint of a trial's best step; its record is made by hand."""
    run = TrainingRun(book.spec.trial_for(book.ledger.trials[trial_id].point), stimuli=stimuli)
    evaluation = run.evaluate("select", 48)
    for step in (10, 40):
        run.step = step
        run.history.append(type(evaluation)(step, evaluation.metrics, evaluation.spread, evaluation.replicates))
        run.best_step = 10
        run.save(trial_folder(book.folder, trial_id) / "checkpoints")


@pytest.fixture
def first(tmp_path: Path, synthetic_stimuli: Path) -> Bookkeeper:
    """Two finished trials with checkpoints, one without, one that failed."""
    book = new_book(tmp_path, "first", **{"trial.task.stimuli": _stimuli()})
    ids = [config["trial_id"] for config in iter(book.next_trial, None)]
    for trial_id in ids[:3]:
        train(book, trial_id, [0.9, 0.6, 0.7, 0.8])
    book.failed(ids[3], "broke")
    for trial_id in ids[:2]:
        checkpointed(book, trial_id, synthetic_stimuli)
    return book


def _stimuli() -> dict[str, Any]:
    from tests.fixtures.banks import small_stimuli

    return small_stimuli().model_dump(mode="json")


def test_finished_trials_are_taken_over_with_their_checkpoints(tmp_path, first):
    book = new_book(tmp_path, "second", **{"trial.task.stimuli": _stimuli(), "search.trials": 5})
    served = [config["trial_id"] for config in iter(book.next_trial, None)]
    ids = list(first.ledger.trials)
    assert list(book.ledger.trials)[:4] == ids
    # One has no checkpoint, one failed, and the fifth is new: these are trained.
    assert served == list(book.ledger.trials)[2:]
    assert book.ledger.counts() == {"planned": 5, "finished": 2, "pruned": 0, "failed": 0, "pending": 3}
    for trial_id in ids[:2]:
        mine, theirs = book.ledger.trials[trial_id], first.ledger.trials[trial_id]
        assert (mine.state, mine.source, mine.step) == ("finished", "first", 40)
        assert (mine.reports, mine.replicates, mine.result) == (theirs.reports, theirs.replicates, theirs.result)
        checkpoint = best_checkpoint(book.folder, mine, "select/accuracy", "max")
        assert checkpoint is not None
        assert checkpoint.name == "step_000000010"
        assert checkpoints_of(book.folder, trial_id).is_whole(10)
    # The record says so after a restart, too, and Optuna holds their values.
    again = Bookkeeper(book.spec, book.folder, book.stimuli, [])
    assert [t.source for t in again.ledger.in_order()] == ["first", "first", "", "", ""]
    assert [t.value for t in again.study.study.trials[:2]] == [0.9, 0.9]
    assert verify(book.spec, book.folder, book.ledger)[0].holds
    assert "2 of the finished reused" in verify(book.spec, book.folder, book.ledger)[0].figures


def test_a_reused_trial_outlives_the_sweep_that_trained_it(tmp_path, first):
    book = new_book(tmp_path, "second", **{"trial.task.stimuli": _stimuli()})
    book.next_trial()
    for path in sorted(first.folder.rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()
    third = new_book(tmp_path, "third", **{"trial.task.stimuli": _stimuli()})
    third.next_trial()
    assert [t.source for t in third.ledger.in_order()][:2] == ["first", "first"]


def test_another_seed_is_another_trial(tmp_path, first):
    book = new_book(tmp_path, "second", **{"trial.task.stimuli": _stimuli(), "trial.seed": 4})
    assert len(list(iter(book.next_trial, None))) == 4
    assert not any(t.source for t in book.ledger.in_order())


def test_a_damaged_checkpoint_is_trained_again(tmp_path, first):
    trial_id = next(iter(first.ledger.trials))
    weights = checkpoints_of(first.folder, trial_id).at(10) / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    book = new_book(tmp_path, "second", **{"trial.task.stimuli": _stimuli()})
    config = book.next_trial()
    assert config is not None
    assert config["trial_id"] == trial_id
    (note,) = book.ledger.trials[trial_id].notes
    assert note.startswith(f"not taken over from first: {weights.parent} cannot be read as a checkpoint (weights")


def test_checkpoints_that_cannot_be_copied_are_told(tmp_path, first, monkeypatch):
    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    trial_id = next(iter(first.ledger.trials))
    book = new_book(tmp_path, "second", **{"trial.task.stimuli": _stimuli()})
    heard: list[str] = []
    book.listeners.append(MagicMock(noted=lambda trial: heard.extend(trial.notes)))
    monkeypatch.setattr("sweeps.reuse.shutil.copytree", full)
    assert book.next_trial()["trial_id"] == trial_id
    assert heard == ["not taken over from first: [Errno 28] No space left on device"]
    # Once, however often the sweep is gone on with.
    again = Bookkeeper(book.spec, book.folder, book.stimuli, [], FinishedElsewhere(tmp_path, but=book.folder))
    assert again.next_trial()["trial_id"] == trial_id
    assert Ledger(book.ledger.path).trials[trial_id].notes == heard


def test_what_an_orphan_trains_is_left_to_it(tmp_path, first):
    """The actor of a driver that was killed would remove the checkpoints that are put beside its own."""
    trial_id = next(iter(first.ledger.trials))
    book = new_book(tmp_path, "second", **{"trial.task.stimuli": _stimuli()})
    folder = trial_folder(book.folder, trial_id)
    with hold_trial(folder):
        (folder / "checkpoints" / "step_000000020").mkdir(parents=True)
        assert book.next_trial()["trial_id"] == trial_id
        assert checkpoints_of(book.folder, trial_id).steps() == [20]
        assert "another process has held" in book.ledger.trials[trial_id].notes[0]
    again = Bookkeeper(book.spec, book.folder, book.stimuli, [], FinishedElsewhere(tmp_path, but=book.folder))
    again.next_trial()
    assert again.ledger.trials[trial_id].source == "first"
    assert checkpoints_of(book.folder, trial_id).steps() == [10, 40]


def test_what_a_killed_worker_left_half_written_is_not_copied(tmp_path, first):
    trial_id = next(iter(first.ledger.trials))
    (checkpoints_of(first.folder, trial_id).folder / ".step_000000040.99").mkdir()
    book = new_book(tmp_path, "second", **{"trial.task.stimuli": _stimuli()})
    book.next_trial()
    copied = checkpoints_of(book.folder, trial_id).folder
    assert sorted(path.name for path in copied.iterdir()) == ["step_000000010", "step_000000040"]


def test_a_neighbour_that_cannot_be_read_is_named_and_left_out(tmp_path, first):
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "ledger.jsonl").write_text("no ledger\n")
    found = FinishedElsewhere(tmp_path, but=tmp_path / "second")
    assert len(found.unreadable) == 1
    assert str(tmp_path / "broken" / "ledger.jsonl") in found.unreadable[0]
    assert found.take(next(iter(first.ledger.trials)), tmp_path / "taken") is not None


def test_an_unfinished_trial_is_taken_over_after_a_restart(tmp_path, first):
    spec = small_sweep(name="second", **{**CHANGES, "trial.task.stimuli": _stimuli()})
    book = Bookkeeper(spec, new_folder(spec, tmp_path), tmp_path, [])
    trial_id = book.next_trial()["trial_id"]
    assert book.ledger.trials[trial_id].state == "planned"
    again = Bookkeeper(spec, book.folder, tmp_path, [], FinishedElsewhere(tmp_path, but=book.folder))
    again.next_trial()
    assert again.ledger.trials[trial_id].source == "first"
    lines = [json.loads(line)["event"] for line in book.ledger.path.read_text().splitlines()]
    assert lines.count("reused") == 2
    assert Ledger(book.ledger.path).counts()["planned"] == 3
