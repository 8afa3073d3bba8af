"""Where the trials of a training run come from. Shapes: B trials, T steps, C outputs.

All trials are a pure function of (root seed, replicate, purpose, step), whatever was drawn before.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from wmcore.seeding import generator
from wmcore.tasks.base import Task
from wmcore.training.curriculum import Share
from wmcore.training.trial_spec import TrialSpec
from wmcore.trials import Lookup, TrialBatch, batch_shape

_BLOCK = 1024
"""Trials that are drawn in one call: sampling is vectorised over trials, and its fixed cost is then shared. A task's
exact quotas hold over a block. Variants go through the same blocks in the same order, whatever their batch sizes; what
is too little for a whole batch at the end of a block is not shown."""


class Part(NamedTuple):
    """The trials that one stage has of an optimiser step.

    Attributes:
        task: the stage's task.
        batch: its trials.
        weight: of their loss; the weights of a step sum to 1.
    """

    task: Task
    batch: TrialBatch
    weight: float


def weighted_loss(outputs: Tensor, parts: Sequence[Part]) -> Tensor:
    """L = sum_k w_k L_k: each part's loss is that of its own task, over its own trials and steps.

    Args:
        outputs: (B, T, C) for the trials of all parts one after another, padded to the longest.
    """
    terms, start = [], 0
    for part in parts:
        stop, steps = start + part.batch.size, batch_shape(part.batch.inputs)[1]
        terms.append(part.weight * part.task.loss(outputs[start:stop, :steps], part.batch))
        start = stop
    return torch.stack(terms).sum()


class TrialSource:
    """Draws the trials of a run, places them on its device, and keeps those that are needed again."""

    def __init__(self, trial: TrialSpec, tasks: Sequence[Task], device: torch.device) -> None:
        """Args:
        trial: the variant.
        tasks: the task of each of its stages, in order.
        device: where the networks live.
        """
        self.trial, self.tasks, self.device = trial, tasks, device
        self._tables: dict[int, Tensor] = {}
        self._drawn: dict[tuple[int, int], tuple[int, int, TrialBatch]] = {}
        self._fixed: dict[tuple[Task, int, str, int], TrialBatch] = {}

    def training(self, r: int, step: int, stage: int) -> list[Part]:
        """The trials of one optimiser step of replicate ``r`` while it is in a stage: the stage's own, then those of
        earlier stages that are replayed."""
        return [
            Part(self.tasks[share.stage], self._batch(r, step, stage, share), share.weight)
            for share in self._shares(stage)
        ]

    def fixed(self, task: Task, r: int, split: str, trials: int) -> TrialBatch:
        """The trials of a split on which replicate ``r`` is judged, the same ones at every call."""
        key = (task, r, split, trials)
        if key not in self._fixed:
            draw = generator(self.trial.seed, "replicate", r, "evaluation", split)
            self._fixed[key] = self._placed(task.sample(trials, draw, split))
        return self._fixed[key]

    def _shares(self, stage: int) -> list[Share]:
        training = self.trial.training
        if training.curriculum is None:
            return [Share(stage, training.batch_size, 1.0)]
        return training.curriculum.shares(stage, training.batch_size)

    def _batch(self, r: int, step: int, stage: int, share: Share) -> TrialBatch:
        """What a stage has of one optimiser step, while the replicate is in ``stage``."""
        block, position = divmod(step, max(1, _BLOCK // share.trials))
        key = (r, share.stage)
        if key not in self._drawn or self._drawn[key][:2] != (block, stage):
            staged = () if self.trial.training.curriculum is None else ("stage", stage, "trials_of", share.stage)
            draw = generator(self.trial.seed, "replicate", r, "train", block, *staged)
            drawn = self.tasks[share.stage].sample(max(_BLOCK, share.trials), draw, "train")
            self._drawn[key] = block, stage, self._placed(drawn)
        return self._drawn[key][2].rows(position * share.trials, (position + 1) * share.trials)

    def _placed(self, batch: TrialBatch) -> TrialBatch:
        """The batch on the run's device; a table that its inputs look rows up in is copied there once."""
        for name, value in batch.inputs.items():
            if isinstance(value, Lookup):
                batch.inputs[name] = Lookup(self._table(value.table), value.index)
        return batch.to(self.device)

    def _table(self, table: Tensor) -> Tensor:
        """The table on the run's device. Tasks on the same stimuli each hold one: the first of equals serves all."""
        key = table.data_ptr()
        if key not in self._tables:
            placed = table.to(self.device)
            alike = (known for known in self._tables.values() if known.dtype == placed.dtype)
            equal = (known for known in alike if torch.equal(known, placed))
            self._tables[key] = next(equal, placed)
        return self._tables[key]
