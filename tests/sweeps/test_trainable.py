"""The trainable without Ray: what it says of a curriculum, and that a resume says it no second time."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from sweeps.bookkeeper import Bookkeeper
from sweeps.ledger import Ledger
from sweeps.trainable import VariantTrainable
from tests.fixtures.sweeps import new_folder, small_sweep, write_banks

CURRICULUM = {
    "stages": [{"set": {"task.steps": 2}}, {"set": {"task.lure_rate": 0.0}, "replay": 0.3}, {"replay": 0.3}],
    "advance": {"metric": "accuracy", "threshold": 0.0, "evaluations": 1, "trials": 16},
}
ENTERED = {10: {"0": 2, "1": 2}, 20: {"0": 3, "1": 3}, 30: {}, 40: {}}
"""Step -> replicate -> stage."""
Worker = Callable[[dict[str, Any]], VariantTrainable]


@pytest.fixture
def worker(monkeypatch: pytest.MonkeyPatch) -> Worker:
    """Makes the trainable of a config, as an actor does."""
    monkeypatch.setattr("sweeps.trainable.ray.get_gpu_ids", list)
    context = SimpleNamespace(get_node_id=lambda: "node")
    monkeypatch.setattr("sweeps.trainable.ray.get_runtime_context", lambda: context)

    def started(config: dict[str, Any]) -> VariantTrainable:
        trainable = VariantTrainable.__new__(VariantTrainable)
        trainable.setup(config)
        return trainable

    return started


@pytest.fixture
def book(tmp_path: Path) -> Bookkeeper:
    changes = {"trial.training.curriculum": CURRICULUM, "trial.replicates": 2, "search.scheduler": {"kind": "none"}}
    spec = small_sweep(**changes)
    stimuli = spec.trial.task.stimulus_spec()
    assert stimuli is not None
    return Bookkeeper(spec, new_folder(spec, tmp_path), write_banks(tmp_path / "stimuli", stimuli), [])


def entered(book: Bookkeeper) -> dict[int, dict[str, int]]:
    """What the lines of the ledger say so far."""
    reports = [line for line in Ledger(book.ledger.path).whole_lines() if line["event"] == "reported"]
    assert len({line["step"] for line in reports}) == len(reports)
    return {line["step"]: line["entered"] for line in reports}


def step(trainable: VariantTrainable) -> dict[str, Any]:
    return json.loads(trainable.step()["report"])


def test_changes_of_stage_are_in_the_ledger_once(book: Bookkeeper, worker: Worker) -> None:
    """The first worker is lost right after a change whose report arrived, the second one after one whose did not."""
    config = book.next_trial()
    assert config is not None
    trial = book.ledger.trials[config["trial_id"]]
    first = worker(config)
    book.started(trial.trial_id)
    book.reported(trial.trial_id, step(first))
    assert entered(book) == {10: ENTERED[10]}
    first.cleanup()

    second = worker(config)
    book.started(trial.trial_id)
    again = step(second)
    assert again["evaluation"]["step"] == 10
    book.reported(trial.trial_id, again)
    assert entered(book) == {10: ENTERED[10]}
    step(second)
    second.cleanup()

    third = worker(config)
    book.started(trial.trial_id)
    while not trial.ended:
        book.reported(trial.trial_id, step(third))
    third.cleanup()
    assert entered(book) == ENTERED
    assert [metrics["train/stage"] for metrics in trial.reports.values()] == [1.0, 2.0, 3.0, 3.0]


def test_a_ledger_that_is_older_than_the_checkpoints_gets_every_report(book: Bookkeeper, worker: Worker) -> None:
    """Its end was lost, as with a copy of yesterday; the worker had written two checkpoints more."""
    config = book.next_trial()
    assert config is not None
    first = worker(config)
    book.started(config["trial_id"])
    book.reported(config["trial_id"], step(first))
    whole = [step(first) for _ in range(2)]
    first.cleanup()

    again = Bookkeeper(book.spec, book.folder, book.stimuli, [])
    config = again.next_trial()
    assert config is not None
    second = worker(config)
    trial = again.ledger.trials[config["trial_id"]]
    again.started(trial.trial_id)
    told = []
    while not trial.ended:
        told.append(step(second))
        again.reported(trial.trial_id, told[-1])
    second.cleanup()
    assert [report["evaluation"] for report in told[:2]] == [report["evaluation"] for report in whole]
    assert list(Ledger(book.ledger.path).trials[trial.trial_id].reports) == [10, 20, 30, 40]
    assert [report["done"] for report in told] == [False, False, True]
    assert entered(book) == ENTERED


def test_a_checkpoint_of_the_last_step_is_reported_before_the_end(book: Bookkeeper, worker: Worker) -> None:
    config = book.next_trial()
    assert config is not None
    first = worker(config)
    for _ in range(4):
        step(first)
    first.cleanup()
    second = worker(config)
    told = [step(second) for _ in range(4)]
    second.cleanup()
    assert [report["evaluation"]["step"] for report in told] == [10, 20, 30, 40]
    assert ["final" in report for report in told] == [False, False, False, True]


def test_an_actor_keeps_the_tasks_of_the_trial_before(book: Bookkeeper, worker: Worker) -> None:
    one, other = book.next_trial(), book.next_trial()
    assert one is not None
    assert other is not None
    trainable = worker(one)
    before = trainable.run
    assert trainable.reset_config(other)
    assert trainable.run is not before
    assert trainable.run.trial != before.trial
    assert all(a is b for a, b in zip(trainable.run.stage_tasks, before.stage_tasks, strict=True))
    reseeded = json.dumps({**json.loads(one["trial"]), "seed": 9})
    assert trainable.reset_config({**one, "trial": reseeded, "folder": one["folder"] + "_9"})
    assert trainable.run.task is not before.task
    trainable.cleanup()
