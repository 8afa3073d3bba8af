"""What early stopping makes of a search: many sweeps are played through with the real rule, without training."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sweeps.planning.costs import Cost
from sweeps.samplers import TpeSpec
from sweeps.schedule import Asha, NeverStop, StoppingRule
from sweeps.spec import SweepSpec
from wmcore.seeding import numpy_generator
from wmcore.training.trial_spec import TrialSpec

FEWEST_SWEEPS, MOST_SWEEPS, PLAYED_TRIALS = 40, 200, 20_000
"""Sweeps that are played through: as many as hold so many trials together, within bounds."""
MOST_TRIALS = 1000
"""Trials of a played sweep; the time of a longer one is taken to grow in proportion."""


@dataclass(frozen=True)
class Course:
    """How a trial goes that costs so much.

    Attributes:
        rungs: (step, seconds) of the reports at which early stopping may end it.
        seconds: until its end.
        steps: of its training.
    """

    rungs: tuple[tuple[int, float], ...]
    seconds: float
    steps: int


@dataclass(frozen=True)
class Fates:
    """Played sweeps, one value each.

    Attributes:
        seconds: wall time of the search.
        without: the same trials, all trained to their end.
        steps: optimiser steps per trial, on average.
    """

    seconds: np.ndarray
    without: np.ndarray
    steps: np.ndarray

    @property
    def saved(self) -> np.ndarray:
        """Share of the wall time that early stopping saves."""
        return 1 - self.seconds / self.without


def play(spec: SweepSpec, trials: Sequence[tuple[TrialSpec, Cost]], at_once: int, gap: float = 0.0) -> Fates:
    """Plays sweeps of random trials.

    A trial's values at the rungs share a quality of its own, and differ by chance; how much of each is drawn anew for
    every sweep, since nobody knows. Trials are exchangeable: a sampler that learns lets more of them pass.

    Args:
        trials: what a trial of the sweep may be, each as likely as the others.
        at_once: trials that are trained at a time.
        gap: seconds from the end of a trial to the start of the next in its place.
    """
    rule = spec.stopping_rule()
    rungs = sorted(rule.rungs) if isinstance(rule, Asha) else []
    courses = [course(trial, cost, rungs) for trial, cost in trials]
    count, generator = spec.search.most_trials, numpy_generator(0, "plan", "fates")
    played = min(count, MOST_TRIALS)
    found = []
    for _ in range(min(max(FEWEST_SWEEPS, PLAYED_TRIALS // played), MOST_SWEEPS)):
        chosen = [courses[i] for i in generator.integers(len(courses), size=played)]
        shared = generator.uniform()
        quality = generator.normal(size=(played, 1))
        values = np.sqrt(shared) * quality + np.sqrt(1 - shared) * generator.normal(size=(played, len(rungs)))
        batch = _batch(spec)
        seconds, steps = _sweep(chosen, values, spec.stopping_rule(), at_once, batch, gap)
        found.append((seconds, _sweep(chosen, values, NeverStop(), at_once, batch, gap)[0], steps / played))
    walls = np.array(found)
    return Fates(walls[:, 0] * count / played, walls[:, 1] * count / played, walls[:, 2])


def course(trial: TrialSpec, cost: Cost, rungs: Sequence[int]) -> Course:
    """When a trial meets the rungs: at its first evaluation at or after each, if that is not its last step."""
    every, steps = trial.evaluation.every_steps, trial.training.steps
    met = [-(-rung // every) * every for rung in rungs]
    return Course(
        tuple((step, cost.until(trial, step)) for step in met if step < steps), cost.until(trial, steps), steps
    )


def _batch(spec: SweepSpec) -> int:
    """Trials that must all have ended before the next is suggested."""
    sampler = spec.search.sampler
    return sampler.batch if isinstance(sampler, TpeSpec) and sampler.synchronous else 1


def _sweep(
    courses: Sequence[Course], values: np.ndarray, rule: StoppingRule, at_once: int, batch: int, gap: float
) -> tuple[float, int]:
    """Plays one sweep; returns its seconds and the optimiser steps of all trials.

    Args:
        values: (trials, rungs), larger is better or worse: it does not matter.
        batch: 1 if every trial starts as soon as there is room.
    """
    events: list[tuple[float, int, int]] = []  # time, trial, which of its reports
    begun, running, now, steps = 0, 0, 0.0, 0

    def at(trial: int, report: int, start: float) -> tuple[float, int, int]:
        rungs = courses[trial].rungs
        return start + (rungs[report][1] if report < len(rungs) else courses[trial].seconds), trial, report

    starts = [0.0] * len(courses)
    while begun < len(courses) or running:
        while begun < len(courses) and running < at_once and (batch == 1 or begun % batch or not running):
            starts[begun] = now + gap
            heapq.heappush(events, at(begun, 0, starts[begun]))
            begun, running = begun + 1, running + 1
        now, trial, report = heapq.heappop(events)
        rungs = courses[trial].rungs
        if report < len(rungs) and not rule.stops(str(trial), rungs[report][0], float(values[trial, report])):
            heapq.heappush(events, at(trial, report + 1, starts[trial]))
            continue
        running -= 1
        steps += rungs[report][0] if report < len(rungs) else courses[trial].steps
    return now, steps
