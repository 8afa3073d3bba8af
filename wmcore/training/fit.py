"""The gradient loop: the same call from a notebook, a test and a sweep. R replicates are trained in lockstep."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from wmcore.errors import InputError
from wmcore.models.base import SequenceModel
from wmcore.seeding import generator
from wmcore.tasks.base import Task
from wmcore.training.checkpoint import Checkpoint, CheckpointFolder, build_model, load_checkpoint
from wmcore.training.intervals import Interval, over_replicates, over_trials
from wmcore.training.trial_spec import TrialSpec
from wmcore.trials import Lookup, TrialBatch, of_trials

_AHEAD = 16
"""Batches that are drawn in one call: sampling is vectorised over trials, and its fixed cost is then shared. A task's
exact quotas hold over such a block; variants meet the same training trials if their batch sizes are equal."""
_CHUNK = 512
"""Trials per forward pass of an evaluation: bounds memory, changes nothing else."""


@dataclass(frozen=True)
class Evaluation:
    """The figures of one step.

    Attributes:
        step: optimiser steps done.
        metrics: ``<split>/<name>`` -> mean over replicates.
        spread: the same names -> standard deviation over replicates (0 for one).
        replicates: the same names -> the value of each replicate.
    """

    step: int
    metrics: dict[str, float] = field(default_factory=dict)
    spread: dict[str, float] = field(default_factory=dict)
    replicates: dict[str, list[float]] = field(default_factory=dict)


@dataclass(frozen=True)
class FitResult:
    """What training gives.

    Attributes:
        history: one evaluation per ``evaluation.every_steps``.
        best_step: the step whose weights were best on the selection split.
        final: the task's final splits with the best weights.
        intervals: the same names -> 95 % interval, over ``interval_unit`` (replicates, or trials of a single one).
        n: how many of those units.
        baselines: split -> policy -> metric -> score on the same trials (replicate 0's).
        sampling: split -> achieved rates of the sampling.
    """

    history: list[Evaluation]
    best_step: int
    final: Evaluation
    intervals: dict[str, Interval]
    interval_unit: str
    n: int
    baselines: dict[str, dict[str, dict[str, float]]]
    sampling: dict[str, dict[str, float]]


class TrainingRun:
    """A variant in training: ``advance`` to the next evaluation, ``save``, ``restore``, and ``finish``.

    Every random number is a pure function of (root seed, replicate, purpose, step), so that a run that is resumed
    from a checkpoint is bit-identical on CPU to one that was never interrupted, at equal ``threads``.
    """

    def __init__(
        self,
        trial: TrialSpec,
        seeds: Sequence[int] | None = None,
        *,
        stimuli: Path | None = None,
        device: str | torch.device = "cpu",
        threads: int = 1,
    ) -> None:
        """Args: as of ``fit``."""
        torch.set_num_threads(threads)
        self.trial, self.device = trial, torch.device(device)
        self.seeds = list(range(trial.replicates) if seeds is None else seeds)
        self.task: Task = trial.task.build(stimuli)
        self.task.check_splits(trial.seed)
        self.models: list[SequenceModel] = [build_model(trial, r).to(self.device) for r in self.seeds]
        optimizer = trial.training.optimizer
        self.optimizers = [
            torch.optim.AdamW(model.parameters(), lr=optimizer.lr, weight_decay=optimizer.weight_decay)
            for model in self.models
        ]
        self.step = 0
        self.history: list[Evaluation] = []
        self.best_step = 0
        self._best_weights = self._weights()
        self._tables: dict[int, Tensor] = {}
        self._drawn: dict[int, tuple[int, TrialBatch]] = {}
        self._fixed: dict[tuple[int, str, int], TrialBatch] = {}

    @property
    def finished(self) -> bool:
        """All optimiser steps are done."""
        return self.step >= self.trial.training.steps

    def advance(self) -> Evaluation:
        """Trains to the next multiple of ``evaluation.every_steps`` (or the last step) and evaluates on ``select``."""
        every, last = self.trial.evaluation.every_steps, self.trial.training.steps
        target = min((self.step // every + 1) * every, last)
        losses = torch.zeros(len(self.models), device=self.device)
        steps = target - self.step
        for step in range(self.step, target):
            for i, (r, model, optimizer) in enumerate(zip(self.seeds, self.models, self.optimizers, strict=True)):
                losses[i] += self._update(r, model, optimizer, step)
        self.step = target
        evaluation = self.evaluate("select", self.trial.evaluation.trials)
        train_loss = [float(loss) / steps for loss in losses]
        evaluation.replicates["train/loss"] = train_loss
        evaluation.metrics["train/loss"] = float(np.mean(train_loss))
        evaluation.spread["train/loss"] = float(np.std(train_loss))
        self.history.append(evaluation)
        if self._is_best():
            self.best_step, self._best_weights = self.step, self._weights()
        return evaluation

    def evaluate(self, split: str, trials: int) -> Evaluation:
        """The task's metrics on fixed trials of a split, with the present weights."""
        batches = [self._fixed_batch(r, split, trials) for r in self.seeds]
        outputs = [_outputs(model, batch) for model, batch in zip(self.models, batches, strict=True)]
        return self._evaluation(split, batches, outputs)

    def finish(self) -> FitResult:
        """The task's final splits, with the weights that were best on the selection split."""
        for model, weights in zip(self.models, self._best_weights, strict=True):
            model.load_state_dict(weights)
        several, trials = len(self.seeds) > 1, self.trial.evaluation.test_trials
        final = Evaluation(self.step)
        intervals, baselines, sampling = {}, {}, {}
        proportions, least = self.trial.task.proportions(), self.trial.task.least_trials()
        for split in self.trial.task.final_splits():
            batches = [self._fixed_batch(r, split, trials) for r in self.seeds]
            outputs = [_outputs(model, batch) for model, batch in zip(self.models, batches, strict=True)]
            found = self._evaluation(split, batches, outputs)
            for name in ("metrics", "spread", "replicates"):
                getattr(final, name).update(getattr(found, name))
            bare = {name.removeprefix(f"{split}/"): values for name, values in found.replicates.items()}
            if several:
                own = over_replicates(bare, proportions)
            else:
                estimates = {name: values[0] for name, values in bare.items()}
                own = over_trials(self.task, outputs[0], batches[0], estimates, proportions, trials // least)
            intervals |= {f"{split}/{name}": interval for name, interval in own.items()}
            baselines[split] = self.task.baselines(batches[0])
            sampling[split] = self.task.sampling_summary(batches[0])
        return FitResult(
            history=self.history,
            best_step=self.best_step,
            final=final,
            intervals=intervals,
            interval_unit="replicates" if several else "trials",
            n=len(self.seeds) if several else trials,
            baselines=baselines,
            sampling=sampling,
        )

    def save(self, folder: Path) -> Path:
        """Writes a checkpoint of the present step; returns its directory."""
        return CheckpointFolder(folder).save(
            self.trial,
            self.step,
            self._weights(),
            {"optimizers": [o.state_dict() for o in self.optimizers], "best_step": self.best_step},
            [asdict(evaluation) for evaluation in self.history],
            self.best_step,
            self.seeds,
        )

    def restore(self, path: Path) -> None:
        """Continues from a checkpoint; the best one must lie beside it.

        Raises:
            InputError: it cannot be read, or is one of another variant.
        """
        checkpoint = load_checkpoint(path)
        if checkpoint.trial != self.trial:
            raise InputError(
                str(path), f"is a checkpoint of variant {checkpoint.trial.trial_id}, not of {self.trial.trial_id}"
            )
        checkpoint.check_whole()
        state = checkpoint.training_state()
        self._load(checkpoint)
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self.step, self.best_step = checkpoint.step, int(state["best_step"])
        self.history = [Evaluation(**line) for line in checkpoint.history]
        best = CheckpointFolder(path.parent).at(self.best_step)
        best_checkpoint = checkpoint if self.best_step == self.step else load_checkpoint(best)
        self._best_weights = [best_checkpoint.weights(r) for r in self.seeds]

    def _load(self, checkpoint: Checkpoint) -> None:
        for r, model in zip(self.seeds, self.models, strict=True):
            model.load_state_dict(checkpoint.weights(r))

    def _update(self, r: int, model: SequenceModel, optimizer: torch.optim.Optimizer, step: int) -> Tensor:
        """One optimiser step of one replicate; the detached loss."""
        training = self.trial.training
        batch = self._training_batch(r, step)
        noise = generator(self.trial.seed, "replicate", r, "noise", step, device=self.device)
        model.train()
        loss = self.task.loss(model(batch.inputs, generator=noise).outputs, batch)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        if training.grad_clip is not None:
            nn.utils.clip_grad_norm_(model.parameters(), training.grad_clip)
        optimizer.step()
        return loss.detach()

    def _training_batch(self, r: int, step: int) -> TrialBatch:
        """The trials of one optimiser step: a pure function of (seed, r, step)."""
        block, position = divmod(step, _AHEAD)
        size = self.trial.training.batch_size
        if r not in self._drawn or self._drawn[r][0] != block:
            draw = generator(self.trial.seed, "replicate", r, "train", block)
            self._drawn[r] = block, self._placed(self.task.sample(size * _AHEAD, draw, "train"))
        return self._drawn[r][1].rows(position * size, (position + 1) * size)

    def _fixed_batch(self, r: int, split: str, trials: int) -> TrialBatch:
        key = (r, split, trials)
        if key not in self._fixed:
            draw = generator(self.trial.seed, "replicate", r, "evaluation", split)
            self._fixed[key] = self._placed(self.task.sample(trials, draw, split))
        return self._fixed[key]

    def _placed(self, batch: TrialBatch) -> TrialBatch:
        """The batch on the run's device; a table that its inputs look rows up in is copied there once."""
        for name, value in batch.inputs.items():
            if isinstance(value, Lookup):
                key = value.table.data_ptr()
                if key not in self._tables:
                    self._tables[key] = value.table.to(self.device)
                batch.inputs[name] = Lookup(self._tables[key], value.index)
        return batch.to(self.device)

    def _evaluation(self, split: str, batches: Sequence[TrialBatch], outputs: Sequence[Tensor]) -> Evaluation:
        """The metrics of each replicate's outputs, with mean and spread."""
        values: dict[str, list[float]] = {}
        for shown, batch in zip(outputs, batches, strict=True):
            for name, value in self.task.metrics(shown, batch).items():
                values.setdefault(f"{split}/{name}", []).append(value)
        return Evaluation(
            self.step,
            metrics={name: float(np.mean(v)) for name, v in values.items()},
            spread={name: float(np.std(v)) for name, v in values.items()},
            replicates=values,
        )

    def _is_best(self) -> bool:
        rule = self.trial.evaluation
        values = [evaluation.metrics[rule.best_metric] for evaluation in self.history]
        sign = 1 if rule.best_mode == "max" else -1
        earlier = [sign * value for value in values[:-1] if not math.isnan(value)]
        return not earlier or sign * values[-1] > max(earlier)

    def _weights(self) -> list[dict[str, Tensor]]:
        return [{k: v.detach().clone() for k, v in model.state_dict().items()} for model in self.models]


def fit(
    trial: TrialSpec,
    seeds: Sequence[int] | None = None,
    report: Callable[[Evaluation], Any] | None = None,
    resume_from: Path | None = None,
    device: str | torch.device = "cpu",
    threads: int = 1,
    *,
    stimuli: Path | None = None,
    checkpoints: Path | None = None,
) -> FitResult:
    """Trains one variant.

    Args:
        trial: the variant.
        seeds: replicate numbers r to train; None means 0..replicates-1. Replicate r draws everything from
            (trial.seed, r) alone.
        report: called after every evaluation.
        resume_from: a checkpoint of the same variant.
        device: where the networks live.
        threads: CPU threads of torch; results on CPU are bit-identical at equal numbers.
        stimuli: folder that holds the task's image and feature banks.
        checkpoints: folder for checkpoints, one per evaluation (the last two and the best are kept).
    """
    run = TrainingRun(trial, seeds, stimuli=stimuli, device=device, threads=threads)
    if resume_from is not None:
        run.restore(resume_from)
    while not run.finished:
        evaluation = run.advance()
        if checkpoints is not None:
            run.save(checkpoints)
        if report is not None:
            report(evaluation)
    return run.finish()


def _outputs(model: SequenceModel, batch: TrialBatch) -> Tensor:
    """(B, T, C) outputs of a large batch, without noise or gradients."""
    starts = range(0, batch.size, _CHUNK)
    model.eval()
    with torch.no_grad():
        return torch.cat([model(of_trials(batch.inputs, start, start + _CHUNK)).outputs for start in starts])
