"""The driver's one place of truth while a sweep runs: ledger, study, stopping rule, tracker and display hear of every
event here, in that order. No Ray here."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

from sweeps.folder import trial_folder
from sweeps.ledger import Ledger, TrialRecord
from sweeps.prior import first_points
from sweeps.reuse import FinishedElsewhere
from sweeps.samplers import TpeSpec
from sweeps.schedule import replay, score
from sweeps.search import Asked, rebuilt
from sweeps.spec import SweepSpec
from wmcore.training.divergence import FATAL


class Listener(Protocol):
    """Hears of events after they are in the ledger (tracker, display)."""

    def planned(self, trial: TrialRecord) -> None: ...

    def reported(self, trial: TrialRecord, metrics: dict[str, float]) -> None: ...

    def noted(self, trial: TrialRecord) -> None: ...

    def ended(self, trial: TrialRecord) -> None: ...


class Bookkeeper:
    """Serves trials and records what becomes of them."""

    def __init__(
        self,
        spec: SweepSpec,
        folder: Path,
        stimuli: Path,
        listeners: list[Listener],
        finished: FinishedElsewhere | None = None,
    ) -> None:
        """Args:
        spec: the sweep, with the number of trials that it has by now.
        folder: its folder; the ledger there is replayed.
        stimuli: the banks' folder.
        listeners: hear of every event.
        finished: trials of other sweeps that need not be trained again.
        """
        self.spec, self.folder, self.stimuli, self.listeners = spec, folder, stimuli, listeners
        self.finished = finished
        self.ledger = Ledger(folder / "ledger.jsonl")
        trials = self.ledger.in_order()
        self._first = first_points(spec.search, self.ledger.warm)
        self.study = rebuilt(spec.search, self.ledger)
        self.rule = spec.stopping_rule()
        replay(self.rule, trials, spec.search.scheduler, spec.search.leading)
        self._stopping = {trial.trial_id for trial in trials if trial.stopping and not trial.ended}
        for trial_id in self._stopping:
            # The driver was killed between the report that stopped it and its end.
            self._end("pruned", trial_id, step=self.ledger.trials[trial_id].step)
        self._queue = deque(trial for trial in trials if not trial.ended)
        self._configured: dict[str, float] = {}
        self._before: dict[str, float] = {}

    @property
    def remaining(self) -> int:
        """Trials that are still to be trained, unfinished ones included."""
        pending = self.ledger.counts()["pending"]
        return pending + (0 if self.ledger.exhausted else max(0, self.spec.search.budget - len(self.ledger.trials)))

    @property
    def waits(self) -> bool:
        """The next trial is suggested only when those that are running have ended."""
        return not self._queue and not self._batch_may_begin() and self._may_plan()

    def next_trial(self) -> dict[str, Any] | None:
        """The config of the next trial for ``VariantTrainable``; None when nothing is left, or while it ``waits``."""
        while not self.waits:
            # A batch whose planning was cut short is planned to its end before any of it trains.
            if not self._queue or self._batch_is_begun():
                self._plan()
            if not self._queue:
                return None
            trial = self._queue.popleft()
            if not self._reuse(trial):
                return self._config(trial)
        return None

    def _may_plan(self) -> bool:
        return not self.ledger.exhausted and len(self.ledger.trials) < self.spec.search.budget

    @property
    def _batch(self) -> int:
        """Trials that are suggested together."""
        sampler = self.spec.search.sampler
        return sampler.batch if isinstance(sampler, TpeSpec) and sampler.synchronous else 1

    def _begins_batch(self, number: int) -> bool:
        """Whether a batch begins with this trial. The last one of a sweep may be short, and stays so if the sweep is
        extended: what is suggested does not depend on when that was."""
        ends = (0, *self.ledger.budgets, self.spec.search.budget)
        return (number - max(end for end in ends if end <= number)) % self._batch == 0

    def _batch_may_begin(self) -> bool:
        """A batch is suggested from the outcomes of all batches before it."""
        return self._batch == 1 or self._batch_is_begun() or self.ledger.counts()["pending"] == 0

    def _batch_is_begun(self) -> bool:
        return not self._begins_batch(len(self.ledger.trials))

    def _plan(self) -> None:
        """Plans the trials up to the end of the batch, before any of them starts."""
        while self._may_plan():
            number = len(self.ledger.trials)
            if (trial := self._suggest(number)) is None:
                self.ledger.append("exhausted", reason=f"{number} different trials, and no suggestion is new")
                return
            self._queue.append(trial)
            for listener in self.listeners:
                listener.planned(trial)
            if self._begins_batch(len(self.ledger.trials)):
                return

    def _suggest(self, number: int) -> TrialRecord | None:
        for asked in self._candidates(number):
            trial_id = self.spec.trial_for(asked.point).trial_id
            if trial_id in self.ledger.trials:
                self.study.drop(asked)
                continue
            self.study.bind(asked, trial_id)
            self.ledger.append("planned", number=number, trial_id=trial_id, point=asked.point, attempt=asked.attempt)
            return self.ledger.trials[trial_id]
        return None

    def _candidates(self, number: int) -> Iterator[Asked]:
        # A listed point may have been completed to one that is known. It never enters the study: the ledger has no line
        # for it, and a study that is rebuilt must hold the same entries.
        if number < len(self._first) and self.spec.trial_for(self._first[number]).trial_id not in self.ledger.trials:
            yield self.study.fixed(self._first[number])
        yield from self.study.suggestions(number)

    def _reuse(self, trial: TrialRecord) -> bool:
        """Takes over a trial that another sweep of the storage has finished."""
        folder = trial_folder(self.folder, trial.trial_id)
        if self.finished is None or (found := self.finished.take(trial.trial_id, folder)) is None:
            for text in () if self.finished is None else self.finished.untaken.get(trial.trial_id, ()):
                self._note(trial, text)
            return False
        self._end("reused", trial.trial_id, **found.event())
        self._compare_with(trial)
        return True

    def _compare_with(self, trial: TrialRecord) -> None:
        """Later trials are compared with this one at every rung that it reached, as after a restart."""
        replay(self.rule, [trial], self.spec.search.scheduler, self.spec.search.leading)

    def started(self, trial_id: str) -> None:
        """An actor took the trial (again, after its worker died)."""
        trial = self.ledger.trials[trial_id]
        if trial.ended:
            return
        # The actor of a trial whose worker died counts on from what its config says.
        self._before[trial_id] = trial.seconds - self._configured.setdefault(trial_id, trial.seconds)
        self.ledger.append("started", trial_id=trial_id)

    def decide(self, trial_id: str, evaluation: dict[str, Any]) -> bool:
        """Whether a trial ends at this evaluation, which itself reaches ``reported`` right after."""
        if trial_id in self._stopping or _is_fatal(evaluation):
            return True
        search = self.spec.search
        value = score(search.scheduler, search.leading, evaluation["replicates"][search.leading.metric])
        if self.rule.stops(trial_id, evaluation["step"], value):
            self._stopping.add(trial_id)
        return trial_id in self._stopping

    def reported(self, trial_id: str, result: dict[str, Any]) -> None:
        """One evaluation, and what follows from it: the trial goes on, is stopped, has diverged or is finished."""
        evaluation = result["evaluation"]
        step, divergence = evaluation["step"], evaluation["divergence"]
        seconds = result["seconds"] + self._before.get(trial_id, 0.0)
        trial = self.ledger.trials[trial_id]
        if trial.ended:
            return
        for text in result["notes"]:
            self._note(trial, text)
        # A trial that continues from a checkpoint reports it again, lest the first report was lost with a worker.
        if step not in trial.reports:
            self.ledger.append(
                "reported",
                trial_id=trial_id,
                step=step,
                metrics=evaluation["metrics"],
                replicates=evaluation["replicates"],
                divergence=divergence,
                seconds=seconds,
                stops=trial_id in self._stopping,
                entered=result.get("entered", {}),
            )
            for listener in self.listeners:
                listener.reported(trial, evaluation["metrics"])
        if _is_fatal(evaluation):
            found = ", ".join(f"{kind} in {divergence[kind]}" for kind in FATAL if kind in divergence)
            reason = f"diverged by step {step}: {found} of {self.spec.trial_for(trial.point).replicates} replicates"
            self.failed(trial_id, reason, divergence)
        elif trial_id in self._stopping:
            self._end("pruned", trial_id, step=step)
        elif result["done"]:
            # The rule is not asked at a trial's last step, which may be a rung of those that train longer.
            self._compare_with(trial)
            self._finish(trial, {**result["final"], "seconds": seconds})

    def _note(self, trial: TrialRecord, text: str) -> None:
        if text not in trial.notes:
            self.ledger.append("noted", trial_id=trial.trial_id, text=text)
            for listener in self.listeners:
                listener.noted(trial)

    def _finish(self, trial: TrialRecord, result: dict[str, Any]) -> None:
        values = trial.values(self.spec.search.objectives)
        missing = [
            objective.metric
            for objective, value in zip(self.spec.search.objectives, values or (None,), strict=False)
            if value is None
        ]
        if missing:
            at = "any evaluation" if values is None else "the best evaluation"
            self.failed(trial.trial_id, f"{missing[0]} was not a number at {at}", result["divergence"])
        else:
            self._end("finished", trial.trial_id, step=trial.step, result=result)

    def failed(self, trial_id: str, reason: str, divergence: dict[str, int] | None = None) -> None:
        """The trial cannot go on."""
        if not self.ledger.trials[trial_id].ended:
            self._end("failed", trial_id, reason=reason, divergence=divergence or {})

    def _end(self, event: str, trial_id: str, **fields: Any) -> None:
        self.ledger.append(event, trial_id=trial_id, **fields)
        trial = self.ledger.trials[trial_id]
        self.study.tell(trial)
        for listener in self.listeners:
            listener.ended(trial)

    def _config(self, trial: TrialRecord) -> dict[str, Any]:
        return {
            "trial_id": trial.trial_id,
            "trial": self.spec.trial_for(trial.point).canonical_json(),
            "folder": str(trial_folder(self.folder, trial.trial_id)),
            "stimuli": str(self.stimuli),
            "threads": max(1, int(self.spec.resources.cpu)),
            "seconds": trial.seconds,
            "step": trial.step,
        }


def _is_fatal(evaluation: dict[str, Any]) -> bool:
    """Whether a replicate has diverged; a mean over the others would not be the variant's."""
    return any(kind in evaluation["divergence"] for kind in FATAL)
