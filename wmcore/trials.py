"""TrialBatch: what a task hands to models and analyses. Shapes: B trials, T steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class Lookup:
    """An input that is a row of a table at every step: frozen features by image index.

    Keeps a batch small (indices, not features) and lets the table live on the device for the whole of a training run.

    Attributes:
        table: (N, *shape) values.
        index: (B, T) or (B,) row numbers.
    """

    table: Tensor
    index: Tensor

    def dense(self) -> Tensor:
        """(B, T, *shape) or (B, *shape): the rows."""
        return self.table[self.index]

    def at(self, step: int) -> Lookup:
        """The input of one step, (B,)."""
        return replace(self, index=self.index[:, step])

    def rows(self, start: int, stop: int) -> Lookup:
        """The input of some trials."""
        return replace(self, index=self.index[start:stop])

    def to(self, device: torch.device | str) -> Lookup:
        """On another device; a table that is there already is not copied."""
        return Lookup(self.table.to(device), self.index.to(device))


Input = Tensor | Lookup
Inputs = Mapping[str, Input]


def dense(value: Input) -> Tensor:
    """The tensor behind an input, whichever form it has."""
    return value.dense() if isinstance(value, Lookup) else value


def at_step(inputs: Inputs, step: int) -> dict[str, Input]:
    """The inputs of one step, (B, ...) each: what ``SequenceModel.step`` takes."""
    return {name: v.at(step) if isinstance(v, Lookup) else v[:, step] for name, v in inputs.items()}


def of_trials(inputs: Inputs, start: int, stop: int) -> dict[str, Input]:
    """The inputs of trials start..stop-1."""
    return {name: v.rows(start, stop) if isinstance(v, Lookup) else v[start:stop] for name, v in inputs.items()}


def batch_shape(inputs: Inputs) -> tuple[int, int]:
    """(B, T) of a batch of inputs."""
    value = next(iter(inputs.values()))
    shape = value.index.shape if isinstance(value, Lookup) else value.shape
    return int(shape[0]), int(shape[1])


def concatenated(parts: Sequence[Inputs]) -> dict[str, Input]:
    """The trials of several batches of inputs in one, padded to the longest: (sum of B, largest T, ...).

    A padded step holds zeros, or the first row of the table. What looks rows up in one table for all parts still does;
    where tables differ, or some parts have none, the rows are taken.

    Raises:
        ValueError: an input is not in every part.
    """
    if len(parts) == 1:
        return dict(parts[0])
    if any(part.keys() != parts[0].keys() for part in parts):
        raise ValueError(f"inputs of different names cannot be one batch: {[sorted(part) for part in parts]}")
    steps = max(batch_shape(part)[1] for part in parts)
    return {name: _concatenated([part[name] for part in parts], steps) for name in parts[0]}


def _concatenated(values: Sequence[Input], steps: int) -> Input:
    lookups = [value for value in values if isinstance(value, Lookup)]
    if len(lookups) == len(values) and all(value.table is lookups[0].table for value in lookups):
        return Lookup(lookups[0].table, _padded([value.index for value in lookups], steps))
    return _padded([dense(value) for value in values], steps)


def _padded(values: Sequence[Tensor], steps: int) -> Tensor:
    sizes = [len(value) for value in values]
    joined = values[0].new_zeros(sum(sizes), steps, *values[0].shape[2:])
    for rows, value in zip(joined.split(sizes), values, strict=True):
        rows[:, : value.shape[1]] = value
    return joined


@dataclass(frozen=True)
class TrialBatch:
    """One batch of trials, batch first.

    Attributes:
        inputs: name -> (B, T, ...) tensor or Lookup.
        targets: (B, T) class indices or (B, T, C) values.
        loss_mask: (B, T) weights of each step in the loss; 0 where a step does not count.
        lengths: (B,) steps of each trial; steps beyond are padding.
        periods: name -> (B, 2) first step and the step after the last; (-1, -1) in a trial that lacks the period.
        conditions: name -> (B,) or (B, T): labels for analyses (integers index the task's ``condition_labels``).
    """

    inputs: dict[str, Input]
    targets: Tensor
    loss_mask: Tensor
    lengths: Tensor
    periods: dict[str, Tensor] = field(default_factory=dict)
    conditions: dict[str, Tensor] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """B, the number of trials."""
        return self.targets.shape[0]

    def rows(self, start: int, stop: int) -> TrialBatch:
        """Trials start..stop-1."""
        return TrialBatch(
            inputs=of_trials(self.inputs, start, stop),
            targets=self.targets[start:stop],
            loss_mask=self.loss_mask[start:stop],
            lengths=self.lengths[start:stop],
            periods={name: bounds[start:stop] for name, bounds in self.periods.items()},
            conditions={name: value[start:stop] for name, value in self.conditions.items()},
        )

    def to(self, device: torch.device | str) -> TrialBatch:
        """The same batch on another device."""
        return TrialBatch(
            inputs={name: value.to(device) for name, value in self.inputs.items()},
            targets=self.targets.to(device),
            loss_mask=self.loss_mask.to(device),
            lengths=self.lengths.to(device),
            periods={name: bounds.to(device) for name, bounds in self.periods.items()},
            conditions={name: value.to(device) for name, value in self.conditions.items()},
        )
