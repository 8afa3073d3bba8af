"""Curricula (Bengio et al. 2009, doi:10.1145/1553374.1553380): stages of a task, when a replicate moves to the next
one, and how earlier stages are replayed. What the stages of a trial are is in ``wmcore.training.stages``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import Field

from wmcore.spec import Spec


class AdvanceSpec(Spec):
    """When a replicate moves to its next stage."""

    metric: str
    """Metric of the stage's own task, without a split: it is taken on trials of ``select``."""
    threshold: float = 0.9
    """What the metric must reach, in its own unit."""
    mode: Literal["max", "min"] = "max"
    """Whether it must be at least (max) or at most (min) the threshold."""
    evaluations: Annotated[int, Field(ge=1)] = 5
    """Successive evaluations at which it must."""
    trials: Annotated[int, Field(ge=2)] = 512
    """Trials of the stage's ``select`` split on which it is taken, the same ones at each evaluation."""

    def reached(self, score: float) -> bool:
        """Whether the metric is where it must be; NaN never is."""
        return score >= self.threshold if self.mode == "max" else score <= self.threshold


class StageSpec(Spec):
    """One stage: the trial, but for what is set here."""

    set: dict[str, Any] = {}
    """Dotted paths under task and model -> the values that they have in this stage; none: the trial's own."""
    replay: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Weight of the earlier stages in the loss, and their share of the batch's trials; each has an equal part of it."""


class Share(NamedTuple):
    """What a stage has of one optimiser step.

    Attributes:
        stage: its index.
        trials: trials of the batch.
        weight: of the mean loss of these trials; the weights of a step sum to 1.
    """

    stage: int
    trials: int
    weight: float


class CurriculumSpec(Spec):
    """Stages that each replicate goes through in order, at its own pace; it stays in the last one."""

    stages: Annotated[tuple[StageSpec, ...], Field(min_length=2)]
    """From the first to the last, which need not be the trial's own task."""
    advance: AdvanceSpec
    """When a replicate moves on; the same rule in every stage."""

    def shares(self, stage: int, batch_size: int) -> list[Share]:
        """Who has what of a step's ``batch_size`` trials while a replicate is in a stage: the stage itself first."""
        replay = self.stages[stage].replay
        if replay == 0:
            return [Share(stage, batch_size, 1.0)]
        replayed = round(batch_size * replay)
        each, rest = divmod(replayed, stage)
        earlier = [Share(k, each + (k < rest), replay / stage) for k in range(stage)]
        return [Share(stage, batch_size - replayed, 1 - replay), *earlier]


@dataclass(frozen=True)
class Progress:
    """Where one replicate is.

    Attributes:
        stage: index of the stage that it is in.
        successes: evaluations in a row, up to the last one, at which the rule was met in this stage.
        entered: the step at which each stage after the first was entered.
    """

    stage: int = 0
    successes: int = 0
    entered: tuple[int, ...] = ()

    def judged(self, score: float, step: int, curriculum: CurriculumSpec) -> Progress:
        """The same replicate after an evaluation.

        Args:
            score: the rule's metric on the stage's own trials.
            step: optimiser steps done.
        """
        rule = curriculum.advance
        if self.stage == len(curriculum.stages) - 1:
            return self
        successes = self.successes + 1 if rule.reached(score) else 0
        if successes < rule.evaluations:
            return Progress(self.stage, successes, self.entered)
        return Progress(self.stage + 1, 0, (*self.entered, step))
