"""``verify`` finds what is wrong with a folder; MLflow's part is tested with the sweep that has one."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from sweeps import verify as module
from sweeps.bookkeeper import Bookkeeper
from sweeps.ledger import Ledger
from sweeps.verify import verify
from tests.fixtures.sweeps import new_folder, small_sweep, train

SPEC = small_sweep(**{"search.sampler": {"kind": "random", "seed": 1}})
IDENTITY, NUMBERS, HASHES, CHECKPOINTS, OPTUNA, MLFLOW = range(6)


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
    assert [check.holds for check in checks] == [True, True, True, False, True, True]


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
    assert f"`wmsweep analyze {folder}`" in check.figures
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
