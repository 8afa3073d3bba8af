"""``verify`` finds what is wrong with a folder; MLflow's part is tested with the sweep that has one."""

from __future__ import annotations

import json
import math
from pathlib import Path
from types import SimpleNamespace

import pytest

from sweeps import verify as module
from sweeps.bookkeeper import Bookkeeper
from sweeps.folder import driver_lock
from sweeps.history import history_faults
from sweeps.ledger import Ledger
from sweeps.search import Study
from sweeps.tracking import TRIAL
from sweeps.verify import verify
from tests.fixtures.sweeps import new_folder, small_sweep, train

SPEC = small_sweep(**{"search.sampler": {"kind": "random", "seed": 1}})
IDENTITY, ORDER, NUMBERS, HASHES, CHECKPOINTS, OPTUNA, MLFLOW = range(7)


MLFLOW_CHECK = module._mlflow


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A finished, a pruned (never with a number), a failed and a waiting trial, without checkpoints and MLflow."""
    monkeypatch.setattr(module, "_mlflow", lambda *_: module.Check("mlflow", True, ""))
    folder = new_folder(SPEC, tmp_path)
    book = Bookkeeper(SPEC, folder, tmp_path, [])
    ids = [book.next_trial()["trial_id"] for _ in range(4)]
    assert train(book, ids[0], [0.6, 0.7, 0.8, 0.9]) == "finished"
    assert train(book, ids[1], [math.nan]) == "pruned"
    book.failed(ids[2], "broke")
    return folder


def holds(folder: Path) -> list[bool]:
    return [check.holds for check in verify(SPEC, folder, Ledger(folder / "ledger.jsonl"))]


def test_a_sound_ledger(folder):
    checks = verify(SPEC, folder, Ledger(folder / "ledger.jsonl"))
    assert checks[IDENTITY].figures == "4 = 1 finished + 1 pruned + 1 failed + 1 pending"
    assert checks[OPTUNA].figures == "1 RUNNING, 1 COMPLETE, 1 PRUNED, 1 FAIL"
    assert [check.holds for check in checks] == [True, True, True, True, False, True, True]


def rewrite(folder: Path, change) -> None:
    path = folder / "ledger.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps(line) + "\n" for line in change(lines)))


@pytest.mark.parametrize("event", ["planned", "finished", "failed"])
def test_what_is_there_twice_is_found(folder, event):
    rewrite(folder, lambda lines: [*lines, next(line for line in lines if line["event"] == event)])
    assert not holds(folder)[IDENTITY]


def test_a_torn_last_line_is_no_fault(folder):
    with (folder / "ledger.jsonl").open("a") as file:
        file.write('{"event":"planned","numb')
    assert holds(folder)[IDENTITY]


def test_a_lost_trial_is_found(folder):
    lost = Ledger(folder / "ledger.jsonl").in_order()[1].trial_id
    rewrite(folder, lambda lines: [line for line in lines if line.get("trial_id") != lost])
    assert not holds(folder)[NUMBERS]


def test_a_trial_that_is_not_its_variant_is_found(folder):
    def change(lines):
        for line in lines:
            if line["event"] == "planned" and line["number"] == 2:
                line["point"]["training.optimizer.lr"] = 0.02
        return lines

    rewrite(folder, change)
    assert not holds(folder)[HASHES]


@pytest.mark.parametrize("content", [None, b"", b"no database"])
def test_a_store_that_is_missing_fails_the_check_and_is_not_made(folder, monkeypatch, content):
    monkeypatch.setattr(module, "_mlflow", MLFLOW_CHECK)
    if content is not None:
        (folder / "mlflow.db").write_bytes(content)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    check = verify(SPEC, folder, Ledger(folder / "ledger.jsonl"))[MLFLOW]
    assert not check.holds
    assert "mlflow.db is missing or is no MLflow store" in check.figures
    assert f"`wmsweep resume {folder}`" in check.figures
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_mlflow_may_lag_behind_a_driver_and_say_nothing_of_its_own(folder, monkeypatch):
    """Between the two readings a trial was planned and had its run; of another the run is not there yet."""
    monkeypatch.setattr(module, "MlflowClient", lambda uri: None)
    before = Ledger(folder / "ledger.jsonl")
    ids = list(before.trials)
    book = Bookkeeper(SPEC, folder, folder.parent, [])
    book.next_trial()
    new = book.next_trial()["trial_id"]
    assert new not in before.trials
    assert not MLFLOW_CHECK(SPEC, folder, before).holds
    monkeypatch.setattr(module, "_is_store", lambda path: True)

    def check(*of: str) -> module.Check:
        runs = [SimpleNamespace(data=SimpleNamespace(tags={TRIAL: trial_id})) for trial_id in of]
        monkeypatch.setattr(module, "child_runs", lambda *_: runs)
        return MLFLOW_CHECK(SPEC, folder, before)

    with driver_lock(folder):
        assert check(*ids[:3], new).holds
        assert check(*ids, new).figures == "5 runs, 5 trials (it is being run)"
        assert not check(*ids, ids[0]).holds
        assert not check(*ids, "unknown").holds
        monkeypatch.setattr(module, "_is_store", lambda path: False)
        assert check().holds
    monkeypatch.setattr(module, "_is_store", lambda path: True)
    assert check(*ids).holds
    assert not check(*ids[:3]).holds
    assert not check(*ids, new).holds


@pytest.mark.parametrize("fault", ["point", "value", "state"])
def test_a_study_that_differs_from_the_ledger_is_found(folder, monkeypatch, fault):
    def other(search, ledger):
        changed = Ledger(ledger.path)
        trial = changed.in_order()[0]
        match fault:
            case "point":
                trial.point["training.optimizer.lr"] = 0.02
            case "value":
                trial.reports[10]["select/accuracy"] = 0.99
            case "state":
                trial.state = "failed"
        return Study(search, changed.in_order())

    assert holds(folder)[OPTUNA]
    monkeypatch.setattr(module, "rebuilt", other)
    check = verify(SPEC, folder, Ledger(folder / "ledger.jsonl"))[OPTUNA]
    assert not check.holds
    assert check.figures.endswith("; not trial 0")


def _impossible(lines: list[dict], event: str) -> list[dict]:
    """A ledger with one event that cannot be."""
    first = {name: next((i for i, line in enumerate(lines) if line["event"] == name)) for name in EVENTS}
    match event:
        case "retried, though it has not failed":
            return [*lines, {"event": "retried", "trial_id": lines[first["finished"]]["trial_id"], "restarts": False}]
        case "started after its end":
            return [*lines, {"event": "started", "trial_id": lines[first["finished"]]["trial_id"]}]
        case "reported after its end":
            return [*lines, {**lines[first["reported"]], "step": 50}]
        case "reported twice":
            return [*lines[: first["reported"]], lines[first["reported"]], *lines[first["reported"] :]]
        case "a lost report":
            last = first["finished"] - 1
            return [*lines[:last], *lines[last + 1 :]]
        case "a report in the middle is lost":
            middle = first["reported"] + 1
            return [*lines[:middle], *lines[middle + 1 :]]
        case "planned beyond the budget":
            more = [{**lines[first["planned"]], "number": n, "trial_id": f"more{n}"} for n in range(4, 9)]
            return [*lines, *more]
        case "another spec":
            return [*lines, lines[0]]
    raise AssertionError(event)


EVENTS = ("planned", "reported", "finished")


@pytest.mark.parametrize(
    "event",
    [
        "retried, though it has not failed",
        "started after its end",
        "reported after its end",
        "reported twice",
        "a lost report",
        "a report in the middle is lost",
        "planned beyond the budget",
        "another spec",
    ],
)
def test_what_cannot_have_happened_is_found(folder, event):
    assert holds(folder)[ORDER]
    rewrite(folder, lambda lines: _impossible(lines, event))
    ledger = Ledger(folder / "ledger.jsonl")
    of_lines = event not in ("planned beyond the budget", "a report in the middle is lost")
    assert bool(history_faults(ledger.whole_lines())) == of_lines
    assert not module._order(SPEC, ledger).holds


@pytest.mark.parametrize("sampler", ["cmaes", "nsga2", "random", "sobol"])
def test_suggestions_that_were_dropped_are_no_trials(tmp_path, sampler):
    space = {"model.hidden_size": {"int": [8, 11]}, "model.trunk_size": {"int": [8, 11]}}
    changes = {"search.space": space, "search.sampler": {"kind": sampler, "seed": 1}, "search.trials": 14}
    spec = small_sweep(**changes, **{"search.scheduler": {"kind": "none"}})
    folder = new_folder(spec, tmp_path)
    book = Bookkeeper(spec, folder, tmp_path, [])
    for config in iter(book.next_trial, None):
        train(book, config["trial_id"], [0.6, 0.7, 0.8, 0.9])
    if sampler in ("cmaes", "nsga2"):
        assert len(book.study.study.trials) > 14, "some suggestions were known already"
    check = module._optuna(spec, Ledger(folder / "ledger.jsonl"))
    assert check.holds
    assert check.figures == "14 COMPLETE"
