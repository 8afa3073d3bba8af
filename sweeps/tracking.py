"""MLflow as a view of the ledger: one parent run per sweep, one child run per trial, written off the training loop.

Runs are found by their tags (sweep, trial id) before they are made, so that nothing is logged to two runs. All writes
pass one queue and one thread: the driver never waits for the store.
"""

from __future__ import annotations

import logging
import os
import queue
import threading
import time
from collections.abc import Callable, Container, Mapping, Sequence
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Metric, Param, Run, RunTag

from sweeps.ledger import CHANGEABLE, Ledger, TrialRecord
from sweeps.spec import SweepSpec
from wmcore.errors import InputError

SWEEP, SWEEP_ID, TRIAL = "wmsweep.sweep", "wmsweep.sweep_id", "wmsweep.trial_id"
STORE = "mlflow.db"
"""File of a sweep's folder: its own store."""
_STATE, _REASON, _DIVERGENCE = "wmsweep.state", "wmsweep.reason", "wmsweep.divergence."
_STATUS = {"finished": "FINISHED", "pruned": "FINISHED", "failed": "FAILED"}
_CHANGING = ("search.trials", *(f"{name}." for name in CHANGEABLE))
"""What may change in a sweep that has begun: tags of its run, because a param of MLflow never changes."""
_HEADLINE = ("select/", "train/")
"""Metrics with a curve; of the other splits only the objective's metric is logged, once."""
_LONGEST_VALUE = 500

# A server that does not answer is given up after seconds, not after MLflow's minutes, unless the user says otherwise.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")

for name in ("mlflow", "alembic"):
    logging.getLogger(name).setLevel(logging.ERROR)


def tracking_uri(spec: SweepSpec, folder: Path) -> str:
    """The store of a sweep: the one that its spec names, or an SQLite file in its folder."""
    return spec.tracking.uri or f"sqlite:///{(folder / STORE).resolve()}"


class Tracker:
    """Listens to the bookkeeper and writes to MLflow."""

    def __init__(self, spec: SweepSpec, folder: Path) -> None:
        """Starts the writing thread; the store is opened there (seconds), while the sweep gets ready."""
        self.spec, self.folder = spec, folder
        self.error: Exception | None = None
        self._queue: queue.SimpleQueue[Callable[[], object] | None] = queue.SimpleQueue()
        self._runs: dict[str, str] = {}
        ledger = Ledger(folder / "ledger.jsonl")
        self._sweep_id, self._recorded = ledger.sweep_id, ledger.in_order()
        self._opened = threading.Event()
        self._thread = threading.Thread(target=self._work, name="tracking", daemon=True)
        self._thread.start()
        self._queue.put(self._open)
        self._queue.put(self._opened.set)

    def planned(self, trial: TrialRecord) -> None:
        """Makes the trial's run."""
        number, trial_id, point = trial.number, trial.trial_id, dict(trial.point)
        self._queue.put(lambda: self._plan(number, trial_id, point))

    def reported(self, trial: TrialRecord, metrics: dict[str, float]) -> None:
        """Logs one evaluation in one batch."""
        trial_id, batch = trial.trial_id, _curves(trial.step, metrics)
        self._queue.put(lambda: self._client.log_batch(self._runs[trial_id], metrics=batch))

    def noted(self, trial: TrialRecord) -> None:
        """The ledger has it."""

    def ended(self, trial: TrialRecord) -> None:
        """Logs the final figures and closes the run; of a reused trial, its curves first."""
        if trial.source:
            trial_id, reports = trial.trial_id, dict(trial.reports)
            self._queue.put(lambda: self._write_missing(trial_id, reports))
        self._queue.put(self._ending(trial))

    def retried(self, trials: Sequence[TrialRecord]) -> None:
        """Opens the runs of trials that had failed and are pending again."""

        def write() -> None:
            runs = {run.data.tags[TRIAL]: run for run in child_runs(self._client, self.spec.name, self._sweep_id)}
            for trial in trials:
                self._reopen(trial, runs[trial.trial_id])
                self._catch_up(trial, runs[trial.trial_id])

        self._queue.put(write)

    def _ending(self, trial: TrialRecord, written: Container[str] = ()) -> Callable[[], None]:
        """Writes what is now known of an ended trial, but for the metrics that are ``written``."""
        trial_id, state, reason, step = trial.trial_id, trial.state, trial.reason, trial.step
        result = trial.result or {}
        now = int(time.time() * 1000)
        final = result.get("metrics", {})
        shown = {objective.name for objective in self.spec.search.objectives}
        batch = [
            Metric(f"final/{k}", v, now, step)
            for k, v in final.items()
            if v is not None and k.partition("/")[2] in shown and not k.startswith("select/")
            if f"final/{k}" not in written
        ]
        said = {_STATE: state, "wmsweep.steps": step, _REASON: reason, "wmsweep.reused_from": trial.source}
        said |= {f"{_DIVERGENCE}{kind}": count for kind, count in trial.divergence.items()}
        tags = [RunTag(name, str(value)[:_LONGEST_VALUE]) for name, value in said.items() if value != ""]

        def write() -> None:
            self._client.log_batch(self._runs[trial_id], metrics=batch, tags=tags)
            self._client.set_terminated(self._runs[trial_id], _STATUS[state])

        return write

    def artifact(self, trial_id: str | None, path: Path, under: str) -> None:
        """Copies a file or folder into a trial's run, or into the sweep's for None."""

        def write() -> None:
            run = self._parent if trial_id is None else self._runs[trial_id]
            log = self._client.log_artifacts if path.is_dir() else self._client.log_artifact
            log(run, str(path), under)

        self._queue.put(write)

    def wait_until_open(self) -> None:
        """Returns once the store has been reached and holds what the ledger holds.

        Raises:
            InputError: it cannot be used.
        """
        self._opened.wait()
        if self.error is not None:
            raise InputError(
                "tracking.uri",
                f"cannot be used by MLflow ({_first_line(self.error)})",
                value=tracking_uri(self.spec, self.folder),
                remedy="Start the server, correct the address, or leave it out to track in the sweep's own folder.",
            )

    @property
    def problem(self) -> str:
        """What the store refused, once the tracker is closed; an empty string if nothing."""
        if self.error is None:
            return ""
        return (
            f"MLflow at {tracking_uri(self.spec, self.folder)} failed ({_first_line(self.error)}): training is not "
            "affected, the ledger is complete, and the next run of this sweep tracks what is missing"
        )

    def __enter__(self) -> Tracker:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Waits until everything is written and ends the sweep's run."""
        status = "FINISHED" if kind is None else "KILLED" if kind is KeyboardInterrupt else "FAILED"
        self._queue.put(lambda: self._client.set_terminated(self._parent, status))
        self._queue.put(None)
        self._thread.join()

    def _work(self) -> None:
        while (job := self._queue.get()) is not None:
            if self.error is None:
                try:
                    job()
                except Exception as error:  # kept, and told by whoever waits for this thread
                    self.error = error
                    self._opened.set()

    def _open(self) -> None:
        if self.spec.tracking.uri is None:
            _make_store(self.folder / STORE)
        self._client = MlflowClient(tracking_uri(self.spec, self.folder))
        experiment = self._client.get_experiment_by_name(self.spec.name)
        if experiment is None:
            local = None if self.spec.tracking.uri else (self.folder / "mlartifacts").resolve().as_uri()
            self._experiment = self._client.create_experiment(
                self.spec.name, artifact_location=local, tags={"mlflow.experimentKind": "custom_model_development"}
            )
        else:
            self._experiment = experiment.experiment_id
        mine = f"tags.`{SWEEP}.role` = 'sweep' AND tags.`{SWEEP_ID}` = '{self._sweep_id}'"
        parents = self._client.search_runs([self._experiment], mine, max_results=1)
        flat = _flat(self.spec.model_dump(mode="json", exclude={"trial": {"task": {"stimuli"}}}))
        changing = {name: value for name, value in flat.items() if name.startswith(_CHANGING)}
        params = dict([(name, value) for name, value in flat.items() if name not in changing][:100])
        if parents and (self._recorded or parents[0].data.params.items() <= params.items()):
            self._parent = parents[0].info.run_id
            self._client.update_run(self._parent, status="RUNNING")
        else:
            for stale in parents:  # of a spec that was corrected before the first trial
                self._client.delete_run(stale.info.run_id)
            tags = {"mlflow.runName": self.spec.name, SWEEP: self.spec.name, SWEEP_ID: self._sweep_id}
            tags[f"{SWEEP}.role"] = "sweep"
            self._parent = self._client.create_run(self._experiment, tags=tags).info.run_id
        self._client.log_batch(
            self._parent,
            params=[Param(name, value) for name, value in params.items()],
            tags=[RunTag(f"wmsweep.{name}", value) for name, value in changing.items()],
        )
        found = {run.data.tags[TRIAL]: run for run in child_runs(self._client, self.spec.name, self._sweep_id)}
        self._runs.update((trial_id, run.info.run_id) for trial_id, run in found.items())
        for trial in self._recorded:
            known = found.get(trial.trial_id)
            state = None if known is None else known.data.tags.get(_STATE)
            if known is not None and not trial.ended:
                self._reopen(trial, known)
            if known is None or not trial.ended or state != trial.state or known.info.status == "RUNNING":
                self._catch_up(trial, known)

    def _reopen(self, trial: TrialRecord, run: Run) -> None:
        """A trial that is pending goes on in its run, which says no more why it failed before; if its curve was
        forgotten, because it starts anew after a failure, the run gives way to a new one."""
        run_id = self._runs[trial.trial_id]
        if self._written(trial.trial_id) <= set(trial.reports):
            self._client.update_run(run_id, status="RUNNING")
            self._client.set_tag(run_id, _STATE, "pending")
            for name in run.data.tags:
                if name == _REASON or name.startswith(_DIVERGENCE):
                    self._client.delete_tag(run_id, name)
        else:
            # MLflow keeps what is deleted, and shows it no more.
            self._client.delete_run(self._runs.pop(trial.trial_id))

    def _catch_up(self, trial: TrialRecord, known: Run | None) -> None:
        """Writes what is in the ledger already and was not yet in the store when an earlier driver was killed, which
        may have been between any two writes."""
        if known is not None and trial.trial_id in self._runs:
            self._log_params(trial.trial_id, trial.point)
        self._plan(trial.number, trial.trial_id, dict(trial.point))
        self._write_missing(trial.trial_id, trial.reports)
        if trial.ended:
            self._ending(trial, () if known is None else known.data.metrics)()

    def _written(self, trial_id: str) -> set[int]:
        """Steps of a trial's curve that the store holds."""
        curve = self._client.get_metric_history(self._runs[trial_id], self.spec.search.leading.metric)
        return {metric.step for metric in curve}

    def _write_missing(self, trial_id: str, reports: Mapping[int, dict[str, float]]) -> None:
        written = self._written(trial_id)
        for step, metrics in reports.items():
            if step not in written:
                self._client.log_batch(self._runs[trial_id], metrics=_curves(step, metrics))

    def _plan(self, number: int, trial_id: str, point: dict[str, Any]) -> None:
        """Makes a trial's run."""
        if trial_id in self._runs:
            return
        tags = {
            "mlflow.runName": f"trial-{number:03d}",
            "mlflow.parentRunId": self._parent,
            SWEEP: self.spec.name,
            SWEEP_ID: self._sweep_id,
            TRIAL: trial_id,
        }
        self._runs[trial_id] = self._client.create_run(self._experiment, tags=tags).info.run_id
        self._log_params(trial_id, point)

    def _log_params(self, trial_id: str, point: Mapping[str, Any]) -> None:
        """Everything of the variant but its stimuli, flat; what is there already stays."""
        variant = self.spec.trial_for(point).model_dump(mode="json", exclude={"task": {"stimuli"}})
        params = {**_flat(variant), **{path: str(value)[:_LONGEST_VALUE] for path, value in point.items()}}
        self._client.log_batch(self._runs[trial_id], params=[Param(k, v) for k, v in params.items()])


def child_runs(client: MlflowClient, name: str, sweep_id: str | None = None) -> list[Any]:
    """Every trial's run of a sweep; without its id, of all sweeps of that name in the store."""
    experiment = client.get_experiment_by_name(name)
    if experiment is None:
        return []
    runs, token = [], None
    while True:
        page = client.search_runs(
            [experiment.experiment_id],
            f"tags.`{SWEEP}` = '{name}' AND tags.`{TRIAL}` != ''"
            + ("" if sweep_id is None else f" AND tags.`{SWEEP_ID}` = '{sweep_id}'"),
            max_results=1000,
            page_token=token,
        )
        runs.extend(page)
        token = page.token
        if not token:
            return runs


def _make_store(path: Path) -> None:
    """Makes a sweep's own store whole or not at all: MLflow cannot use one whose making was cut short."""
    if path.exists():
        return
    making = path.with_name(f".{path.name}.making")
    for left in path.parent.glob(f"{making.name}*"):
        left.unlink()
    MlflowClient(f"sqlite:///{making.resolve()}").search_experiments(max_results=1)
    making.rename(path)


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0][:300]


def _curves(step: int, metrics: dict[str, float]) -> list[Metric]:
    """The metrics of one evaluation that have a curve, where they are numbers."""
    now = int(time.time() * 1000)
    return [Metric(k, v, now, step) for k, v in metrics.items() if v is not None and v == v and k.startswith(_HEADLINE)]


def _flat(value: Any, prefix: str = "") -> dict[str, str]:
    """Dotted path -> scalar as text."""
    if isinstance(value, dict):
        return {k: v for key, item in value.items() for k, v in _flat(item, f"{prefix}{key}.").items()}
    return {prefix.removesuffix("."): str(value)[:_LONGEST_VALUE]}
