"""A sweep's folder: it exists before Ray does, belongs to one spec, and is held by one driver at a time."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.console import Console

from sweeps import cli, driver
from sweeps.folder import differences, driver_lock, open_folder, read_folder
from sweeps.history import history_faults
from sweeps.ledger import Ledger
from sweeps.spec import SweepSpec
from tests.fixtures.sweeps import SMALL, small_sweep
from wmcore.errors import InputError

HOLD = """\
import sys, time
from pathlib import Path
from sweeps.folder import driver_lock
with driver_lock(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def spec_file(tmp_path: Path) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text(SMALL)
    return path


@pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning")
def test_folder_and_ledger_exist_before_ray_starts(monkeypatch, spec_file, tmp_path, capsys):
    seen = {}

    @contextmanager
    def no_ray(address=None):
        folder = tmp_path / "runs" / "small"
        seen["lines"] = [json.loads(line) for line in (folder / "ledger.jsonl").read_text().splitlines()]
        seen["spec"] = (folder / "spec.yaml").read_text()
        with pytest.raises(InputError, match="is being run by another driver"), driver_lock(folder):
            pass
        raise InputError("ray", "must not start in this test")
        yield

    monkeypatch.setattr(driver, "connected", no_ray)
    assert cli._run(["run", str(spec_file), "--storage", str(tmp_path / "runs")], debug=False) == 2
    assert "ray must not start in this test" in capsys.readouterr().err
    (line,) = seen["lines"]
    assert (line["event"], line["version"]) == ("sweep", 1)
    assert SweepSpec.parse(line["spec"]) == small_sweep()
    assert seen["spec"] == SMALL
    # The lock is free again, and what was begun is gone on with.
    spec, ledger = read_folder(tmp_path / "runs" / "small")
    assert spec == small_sweep()
    assert ledger.counts()["planned"] == 0


def test_a_folder_is_opened_again_as_it_was(tmp_path):
    spec = small_sweep()
    folder, _, _ = open_folder(spec, tmp_path)
    before = (folder / "ledger.jsonl").read_bytes()
    again, _, ledger = open_folder(spec, tmp_path)
    assert again == folder == tmp_path / "small"
    assert ledger.spec == spec.model_dump(mode="json")
    assert (folder / "ledger.jsonl").read_bytes() == before


def test_a_changed_spec_is_refused_with_the_difference(monkeypatch, spec_file, tmp_path, capsys):
    monkeypatch.setattr(driver, "connected", lambda address: pytest.fail("Ray was started"))
    folder, _, ledger = open_folder(small_sweep(), tmp_path)
    ledger.append("planned", number=0, trial_id="t", point={})
    before = (folder / "ledger.jsonl").read_bytes()
    change = ["--set", "search.trials=6", "--set", "trial.training.optimizer.lr=0.5"]
    code = cli._run(["run", str(spec_file), "--storage", str(tmp_path), *change], debug=False)
    err = " ".join(capsys.readouterr().err.split())
    assert code == 2
    assert "holds a sweep with another spec" in err
    assert "search.trials: 5 -> 6; trial.training.optimizer.lr: 0.001 -> 0.5" in err
    assert "another name" in err
    assert (folder / "ledger.jsonl").read_bytes() == before


def test_a_spec_that_was_corrected_before_the_first_trial_is_taken(tmp_path):
    """The cluster or the tracking server may refuse what the ledger holds already."""
    folder, _, _ = open_folder(small_sweep(), tmp_path)
    corrected = small_sweep(**{"resources.cpu": 0.5})
    _, spec, ledger = open_folder(corrected, tmp_path)
    assert spec == corrected
    assert read_folder(folder)[0] == corrected
    assert [line["event"] for line in ledger.whole_lines()] == ["sweep", "sweep"]


def test_where_a_begun_sweep_is_tracked_and_what_it_occupies_may_change(tmp_path):
    """The remedy for a server that is gone."""
    begun = small_sweep(tracking={"uri": "http://127.0.0.1:9"})
    folder, _, ledger = open_folder(begun, tmp_path)
    ledger.append("planned", number=0, trial_id="t", point={})
    moved = small_sweep(**{"resources.cpu": 0.5})
    _, spec, ledger = open_folder(moved, tmp_path)
    assert spec == moved == read_folder(folder)[0]
    assert list(ledger.trials) == ["t"]
    assert [line["event"] for line in ledger.whole_lines()] == ["sweep", "planned", "changed"]
    assert not history_faults(ledger.whole_lines())
    open_folder(moved, tmp_path)
    assert len(list(Ledger(ledger.path).whole_lines())) == 3
    with pytest.raises(InputError, match=r"another spec \(trial.seed: 3 -> 4\)"):
        open_folder(small_sweep(**{"trial.seed": 4}), tmp_path)


def test_a_server_that_cannot_be_reached_is_said_before_ray_starts(monkeypatch, tmp_path):
    def unreachable() -> None:
        raise InputError("tracking.uri", "cannot be used by MLflow")

    tracker = SimpleNamespace(wait_until_open=unreachable)
    monkeypatch.setattr(driver, "connected", lambda address: pytest.fail("Ray was started"))
    monkeypatch.setattr(driver, "Tracker", lambda *_: nullcontext(tracker))
    with pytest.raises(InputError, match="cannot be used by MLflow"):
        driver.run_sweep(small_sweep(tracking={"uri": "http://127.0.0.1:9"}), tmp_path, Console(quiet=True))


def test_differences_name_every_path():
    old = {"a": {"b": 1, "c": [1, 2]}, "gone": None, "same": "x", "kind": {"x": 1}}
    new = {"a": {"b": 2, "c": [1, 3]}, "same": "x", "kind": "y", "new": 0}
    assert differences(old, new) == [
        "a.b: 1 -> 2",
        "a.c: [1, 2] -> [1, 3]",
        "kind: {'x': 1} -> 'y'",
        "new: None -> 0",
    ]
    assert differences(old, old) == []


def test_what_is_no_sweep_is_said(tmp_path, capsys):
    for command in ("status", "verify", "report", "analyze", "ui"):
        assert cli._run([command, str(tmp_path / "nowhere")], debug=False) == 2
        assert "is not the folder of a sweep" in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "nowhere").exists()


def test_a_second_driver_is_refused_and_a_dead_one_holds_nothing(tmp_path):
    folder, _, _ = open_folder(small_sweep(), tmp_path)
    environment = {**os.environ, "PYTHONWARNINGS": "ignore"}
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(InputError) as caught, driver_lock(folder):
            pass
        assert f"process {holder.pid} on " in str(caught.value)
        assert caught.value.exit_code == 2
        # A folder that is only looked at is not locked.
        assert read_folder(folder)[0] == small_sweep()
        os.kill(holder.pid, signal.SIGKILL)
        assert holder.wait(30) == -signal.SIGKILL
        with driver_lock(folder):
            assert (folder / "driver.lock").read_text().startswith(f"process {os.getpid()} on ")
    finally:
        holder.kill()
        holder.communicate()
    with driver_lock(folder):  # and leaving frees it, too
        pass


def test_two_drivers_that_start_together_begin_one_ledger(tmp_path, monkeypatch):
    """The second one reads the folder before the first has written, and must not write over it."""
    spec = small_sweep()
    folder, _, first = open_folder(spec, tmp_path)
    first.append("planned", number=0, trial_id="t", point={})
    reads = iter([True, False, False])

    class Late(Ledger):
        def __init__(self, path: Path) -> None:
            super().__init__(path if not next(reads) else path.with_name("not there yet"))
            self.path = path

    monkeypatch.setattr("sweeps.folder.Ledger", Late)
    _, _, second = open_folder(spec, tmp_path)
    assert list(second.trials) == ["t"]
    assert list(Ledger(folder / "ledger.jsonl").trials) == ["t"]


def test_storage_that_is_a_file_is_bad_input(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"--storage is .*file.* cannot be written"):
        open_folder(small_sweep(), tmp_path / "file")
    with pytest.raises(InputError):
        driver.run_sweep(small_sweep(), tmp_path / "file", Console(quiet=True))


def test_trials_without_their_ledger_are_not_run_over(tmp_path):
    spec = small_sweep()
    folder, _, _ = open_folder(spec, tmp_path)
    (folder / "trials").mkdir()
    (folder / "ledger.jsonl").unlink()
    with pytest.raises(InputError, match=r"holds trials but not the ledger"):
        open_folder(spec, tmp_path)
    assert not (folder / "ledger.jsonl").exists()
