"""What is found at one step of training, and the forward passes behind it. Shapes: B trials, T steps, C outputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from wmcore.models.base import SequenceModel
from wmcore.tasks.base import Task
from wmcore.trials import TrialBatch, of_trials

_CHUNK = 512
"""Trials per forward pass of an evaluation: bounds memory, changes nothing else."""


@dataclass(frozen=True)
class Evaluation:
    """The figures of one step.

    Attributes:
        step: optimiser steps done.
        metrics: ``<split>/<name>`` -> mean over replicates.
        spread: the same names -> sample standard deviation over replicates, n - 1 in the denominator (0 for one).
        replicates: the same names -> the value of each replicate.
        divergence: kind (``wmcore.training.divergence``) -> number of replicates that show it.
    """

    step: int
    metrics: dict[str, float] = field(default_factory=dict)
    spread: dict[str, float] = field(default_factory=dict)
    replicates: dict[str, list[float]] = field(default_factory=dict)
    divergence: dict[str, int] = field(default_factory=dict)


def summary(step: int, values: Mapping[str, list[float]], divergence: Mapping[str, int] | None = None) -> Evaluation:
    """The evaluation of a step from the values of each replicate, by name."""
    with np.errstate(invalid="ignore"):  # the spread about an infinite mean is NaN
        spread = {name: float(np.std(v, ddof=1)) if len(v) > 1 else 0.0 for name, v in values.items()}
    metrics = {name: float(np.mean(v)) for name, v in values.items()}
    return Evaluation(step, metrics, spread, dict(values), dict(divergence or {}))


def scores(
    task: Task, batches: Sequence[TrialBatch], outputs: Sequence[Tensor], prefix: str = ""
) -> dict[str, list[float]]:
    """``<prefix><name>`` of each of the task's metrics -> its value for each replicate's trials and outputs."""
    values: dict[str, list[float]] = {}
    for batch, shown in zip(batches, outputs, strict=True):
        for name, value in task.metrics(shown, batch).items():
            values.setdefault(prefix + name, []).append(value)
    return values


def outputs_of(model: SequenceModel, batch: TrialBatch) -> Tensor:
    """(B, T, C) outputs of a large batch, without noise or gradients."""
    model.eval()
    found = []
    with torch.no_grad():
        for start in range(0, batch.size, _CHUNK):
            stop = start + _CHUNK
            found.append(model(of_trials(batch.inputs, start, stop), lengths=batch.lengths[start:stop]).outputs)
    return torch.cat(found)


def states_of(model: SequenceModel, batch: TrialBatch, name: str) -> Tensor:
    """(N, ...) recorded states at the N steps of a small batch that are not padding, without noise or gradients."""
    model.eval()
    with torch.no_grad():
        states = model(batch.inputs, record=[name], lengths=batch.lengths).recorded[name]
    return states[torch.arange(states.shape[1], device=states.device) < batch.lengths[:, None]]
