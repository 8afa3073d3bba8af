"""The gradient loop: the same call from a notebook, a test and a sweep. R replicates are trained in lockstep."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from wmcore.errors import InputError
from wmcore.models.base import SequenceModel
from wmcore.seeding import generator
from wmcore.tasks.base import Task
from wmcore.training.checkpoint import Checkpoint, CheckpointFolder, build_model, load_checkpoint
from wmcore.training.divergence import activity_kinds, at_chance, count, fatal_kind
from wmcore.training.evaluation import Evaluation, outputs_of, scores, states_of, summary
from wmcore.training.intervals import Interval, over_replicates, over_trials
from wmcore.training.trial_spec import TrialSpec
from wmcore.trials import Lookup, TrialBatch

_AHEAD = 16
"""Batches that are drawn in one call: sampling is vectorised over trials, and its fixed cost is then shared. A task's
exact quotas hold over such a block; variants meet the same training trials if their batch sizes are equal."""
_PROBE = 32
"""Select trials on which a network's activity is judged: enough to show every unit, and cheap beside an evaluation."""


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
        divergence: kind -> number of replicates that show it with the best weights: silent and saturated on ``select``,
            at_chance on ``test``. What was fatal on the way is in the history.
    """

    history: list[Evaluation]
    best_step: int
    final: Evaluation
    intervals: dict[str, Interval]
    interval_unit: str
    n: int
    baselines: dict[str, dict[str, dict[str, float]]]
    sampling: dict[str, dict[str, float]]
    divergence: dict[str, int]


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
        task: Task | None = None,
    ) -> None:
        """Args: as of ``fit``, and
        task: the trial's task, as an earlier run of an equal task and seed has built and checked it.
        """
        torch.set_num_threads(threads)
        self.trial, self.device = trial, torch.device(device)
        self.seeds = list(range(trial.replicates) if seeds is None else seeds)
        if task is None:
            task = trial.task.build(stimuli)
            task.check_splits(trial.seed)
        self.task = task
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
        sums = torch.zeros(2, len(self.models), device=self.device)
        steps = target - self.step
        for step in range(self.step, target):
            for i, (r, model, optimizer) in enumerate(zip(self.seeds, self.models, self.optimizers, strict=True)):
                loss, grad_norm = self._update(r, model, optimizer, step)
                sums[0, i] += loss
                sums[1, i] += grad_norm
        self.step = target
        losses, grad_norms = ([value / steps for value in row] for row in sums.tolist())
        found = self.evaluate("select", self.trial.evaluation.trials)
        fatal = [fatal_kind(*pair, self.trial.training.divergence) for pair in zip(losses, grad_norms, strict=True)]
        evaluation = summary(
            self.step,
            {**found.replicates, "train/loss": losses, "train/grad_norm": grad_norms},
            count([*fatal, *self._activity_kinds()]),
        )
        self.history.append(evaluation)
        if self._is_best():
            self.best_step, self._best_weights = self.step, self._weights()
        return evaluation

    def evaluate(self, split: str, trials: int) -> Evaluation:
        """The task's metrics on fixed trials of a split, with the present weights."""
        batches, outputs = self._shown(split, trials)
        return summary(self.step, scores(self.task, batches, outputs, f"{split}/"))

    def finish(self) -> FitResult:
        """The task's final splits, with the weights that were best on the selection split."""
        for model, weights in zip(self.models, self._best_weights, strict=True):
            model.load_state_dict(weights)
        rule, several = self.trial.evaluation, len(self.seeds) > 1
        kinds = self._activity_kinds()
        values, intervals, baselines, sampling = {}, {}, {}, {}
        for split in self.trial.task.final_splits():
            batches, outputs = self._shown(split, rule.test_trials)
            found = scores(self.task, batches, outputs)
            each = self._over_trials(batches, outputs, found) if split == "test" or not several else []
            if split == "test":
                kinds += self._at_chance(batches, each)
            own = over_replicates(found, self.trial.task.proportions()) if several else each[0]
            values |= {f"{split}/{name}": value for name, value in found.items()}
            intervals |= {f"{split}/{name}": interval for name, interval in own.items()}
            baselines[split] = self.task.baselines(batches[0])
            sampling[split] = self.task.sampling_summary(batches[0])
        return FitResult(
            history=self.history,
            best_step=self.best_step,
            final=summary(self.step, values),
            intervals=intervals,
            interval_unit="replicates" if several else "trials",
            n=len(self.seeds) if several else rule.test_trials,
            baselines=baselines,
            sampling=sampling,
            divergence=count(kinds),
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

    def _update(
        self, r: int, model: SequenceModel, optimizer: torch.optim.Optimizer, step: int
    ) -> tuple[Tensor, Tensor]:
        """One optimiser step of one replicate; the detached loss, and the norm of its gradient before clipping."""
        training = self.trial.training
        batch = self._training_batch(r, step)
        noise = generator(self.trial.seed, "replicate", r, "noise", step, device=self.device)
        model.train()
        loss = self.task.loss(model(batch.inputs, generator=noise).outputs, batch)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        if training.grad_clip is not None:
            grad_norm = nn.utils.clip_grad_norm_(model.parameters(), training.grad_clip)
        else:
            grad_norm = nn.utils.get_total_norm(p.grad for p in model.parameters() if p.grad is not None)
        optimizer.step()
        return loss.detach(), grad_norm

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

    def _shown(self, split: str, trials: int) -> tuple[list[TrialBatch], list[Tensor]]:
        """Each replicate's fixed trials of a split, and the outputs for them with the present weights."""
        batches = [self._fixed_batch(r, split, trials) for r in self.seeds]
        return batches, [outputs_of(model, batch) for model, batch in zip(self.models, batches, strict=True)]

    def _over_trials(
        self, batches: Sequence[TrialBatch], outputs: Sequence[Tensor], found: Mapping[str, Sequence[float]]
    ) -> list[dict[str, Interval]]:
        """The intervals over trials of each replicate's metrics, which are ``found``."""
        task = self.trial.task
        each = []
        for i, (batch, shown) in enumerate(zip(batches, outputs, strict=True)):
            estimates = {name: values[i] for name, values in found.items()}
            least = batch.size // task.least_trials()
            each.append(over_trials(self.task, shown, batch, estimates, task.proportions(), least))
        return each

    def _at_chance(self, batches: Sequence[TrialBatch], each: Sequence[Mapping[str, Interval]]) -> list[str]:
        """``at_chance`` once for each replicate of which the metric that decides the best weights says so."""
        rule = self.trial.evaluation
        name = rule.best_metric.removeprefix("select/")
        return [
            "at_chance"
            for batch, intervals in zip(batches, each, strict=True)
            if at_chance(intervals[name], self.task.baselines(batch)["chance"][name], rule.best_mode)
        ]

    def _activity_kinds(self) -> list[str]:
        """What the present weights of each replicate show on a few select trials: silent, saturated or neither."""
        spec = self.trial.model
        found: list[str] = []
        for r, model in zip(self.seeds, self.models, strict=True):
            probe = self._fixed_batch(r, "select", self.trial.evaluation.trials).rows(0, _PROBE)
            states = states_of(model, probe, spec.recordable()[0])
            found += activity_kinds(states, spec.state_bound(), self.trial.training.divergence)
        return found

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
