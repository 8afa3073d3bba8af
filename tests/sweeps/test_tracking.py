"""MLflow as a view of the ledger, on a real SQLite store. One store serves the module: making one takes seconds."""

from __future__ import annotations

import math
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from sweeps import verify
from sweeps.bookkeeper import Bookkeeper
from sweeps.resume import retry_failed
from sweeps.reuse import FinishedElsewhere
from sweeps.spec import SweepSpec
from sweeps.tracking import TRIAL, Tracker, child_runs, tracking_uri
from tests.fixtures.sweeps import evaluation, final, new_folder, report, small_sweep, train
from wmcore.errors import InputError
from wmcore.spec import with_paths

# MLflow itself uses what SQLAlchemy is about to drop.
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning")


@dataclass
class Tracked:
    spec: SweepSpec
    folder: Path
    ids: list[str]
    store: MlflowClient

    def parents(self) -> list[Run]:
        experiment = self.store.get_experiment_by_name(self.spec.name)
        assert experiment is not None
        return [r for r in self.store.search_runs([experiment.experiment_id]) if TRIAL not in r.data.tags]

    def children(self) -> dict[str, Run]:
        """Trial id -> its one run."""
        runs = child_runs(self.store, self.spec.name)
        found = {run.data.tags[TRIAL]: run for run in runs}
        assert len(found) == len(runs)
        return found


@pytest.fixture(scope="module")
def tracked(tmp_path_factory: pytest.TempPathFactory) -> Tracked:
    """A finished, a pruned, a failed and an unfinished trial; then a second driver on the same folder."""
    spec = small_sweep(name="tracked", **{"search.sampler": {"kind": "random", "seed": 1}})
    folder = new_folder(spec, tmp_path_factory.mktemp("storage"))
    (folder / "figure.png").write_bytes(b"a figure")
    (folder / "tables").mkdir()
    (folder / "tables" / "a.parquet").write_bytes(b"a table")
    with Tracker(spec, folder) as tracker:
        book = Bookkeeper(spec, folder, folder, [tracker])
        ids = [book.next_trial()["trial_id"] for _ in range(4)]
        train(book, ids[0], [0.6, 0.9, 0.7, 0.8])
        train(book, ids[1], [0.2])
        report(book, ids[2], 10, 0.9, math.nan)
        report(book, ids[3], 10, 0.95)
        tracker.artifact(ids[0], folder / "figure.png", "analyses/replicate_0")
        tracker.artifact(None, folder / "tables", "report")
    tracked = Tracked(spec, folder, ids, MlflowClient(tracking_uri(spec, folder)))
    first = tracked.children()

    # The first driver's last writes are lost, as if it had been killed with them in its queue or between two of them:
    # states and status, a report, a run's params.
    for index in (0, 1):
        tracked.store.delete_tag(first[ids[index]].info.run_id, "wmsweep.state")
    for index in (0, 1, 2):
        tracked.store.update_run(first[ids[index]].info.run_id, status="RUNNING")
    lost = Bookkeeper(spec, folder, folder, [])
    report(lost, ids[3], 20, 0.96)
    book = Bookkeeper(spec, folder, folder, [])
    [book.next_trial() for _ in range(2)]
    tracked.ids = list(book.ledger.trials)
    of_last = {**first[ids[3]].data.tags, TRIAL: tracked.ids[4], "mlflow.runName": "trial-004"}
    tracked.store.create_run(first[ids[3]].info.experiment_id, tags=of_last)
    with Tracker(spec, folder) as tracker:
        book = Bookkeeper(spec, folder, folder, [tracker])
        report(book, ids[3], 30, 0.97)
        report(book, ids[3], 40, 0.98)
        tracker.planned(book.ledger.trials[ids[0]])  # again
        train(book, tracked.ids[4], [0.1])
    assert {i: run.info.run_id for i, run in first.items()}.items() <= {
        i: run.info.run_id for i, run in tracked.children().items()
    }.items()
    return tracked


def test_one_parent_and_one_child_for_each_trial(tracked):
    (parent,) = tracked.parents()
    assert parent.info.run_name == "tracked"
    assert parent.info.status == "FINISHED"
    assert parent.data.params["search.sampler.kind"] == "random"
    children = tracked.children()
    assert list(tracked.ids) == list(dict.fromkeys(tracked.ids))
    assert set(children) == set(tracked.ids)
    assert len(tracked.ids) == 5
    assert {run.data.tags["mlflow.parentRunId"] for run in children.values()} == {parent.info.run_id}
    assert [children[i].info.run_name for i in tracked.ids] == [f"trial-{n:03d}" for n in range(5)]


def test_states_and_reasons(tracked):
    runs = [tracked.children()[i] for i in tracked.ids]
    assert [r.data.tags.get("wmsweep.state") for r in runs] == ["finished", "pruned", "failed", "finished", "pruned"]
    assert [r.info.status for r in runs] == ["FINISHED", "FINISHED", "FAILED", "FINISHED", "FINISHED"]
    assert [r.data.tags["wmsweep.steps"] for r in runs] == ["40", "10", "10", "40", "10"]
    assert runs[2].data.tags["wmsweep.reason"].startswith("diverged")


def test_params_are_flat(tracked):
    points = {
        t.trial_id: t.point for t in Bookkeeper(tracked.spec, tracked.folder, tracked.folder, []).ledger.in_order()
    }
    for trial_id, run in tracked.children().items():
        params = run.data.params
        assert {path: params[path] for path in points[trial_id]} == {p: str(v) for p, v in points[trial_id].items()}
        # The whole variant, but for its stimuli: what is not searched can be compared between sweeps.
        assert {"seed", "replicates", "model.kind", "training.steps", "task.kind", "task.n"} <= set(params)
        assert not any(path.startswith("task.stimuli") for path in params)


def test_curves_are_whole_though_a_driver_was_killed(tracked):
    def curve(index: int, key: str) -> list[tuple[int, float]]:
        run = tracked.children()[tracked.ids[index]].info.run_id
        return sorted((m.step, m.value) for m in tracked.store.get_metric_history(run, key))

    assert curve(0, "select/accuracy") == [(10, 0.6), (20, 0.9), (30, 0.7), (40, 0.8)]
    assert curve(1, "select/accuracy") == [(10, 0.2)]
    assert curve(3, "select/accuracy") == [(10, 0.95), (20, 0.96), (30, 0.97), (40, 0.98)]
    assert [step for step, _ in curve(3, "train/loss")] == [10, 20, 30, 40]
    assert curve(2, "train/loss") == []  # it was not a number
    assert curve(0, "final/test/accuracy") == [(40, 0.8)]


def test_artifacts_arrive(tracked):
    run = tracked.children()[tracked.ids[0]].info.run_id
    assert [a.path for a in tracked.store.list_artifacts(run, "analyses/replicate_0")] == [
        "analyses/replicate_0/figure.png"
    ]
    (parent,) = tracked.parents()
    assert [a.path for a in tracked.store.list_artifacts(parent.info.run_id, "report")] == ["report/a.parquet"]
    stored = list((tracked.folder / "mlartifacts").rglob("figure.png"))
    assert [path.read_bytes() for path in stored] == [b"a figure"]


def test_a_child_has_few_metrics_even_of_the_largest_task(tracked, tmp_path):
    """MLflow's pages become slow beyond some 30."""
    folder = tmp_path / "largest"
    folder.mkdir()
    shutil.copy(tracked.folder / "mlflow.db", folder / "mlflow.db")
    task = {"kind": "nback", "n": [1, 2, 3], "features": ["location", "identity", "category"]}
    base = small_sweep(name="tracked").model_dump(mode="json")
    spec = SweepSpec.parse(with_paths(base, {"name": "largest", "trial.task": task}))
    names = spec.trial.task.metric_names()
    splits = [name for name in spec.trial.task.split_names() if name != "train"]
    with Tracker(spec, folder) as tracker:
        book = Bookkeeper(spec, folder, folder, [tracker])
        trial_id = book.next_trial()["trial_id"]
        shown = evaluation(40)
        shown["metrics"] |= {f"select/{name}": 0.5 for name in names}
        last = {**final(), "metrics": {f"{split}/{name}": 0.5 for split in splits for name in names}}
        book.reported(trial_id, {"evaluation": shown, "done": True, "notes": [], "seconds": 1.0, "final": last})
    (run,) = child_runs(MlflowClient(tracking_uri(spec, folder)), "largest")
    assert {"select/accuracy", "train/loss", "final/test/accuracy", "final/test_both/accuracy"} <= set(run.data.metrics)
    assert len(run.data.metrics) <= 30


def test_a_store_that_refuses_stops_nothing_and_is_said_at_the_end(tmp_path):
    spec = small_sweep(**{"tracking.uri": "mysql://nobody@127.0.0.1:9/nothing"})
    folder = new_folder(spec, tmp_path)
    tracker = Tracker(spec, folder)
    book = Bookkeeper(spec, folder, folder, [tracker])
    trial_id = book.next_trial()["trial_id"]
    assert train(book, trial_id, [0.5] * 4) == "finished"
    with pytest.raises(InputError, match=r"tracking\.uri is 'mysql:.* cannot be used by MLflow"):
        tracker.wait_until_open()
    with tracker:
        pass
    assert re.search(r"MLflow at mysql:.* failed .*ledger is complete", tracker.problem)
    assert [t.state for t in Bookkeeper(spec, folder, folder, []).ledger.in_order()] == ["finished"]


def test_what_ended_a_sweep_is_not_hidden_by_the_store(tmp_path):
    spec = small_sweep(**{"tracking.uri": "mysql://nobody@127.0.0.1:9/nothing"})
    with pytest.raises(KeyboardInterrupt), Tracker(spec, new_folder(spec, tmp_path)):
        raise KeyboardInterrupt


@pytest.fixture(scope="module")
def server(tracked: Tracked) -> str:
    """A store that several sweeps share."""
    return tracking_uri(tracked.spec, tracked.folder)


def steps(store: MlflowClient, run: Run) -> list[int]:
    return [metric.step for metric in store.get_metric_history(run.info.run_id, "select/accuracy")]


def sharing(name: str, storage: Path, uri: str, **changes) -> tuple[SweepSpec, Path]:
    base = {"search.sampler": {"kind": "random", "seed": 1}, "search.scheduler": {"kind": "none"}}
    spec = small_sweep(name=name, **{**base, "tracking": {"uri": uri}, **changes})
    return spec, new_folder(spec, storage)


def test_sweeps_of_one_name_on_one_server_stay_apart(server, tmp_path):
    """The same spec in two storages: the same trial ids, and runs of their own."""
    store, ids = MlflowClient(server), []
    for place in ("here", "there"):
        spec, folder = sharing("twice", tmp_path / place, server)
        with Tracker(spec, folder) as tracker:
            book = Bookkeeper(spec, folder, folder, [tracker])
            trial_id = book.next_trial()["trial_id"]
            train(book, trial_id, [0.6, 0.7, 0.8, 0.9])
        ids.append(trial_id)
        check = verify._mlflow(spec, folder, book.ledger)
        assert check.holds, check
    assert ids[0] == ids[1]
    runs = child_runs(store, "twice")
    assert len(runs) == 2
    assert [steps(store, run) for run in runs] == [[10, 20, 30, 40]] * 2
    assert len({run.data.tags["mlflow.parentRunId"] for run in runs}) == 2


def test_a_trial_that_starts_anew_has_a_curve_of_its_own(server, tmp_path):
    """The driver was killed before the store heard of the failure."""
    spec, folder = sharing("anew", tmp_path, server)
    with Tracker(spec, folder) as tracker:
        book = Bookkeeper(spec, folder, folder, [tracker])
        trial_id = book.next_trial()["trial_id"]
        report(book, trial_id, 10, 0.5)
        report(book, trial_id, 20, 0.5)
    silent = Bookkeeper(spec, folder, folder, [])
    report(silent, trial_id, 30, 0.5, math.nan)
    assert len(retry_failed(folder, silent.ledger)) == 1
    with Tracker(spec, folder) as tracker:
        train(Bookkeeper(spec, folder, folder, [tracker]), trial_id, [0.6, 0.7, 0.8, 0.9])
    store = MlflowClient(server)
    (run,) = child_runs(store, "anew")
    assert steps(store, run) == [10, 20, 30, 40]
    assert run.info.status == "FINISHED"


def test_the_sweeps_run_says_what_the_sweep_is_now(server, tmp_path):
    """Its spec was corrected before the first trial; later it was extended, and its trials got another share."""
    store = MlflowClient(server)

    def opened(**changes) -> Run:
        spec, folder = sharing("corrected", tmp_path, server, **changes)
        with Tracker(spec, folder) as tracker:
            tracker.wait_until_open()
        experiment = store.get_experiment_by_name("corrected")
        assert experiment is not None
        (run,) = (run for run in store.search_runs([experiment.experiment_id]) if TRIAL not in run.data.tags)
        return run

    opened(**{"trial.training.batch_size": 4})
    corrected = opened()
    assert corrected.data.params["trial.training.batch_size"] == "8"
    assert corrected.data.tags["wmsweep.search.trials"] == "5"
    assert corrected.data.tags["wmsweep.resources.cpu"] == "1.0"
    again = opened(**{"search.trials": 7, "resources.cpu": 0.5})
    assert again.info.run_id == corrected.info.run_id
    assert again.data.tags["wmsweep.search.trials"] == "7"
    assert again.data.tags["wmsweep.resources.cpu"] == "0.5"


def test_a_retry_that_succeeds_leaves_no_reason_behind(server, tmp_path):
    """Two failed: one broke, of one some replicates were silent when it did."""
    spec, folder = sharing("retried", tmp_path, server)
    with Tracker(spec, folder) as tracker:
        book = Bookkeeper(spec, folder, folder, [tracker])
        ids = [book.next_trial()["trial_id"] for _ in range(2)]
        report(book, ids[0], 10, 0.5)
        book.failed(ids[0], "the worker died")
        book.failed(ids[1], "the worker died", {"silent": 1})
    store = MlflowClient(server)
    failed = {run.data.tags[TRIAL]: run for run in child_runs(store, "retried")}
    assert {"wmsweep.reason", "wmsweep.divergence.silent"} <= set(failed[ids[1]].data.tags)
    with Tracker(spec, folder) as tracker:
        tracker.retried(retry_failed(folder, book.ledger))
        book = Bookkeeper(spec, folder, folder, [tracker])
        for trial_id in ids:
            train(book, trial_id, [0.5, 0.6, 0.7, 0.8])
    after = {run.data.tags[TRIAL]: run for run in child_runs(store, "retried")}
    for trial_id in ids:
        assert after[trial_id].info.run_id == failed[trial_id].info.run_id
        assert after[trial_id].data.tags["wmsweep.state"] == "finished"
        assert not [name for name in after[trial_id].data.tags if name.startswith(("wmsweep.reason", "wmsweep.div"))]


def test_a_reused_trial_that_was_begun_here_has_each_step_once(server, tmp_path, monkeypatch):
    spec, folder = sharing("begun", tmp_path, server)
    with Tracker(spec, folder) as tracker:
        book = Bookkeeper(spec, folder, folder, [tracker])
        trial_id = book.next_trial()["trial_id"]
        report(book, trial_id, 10, 0.6)
    other, elsewhere = sharing("other", tmp_path, server)
    begun = Bookkeeper(other, elsewhere, elsewhere, [])
    assert begun.next_trial()["trial_id"] == trial_id
    train(begun, trial_id, [0.6, 0.7, 0.8, 0.9])
    monkeypatch.setattr("sweeps.reuse.Found.copy_checkpoints", lambda found, target: None)
    monkeypatch.setattr("sweeps.reuse.Found.check_whole", lambda found: None)
    with Tracker(spec, folder) as tracker:
        again = Bookkeeper(spec, folder, folder, [tracker], FinishedElsewhere(tmp_path, but=folder))
        again.next_trial()
    assert again.ledger.trials[trial_id].source == "other"
    store = MlflowClient(server)
    run = next(run for run in child_runs(store, "begun") if run.data.tags[TRIAL] == trial_id)
    assert steps(store, run) == [10, 20, 30, 40]
    assert run.data.tags["wmsweep.reused_from"] == "other"
