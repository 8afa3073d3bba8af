"""A driver that is killed: the same command finishes the sweep, and nothing is lost or counted twice."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from mlflow import MlflowClient

from sweeps.bookkeeper import Bookkeeper
from sweeps.ledger import Ledger, TrialRecord
from sweeps.tracking import TRIAL, child_runs, tracking_uri
from sweeps.verify import verify
from tests.fixtures.sweeps import SMALL, new_folder, small_sweep, write_banks
from wmcore.training.fit import FitResult, fit

pytestmark = [
    pytest.mark.faults,
    pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning"),
]
CHANGES = {
    "search.sampler": {"kind": "random", "seed": 4},
    "search.scheduler": {"kind": "none"},
    "search.trials": 4,
    "analyses": [],
    "recording": {},
}
SPEC = small_sweep(**CHANGES)
PATIENCE_S = 240.0


@pytest.fixture
def ray_folder() -> Iterator[Path]:
    """Names what this test starts; whatever of it survives is ended by its process id."""
    with tempfile.TemporaryDirectory(prefix="wm", dir="/tmp", ignore_cleanup_errors=True) as folder:
        yield Path(folder)
        end_survivors(Path(folder))


def survivors(folder: Path) -> list[int]:
    """Processes with ``folder`` in their environment."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            if f"RAY_TMPDIR={folder}\0".encode() in path.read_bytes() + b"\0":
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found


def end_survivors(folder: Path) -> None:
    deadline = time.monotonic() + 30
    while (alive := survivors(folder)) and time.monotonic() < deadline:
        for pid in alive:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        time.sleep(0.1)
    assert not survivors(folder)


def start(storage: Path, ray_folder: Path) -> subprocess.Popen[str]:
    """``wmsweep run`` in a process group of its own."""
    spec_file = storage / "small.yaml"
    spec_file.write_text(SMALL)
    command = [sys.executable, "-m", "sweeps.cli", "run", str(spec_file), "--storage", str(storage)]
    for path, value in CHANGES.items():
        command += ["--set", f"{path}={json.dumps(value)}"]
    environment = {**os.environ, "RAY_TMPDIR": str(ray_folder), "PYTHONWARNINGS": "ignore", "COLUMNS": "200"}
    log = (storage / "output.txt").open("a")
    with log:
        return subprocess.Popen(command, stdout=log, stderr=log, text=True, env=environment, start_new_session=True)


def events(storage: Path) -> list[dict]:
    """The whole lines of the ledger so far."""
    path = storage / SPEC.name / "ledger.jsonl"
    return [json.loads(line) for line in path.read_bytes().split(b"\n")[:-1]] if path.exists() else []


def undisturbed(trials: list[TrialRecord], stimuli: Path) -> list[FitResult]:
    """The same variants trained in this process: no Ray, no sweep, no interruption."""
    threads = torch.get_num_threads()
    try:
        return [fit(SPEC.trial_for(t.point), threads=1, stimuli=stimuli) for t in trials]
    finally:
        torch.set_num_threads(threads)


def test_a_killed_driver_loses_nothing(tmp_path, ray_folder):
    stimuli = SPEC.trial.task.stimulus_spec()
    assert stimuli is not None
    write_banks(tmp_path / "stimuli", stimuli)

    process = start(tmp_path, ray_folder)
    try:
        deadline = time.monotonic() + PATIENCE_S
        while sum(e["event"] == "reported" for e in events(tmp_path)) < 3:
            assert process.poll() is None, (tmp_path / "output.txt").read_text()
            assert time.monotonic() < deadline, (tmp_path / "output.txt").read_text()
            time.sleep(0.02)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        assert process.wait(30) == -signal.SIGKILL
    end_survivors(ray_folder)
    folder = tmp_path / SPEC.name
    killed = Ledger(folder / "ledger.jsonl")
    assert killed.counts()["pending"] > 0
    assert killed.counts()["finished"] < 4
    before = (folder / "ledger.jsonl").read_bytes()

    process = start(tmp_path, ray_folder)
    try:
        assert process.wait(PATIENCE_S) == 0, (tmp_path / "output.txt").read_text()
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(30)

    whole = before[: before.rindex(b"\n") + 1]
    assert (folder / "ledger.jsonl").read_bytes().startswith(whole)
    ledger = Ledger(folder / "ledger.jsonl")
    assert ledger.counts() == {"planned": 4, "finished": 4, "pruned": 0, "failed": 0, "pending": 0}
    lines = events(tmp_path)
    for event in ("planned", "finished"):
        ids = [line["trial_id"] for line in lines if line["event"] == event]
        assert len(ids) == len(set(ids)) == 4
    reports = [(line["trial_id"], line["step"]) for line in lines if line["event"] == "reported"]
    assert len(reports) == len(set(reports)) == 16
    for check in verify(SPEC, folder, ledger):
        assert check.holds, check
    runs = child_runs(MlflowClient(tracking_uri(SPEC, folder)), SPEC.name)
    assert sorted(run.data.tags[TRIAL] for run in runs) == sorted(ledger.trials)

    # What an undisturbed sweep would have tried, and what training it without any sweep gives.
    plain = Bookkeeper(SPEC, new_folder(SPEC, tmp_path / "plain"), tmp_path, [])
    for config in iter(plain.next_trial, None):
        assert config["trial_id"] in ledger.trials
    trials = ledger.in_order()
    assert [t.trial_id for t in trials] == list(plain.ledger.trials)
    for trial, expected in zip(trials, undisturbed(trials, tmp_path / "stimuli"), strict=True):
        assert trial.result is not None
        assert trial.result["metrics"] == expected.final.metrics
        assert trial.result["best_step"] == expected.best_step
        assert trial.reports == {e.step: e.metrics for e in expected.history}
