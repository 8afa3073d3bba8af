"""Suggestions from an in-memory Optuna study that is rebuilt from the ledger. No Ray here."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import optuna
from optuna.trial import TrialState, create_trial

from sweeps.ledger import Ledger, TrialRecord
from sweeps.prior import known_trials
from sweeps.samplers import is_sequence, optuna_sampler, replays
from sweeps.sequences import PointSequence, point_sequence, remaining_cells
from sweeps.spec import SearchSpec
from wmcore.seeding import derive_seed, numpy_generator
from wmcore.spec import canonical_json

optuna.logging.set_verbosity(optuna.logging.WARNING)

MODEL_ATTEMPTS = 20
"""Known points in a row after which a model of the space gives way to chance: it may propose its favourite for ever."""
CHANCE_ATTEMPTS = 200
"""Known points in a row after which chance gives way to the cells that are left or, in a continuous space, gives up."""

TRIAL_ID = "trial_id"
"""Attribute of those trials of a study that are the sweep's own; suggestions that were dropped lack it."""

STATES = {
    "planned": TrialState.RUNNING,
    "running": TrialState.RUNNING,
    "finished": TrialState.COMPLETE,
    "pruned": TrialState.PRUNED,
    "failed": TrialState.FAIL,
}


@dataclass(frozen=True)
class Asked:
    """A suggestion: its point of the space, what Optuna holds of it, and the attempt of a model that gave it."""

    point: dict[str, Any]
    trial: optuna.Trial
    attempt: int | None = None


class Study:
    """Asks for points and is told of trials by their ledger records.

    A stopped trial is told as PRUNED with its intermediate values, never as COMPLETE: its value at a low budget must
    not be mixed with values at the full one. A trial that is still pending stands as RUNNING. Of several objectives
    Optuna takes the values of one report, the best by the first objective, and no intermediate values.
    """

    def __init__(
        self, search: SearchSpec, trials: Sequence[TrialRecord] = (), known: Sequence[TrialRecord] = ()
    ) -> None:
        """Args:
        search: the space and its sampler.
        trials: the sweep's own trials so far.
        known: ended trials of an earlier sweep; they inform the sampler and count for nothing else.
        """
        self.search, self.space = search, search.space
        self.single = len(search.objectives) == 1
        self.study = optuna.create_study(
            directions=["maximize" if objective.sign > 0 else "minimize" for objective in search.objectives],
            sampler=optuna.samplers.RandomSampler(seed=0),
        )
        self._pending: dict[str, optuna.Trial] = {}
        self._tried: set[str] = set()
        self._sequence: PointSequence | None = None
        if is_sequence(search.sampler):
            self._sequence = point_sequence(search.sampler, search.space)
        self._index, self._repeats = 0, 0
        self._seen: set[str] = set()
        for trial in known:
            self._add(trial, own=False)
        for trial in trials:
            self._tried.add(canonical_json(trial.point))
        if replays(search.sampler):
            self._replay(trials)
        else:
            for trial in trials:
                self._add(trial)

    def suggestions(self, number: int) -> Iterator[Asked]:
        """Points for trial ``number`` that were not tried before, to be bound to a trial id or dropped; ends when
        there are no more.

        Those of a sequence (grid, random, Sobol') come in its order; those of a model are seeded by (seed, number,
        attempt). So a study that was rebuilt does not repeat itself.
        """
        if self._sequence is not None:
            yield from self._from_sequence()
        else:
            yield from self._from_model(number)
        if self.space.size() is not None:
            yield from self._from_rest(number)

    def fixed(self, point: dict[str, Any]) -> Asked:
        """A point that is given, as a suggestion."""
        self.study.enqueue_trial(self.space.encode(point))
        trial = self.study.ask()
        return Asked(self.space.suggest(trial), trial)

    def bind(self, asked: Asked, trial_id: str) -> None:
        """The suggestion became this trial."""
        self._tried.add(canonical_json(asked.point))
        asked.trial.set_user_attr(TRIAL_ID, trial_id)
        self._pending[trial_id] = asked.trial

    def drop(self, asked: Asked) -> None:
        """The suggestion makes a trial that exists: it counts for nothing."""
        self._tried.add(canonical_json(asked.point))
        self._discard(asked)

    def tell(self, trial: TrialRecord) -> None:
        """A trial has ended: its running entry takes its reports and its outcome."""
        live = self._pending.pop(trial.trial_id)
        for name, value in _attributes(trial).items():
            live.set_user_attr(name, value)
        for step, value in self._curve(trial).items():
            live.report(value, step)
        state = self.state(trial)
        self.study.tell(live, self._values(trial) if state is TrialState.COMPLETE else None, state=state)

    def own_trials(self) -> list[optuna.trial.FrozenTrial]:
        """What Optuna holds of the sweep's trials, without suggestions that were dropped."""
        return [trial for trial in self.study.trials if TRIAL_ID in trial.user_attrs]

    def state(self, trial: TrialRecord) -> TrialState:
        """What Optuna is told of a trial; one without a value has failed."""
        complete = trial.state == "finished" and self._values(trial) is not None
        return STATES[trial.state] if complete or trial.state != "finished" else TrialState.FAIL

    def _from_sequence(self) -> Iterator[Asked]:
        """Goes through the sequence once. Where it gives up depends on the sequence alone, and so a study that was
        rebuilt gives up there, too."""
        assert self._sequence is not None
        while self._repeats < CHANCE_ATTEMPTS and (point := self._sequence.at(self._index)) is not None:
            self._index += 1
            text = canonical_json(point)
            self._repeats = self._repeats + 1 if text in self._seen else 0
            self._seen.add(text)
            if text not in self._tried:
                yield self.fixed(point)

    def _from_model(self, number: int) -> Iterator[Asked]:
        for attempt in range(CHANCE_ATTEMPTS):
            asked = self._ask(number, attempt)
            if canonical_json(asked.point) in self._tried:
                self.drop(asked)
            else:
                yield asked

    def _ask(self, number: int, attempt: int) -> Asked:
        seed = derive_seed(self.search.sampler.seed or 0, "ask", number, attempt) % 2**32
        by_model = attempt < MODEL_ATTEMPTS
        self.study.sampler = (
            optuna_sampler(self.search.sampler, seed) if by_model else optuna.samplers.RandomSampler(seed=seed)
        )
        trial = self.study.ask()
        return Asked(self.space.suggest(trial), trial, attempt)

    def _from_rest(self, number: int) -> Iterator[Asked]:
        """The cells that are left, from a random one on."""
        while left := sum(1 for _ in remaining_cells(self.space, self._tried)):
            start = int(numpy_generator(self.search.sampler.seed or 0, "rest", number).integers(left))
            yield self.fixed(next(islice(remaining_cells(self.space, self._tried), start, None)))

    def _replay(self, trials: Sequence[TrialRecord]) -> None:
        """Asks and tells in the order of the ledger: an evolutionary sampler's generations are made by asking.

        Should the sampler give another point than it gave then (Optuna seeds some by the number of its entries), the
        ledger's counts, as one that was given.
        """
        events = [(trial.planned_at, trial, True) for trial in trials]
        events += [(trial.ended_at, trial, False) for trial in trials if trial.ended]
        for _, trial, planned in sorted(events, key=lambda event: event[0]):
            if not planned:
                self.tell(trial)
            elif trial.attempt is None:
                self.bind(self.fixed(trial.point), trial.trial_id)
            else:
                for attempt in range(trial.attempt):
                    self.drop(self._ask(trial.number, attempt))
                asked = self._ask(trial.number, trial.attempt)
                if canonical_json(asked.point) != canonical_json(trial.point):
                    self._discard(asked)
                    asked = self.fixed(trial.point)
                self.bind(asked, trial.trial_id)

    def _discard(self, asked: Asked) -> None:
        self.study.tell(asked.trial, state=TrialState.FAIL)

    def _add(self, trial: TrialRecord, own: bool = True) -> None:
        if not trial.ended:
            self.bind(self.fixed(trial.point), trial.trial_id)
            return
        state, curve = self.state(trial), self._curve(trial)
        values = self._values(trial) if state is TrialState.COMPLETE else None
        if state is TrialState.PRUNED and curve:
            # Optuna itself gives a trial that it is told as PRUNED its last intermediate value.
            values = [next(reversed(curve.values()))]
        self.study.add_trial(
            create_trial(
                state=state,
                params=self.space.encode(trial.point),
                distributions=self.space.distributions_of(trial.point),
                intermediate_values=curve,
                user_attrs=_attributes(trial) if own else {},
                values=values,
            )
        )

    def _curve(self, trial: TrialRecord) -> dict[int, float]:
        """Step -> value of the objective, where it is finite; empty with several objectives."""
        if not self.single:
            return {}
        values = {step: metrics.get(self.search.leading.metric) for step, metrics in trial.reports.items()}
        return {step: value for step, value in values.items() if value is not None}

    def _values(self, trial: TrialRecord) -> list[float] | None:
        values = [value for value in trial.values(self.search.objectives) or () if value is not None]
        return values if len(values) == len(self.search.objectives) else None


def rebuilt(search: SearchSpec, ledger: Ledger) -> Study:
    """The study of a sweep, with what an earlier one taught it: from the ledger alone."""
    return Study(search, ledger.in_order(), known_trials(ledger.warm))


def _attributes(trial: TrialRecord) -> dict[str, Any]:
    """What a study says of a trial beside its values."""
    given = {TRIAL_ID: trial.trial_id, "reason": trial.reason, "reused_from": trial.source, **trial.divergence}
    return {name: value for name, value in given.items() if value}
