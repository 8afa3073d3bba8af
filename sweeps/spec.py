"""SweepSpec: everything that one YAML file says."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import AfterValidator, Field, ValidationError, model_validator

import wmcore.analyses
from sweeps.checks import check_sweep
from sweeps.messages import explain
from sweeps.objectives import ObjectiveSpec
from sweeps.samplers import AnySampler, TpeSpec
from sweeps.schedule import AnyScheduler, NoSchedulerSpec, StoppingRule, stopping_rule
from sweeps.space import Space
from sweeps.store_address import check_store_address
from sweeps.warm_start import WarmStartSpec
from wmcore.analyses.base import AnalysisSpec
from wmcore.recording import RecordingSpec
from wmcore.registry import discriminated_union
from wmcore.spec import Spec, with_paths
from wmcore.training.trial_spec import TrialSpec

if TYPE_CHECKING:
    AnyAnalysis = AnalysisSpec
else:
    AnyAnalysis = discriminated_union(wmcore.analyses, AnalysisSpec)


MOST_TRIALS = 1_000_000
"""Of a sweep: ledger and study hold each one in memory."""


def _folder_name(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", name):
        raise ValueError(
            "must be 1 to 100 letters, digits, dots, underscores and hyphens and start with a letter or digit, "
            "because it names the folder of the sweep"
        )
    if name == "stimuli":
        raise ValueError("must be another name: in every storage the folder stimuli holds the images and features")
    return name


def _whole_beyond_one(share: float) -> float:
    if share > 1 and share != int(share):
        raise ValueError("must be a share of one device (at most 1) or a whole number")
    return share


def _counted_by_ray(share: float) -> float:
    if 0 < share < 0.0001:
        raise ValueError("must be 0 or at least 0.0001, because Ray counts no less")
    return share


class SearchSpec(Spec):
    """What is searched, how, and for how many trials."""

    space: Space
    """Dotted paths into trial, each with a distribution."""
    sampler: AnySampler = TpeSpec()
    """Suggests points of the space."""
    scheduler: AnyScheduler = NoSchedulerSpec()
    """Stops hopeless trials early."""
    objective: ObjectiveSpec | Annotated[tuple[ObjectiveSpec, ...], Field(min_length=2, max_length=8)]
    """What is improved: one metric, or a list of them, which makes the search multi-objective."""
    trials: Annotated[int, Field(ge=1, le=MOST_TRIALS)] | None = None
    """Trials of the sweep, a million at most; null, with the grid sampler: every cell."""
    warm_start: WarmStartSpec = WarmStartSpec()
    """What is tried first, and what is known before."""

    @property
    def objectives(self) -> tuple[ObjectiveSpec, ...]:
        """All objectives."""
        return (self.objective,) if isinstance(self.objective, ObjectiveSpec) else self.objective

    @property
    def leading(self) -> ObjectiveSpec:
        """The first objective: it decides which weights of a trial are the best."""
        return self.objectives[0]

    @property
    def budget(self) -> int:
        """Trials of the sweep.

        Raises:
            ValueError: neither the spec nor the space says how many.
        """
        size = self.trials if self.trials is not None else self.space.size()
        if size is None:
            raise ValueError("neither trials nor the space says how many trials there are")
        return size

    @property
    def most_trials(self) -> int:
        """Trials that there can be: the budget, or every cell if there are fewer."""
        cells = self.space.size()
        return self.budget if cells is None else min(cells, self.budget)


class ResourceSpec(Spec):
    """What one trial occupies."""

    cpu: Annotated[float, Field(ge=0.01), AfterValidator(_whole_beyond_one)] = 1.0
    """CPU cores per trial."""
    gpu: Annotated[float, Field(ge=0), AfterValidator(_whole_beyond_one), AfterValidator(_counted_by_ray)] = 0.0
    """GPUs per trial; a share such as 0.25 puts several trials on one."""
    concurrency: Annotated[int, Field(ge=1)] | None = None
    """Trials at once at most; null: as many as the machines hold."""


class CheckpointChoice(Spec):
    """Which checkpoints are recorded and analysed."""

    best: Annotated[int, Field(ge=1)] = 2
    """Those of this many best trials by the objective."""


class TrackingSpec(Spec):
    """Where MLflow keeps the runs."""

    uri: Annotated[str, AfterValidator(check_store_address)] | None = None
    """A server's or database's address, without a password; null: an SQLite store beside the sweep."""


class SweepSpec(Spec):
    """A sweep: the variant it starts from, what is searched, and what follows. Valid as a whole once it exists."""

    name: Annotated[str, AfterValidator(_folder_name)]
    """Names the sweep's folder and its parent run."""
    trial: TrialSpec
    """The variant; what the space does not name is the same in all trials."""
    search: SearchSpec
    resources: ResourceSpec = ResourceSpec()
    checkpoints: CheckpointChoice = CheckpointChoice()
    recording: RecordingSpec = RecordingSpec()
    """How a checkpoint is recorded."""
    analyses: tuple[AnyAnalysis, ...] = ()
    """Run on every recording, in this order."""
    tracking: TrackingSpec = TrackingSpec()

    def most_steps(self) -> int:
        """Optimiser steps of the trials that train longest; they may be searched."""
        space, steps = self.search.space, [self.trial.training.steps]
        searched = [path for path in ("training", "training.steps") if path in space.paths]
        if searched:
            steps = [self.variant_at(point).training.steps for point in space.corner_points()]
        # Where the path is not active, the trial keeps its own value.
        if any(space.root[path].when for path in searched):
            steps.append(self.trial.training.steps)
        return max(steps)

    def stopping_rule(self) -> StoppingRule:
        """Early stopping of this sweep, before any report. Its rungs reach up to the longest trials."""
        return stopping_rule(self.search.scheduler, self.search.leading, self.most_steps())

    def variant_at(self, point: Mapping[str, Any]) -> TrialSpec:
        """The trial with the values of a point of the space (path -> plain value).

        Raises:
            InputError: a value that the trial refuses.
        """
        data = with_paths(self.trial.model_dump(mode="json"), point)
        try:
            return TrialSpec.parse(data)
        except ValidationError as error:
            raise explain(error, data, TrialSpec) from error

    def trial_for(self, point: Mapping[str, Any]) -> TrialSpec:
        """What is trained at a point: the variant, whose best weights are those that are best by the objective."""
        variant, objective = self.variant_at(point), self.search.leading
        best = {"best_metric": objective.metric, "best_mode": objective.mode}
        return variant.model_copy(update={"evaluation": variant.evaluation.model_copy(update=best)})

    @model_validator(mode="after")
    def _parts_fit(self) -> SweepSpec:
        check_sweep(self)
        return self
