"""Early stopping in optimiser steps: a pure rule, replayable from the ledger. No Ray here."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Literal, Protocol

import numpy as np
from pydantic import Field
from scipy.special import stdtrit

from sweeps.ledger import TrialRecord
from sweeps.objectives import ObjectiveSpec
from wmcore.spec import Spec
from wmcore.training.divergence import FATAL


class AshaSpec(Spec):
    """Asynchronous successive halving (Li et al. 2020, arXiv:1810.05934): stops the worst at each rung."""

    kind: Literal["asha"] = "asha"
    grace: Annotated[int, Field(ge=1)]
    """Optimiser steps before a trial can be stopped: the first rung. A multiple of evaluation.every_steps."""
    reduction: Annotated[int, Field(ge=2)] = 3
    """One of this many trials passes a rung; each rung is this many times the one before."""
    judge_by: Literal["mean", "lower_bound"] = "mean"
    """What of a variant's replicates is compared: their mean, or the pessimistic end of its confidence interval."""
    confidence: Annotated[float, Field(gt=0.5, lt=1)] = 0.8
    """One-sided confidence of that bound (Student's t over replicates)."""


class NoSchedulerSpec(Spec):
    """Every trial trains to its end."""

    kind: Literal["none"] = "none"


AnyScheduler = Annotated[AshaSpec | NoSchedulerSpec, Field(discriminator="kind")]


class StoppingRule(Protocol):
    """Decides from a trial's reports whether it goes on."""

    def stops(self, trial_id: str, step: int, value: float) -> bool:
        """Takes one report in; True ends the trial."""
        ...


class NeverStop:
    """Every trial trains to its end."""

    def stops(self, trial_id: str, step: int, value: float) -> bool:
        return False


class Asha:
    """Asynchronous successive halving, stopping form (Li et al. 2020, arXiv:1810.05934).

    Rungs lie at grace * reduction^k steps below the full budget. A trial that reaches a rung goes on if its value is
    among the best 1/reduction of all values recorded there so far, its own included (at least one goes on).
    """

    def __init__(self, grace: int, reduction: int, max_steps: int, mode: Literal["max", "min"]) -> None:
        self.reduction, self.max_steps, self.sign = reduction, max_steps, 1 if mode == "max" else -1
        self.rungs: dict[int, dict[str, float]] = {}
        rung = grace
        while rung < max_steps:
            self.rungs[rung] = {}
            rung *= reduction

    def stops(self, trial_id: str, step: int, value: float) -> bool:
        """NaN is worse than every number. A rung takes the first report at or after its step and below the budget."""
        if step >= self.max_steps:
            return False
        score = -math.inf if math.isnan(value) else self.sign * value
        for milestone in sorted(self.rungs, reverse=True):
            rung = self.rungs[milestone]
            if step < milestone:
                continue
            if trial_id in rung:
                return False
            rung[trial_id] = score
            places = max(1, len(rung) // self.reduction)
            better = sum(other > score for name, other in rung.items() if name != trial_id)
            return better >= places
        return False


def stopping_rule(spec: AnyScheduler, objective: ObjectiveSpec, max_steps: int) -> StoppingRule:
    """The rule that a spec names."""
    if isinstance(spec, AshaSpec):
        return Asha(spec.grace, spec.reduction, max_steps, objective.mode)
    return NeverStop()


def score(spec: AnyScheduler, objective: ObjectiveSpec, values: Sequence[float | None]) -> float:
    """What of a variant's R replicates is judged: their mean, or the pessimistic end of its confidence interval.

    mean -/+ t(R - 1, confidence) s / sqrt(R), below the mean where larger is better and above it where smaller is.
    NaN if a replicate has no value.
    """
    found = np.array([math.nan if value is None else value for value in values], dtype=float)
    mean = float(found.mean()) if len(found) else math.nan
    if isinstance(spec, NoSchedulerSpec) or spec.judge_by == "mean" or len(found) < 2:
        return mean
    half = float(stdtrit(len(found) - 1, spec.confidence) * found.std(ddof=1) / math.sqrt(len(found)))
    return mean - objective.sign * half


def replay(rule: StoppingRule, trials: Sequence[TrialRecord], spec: AnyScheduler, objective: ObjectiveSpec) -> None:
    """Feeds a rule the reports of earlier trials, so that its rungs are as they were.

    The order in which trials met does not matter to a rung's contents, only to decisions that were already made.
    """
    for trial in trials:
        for step, values in trial.replicates.items():
            if step == trial.step and any(kind in trial.divergence for kind in FATAL):
                continue  # the trial had diverged, and the rule was not asked
            rule.stops(trial.trial_id, step, score(spec, objective, values))
