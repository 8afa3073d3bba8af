"""The bookkeeper between Tune and the record, without Ray: what it serves, writes, and tells its listeners."""

from __future__ import annotations

import json
import math
import pickle
from pathlib import Path
from typing import Any

import pytest

from sweeps.bookkeeper import Bookkeeper
from sweeps.folder import trial_folder
from sweeps.ledger import Ledger, TrialRecord
from sweeps.tune_adapters import BookCallback, BookScheduler, BookSearcher
from tests.fixtures.sweeps import evaluation, final, new_folder, report, small_sweep, train
from wmcore.training.trial_spec import TrialSpec

LR = {"loguniform": [1.0e-4, 3.0e-2]}
SMALL_CELLS = {"choice": ["vanilla", "gru"]}


class Recorder:
    """Notes what it hears, and what the ledger's file said by then."""

    def __init__(self, ledger: Path) -> None:
        self.ledger, self.heard, self.seen = ledger, [], []

    def planned(self, trial: TrialRecord) -> None:
        self._note("planned", trial)

    def reported(self, trial: TrialRecord, metrics: dict[str, float]) -> None:
        self._note("reported", trial, trial.step, metrics["select/accuracy"])

    def noted(self, trial: TrialRecord) -> None:
        self._note("noted", trial, trial.notes[-1])

    def ended(self, trial: TrialRecord) -> None:
        self._note(trial.state, trial)

    def _note(self, event: str, trial: TrialRecord, *more: Any) -> None:
        self.heard.append((event, trial.number, *more))
        self.seen.append(json.loads(self.ledger.read_text().splitlines()[-1])["event"])


@pytest.fixture
def book(tmp_path: Path) -> Bookkeeper:
    return new_book(tmp_path)


def new_book(folder: Path, **changes: Any) -> Bookkeeper:
    spec = small_sweep(**{"search.sampler": {"kind": "random", "seed": 1}, "search.trials": 4, **changes})
    sweep = new_folder(spec, folder)
    return Bookkeeper(spec, sweep, folder / "stimuli", [Recorder(sweep / "ledger.jsonl")])


def events(book: Bookkeeper, trial_id: str) -> list[str]:
    lines = [json.loads(line) for line in book.ledger.path.read_text().splitlines()]
    return [line["event"] for line in lines if line.get("trial_id") == trial_id]


def test_the_config_says_everything_that_a_worker_needs(book, tmp_path):
    config = book.next_trial()
    trial = TrialSpec.parse(json.loads(config["trial"]))
    record = book.ledger.trials[config["trial_id"]]
    assert trial.trial_id == config["trial_id"]
    assert trial == book.spec.trial_for(record.point)
    assert config["folder"] == str(trial_folder(book.folder, trial.trial_id))
    assert config["stimuli"] == str(tmp_path / "stimuli")
    assert config["threads"] == 1
    assert json.loads(json.dumps(config)) == config
    assert new_book(tmp_path / "b", **{"resources.cpu": 3.0}).next_trial()["threads"] == 3


def test_a_trial_from_plan_to_end(book):
    trial_id = book.next_trial()["trial_id"]
    assert train(book, trial_id, [0.5, 0.6, 0.7, 0.8]) == "finished"
    assert events(book, trial_id) == ["planned", "started", *["reported"] * 4, "finished"]
    assert book.listeners[0].heard == [
        ("planned", 0),
        *[("reported", 0, step, value) for step, value in ((10, 0.5), (20, 0.6), (30, 0.7), (40, 0.8))],
        ("finished", 0),
    ]
    record = book.ledger.trials[trial_id]
    assert record.result == {**final(0.8), "seconds": 4.0}
    assert (record.step, record.reports[20]["select/accuracy"]) == (40, 0.6)


def test_listeners_hear_of_what_is_in_the_ledger_already(book):
    for _ in range(3):
        trial_id = book.next_trial()["trial_id"]
        train(book, trial_id, [0.5 - 0.1 * book.ledger.trials[trial_id].number] * 4)
    recorder = book.listeners[0]
    assert recorder.seen == [event[0] for event in recorder.heard]
    assert {"planned", "reported", "finished", "pruned"} == set(recorder.seen)


def test_a_stopped_trial_is_pruned_at_its_step(book):
    good, bad = (book.next_trial()["trial_id"] for _ in range(2))
    book.started(good)
    book.started(bad)
    report(book, good, 10, 0.9)
    report(book, bad, 10, 0.2)
    assert events(book, bad) == ["planned", "started", "reported", "pruned"]
    assert (book.ledger.trials[bad].state, book.ledger.trials[bad].step) == ("pruned", 10)
    assert book.ledger.trials[good].state == "running"
    assert book.ledger.counts() == {"planned": 2, "finished": 0, "pruned": 1, "failed": 0, "pending": 1}


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_a_diverged_trial_fails_with_a_reason_and_is_not_compared(book, loss):
    trial_id = book.next_trial()["trial_id"]
    book.started(trial_id)
    assert book.decide(trial_id, evaluation(10, 0.9, loss))
    report(book, trial_id, 10, 0.9, loss)
    record = book.ledger.trials[trial_id]
    assert (record.state, record.reason) == ("failed", "diverged by step 10: nonfinite_loss in 1 of 1 replicates")
    assert record.divergence == {"nonfinite_loss": 1}
    assert events(book, trial_id) == ["planned", "started", "reported", "failed"]
    assert all(rung == {} for rung in book.rule.rungs.values())
    # Also at the last step, where Tune does not ask.
    last = book.next_trial()["trial_id"]
    report(book, last, 40, 0.9, loss)
    assert book.ledger.trials[last].state == "failed"


def test_a_report_that_comes_twice_counts_once(book):
    trial_id = book.next_trial()["trial_id"]
    for _ in range(2):
        book.started(trial_id)
        report(book, trial_id, 10, 0.5)
    report(book, trial_id, 20, 0.6)
    assert events(book, trial_id) == ["planned", "started", "reported", "started", "reported"]
    assert [h[0] for h in book.listeners[0].heard] == ["planned", "reported", "reported"]


def test_an_ended_trial_stays_ended(book):
    trial_id = book.next_trial()["trial_id"]
    book.failed(trial_id, "the worker died")
    size = book.ledger.path.stat().st_size
    book.started(trial_id)
    book.failed(trial_id, "again")
    report(book, trial_id, 10, 0.5)
    report(book, trial_id, 40, 0.5)
    assert book.ledger.path.stat().st_size == size
    assert book.ledger.trials[trial_id].reason == "the worker died"
    assert book.listeners[0].heard == [("planned", 0), ("failed", 0)]


def test_it_serves_as_many_as_asked_for(book):
    ids = [config["trial_id"] for config in iter(book.next_trial, None)]
    assert len(ids) == len(set(ids)) == 4
    assert [book.ledger.trials[i].number for i in ids] == [0, 1, 2, 3]
    assert book.remaining == 4
    for i in ids:
        train(book, i, [0.5] * 4)
    assert book.remaining == 0
    assert not book.ledger.exhausted


def test_after_a_restart_unfinished_trials_come_first_and_nothing_else_changes(tmp_path):
    book, undisturbed = new_book(tmp_path / "a"), new_book(tmp_path / "b")
    ids = [book.next_trial()["trial_id"] for _ in range(3)]
    train(book, ids[0], [0.9] * 4)
    book.started(ids[1])
    report(book, ids[1], 10, 0.95)
    again = Bookkeeper(book.spec, book.folder, book.stimuli, [Recorder(book.ledger.path)])
    assert again.remaining == 3
    assert again.rule.rungs == book.rule.rungs
    assert [again.next_trial()["trial_id"] for _ in range(2)] == ids[1:]
    new = again.next_trial()["trial_id"]
    assert new == [undisturbed.next_trial()["trial_id"] for _ in range(4)][3]
    assert again.next_trial() is None
    # The worker continues from its checkpoint, which it reports once more.
    train(again, ids[1], [0.95, 0.9, 0.8, 0.7])
    assert sorted(again.ledger.trials[ids[1]].reports) == [10, 20, 30, 40]
    assert events(again, ids[1]).count("planned") == 1
    assert again.ledger.trials[ids[1]].state == "finished"
    assert again.study.study.trials[1].value == 0.95
    # Reports of before the restart decide on those after it.
    again.started(ids[2])
    report(again, ids[2], 10, 0.1)
    assert again.ledger.trials[ids[2]].state == "pruned"


@pytest.mark.parametrize(
    "steps",
    [
        {"training.steps": {"choice": [200, 600]}},
        {"training.steps": {"choice": [200, 600], "when": {"model.cell": "gru"}}, "model.cell": SMALL_CELLS},
        {"training": {"choice": [{"steps": 200, "batch_size": 8}, {"steps": 600, "batch_size": 8}]}},
    ],
)
def test_rungs_reach_up_to_the_longest_trials(tmp_path, steps):
    """However many steps the trial itself names, which no variant may have."""
    space = {**steps, "training.optimizer.lr": LR} if "training" not in steps else {**steps, "model.cell": SMALL_CELLS}
    changes = {"search.space": space, "search.scheduler": {"kind": "asha", "grace": 20, "reduction": 3}}
    assert sorted(new_book(tmp_path, **changes).rule.rungs) == [20, 60, 180, 540]


def test_a_rung_holds_shorter_trials_that_end_there(tmp_path):
    """As it does after a restart."""
    space = {"training.steps": {"choice": [40, 160]}, "training.optimizer.lr": LR}
    changes = {"search.space": space, "search.scheduler": {"kind": "asha", "grace": 20, "reduction": 2}}
    book = new_book(tmp_path, **changes, **{"search.trials": 6})
    short = next(
        config["trial_id"]
        for config in iter(book.next_trial, None)
        if book.ledger.trials[config["trial_id"]].point["training.steps"] == 40
    )
    assert train(book, short, [0.5, 0.6, 0.7, 0.8]) == "finished"
    assert book.rule.rungs == {20: {short: 0.6}, 40: {short: 0.8}, 80: {}}
    assert Bookkeeper(book.spec, book.folder, book.stimuli, []).rule.rungs == book.rule.rungs


class TestAdapters:
    """What Tune calls, with plain objects in its place."""

    class Trial:
        def __init__(self, trial_id: str, error: str | None = None) -> None:
            self.config, self.error = {"trial_id": trial_id}, error

        def get_error(self) -> str | None:
            return self.error

    def test_a_searcher_serves_and_ends(self, book):
        searcher = BookSearcher(book)
        configs = [searcher.suggest(f"ray{i}") for i in range(5)]
        assert [c["trial_id"] for c in configs[:4]] == list(book.ledger.trials)
        assert configs[4] == BookSearcher.FINISHED

    def test_the_scheduler_asks_the_book(self, book):
        def result(accuracy: float, loss: float = 1.0) -> dict[str, Any]:
            return {"report": json.dumps({"evaluation": evaluation(10, accuracy, loss)})}

        scheduler = BookScheduler(book)
        ids = [book.next_trial()["trial_id"] for _ in range(3)]
        decisions = [
            scheduler.on_trial_result(None, self.Trial(i), result(*values))
            for i, values in zip(ids, [(0.9,), (0.1,), (0.95, math.nan)], strict=True)
        ]
        assert decisions == ["CONTINUE", "STOP", "STOP"]

    def test_the_callback_writes(self, book):
        callback, ids = BookCallback(book), [book.next_trial()["trial_id"] for _ in range(3)]
        callback.on_trial_start(1, [], self.Trial(ids[0]))
        last = {"evaluation": evaluation(40, 0.7), "done": True, "final": final(0.7), "notes": [], "seconds": 1.0}
        callback.on_trial_result(1, [], self.Trial(ids[0]), {"report": json.dumps(last)})
        callback.on_trial_error(1, [], self.Trial(ids[1], "Traceback:\n  here\nValueError: it broke\n"))
        callback.on_trial_error(1, [], self.Trial(ids[2]))
        assert [t.state for t in book.ledger.in_order()] == ["finished", "failed", "failed"]
        assert [t.reason for t in book.ledger.in_order()] == [
            "",
            "ValueError: it broke",
            "the worker ended without a result",
        ]

    def test_tune_is_given_nothing_to_keep(self, book):
        for adapter in (BookSearcher(book), BookScheduler(book), BookCallback(book)):
            shell = pickle.loads(pickle.dumps(adapter))  # noqa: S301 - what Tune does with it
            assert vars(shell) == {}
        searcher = BookSearcher(book)
        searcher.save("/nonexistent/nowhere")
        searcher.restore("/nonexistent/nowhere")
        assert searcher.suggest("ray0")["trial_id"] in Ledger(book.ledger.path).trials
