"""TrialSpec: one fully resolved variant, whose canonical JSON is its identity."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

import wmcore.models
import wmcore.tasks
from wmcore.models.base import ModelSpec
from wmcore.registry import discriminated_union
from wmcore.spec import Spec
from wmcore.tasks.base import TaskSpec
from wmcore.training.curriculum import CurriculumSpec
from wmcore.training.divergence import DivergenceSpec
from wmcore.training.optimizers import AdamWSpec, AnyOptimizer
from wmcore.training.stages import check_curriculum

if TYPE_CHECKING:
    AnyTask = TaskSpec
    AnyModel = ModelSpec
else:
    AnyTask = discriminated_union(wmcore.tasks, TaskSpec)
    AnyModel = discriminated_union(wmcore.models, ModelSpec)


class TrainingSpec(Spec):
    """The gradient loop."""

    steps: Annotated[int, Field(ge=1, le=10**9)] = 3000
    """Optimiser steps."""
    batch_size: Annotated[int, Field(ge=1, le=65536)] = 64
    """Trials per optimiser step and replicate."""
    optimizer: AnyOptimizer = AdamWSpec()
    """The optimiser."""
    grad_clip: Annotated[float, Field(gt=0)] | None = 1.0
    """Largest norm of the gradient; null clips nothing."""
    curriculum: CurriculumSpec | None = None
    """Stages of the task that come before it or instead of it in training; null: the trial's task from the start.
    Evaluations are of the trial's own task and model in any case."""
    divergence: DivergenceSpec = DivergenceSpec()
    """From where on a network counts as diverged."""

    @field_validator("optimizer", mode="before")
    @classmethod
    def _is_adamw_unless_it_says(cls, value: Any) -> Any:
        """So that a learning rate alone can be given."""
        return {"kind": "adamw", **value} if isinstance(value, Mapping) else value


class EvaluationSpec(Spec):
    """How often and on how many fixed trials a variant is judged."""

    every_steps: Annotated[int, Field(ge=1)] = 250
    """Optimiser steps between evaluations (and checkpoints)."""
    trials: Annotated[int, Field(ge=2)] = 1024
    """Trials of the selection split at each evaluation."""
    test_trials: Annotated[int, Field(ge=2)] = 2048
    """Trials of every other split, once, at the end, with the weights that were best on the selection split."""
    best_metric: str = "select/accuracy"
    """What decides which weights are best; always a figure of the selection split."""
    best_mode: Literal["max", "min"] = "max"
    """Whether more or less of it is better."""


class TrialSpec(Spec):
    """Task + model + training + evaluation + root seed + replicates. Same content, same ``trial_id``."""

    seed: Annotated[int, Field(ge=0, le=2**63 - 1)] = 0
    """Root seed: replicate r draws everything from (seed, r) alone."""
    replicates: Annotated[int, Field(ge=1, le=64)] = 1
    """Independently seeded networks that are trained in lockstep; the reported metric is their mean."""
    task: AnyTask
    model: AnyModel
    training: TrainingSpec = TrainingSpec()
    evaluation: EvaluationSpec = EvaluationSpec()

    @property
    def trial_id(self) -> str:
        """16 hexadecimal digits."""
        return self.content_hash()

    @model_validator(mode="after")
    def _protocols_match(self) -> TrialSpec:
        if self.task.protocol != self.model.protocol:
            raise ValueError(
                f"the task learns by protocol {self.task.protocol!r} and the model by {self.model.protocol!r}: "
                "they cannot be paired"
            )
        return self

    @model_validator(mode="after")
    def _every_metric_is_defined(self) -> TrialSpec:
        least = self.task.least_trials()
        for name in ("trials", "test_trials"):
            if getattr(self.evaluation, name) < least:
                raise ValueError(
                    f"evaluation.{name} is {getattr(self.evaluation, name)}, but the task needs at least {least}: one "
                    "for each of the conditions that it averages over"
                )
        return self

    @model_validator(mode="after")
    def _best_metric_is_reported(self) -> TrialSpec:
        allowed = [f"select/{name}" for name in self.task.metric_names()]
        if self.evaluation.best_metric not in allowed:
            raise ValueError(
                f"evaluation.best_metric is {self.evaluation.best_metric!r}, but the task reports {', '.join(allowed)}"
            )
        return self

    @model_validator(mode="after")
    def _saturation_has_effect(self) -> TrialSpec:
        chosen, default = self.training.divergence, DivergenceSpec()
        for name in ("saturated_margin", "saturated_share"):
            if self.model.state_bound() is None and getattr(chosen, name) != getattr(default, name):
                raise ValueError(
                    f"training.divergence.{name} has no effect: the units of this model have no bound. Leave it out"
                )
        return self

    @model_validator(mode="after")
    def _curriculum_fits(self) -> TrialSpec:
        check_curriculum(self)
        return self
