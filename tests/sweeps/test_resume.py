"""``wmsweep resume``: stops that were decided, more trials, and failed trials again."""

from __future__ import annotations

import json
import shutil
from typing import Any

import pytest
from mlflow import MlflowClient

from sweeps.folder import trial_folder
from sweeps.tracking import TRIAL, child_runs, tracking_uri
from tests.fixtures.driven import PATIENCE_S, Driven, check_nothing_lost, check_reports_once, table, undisturbed
from tests.fixtures.sweeps import new_folder, small_sweep

pytestmark = [
    pytest.mark.faults,
    pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning"),
]
QUIET: dict[str, Any] = {"analyses": [], "recording": {}}


def test_a_stop_that_was_reported_is_kept(tmp_path, ray_folder):
    """The driver was killed between the report that stops a trial and the trial's end."""
    sweep = Driven(tmp_path, ray_folder, QUIET)
    sweep.write_banks()
    whole = undisturbed(sweep.spec, tmp_path / "undisturbed", sweep.stimuli)
    lines = whole.path.read_bytes().splitlines(keepends=True)
    stop = next(number for number, line in enumerate(lines) if json.loads(line).get("stops"))
    stopped = json.loads(lines[stop])["trial_id"]
    sweep.folder.mkdir()
    sweep.path.write_bytes(b"".join(lines[: stop + 1]))
    for trial in sweep.ledger.in_order():
        shutil.copytree(trial_folder(whole.path.parent, trial.trial_id), trial_folder(sweep.folder, trial.trial_id))
    assert sweep.ledger.trials[stopped].state == "running"

    assert sweep.resume() == 0, sweep.output
    first = sweep.events()[stop + 1]
    assert (first["event"], first["trial_id"]) == ("pruned", stopped)
    counts = {name: number for name, number in whole.counts().items() if number}
    assert table(check_nothing_lost(sweep, **counts)) == table(whole)
    check_reports_once(sweep)


def test_more_trials_and_failed_ones_again(tmp_path, ray_folder):
    changes = {
        **QUIET,
        # Long enough that a trial is still being trained when its worker is killed, however slow the test is.
        "trial.training.steps": 1200,
        "trial.evaluation": {"every_steps": 100, "trials": 48, "test_trials": 48},
        "search.sampler": {"kind": "random", "seed": 4},
        "search.scheduler": {"kind": "none"},
    }
    sweep = Driven(tmp_path, ray_folder, {**changes, "search.trials": 3})
    sweep.write_banks()
    expected = undisturbed(small_sweep(**changes, **{"search.trials": 4}), tmp_path / "undisturbed", sweep.stimuli)
    blocked, killed, healthy, added = (trial.trial_id for trial in expected.in_order())

    # The first trial cannot write its checkpoints, and the worker of the second one is killed once too often.
    new_folder(sweep.spec, tmp_path)
    trial_folder(sweep.folder, blocked).mkdir(parents=True)
    (trial_folder(sweep.folder, blocked) / "checkpoints").write_text("no folder")

    def reports_of(trial_id: str) -> int:
        return sum(line["trial_id"] == trial_id for line in sweep.events("reported"))

    with sweep.driver() as process:
        for _ in range(3):
            seen = reports_of(killed)
            sweep.wait_for(process, lambda n=seen: reports_of(killed) > n and sweep.kill_worker(process, killed))
        assert process.wait(PATIENCE_S) == 1, sweep.output
    assert "The sweep has ended, but variant 0 failed: " in sweep.output
    ledger = check_nothing_lost(sweep, planned=3, finished=1, failed=2)
    assert [trial.failures for trial in ledger.in_order()] == [1, 1, 0]
    assert (reports_of(blocked), reports_of(healthy)) == (0, 12)
    assert 3 <= reports_of(killed) < 12
    store = MlflowClient(tracking_uri(sweep.spec, sweep.folder))

    def runs() -> dict[str, str]:
        return {run.data.tags[TRIAL]: run.info.run_id for run in child_runs(store, sweep.spec.name)}

    before = runs()

    # More trials leave the failed ones as they are.
    whole = sweep.path.read_bytes()
    assert sweep.resume("--trials", "1") == 1
    assert sweep.path.read_bytes().startswith(whole)
    sweep = Driven(tmp_path, ray_folder, {**changes, "search.trials": 4})
    check_nothing_lost(sweep, planned=4, finished=2, failed=2)
    assert {line["trial_id"] for line in sweep.events()[len(whole.splitlines()) + 1 :]} == {added}

    (trial_folder(sweep.folder, blocked) / "checkpoints").unlink()
    known, trained = len(sweep.events()), reports_of(killed)
    assert sweep.resume("--retry-failed") == 0, sweep.output
    new = sweep.events()[known:]
    assert {line["trial_id"] for line in new} == {blocked, killed}
    assert sum(line["event"] == "reported" and line["trial_id"] == killed for line in new) == 12 - trained
    ledger = check_nothing_lost(sweep, planned=4, finished=4)
    check_reports_once(sweep)
    assert table(ledger) == table(expected)
    assert [trial.failures for trial in ledger.in_order()] == [1, 1, 0, 0]
    after = runs()
    tags = [name for run in child_runs(store, sweep.spec.name) for name in run.data.tags]
    assert not [name for name in tags if name.startswith(("wmsweep.reason", "wmsweep.divergence"))]
    assert {trial_id: after[trial_id] for trial_id in (killed, healthy)} == {
        trial_id: before[trial_id] for trial_id in (killed, healthy)
    }

    # A sweep that is complete stays as it is.
    data = sweep.path.read_bytes()
    assert sweep.resume("--retry-failed") == 0
    assert sweep.path.read_bytes() == data
