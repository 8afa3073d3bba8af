"""Workers and drivers that are killed, and files that are damaged: the sweep goes on, and nothing is lost, counted
twice or changed."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sweeps.folder import checkpoints_of
from sweeps.ledger import Ledger
from tests.fixtures.driven import (
    PATIENCE_S,
    Driven,
    check_nothing_lost,
    check_reports_once,
    kill_driver,
    kill_group,
    table,
    undisturbed,
)
from tests.fixtures.processes import end_survivors

pytestmark = [
    pytest.mark.faults,
    pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning"),
]
CHANGES: dict[str, Any] = {
    "trial.replicates": 2,
    "trial.training.steps": 120,
    "search.sampler": {"kind": "random", "seed": 4},
    "search.scheduler": {"kind": "none"},
    "search.trials": 3,
    "analyses": [],
    "recording": {},
}
"""Trials of 12 evaluations, one after the other."""
AT_ONCE = {"resources": {"cpu": 0.25, "concurrency": 4}}


@pytest.fixture
def sweep(request: pytest.FixtureRequest, tmp_path: Path, ray_folder: Path) -> Driven:
    """The sweep of ``CHANGES``, with those of the test's parameter."""
    made = Driven(tmp_path, ray_folder, {**CHANGES, **getattr(request, "param", {})})
    made.write_banks()
    return made


def check_as_undisturbed(sweep: Driven, ledger: Ledger) -> None:
    """The same trials and figures as those of a sweep that nothing happened to."""
    assert table(ledger) == table(undisturbed(sweep.spec, sweep.storage / "undisturbed", sweep.stimuli))


def started_and_killed(sweep: Driven, reports: int) -> Ledger:
    """Runs until some trial has so many reports, kills everything, and returns what the ledger held then."""
    with sweep.driver() as process:
        sweep.wait_for(process, lambda: any(len(t.reports) >= reports for t in sweep.ledger.trials.values()))
        kill_group(process)
    end_survivors(sweep.ray_folder)
    return sweep.ledger


@pytest.mark.parametrize("sweep", [{"search.sampler": {"kind": "sobol", "seed": 2}}], indirect=True)
def test_a_worker_that_is_killed_twice(sweep):
    with sweep.driver() as process:
        for _ in range(2):
            seen = len(sweep.events("reported"))
            sweep.wait_for(process, lambda n=seen: len(sweep.events("reported")) > n and sweep.kill_worker(process))
            begun = len(sweep.events("started"))
            sweep.wait_for(process, lambda n=begun: len(sweep.events("started")) > n)
        assert process.wait(PATIENCE_S) == 0, sweep.output
    assert len(sweep.events("started")) >= 3 + 2
    ledger = check_nothing_lost(sweep, planned=3, finished=3)
    check_reports_once(sweep)
    check_as_undisturbed(sweep, ledger)


@pytest.mark.parametrize(
    "sweep",
    [
        {
            **AT_ONCE,
            "search.trials": 6,
            "search.sampler": {"kind": "tpe", "seed": 1, "startup_trials": 3, "synchronous": True, "batch": 3},
        }
    ],
    indirect=True,
)
def test_a_driver_that_is_killed_five_times(sweep):
    moments = np.random.default_rng(11)
    with sweep.driver() as process:
        # In its first second, which it spends on imports.
        with pytest.raises(Exception, match="timed out"):
            process.wait(moments.uniform(0, 1))
        kill_driver(process)
    assert not sweep.path.exists()
    with sweep.driver() as process:
        # While MLflow makes its tables, which it could not go on with.
        sweep.wait_for(process, (sweep.folder / ".mlflow.db.making").exists)
        kill_driver(process)
    assert not (sweep.folder / "mlflow.db").exists()
    killed = b""
    for number in range(3):
        known, more = len(sweep.events()), int(moments.integers(2, 15))
        with sweep.driver("resume", str(sweep.folder)) as process:
            sweep.wait_for(process, lambda n=known + more: len(sweep.events()) >= n)
            (kill_driver, kill_group)[number % 2](process)
        # What was written stays as it is, a torn last line aside.
        data = sweep.path.read_bytes()
        assert data.startswith(killed)
        killed = data[: data.rindex(b"\n") + 1]
    assert sweep.ledger.counts()["pending"] > 0

    assert sweep.resume() == 0, sweep.output
    assert sweep.path.read_bytes().startswith(killed)
    ledger = check_nothing_lost(sweep, planned=6, finished=6)
    check_reports_once(sweep)
    check_as_undisturbed(sweep, ledger)


def cut(content: bytes) -> bytes:
    return content[:100]


def flipped(content: bytes) -> bytes:
    """One bit of a tensor in its middle is another one: it can be read, and only its sum tells."""
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


@pytest.mark.parametrize(("file", "damage"), [("weights.safetensors", flipped), ("training.pt", cut)])
def test_a_newest_checkpoint_that_is_damaged(sweep, file, damage):
    unfinished = next(t for t in started_and_killed(sweep, reports=3).in_order() if not t.ended)
    checkpoints = checkpoints_of(sweep.folder, unfinished.trial_id)
    newest = checkpoints.at(checkpoints.steps()[-1])
    path = newest / file
    path.write_bytes(damage(path.read_bytes()))

    assert sweep.resume() == 0, sweep.output
    (note,) = sweep.events("noted")
    assert note["trial_id"] == unfinished.trial_id
    assert note["text"].startswith(f"{newest} is damaged")
    assert f"{newest.name} is damaged" in " ".join(sweep.output.split())
    ledger = check_nothing_lost(sweep, planned=3, finished=3)
    check_reports_once(sweep)
    check_as_undisturbed(sweep, ledger)


@pytest.mark.parametrize(
    "sweep",
    [
        {
            "search.space": {"model.cell": {"choice": ["vanilla", "gru"]}, "training.batch_size": {"choice": [8, 4]}},
            "search.sampler": {"kind": "grid"},
            "search.trials": None,
        }
    ],
    indirect=True,
)
def test_a_damaged_ledger(sweep):
    started_and_killed(sweep, reports=3)
    lines = sweep.path.read_bytes().split(b"\n")[:-1]

    # A whole line in its middle: nobody can say what is true, so nothing is touched.
    whole = sweep.path.read_bytes()
    damaged = b"\n".join([*lines[:3], lines[3][:-9], *lines[4:], b""])
    sweep.path.write_bytes(damaged)
    shutil.rmtree(sweep.ray_folder / "ray")
    assert sweep.resume() == 2
    last = sweep.output.rstrip().splitlines()[-1]
    assert last == f"Error: {sweep.path}:4 is not a line of a ledger. Restore the file from a backup."
    assert sweep.path.read_bytes() == damaged
    assert not (sweep.ray_folder / "ray").exists(), "Ray was not started"

    # Half a line at its end: the driver was killed while it wrote it.
    sweep.path.write_bytes(whole + lines[-1][: len(lines[-1]) // 2])
    assert sweep.resume() == 0, sweep.output
    assert sweep.path.read_bytes().startswith(whole)
    ledger = check_nothing_lost(sweep, planned=4, finished=4)
    check_reports_once(sweep)
    check_as_undisturbed(sweep, ledger)
