"""Suggestions from an in-memory Optuna study that is rebuilt from the ledger. No Ray here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import optuna
from optuna.trial import TrialState, create_trial

from sweeps.ledger import TrialRecord
from sweeps.samplers import TpeSpec
from sweeps.spec import SearchSpec
from wmcore.seeding import derive_seed

optuna.logging.set_verbosity(optuna.logging.WARNING)

MODEL_ATTEMPTS = 20
"""Known points in a row after which a model of the space gives way to chance: it may propose its favourite for ever."""

STATES = {
    "planned": TrialState.RUNNING,
    "running": TrialState.RUNNING,
    "finished": TrialState.COMPLETE,
    "pruned": TrialState.PRUNED,
    "failed": TrialState.FAIL,
}


class Study:
    """Asks for points and is told of trials by their ledger records.

    A stopped trial is told as PRUNED with its intermediate values, never as COMPLETE: its value at a low budget must
    not be mixed with values at the full one. A trial that is still pending stands as RUNNING.
    """

    def __init__(self, search: SearchSpec, trials: Sequence[TrialRecord] = ()) -> None:
        self.search = search
        self.distributions = search.space.distributions()
        direction = "maximize" if search.leading.mode == "max" else "minimize"
        self.study = optuna.create_study(direction=direction, sampler=self._sampler(0, 0))
        self._pending: dict[str, optuna.Trial] = {}
        for trial in trials:
            self._add(trial)

    def ask(self, number: int, attempt: int) -> optuna.Trial:
        """A point of the space for trial ``number``: to be bound to a trial id or dropped.

        The sampler is seeded by (seed, number, attempt), so that a study that was rebuilt does not repeat itself.
        """
        self.study.sampler = self._sampler(number, attempt)
        return self.study.ask(self.distributions)

    def point(self, asked: optuna.Trial) -> dict[str, Any]:
        """Path -> plain value of an asked point."""
        return self.search.space.decode(asked.params)

    def bind(self, asked: optuna.Trial, trial_id: str) -> None:
        """The asked point became this trial."""
        self._pending[trial_id] = asked

    def drop(self, asked: optuna.Trial) -> None:
        """The asked point was tried before: it counts for nothing."""
        self.study.tell(asked, state=TrialState.FAIL)

    def tell(self, trial: TrialRecord) -> None:
        """A trial has ended: its running entry takes its reports and its outcome."""
        live = self._pending.pop(trial.trial_id)
        for step, value in self._values(trial).items():
            live.report(value, step)
        best = trial.best(self.search.leading.metric, self.search.leading.mode)
        complete = trial.state == "finished" and best is not None
        self.study.tell(live, best[1] if complete and best else None, state=STATES[trial.state])

    def _add(self, trial: TrialRecord) -> None:
        params = self.search.space.encode(trial.point)
        if not trial.ended:
            self.study.enqueue_trial(params)
            self.bind(self.study.ask(self.distributions), trial.trial_id)
            return
        best, values = trial.best(self.search.leading.metric, self.search.leading.mode), self._values(trial)
        # Optuna itself gives a trial that it is told as PRUNED its last intermediate value.
        value = {"finished": best[1] if best else None, "pruned": next(reversed(values.values()), None)}
        self.study.add_trial(
            create_trial(
                state=STATES[trial.state],
                params=params,
                distributions=self.distributions,
                intermediate_values=values,
                value=value.get(trial.state),
            )
        )

    def _values(self, trial: TrialRecord) -> dict[int, float]:
        """Step -> value of the objective, where it is finite."""
        values = {step: metrics.get(self.search.leading.metric) for step, metrics in trial.reports.items()}
        return {step: value for step, value in values.items() if value is not None}

    def _sampler(self, number: int, attempt: int) -> optuna.samplers.BaseSampler:
        spec = self.search.sampler
        seed = derive_seed(spec.seed, "ask", number, attempt) % 2**32
        if isinstance(spec, TpeSpec) and attempt < MODEL_ATTEMPTS:
            return optuna.samplers.TPESampler(seed=seed, n_startup_trials=spec.startup_trials, constant_liar=True)
        return optuna.samplers.RandomSampler(seed=seed)
