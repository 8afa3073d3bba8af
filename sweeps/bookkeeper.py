"""The driver's one place of truth while a sweep runs: ledger, study, stopping rule, tracker and display hear of every
event here, in that order. No Ray here."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Protocol

from sweeps.ledger import Ledger, TrialRecord
from sweeps.schedule import replay, stopping_rule
from sweeps.search import Study
from sweeps.spec import SweepSpec
from wmcore.training.checkpoint import CheckpointFolder

ATTEMPTS, ATTEMPTS_PER_CELL, MOST_ATTEMPTS = 200, 10, 5000
"""Suggestions that may turn out to be known before the space is taken to be used up."""


class Listener(Protocol):
    """Hears of events after they are in the ledger (tracker, display)."""

    def planned(self, trial: TrialRecord) -> None: ...

    def reported(self, trial: TrialRecord, metrics: dict[str, float]) -> None: ...

    def ended(self, trial: TrialRecord) -> None: ...


class Bookkeeper:
    """Serves trials and records what becomes of them."""

    def __init__(self, spec: SweepSpec, folder: Path, stimuli: Path, listeners: list[Listener]) -> None:
        self.spec, self.folder, self.stimuli, self.listeners = spec, folder, stimuli, listeners
        self.ledger = Ledger(folder / "ledger.jsonl")
        trials = self.ledger.in_order()
        self.study = Study(spec.search, trials)
        self.rule = stopping_rule(spec.search.scheduler, spec.search.leading, spec.trial.training.steps)
        replay(self.rule, trials, spec.search.leading.metric)
        self._unfinished = [trial for trial in trials if not trial.ended]
        self._stopping: set[str] = set()

    @property
    def metric(self) -> str:
        """The objective's metric."""
        return self.spec.search.leading.metric

    @property
    def remaining(self) -> int:
        """Trials that are still to be trained, unfinished ones included."""
        pending = self.ledger.counts()["pending"]
        return pending + (0 if self.ledger.exhausted else max(0, self.spec.search.budget - len(self.ledger.trials)))

    def next_trial(self) -> dict[str, Any] | None:
        """The config of the next trial for ``VariantTrainable``; None when nothing is left."""
        if self._unfinished:
            trial = self._unfinished.pop(0)
            return self._config(trial)
        if len(self.ledger.trials) >= self.spec.search.budget or self.ledger.exhausted:
            return None
        number = len(self.ledger.trials)
        for attempt in range(self._attempts(number)):
            asked = self.study.ask(number, attempt)
            point = self.study.point(asked)
            trial_id = self.spec.trial_for(point).trial_id
            if trial_id in self.ledger.trials:
                self.study.drop(asked)
                continue
            self.study.bind(asked, trial_id)
            self.ledger.append("planned", number=number, trial_id=trial_id, point=point)
            trial = self.ledger.trials[trial_id]
            for listener in self.listeners:
                listener.planned(trial)
            return self._config(trial)
        self.ledger.append("exhausted", reason=f"{number} different trials, and no suggestion is new")
        return None

    def _attempts(self, number: int) -> int:
        """Suggestions to look at; in a space of cells enough to meet the last new one almost surely."""
        size = self.spec.search.space.size()
        if size is None:
            return ATTEMPTS
        return min(max(ATTEMPTS, ATTEMPTS_PER_CELL * size), MOST_ATTEMPTS) if size > number else 0

    def started(self, trial_id: str) -> None:
        """An actor took the trial (again, after its worker died)."""
        if self.ledger.trials[trial_id].ended:
            return
        self.ledger.append("started", trial_id=trial_id)

    def decide(self, trial_id: str, step: int, value: float, loss: float) -> bool:
        """Whether a trial ends at this report, which itself reaches ``reported`` right after."""
        if not math.isfinite(loss):
            return True
        if self.rule.stops(trial_id, step, value):
            self._stopping.add(trial_id)
        return trial_id in self._stopping

    def reported(self, trial_id: str, result: dict[str, Any]) -> None:
        """One evaluation, and what follows from it: the trial goes on, is stopped, has diverged or is finished."""
        evaluation = result["evaluation"]
        step = evaluation["step"]
        trial = self.ledger.trials[trial_id]
        if trial.ended:
            return
        # A trial that continues from a checkpoint reports it again, lest the first report was lost with a worker.
        if step not in trial.reports:
            self.ledger.append(
                "reported",
                trial_id=trial_id,
                step=step,
                metrics=evaluation["metrics"],
                replicates=evaluation["replicates"],
            )
            for listener in self.listeners:
                listener.reported(trial, evaluation["metrics"])
        if not math.isfinite(evaluation["metrics"]["train/loss"]):
            self.failed(trial_id, f"diverged: the training loss is not finite at step {step}")
        elif trial_id in self._stopping:
            self._end("pruned", trial_id, step=step)
        elif result["done"] and trial.best(self.metric, self.spec.search.leading.mode) is None:
            self.failed(trial_id, f"{self.metric} was not a number at any evaluation")
        elif result["done"]:
            self._end(
                "finished", trial_id, step=step, result={**result["final"], "seconds": result["training_seconds"]}
            )

    def failed(self, trial_id: str, reason: str) -> None:
        """The trial cannot go on."""
        if not self.ledger.trials[trial_id].ended:
            self._end("failed", trial_id, reason=reason)

    def _end(self, event: str, trial_id: str, **fields: Any) -> None:
        self.ledger.append(event, trial_id=trial_id, **fields)
        trial = self.ledger.trials[trial_id]
        self.study.tell(trial)
        for listener in self.listeners:
            listener.ended(trial)

    def _config(self, trial: TrialRecord) -> dict[str, Any]:
        spec = self.spec.trial_for(trial.point)
        folder = trial_folder(self.folder, trial.trial_id)
        return {
            "trial_id": trial.trial_id,
            "trial": spec.canonical_json(),
            "folder": str(folder),
            "stimuli": str(self.stimuli),
            "threads": max(1, int(self.spec.resources.cpu)),
        }


def trial_folder(sweep: Path, trial_id: str) -> Path:
    """Where a trial keeps its checkpoints, recordings and analyses."""
    return sweep / "trials" / trial_id


def best_checkpoint(sweep: Path, trial: TrialRecord, metric: str, mode: str) -> Path | None:
    """The checkpoint of a trial's best report."""
    best = trial.best(metric, mode)
    if best is None:
        return None
    return CheckpointFolder(trial_folder(sweep, trial.trial_id) / "checkpoints").at(best[0])
