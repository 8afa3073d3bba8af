"""The contract between a task and everything else. Shapes: B trials, T steps, C output channels."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal, Self

import torch
from torch import Tensor

from wmcore.seeding import generator
from wmcore.spec import Spec
from wmcore.stimuli.spec import StimulusSpec
from wmcore.trials import TrialBatch

Protocol = Literal["sequence", "online"]


@dataclass(frozen=True)
class InputChannel:
    """One named input of a task.

    Attributes:
        shape: shape of one step's value, e.g. (112, 4, 4) for features or (6,) for a task vector.
        kind: ``features`` (channels x height x width), ``image`` (RGB x height x width) or ``vector``.
    """

    shape: tuple[int, ...]
    kind: Literal["features", "image", "vector"]


class TaskSpec(Spec, ABC):
    """What a user writes under ``task``; ``build`` makes the task."""

    protocol: ClassVar[Protocol] = "sequence"

    def stimulus_spec(self) -> StimulusSpec | None:
        """The stimuli that must be rendered before ``build``; None for a task that makes its own inputs."""
        return None

    @abstractmethod
    def metric_names(self) -> tuple[str, ...]:
        """Names that ``Task.metrics`` reports, known before anything is built (reported as ``<split>/<name>``)."""

    @abstractmethod
    def split_names(self) -> tuple[str, ...]:
        """Names of the splits, known before anything is built; at least train, select and test."""

    @abstractmethod
    def proportions(self) -> frozenset[str]:
        """Those of ``metric_names`` that are shares in [0, 1]."""

    @abstractmethod
    def least_trials(self) -> int:
        """Trials with which every metric is defined: one per condition that the task averages over."""

    @abstractmethod
    def final_splits(self) -> tuple[str, ...]:
        """Splits that a trained network is scored on, once; analyses may have further ones."""

    @abstractmethod
    def input_channels(self) -> Mapping[str, InputChannel]:
        """Named inputs with the shape of one step, known before anything is built."""

    @abstractmethod
    def condition_dims(self) -> Mapping[str, tuple[str, ...]]:
        """Condition name -> ("trial",) or ("trial", "time"): those of every batch, known before the build."""

    def timing(self) -> tuple[str, ...]:
        """Conditions (trial) that periods hang on: trials in which all of them are equal have the same periods. None
        where all trials have."""
        return ()

    @property
    @abstractmethod
    def output_size(self) -> int:
        """C, number of output channels that a model must have."""

    def check_stage(self, stage: Self, where: str) -> None:
        """Refuses a stage of training from which the network would learn what this task's splits hold out of it. A task
        whose training can be told apart from its other splits by its stimuli alone has nothing to refuse.

        Args:
            stage: the task of the stage; its stimuli, inputs and outputs are those of this one.
            where: field path of the stage's task, for errors.

        Raises:
            InputError: names the field that lets it through.
        """

    @abstractmethod
    def build(self, stimuli: Path | None = None) -> Task:
        """The task itself.

        Args:
            stimuli: folder that holds image and feature banks (``wmcore.stimuli``).

        Raises:
            InputError: the bank is missing or damaged.
        """


class Task(ABC):
    """A source of trials with its loss, metrics and baselines."""

    splits: Mapping[str, str]
    """Split name -> one sentence that says what it holds; the names of ``TaskSpec.split_names``."""
    condition_labels: Mapping[str, tuple[str, ...]]
    """For integer conditions: the label of each value, over all splits, sorted."""

    @abstractmethod
    def sample(self, batch_size: int, generator: torch.Generator, split: str) -> TrialBatch:
        """Draws ``batch_size`` trials on the CPU, vectorised; a pure function of the generator's state.

        Raises:
            InputError: there is no such split, or its stimuli are too few for the spec.
        """

    def check_splits(self, seed: int) -> None:
        """Draws a trial of every split: stimuli that are too few for one are met now, and not after the training that
        leads up to it.

        Raises:
            InputError: see ``sample``.
        """
        for split in self.splits:
            self.sample(1, generator(seed, "check", split), split)

    @abstractmethod
    def loss(self, outputs: Tensor, batch: TrialBatch) -> Tensor:
        """Scalar training loss of (B, T, C) outputs."""

    @abstractmethod
    def metrics(self, outputs: Tensor, batch: TrialBatch) -> dict[str, float]:
        """Exactly the names of ``TaskSpec.metric_names``; NaN where a batch holds no such trial."""

    @abstractmethod
    def baselines(self, batch: TrialBatch) -> dict[str, dict[str, float]]:
        """Policy name (``chance`` among them) -> metric name -> score, on the same trials as a model's figures."""

    @abstractmethod
    def sampling_summary(self, batch: TrialBatch) -> dict[str, float]:
        """Rates that the sampling aimed at, as achieved in a batch (match rate, lure rate, ...)."""
