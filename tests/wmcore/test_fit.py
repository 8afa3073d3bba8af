"""The training loop: interrupted equals uninterrupted, the best-weights rule, intervals, learning."""

from __future__ import annotations

import math
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import t as student_t
from torch import Tensor

from tests.fixtures.variants import assert_same, assert_same_weights, to_the_end, trial_of, weights_of
from wmcore.errors import InputError
from wmcore.tasks.base import Task
from wmcore.tasks.nback_sampling import FrameSampler
from wmcore.training.checkpoint import CheckpointFolder
from wmcore.training.fit import Evaluation, TrainingRun, fit
from wmcore.training.intervals import over_replicates, over_trials
from wmcore.trials import TrialBatch

GOLDEN = Path(__file__).parent / "golden" / "nback_gru.txt"


# Interruption


@pytest.mark.parametrize("replicates", [1, 2])
@pytest.mark.parametrize("evaluations", [1, 2])
def test_resumed_is_bit_identical_to_uninterrupted(
    synthetic_stimuli: Path, tmp_path: Path, replicates: int, evaluations: int
) -> None:
    trial = trial_of(replicates=replicates, model={"cell": "lstm", "dropout": 0.3})
    weights, result = to_the_end(TrainingRun(trial, stimuli=synthetic_stimuli), tmp_path / "whole")

    interrupted = TrainingRun(trial, stimuli=synthetic_stimuli)
    for _ in range(evaluations):
        interrupted.advance()
        interrupted.save(tmp_path / "parts")
    # Killed in the middle of the stretch to the next evaluation, and of a block of batches that were drawn ahead.
    die_at_update(interrupted, 4)
    with pytest.raises(KeyboardInterrupt):
        interrupted.advance()

    latest = CheckpointFolder(tmp_path / "parts").latest()
    assert latest is not None
    resumed = TrainingRun(trial, stimuli=synthetic_stimuli)
    resumed.restore(latest)
    assert resumed.step == 10 * evaluations
    resumed_weights, resumed_result = to_the_end(resumed, tmp_path / "parts")
    assert_same_weights(resumed_weights, weights)
    assert_same(resumed_result, result)
    assert [e.step for e in result.history] == [10, 20, 25]
    for path in sorted((tmp_path / "whole").glob("step_*/*")):
        if path.suffix != ".pt":
            assert (tmp_path / "parts" / path.parent.name / path.name).read_bytes() == path.read_bytes()


def die_at_update(run: TrainingRun, number: int) -> None:
    """The ``number``-th loss from now on is never computed."""
    loss, calls = run.task.loss, [0]

    def dying(outputs: Tensor, batch: TrialBatch) -> Tensor:
        calls[0] += 1
        if calls[0] == number:
            raise KeyboardInterrupt
        return loss(outputs, batch)

    run.task.loss = dying


def test_fit_resumes_from_a_path_and_a_finished_run_trains_nothing(synthetic_stimuli: Path, tmp_path: Path) -> None:
    trial = trial_of()
    reports: list[Evaluation] = []
    whole = fit(trial, report=reports.append, stimuli=synthetic_stimuli, checkpoints=tmp_path)
    assert [repr(e) for e in reports] == [repr(e) for e in whole.history]
    folder = CheckpointFolder(tmp_path)
    before = weights_on_disk(folder)
    again: list[Evaluation] = []
    finished = fit(trial, report=again.append, resume_from=folder.latest(), stimuli=synthetic_stimuli)
    assert again == []
    assert_same(finished, whole)
    assert folder.steps()[-1] == 25
    part: list[Evaluation] = []
    resumed = fit(trial, report=part.append, resume_from=folder.at(20), stimuli=synthetic_stimuli, checkpoints=tmp_path)
    assert [e.step for e in part] == [25]
    assert_same(resumed, whole)
    assert weights_on_disk(folder) == before


def weights_on_disk(folder: CheckpointFolder) -> dict[int, bytes]:
    return {step: (folder.at(step) / "weights.safetensors").read_bytes() for step in folder.steps()}


def test_another_variants_checkpoint_is_refused(synthetic_stimuli: Path, tmp_path: Path) -> None:
    run = TrainingRun(trial_of(lr=1e-3), stimuli=synthetic_stimuli)
    run.advance()
    path = run.save(tmp_path)
    other = TrainingRun(trial_of(lr=2e-3), stimuli=synthetic_stimuli)
    before = weights_of(other)
    with pytest.raises(InputError, match=str(path)):
        other.restore(path)
    assert_same_weights(weights_of(other), before)
    with pytest.raises(InputError, match="replicate 3"):
        TrainingRun(trial_of(lr=1e-3), [3], stimuli=synthetic_stimuli).restore(path)


# Which weights count


def scripted(run: TrainingRun, values: list[float], name: str = "select/accuracy") -> None:
    """Evaluations on ``select`` give these values while training."""
    left = iter(values)
    run.evaluate = lambda split, trials: Evaluation(run.step, replicates={name: [next(left)]})


@pytest.mark.parametrize(
    ("mode", "values", "best"),
    [
        ("max", [0.5, 0.7, 0.6, 0.7], 2),  # the first of equals
        ("max", [0.5, math.nan, 0.6, math.nan], 3),
        ("max", [math.nan, 0.1, 0.05, math.nan], 2),
        ("max", [0.9, 0.8, 0.7, 0.6], 1),
        ("min", [0.5, 0.7, 0.4, 0.6], 3),
        ("min", [math.nan, 0.7, 0.4, math.nan], 3),
    ],
)
def test_the_best_weights_are_kept(synthetic_stimuli: Path, mode: str, values: list[float], best: int) -> None:
    trial = trial_of(training={"steps": 8, "batch_size": 4}, evaluation={"every_steps": 2, "best_mode": mode})
    run = TrainingRun(trial, stimuli=synthetic_stimuli)
    scripted(run, values)
    weights = {}
    while not run.finished:
        run.advance()
        weights[run.step] = weights_of(run)
    result = run.finish()
    assert result.best_step == run.best_step == 2 * best
    assert_same_weights(weights_of(run), weights[2 * best])


def test_the_best_weights_survive_a_resume(synthetic_stimuli: Path, tmp_path: Path) -> None:
    trial = trial_of(training={"steps": 8, "batch_size": 4}, evaluation={"every_steps": 2})
    run = TrainingRun(trial, stimuli=synthetic_stimuli)
    scripted(run, [0.9, 0.5, 0.6, 0.7])
    run.advance()
    best = weights_of(run)
    run.save(tmp_path)
    for _ in range(2):
        run.advance()
        path = run.save(tmp_path)
    resumed = TrainingRun(trial, stimuli=synthetic_stimuli)
    resumed.restore(path)
    scripted(resumed, [0.7])
    resumed.advance()
    assert resumed.finish().best_step == 2
    assert_same_weights(weights_of(resumed), best)


def test_evaluations_need_not_divide_the_steps(synthetic_stimuli: Path) -> None:
    for every, expected in ((10, [10, 20, 25]), (40, [25])):
        result = fit(trial_of(evaluation={"every_steps": every}), stimuli=synthetic_stimuli)
        assert [evaluation.step for evaluation in result.history] == expected
        assert result.final.step == 25


def test_how_often_it_is_evaluated_does_not_change_training(synthetic_stimuli: Path) -> None:
    weights = [
        to_the_end(TrainingRun(trial_of(evaluation={"every_steps": every}), stimuli=synthetic_stimuli))[0]
        for every in (3, 25)
    ]
    assert_same_weights(*weights)


def test_gradients_are_clipped_to_the_norm_that_was_asked_for(synthetic_stimuli: Path) -> None:
    def last_norm(clip: float | None) -> float:
        run = TrainingRun(trial_of(grad_clip=clip), stimuli=synthetic_stimuli)
        run.advance()
        gradients = [p.grad for p in run.models[0].parameters() if p.grad is not None]
        return float(torch.cat([g.flatten() for g in gradients]).norm())

    assert last_norm(None) > 0.1
    assert last_norm(0.01) == pytest.approx(0.01, rel=1e-3)


def test_the_optimiser_is_adamw(synthetic_stimuli: Path) -> None:
    """One step moves every weight by lr against the sign of its gradient, after decay (Adam's first step)."""
    trial = trial_of(lr=0.01, model={"dropout": 0.0}, training={"steps": 1})
    run = TrainingRun(trial, stimuli=synthetic_stimuli)
    before = {name: p.detach().clone() for name, p in run.models[0].named_parameters()}
    run.advance()
    for name, parameter in run.models[0].named_parameters():
        assert parameter.grad is not None
        clear = parameter.grad.abs() > 1e-5
        assert clear.any()
        expected = before[name] * (1 - 0.01 * 1e-4) - 0.01 * parameter.grad.sign()
        torch.testing.assert_close(parameter.detach()[clear], expected[clear], rtol=0, atol=3e-5)


def test_a_split_that_is_too_small_is_met_before_training(
    synthetic_stimuli: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: FrameSampler) -> None:
        if self.images.table.shape[2] == 2:  # the held-out views
            raise InputError("task.stimuli.objects", "must have at least 2 identities per category in every split")

    monkeypatch.setattr(FrameSampler, "_check", refuse)
    with pytest.raises(InputError, match="at least 2 identities per category"):
        TrainingRun(trial_of(), stimuli=synthetic_stimuli)


# What comes out


def test_the_result_covers_every_split(synthetic_stimuli: Path) -> None:
    trial = trial_of()
    result = fit(trial, stimuli=synthetic_stimuli)
    splits = trial.task.final_splits()
    expected = {f"{split}/{name}" for split in splits for name in trial.task.metric_names()}
    assert set(result.final.metrics) == set(result.intervals) == expected
    assert set(result.baselines) == set(result.sampling) == set(splits)
    for name, (low, high) in result.intervals.items():
        if not math.isnan(low):
            assert low <= result.final.metrics[name] <= high
    assert not math.isnan(result.intervals["test/accuracy_all_steps"][0])
    assert set(result.history[0].metrics) == {
        "train/loss",
        "train/grad_norm",
        *(f"select/{name}" for name in trial.task.metric_names()),
    }


def test_interval_over_replicates_is_students() -> None:
    found = over_replicates(
        {"a": [1.0, 2.0, 3.0], "b": [0.5, 0.5], "c": [math.nan, 1.0], "d": [1.0, math.nan, 3.0]}, proportions=()
    )
    assert found["a"] == pytest.approx((2 - 4.302653 / math.sqrt(3), 2 + 4.302653 / math.sqrt(3)))
    assert found["b"] == (0.5, 0.5)
    assert math.isnan(found["c"][0])
    half = float(student_t.ppf(0.975, 1))
    assert found["d"] == pytest.approx((2 - half, 2 + half))


class MeanTask(Task):
    """Scores the mean output, and the ratio of two."""

    def sample(self, batch_size: int, generator: torch.Generator, split: str) -> TrialBatch:
        raise NotImplementedError

    def loss(self, outputs: Tensor, batch: TrialBatch) -> Tensor:
        raise NotImplementedError

    def metrics(self, outputs: Tensor, batch: TrialBatch) -> dict[str, float]:
        first, second = outputs[..., 0].mean(), outputs[..., 1].mean()
        return {"mean": float(first), "ratio": float(first / second), "never": math.nan}

    def baselines(self, batch: TrialBatch) -> dict[str, dict[str, float]]:
        raise NotImplementedError

    def sampling_summary(self, batch: TrialBatch) -> dict[str, float]:
        raise NotImplementedError


def plain_batch(size: int) -> TrialBatch:
    return TrialBatch({}, torch.zeros(size, 1), torch.ones(size, 1), torch.ones(size))


def test_interval_over_trials_covers_the_truth_as_often_as_it_says() -> None:
    """400 sets of 210 trials: 95 % cover, to within four standard errors."""
    task, batch = MeanTask(), plain_batch(210)
    generator = torch.Generator().manual_seed(0)
    covered = {"mean": 0, "ratio": 0}
    widths = []
    for _ in range(400):
        outputs = torch.randn((210, 1, 2), generator=generator) + torch.tensor([2.0, 8.0])
        estimates = task.metrics(outputs, batch)
        found = over_trials(task, outputs, batch, estimates, proportions=(), n=210)
        assert math.isnan(found["never"][0])
        for name, truth in (("mean", 2.0), ("ratio", 0.25)):
            low, high = found[name]
            covered[name] += low <= truth <= high
            assert (low + high) / 2 == pytest.approx(estimates[name])
        widths.append(found["mean"][1] - found["mean"][0])
    for count in covered.values():
        assert abs(count / 400 - 0.95) < 4 * math.sqrt(0.95 * 0.05 / 400)
    assert np.mean(widths) == pytest.approx(2 * 1.96 / math.sqrt(210), rel=0.15)


def test_too_few_trials_have_no_interval() -> None:
    task, batch = MeanTask(), plain_batch(3)
    outputs = torch.randn((3, 1, 2), generator=torch.Generator().manual_seed(0))
    found = over_trials(task, outputs, batch, {"mean": 1.0}, proportions=(), n=3)
    assert math.isnan(found["mean"][0])


# Learning


def test_the_loss_curve_is_the_golden_one(synthetic_stimuli: Path) -> None:
    """Mean training loss of every 5 steps. WMSWEEP_WRITE_GOLDEN=1 writes the file anew, after a change on purpose."""
    trial = trial_of(
        model={"cell": "gru", "dropout": 0.0}, training={"steps": 60, "batch_size": 16}, evaluation={"every_steps": 5}
    )
    history = fit(trial, stimuli=synthetic_stimuli).history
    found = [(evaluation.step, evaluation.metrics["train/loss"]) for evaluation in history]
    if os.environ.get("WMSWEEP_WRITE_GOLDEN"):
        lines = [f"{step} {loss:.7f}\n" for step, loss in found]
        GOLDEN.write_text("# step, mean training loss since the step before\n" + "".join(lines))
    golden = np.loadtxt(GOLDEN)
    assert [step for step, _ in found] == golden[:, 0].tolist() == list(range(5, 65, 5))
    np.testing.assert_allclose([loss for _, loss in found], golden[:, 1], rtol=1e-4)


def test_a_small_network_learns(synthetic_stimuli: Path) -> None:
    trial = trial_of(
        model={"cell": "gru", "hidden_size": 32, "trunk_size": 32, "dropout": 0.0},
        task={"n": (1,), "features": ("location",), "steps": 4},
        lr=1e-2,
        training={"steps": 120, "batch_size": 48},
        evaluation={"every_steps": 30, "trials": 256, "test_trials": 256},
    )
    result = fit(trial, stimuli=synthetic_stimuli)
    losses = [evaluation.metrics["train/loss"] for evaluation in result.history]
    assert losses[0] > 0.5
    assert losses[-1] < 0.25 * losses[0]
    assert result.final.metrics["test/accuracy"] > 0.9
    assert result.baselines["test"]["constant"]["accuracy"] < 0.51
