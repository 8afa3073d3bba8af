"""The gradient loop: the same call from a notebook, a test and a sweep. R replicates are trained in lockstep."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from wmcore.errors import InputError
from wmcore.models.base import SequenceModel
from wmcore.seeding import generator
from wmcore.tasks.base import Task, TaskSpec
from wmcore.training.batches import TrialSource, weighted_loss
from wmcore.training.checkpoint import Checkpoint, CheckpointFolder, build_model, load_checkpoint
from wmcore.training.curriculum import Progress
from wmcore.training.divergence import activity_kinds, count, fatal_kind
from wmcore.training.evaluation import Evaluation, outputs_of, scores, states_of, summary
from wmcore.training.final import FitResult, fit_result
from wmcore.training.stages import network_of, stages_of, tasks_of
from wmcore.training.trial_spec import TrialSpec
from wmcore.trials import TrialBatch, concatenated

_PROBE = 32
"""Select trials on which a network's activity is judged: enough to show every unit, and cheap beside an evaluation."""


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
        tasks: Mapping[str, Task] | None = None,
    ) -> None:
        """Args: as of ``fit``, and
        tasks: content hash of a task's spec -> the task, as an earlier run with the same seed has built and checked it.
        """
        torch.set_num_threads(threads)
        self.trial, self.device = trial, torch.device(device)
        self.seeds = list(range(trial.replicates) if seeds is None else seeds)
        stages, specs = stages_of(trial), tasks_of(trial)
        known = {key: task for key, task in (tasks or {}).items() if key in specs}
        self.tasks = known | {key: self._built(spec, stimuli) for key, spec in specs.items() if key not in known}
        self.task = self.tasks[trial.task.content_hash()]
        self.stage_tasks = [self.tasks[stage.task.content_hash()] for stage in stages]
        self.source = TrialSource(trial, self.stage_tasks, self.device)
        self.models: list[SequenceModel] = [build_model(trial, r).to(self.device) for r in self.seeds]
        self.networks = [[network_of(stage, trial, model) for stage in stages] for model in self.models]
        self.optimizers = [trial.training.optimizer.build(model.parameters()) for model in self.models]
        self.progress = [Progress() for _ in self.seeds]
        self.step = 0
        self.history: list[Evaluation] = []
        self.best_step = 0
        self._best_weights = self._weights()

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
            for i in range(len(self.seeds)):
                loss, grad_norm = self._update(i, step)
                sums[0, i] += loss
                sums[1, i] += grad_norm
        self.step = target
        losses, grad_norms = ([value / steps for value in row] for row in sums.tolist())
        found = self.evaluate("select", self.trial.evaluation.trials)
        fatal = [fatal_kind(*pair, self.trial.training.divergence) for pair in zip(losses, grad_norms, strict=True)]
        evaluation = summary(
            self.step,
            {**found.replicates, "train/loss": losses, "train/grad_norm": grad_norms, **self._judge_stages()},
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
        return fit_result(self.trial, self.task, self.history, self.best_step, self._shown, self._activity_kinds())

    def save(self, folder: Path) -> Path:
        """Writes a checkpoint of the present step; returns its directory."""
        return CheckpointFolder(folder).save(
            self.trial,
            self.step,
            self._weights(),
            {
                "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
                "progress": [asdict(progress) for progress in self.progress],
                "best_step": self.best_step,
            },
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
        self.progress = [Progress(**saved) for saved in state["progress"]]
        self.step, self.best_step = checkpoint.step, int(state["best_step"])
        self.history = [Evaluation(**line) for line in checkpoint.history]
        best = CheckpointFolder(path.parent).at(self.best_step)
        best_checkpoint = checkpoint if self.best_step == self.step else load_checkpoint(best)
        self._best_weights = [best_checkpoint.weights(r) for r in self.seeds]

    def _load(self, checkpoint: Checkpoint) -> None:
        for r, model in zip(self.seeds, self.models, strict=True):
            model.load_state_dict(checkpoint.weights(r))

    def _built(self, spec: TaskSpec, stimuli: Path | None) -> Task:
        task = spec.build(stimuli)
        task.check_splits(self.trial.seed)
        return task

    def _update(self, i: int, step: int) -> tuple[Tensor, Tensor]:
        """One optimiser step of the i-th replicate; the detached loss, and the norm of its gradient before clipping."""
        training = self.trial.training
        r, stage, optimizer = self.seeds[i], self.progress[i].stage, self.optimizers[i]
        model = self.networks[i][stage]
        parts = self.source.training(r, step, stage)
        noise = generator(self.trial.seed, "replicate", r, "noise", step, device=self.device)
        model.train()
        inputs = concatenated([part.batch.inputs for part in parts])
        lengths = torch.cat([part.batch.lengths for part in parts])
        outputs = model(inputs, generator=noise, lengths=lengths).outputs
        loss = weighted_loss(outputs, parts)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        if training.grad_clip is not None:
            grad_norm = nn.utils.clip_grad_norm_(model.parameters(), training.grad_clip)
        else:
            grad_norm = nn.utils.get_total_norm(p.grad for p in model.parameters() if p.grad is not None)
        optimizer.step()
        return loss.detach(), grad_norm

    def _judge_stages(self) -> dict[str, list[float]]:
        """Which stage of the curriculum each replicate was trained in since the last evaluation, and its score there
        by the rule; moves on those that meet it."""
        curriculum = self.trial.training.curriculum
        if curriculum is None:
            return {}
        stages, judged = [progress.stage for progress in self.progress], []
        for r, stage, networks in zip(self.seeds, stages, self.networks, strict=True):
            task = self.stage_tasks[stage]
            batch = self.source.fixed(task, r, "select", curriculum.advance.trials)
            judged.append(task.metrics(outputs_of(networks[stage], batch), batch)[curriculum.advance.metric])
        self.progress = [
            progress.judged(score, self.step, curriculum) for progress, score in zip(self.progress, judged, strict=True)
        ]
        return {"train/stage": [stage + 1.0 for stage in stages], "train/stage_score": judged}

    def _shown(self, split: str, trials: int) -> tuple[list[TrialBatch], list[Tensor]]:
        """Each replicate's fixed trials of a split, and the outputs for them with the present weights."""
        batches = [self.source.fixed(self.task, r, split, trials) for r in self.seeds]
        return batches, [outputs_of(model, batch) for model, batch in zip(self.models, batches, strict=True)]

    def _activity_kinds(self) -> list[str]:
        """What the present weights of each replicate show on a few select trials: silent, saturated or neither."""
        spec = self.trial.model
        found: list[str] = []
        for r, model in zip(self.seeds, self.models, strict=True):
            probe = self.source.fixed(self.task, r, "select", self.trial.evaluation.trials).rows(0, _PROBE)
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
