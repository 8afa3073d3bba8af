"""Divergence: each kind by its rule, and in real networks on n-back that are made to show it."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import nn

from tests.fixtures.variants import assert_same, to_the_end, trial_of
from wmcore.models.base import SequenceModel
from wmcore.models.rnn import RNN, RNNSpec
from wmcore.training.checkpoint import CheckpointFolder, build_model
from wmcore.training.divergence import (
    FATAL,
    KINDS,
    DivergenceSpec,
    activity_kinds,
    at_chance,
    count,
    fatal_kind,
)
from wmcore.training.fit import Evaluation, FitResult, TrainingRun, fit
from wmcore.training.intervals import over_trials
from wmcore.training.trial_spec import TrainingSpec, TrialSpec

NAN, INF = math.nan, math.inf

# The rules


@pytest.mark.parametrize(
    ("loss", "grad_norm", "kind"),
    [
        (0.7, 1.0, None),
        (0.7, 5.0, None),
        (0.7, 5.1, "exploding_gradients"),
        (0.7, INF, "exploding_gradients"),
        (0.7, NAN, "exploding_gradients"),
        (NAN, 1.0, "nonfinite_loss"),
        (INF, 1.0, "nonfinite_loss"),
        (-INF, 1.0, "nonfinite_loss"),
        # Once the loss is lost, the gradient says nothing.
        (NAN, NAN, "nonfinite_loss"),
        (INF, INF, "nonfinite_loss"),
    ],
)
def test_one_fatal_kind_at_most_and_the_loss_comes_first(loss: float, grad_norm: float, kind: str | None) -> None:
    assert fatal_kind(loss, grad_norm, DivergenceSpec(grad_norm=5.0)) == kind


def states_of_units(*peaks: float) -> torch.Tensor:
    """(8, units): each unit is at its peak once, with a minus sign, and at half of it otherwise."""
    states = torch.tensor(peaks).expand(8, -1) / 2
    return torch.cat([states[:7], -2 * states[7:]])


@pytest.mark.parametrize(
    ("silent", "active", "kinds"), [(20, 0, ["silent"]), (19, 1, ["silent"]), (18, 2, []), (0, 20, [])]
)
def test_silence_is_a_share_of_units_that_never_exceed_a_small_activity(
    silent: int, active: int, kinds: list[str]
) -> None:
    spec = DivergenceSpec(silent_activity=0.01, silent_share=0.95)
    states = states_of_units(*[0.01] * silent, *[0.011] * active)
    assert activity_kinds(states, None, spec) == kinds
    assert activity_kinds(states.view(8, 4, 5), None, spec) == kinds


@pytest.mark.parametrize(
    ("at_bound", "bound", "kinds"), [(18, 2.0, ["saturated"]), (17, 2.0, []), (20, None, []), (20, 2.01, [])]
)
def test_saturation_is_a_share_of_values_at_the_bound(at_bound: int, bound: float | None, kinds: list[str]) -> None:
    spec = DivergenceSpec(saturated_margin=0.001, saturated_share=0.9)
    values = torch.tensor([1.999, -2.0] * (at_bound // 2) + [1.997] * (20 - 2 * (at_bound // 2)))
    if at_bound % 2:
        values[-1] = 2.0
    assert activity_kinds(values.view(10, 2), bound, spec) == kinds


def test_silent_units_do_not_hide_that_all_others_are_stuck() -> None:
    spec = DivergenceSpec(silent_share=0.95, saturated_share=0.9)
    half = torch.cat([torch.zeros(8, 10), torch.ones(8, 10)], dim=1)
    assert activity_kinds(half, 1.0, spec) == ["saturated"]
    assert activity_kinds(half * 0.5, 1.0, spec) == []


def test_what_is_no_number_is_neither_silent_nor_saturated() -> None:
    assert activity_kinds(torch.full((4, 3), NAN), 1.0, DivergenceSpec()) == []


@pytest.mark.parametrize(
    ("interval", "mode", "reaches"),
    [
        ((0.51, 0.6), "max", False),
        ((0.5, 0.6), "max", True),
        ((0.4, 0.6), "max", True),
        ((0.1, 0.2), "max", True),  # worse than chance
        ((0.4, 0.49), "min", False),
        ((0.4, 0.5), "min", True),
        ((0.8, 0.9), "min", True),
        ((NAN, NAN), "max", False),
        ((NAN, NAN), "min", False),
    ],
)
def test_at_chance_is_what_does_not_lie_on_the_better_side(interval: Any, mode: Any, reaches: bool) -> None:
    assert at_chance(interval, 0.5, mode) is reaches


def test_only_what_was_seen_is_counted_in_a_fixed_order() -> None:
    found = count(["at_chance", None, "silent", "nonfinite_loss", "silent", None])
    assert list(found.items()) == [("nonfinite_loss", 1), ("silent", 2), ("at_chance", 1)]
    assert count([None, None]) == {}
    assert KINDS[:2] == FATAL


# The thresholds are part of the variant


def test_thresholds_are_part_of_the_identity() -> None:
    default = trial_of()
    assert json.loads(default.canonical_json())["training"]["divergence"] == {
        "grad_norm": 1000.0,
        "silent_activity": 0.01,
        "silent_share": 0.95,
        "saturated_margin": 0.001,
        "saturated_share": 0.9,
    }
    assert with_thresholds(silent_share=0.9).trial_id != default.trial_id


@pytest.mark.parametrize(
    "wrong",
    [
        {"grad_norm": 0.0},
        {"silent_activity": -0.1},
        {"silent_share": 0.0},
        {"silent_share": 1.1},
        {"saturated_margin": 1.0},
        {"saturated_margin": -0.1},
        {"saturated_share": 0.0},
        {"saturated_share": 1.01},
        {"silent": 1.0},
    ],
)
def test_thresholds_out_of_bounds_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValidationError, match=rf"divergence\.{next(iter(wrong))}"):
        TrainingSpec.parse({"divergence": wrong})


@pytest.mark.parametrize("name", ["saturated_margin", "saturated_share"])
def test_a_threshold_of_saturation_needs_units_with_a_bound(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    with_thresholds(**{name: 0.5})
    monkeypatch.setattr(RNNSpec, "state_bound", lambda self: None)
    trial_of()
    with_thresholds(silent_share=0.5)
    with pytest.raises(ValidationError, match=rf"training\.divergence\.{name} has no effect"):
        with_thresholds(**{name: 0.5})


# Real networks

EASY = {"n": (1,), "features": ("location",), "steps": 4}
LEARNS: dict[str, Any] = {
    "model": {"cell": "gru", "hidden_size": 32, "trunk_size": 32, "dropout": 0.0},
    "task": EASY,
    "lr": 1e-2,
    "training": {"steps": 120, "batch_size": 48},
    "evaluation": {"every_steps": 60, "trials": 256, "test_trials": 256},
}
STILL: dict[str, Any] = {"task": EASY, "lr": 1e-9, "training": {"steps": 2, "batch_size": 8}}
"""Weights stay what they are made to be."""


def with_thresholds(**thresholds: float) -> TrialSpec:
    return trial_of(training={"divergence": DivergenceSpec(**thresholds)})


def still(stimuli: Path, every: int = 1, **fields: Any) -> TrainingRun:
    """Two steps with weights that hardly move; an evaluation after each."""
    changes = {**STILL, "evaluation": {"every_steps": every}, **fields}
    return TrainingRun(trial_of(**changes), stimuli=stimuli)


def rnn(model: SequenceModel) -> RNN:
    assert isinstance(model, RNN)
    return model


def scale(module: nn.Module, factor: float) -> None:
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.mul_(factor)


@pytest.mark.parametrize("value", [NAN, INF])
def test_a_loss_that_is_no_number_is_fatal_and_counted_once(synthetic_stimuli: Path, value: float) -> None:
    run = still(synthetic_stimuli, replicates=3)
    with torch.no_grad():
        rnn(run.models[1]).readout.weight.fill_(value)
    for _ in range(2):
        evaluation = run.advance()
        assert evaluation.divergence == {"nonfinite_loss": 1}
        assert [math.isfinite(loss) for loss in evaluation.replicates["train/loss"]] == [True, False, True]
        assert not math.isfinite(evaluation.metrics["train/loss"])


def test_an_infinite_loss_is_fatal(synthetic_stimuli: Path) -> None:
    run = still(synthetic_stimuli, every=2)
    scale(rnn(run.models[0]).readout, 3e38)
    assert run.advance().divergence == {"nonfinite_loss": 1}


def test_training_that_runs_away_ends_in_a_loss_that_is_no_number(synthetic_stimuli: Path) -> None:
    """By training alone, at a learning rate that no spec allows."""
    run = TrainingRun(trial_of(task=EASY, evaluation={"every_steps": 1}), stimuli=synthetic_stimuli)
    run.optimizers[0].param_groups[0]["lr"] = 1e30
    assert run.advance().divergence == {}  # of the loss before the first step
    assert run.advance().divergence == {"nonfinite_loss": 1}


@pytest.mark.parametrize("grad_clip", [1.0, None])
def test_exploding_gradients_are_seen_before_clipping(synthetic_stimuli: Path, grad_clip: float | None) -> None:
    run = still(synthetic_stimuli, replicates=2, grad_clip=grad_clip)
    scale(rnn(run.models[0]).readout, 1e6)
    evaluation = run.advance()
    assert evaluation.divergence == {"exploding_gradients": 1}
    large, small = evaluation.replicates["train/grad_norm"]
    assert large > 1000 > 10 > small
    assert all(math.isfinite(loss) for loss in evaluation.replicates["train/loss"])


def test_a_gradient_whose_norm_overflows_explodes(synthetic_stimuli: Path) -> None:
    run = still(synthetic_stimuli)
    scale(rnn(run.models[0]).readout, 1e25)
    evaluation = run.advance()
    assert math.isfinite(evaluation.metrics["train/loss"])
    assert evaluation.metrics["train/grad_norm"] == INF
    assert evaluation.divergence == {"exploding_gradients": 1}


@pytest.mark.parametrize("grad_clip", [0.01, None])
def test_the_norm_is_that_of_the_gradient_before_clipping(synthetic_stimuli: Path, grad_clip: float | None) -> None:
    """Mean over the steps since the last evaluation, against a backward pass of our own; and its threshold."""
    fields: dict[str, Any] = {**STILL, "model": {"dropout": 0.0}, "grad_clip": grad_clip}
    trial = trial_of(**fields, evaluation={"every_steps": 2})
    source = TrainingRun(trial, stimuli=synthetic_stimuli)
    batches = []
    loss = source.task.loss
    source.task.loss = lambda outputs, batch: batches.append(batch) or loss(outputs, batch)
    found = source.advance().metrics["train/grad_norm"]

    norms = []
    for batch in batches:
        model = build_model(trial, 0)
        loss(model(batch.inputs).outputs, batch).backward()
        gradient = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
        norms.append(float(gradient.double().square().sum().sqrt()))
    assert len(norms) == 2
    assert norms[0] != pytest.approx(norms[1], rel=1e-3)
    assert found == pytest.approx(sum(norms) / 2, rel=1e-5)

    for factor, expected in ((1.01, {}), (0.99, {"exploding_gradients": 1})):
        thresholds = DivergenceSpec(grad_norm=found * factor)
        run = still(
            synthetic_stimuli, every=2, **{**fields, "training": {**STILL["training"], "divergence": thresholds}}
        )
        assert run.advance().divergence == expected


@pytest.mark.parametrize("cell", ["vanilla", "gru", "lstm"])
def test_a_network_without_activity_is_silent(synthetic_stimuli: Path, cell: str) -> None:
    run = still(synthetic_stimuli, replicates=2, model={"cell": cell})
    scale(rnn(run.models[0]).cell, 0.0)
    assert run.advance().divergence == {"silent": 1}
    run.advance()
    assert run.finish().divergence["silent"] == 1


def test_a_network_that_is_stuck_at_its_bound_is_saturated(synthetic_stimuli: Path) -> None:
    run = still(synthetic_stimuli, replicates=3, model={"cell": "vanilla"})
    for model in run.models[1:]:
        scale(rnn(model).cell, 1e4)
    assert run.advance().divergence == {"saturated": 2}
    run.advance()
    assert run.finish().divergence["saturated"] == 2


@pytest.mark.parametrize(("half", "expected"), [(-1e9, {"saturated": 1}), (1e9, {"saturated": 1}), (None, {})])
def test_gates_that_are_shut_do_not_hide_saturation(
    synthetic_stimuli: Path, half: float | None, expected: dict[str, int]
) -> None:
    """A gru whose update gates are open has all units at the bound; with half of them shut, these stay at 0. (As it
    comes out of training at a learning rate of 0.3.) Where gates open and shut, a unit leaves 0 late."""
    run = still(synthetic_stimuli, model={"cell": "gru"})
    cell, units = rnn(run.models[0]).cell, 10
    scale(cell, 1e4)
    if half is not None:
        with torch.no_grad():
            cell.bias_ih_l0[units : 2 * units] = -1e9
            cell.bias_ih_l0[units : units + units // 2] = half
    assert run.advance().divergence == expected


def test_padding_is_no_activity(synthetic_stimuli: Path) -> None:
    """A network that is active only at the steps beyond each trial's length is silent."""
    run = still(synthetic_stimuli)
    model = rnn(run.models[0])
    sample = run.task.sample

    def padded(batch_size: int, generator: torch.Generator, split: str) -> Any:
        batch = sample(batch_size, generator, split)
        return dataclasses.replace(batch, lengths=torch.full_like(batch.lengths, 2))

    run.task.sample = padded
    model.cell.register_forward_hook(lambda module, args, out: (late_only(out[0]), out[1]))
    assert run.advance().divergence == {"silent": 1}


def late_only(states: torch.Tensor) -> torch.Tensor:
    """(B, T, H) states that are 0 at the first two steps."""
    return torch.cat([0 * states[:, :2], states[:, 2:]], dim=1)


def test_the_activity_of_a_few_trials_is_asked_for_once_per_evaluation(synthetic_stimuli: Path) -> None:
    run = still(synthetic_stimuli, evaluation={"every_steps": 2, "trials": 200})
    recorded: list[int] = []

    def spy(module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
        if kwargs.get("record"):
            assert kwargs["record"] == ["h"]
            recorded.append(args[0]["task"].shape[0])

    run.models[0].register_forward_pre_hook(spy, with_kwargs=True)
    run.advance()
    assert recorded == [32]


# At the end


@pytest.fixture(scope="module")
def learned(synthetic_stimuli: Path) -> FitResult:
    return fit(trial_of(**LEARNS), stimuli=synthetic_stimuli)


def test_a_network_that_learned_shows_nothing(learned: FitResult) -> None:
    assert learned.final.metrics["test/accuracy"] > 0.9
    assert learned.divergence == {}
    assert [evaluation.divergence for evaluation in learned.history] == [{}, {}]


def test_a_network_that_learned_nothing_is_at_chance(synthetic_stimuli: Path) -> None:
    run = still(synthetic_stimuli, replicates=2, evaluation={"every_steps": 2, "test_trials": 256})
    assert run.advance().divergence == {}
    assert run.finish().divergence == {"at_chance": 2}


def test_each_replicate_is_held_against_chance_by_its_own_trials(synthetic_stimuli: Path) -> None:
    """The second of two never learns: its mean with the first is above chance, and it is counted all the same."""
    run = TrainingRun(trial_of(**LEARNS, replicates=2), stimuli=synthetic_stimuli)
    run.optimizers[1].param_groups[0]["lr"] = 0.0
    _, result = to_the_end(run)
    first, second = result.final.replicates["test/accuracy"]
    assert first > 0.9
    assert second < 0.55
    assert result.final.metrics["test/accuracy"] > result.baselines["test"]["chance"]["accuracy"]
    assert result.divergence == {"at_chance": 1}


def test_a_replicate_meets_the_same_chance_and_has_the_same_interval_as_alone(
    synthetic_stimuli: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[Any, float]] = []
    monkeypatch.setattr(
        "wmcore.training.final.at_chance", lambda interval, chance, mode: seen.append((interval, chance))
    )
    fields: dict[str, Any] = {**STILL, "evaluation": {"every_steps": 2}}
    fit(trial_of(**fields, replicates=2), stimuli=synthetic_stimuli)
    together, alone = seen[:2], []
    for r in range(2):
        result = fit(trial_of(**fields), [r], stimuli=synthetic_stimuli)
        alone.append((result.intervals["test/accuracy"], result.baselines["test"]["chance"]["accuracy"]))
    assert together == alone
    assert alone[0][0] != alone[1][0]


def test_chance_is_judged_by_the_metric_that_decides_the_best_weights(
    synthetic_stimuli: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the interval over trials of that metric on the test split, and from the side that ``best_mode`` says."""
    fields = {**LEARNS, "training": {"steps": 1, "batch_size": 48}}
    for metric, mode, expected in (
        ("select/d_prime", "max", {}),
        ("select/d_prime", "min", {"at_chance": 1}),
        ("select/accuracy", "max", {"at_chance": 1}),
        ("select/accuracy", "min", {}),
    ):
        rule = {**LEARNS["evaluation"], "every_steps": 1, "best_metric": metric, "best_mode": mode}
        run = TrainingRun(trial_of(**{**fields, "evaluation": rule}), stimuli=synthetic_stimuli)
        run.advance()
        seen: list[int] = []

        def scripted(task: Any, outputs: Any, batch: Any, *rest: Any, seen: list[int] = seen) -> Any:
            # Clearly above chance in d' (0), clearly below in accuracy (0.5).
            seen.append(batch.size)
            found = over_trials(task, outputs, batch, *rest)
            return {**found, "d_prime": (1.0, 2.0), "accuracy": (0.1, 0.2)}

        monkeypatch.setattr("wmcore.training.final.over_trials", scripted)
        assert run.finish().divergence == expected
        monkeypatch.undo()
        assert seen == [256] * len(run.trial.task.final_splits())


def test_the_best_weights_are_judged_and_not_the_last(synthetic_stimuli: Path) -> None:
    run = TrainingRun(trial_of(**LEARNS), stimuli=synthetic_stimuli)
    assert run.advance().divergence == {}
    scale(rnn(run.models[0]).cell, 0.0)
    run.optimizers[0].param_groups[0]["lr"] = 0.0
    assert run.advance().divergence == {"silent": 1}
    result = run.finish()
    assert result.best_step == 60
    assert result.divergence == {}


# Interruption


def test_counts_survive_a_resume(synthetic_stimuli: Path, tmp_path: Path) -> None:
    """Thresholds in the midst of what the networks show, so that the counts change from evaluation to evaluation."""
    fields: dict[str, Any] = {"replicates": 2, "evaluation": {"every_steps": 5}}
    norms = [v for e in fit(trial_of(**fields), stimuli=synthetic_stimuli).history for v in norms_of(e)]
    thresholds = DivergenceSpec(grad_norm=sorted(norms)[len(norms) // 2], silent_activity=0.3, silent_share=0.3)
    trial = trial_of(**fields, training={"divergence": thresholds})
    whole = fit(trial, stimuli=synthetic_stimuli)
    counts = [evaluation.divergence for evaluation in whole.history]
    assert len({repr(found) for found in counts}) > 1
    assert any("exploding_gradients" in found for found in counts)
    for evaluation, found in zip(whole.history, counts, strict=True):
        assert found.get("exploding_gradients", 0) == sum(v > thresholds.grad_norm for v in norms_of(evaluation))

    interrupted = TrainingRun(trial, stimuli=synthetic_stimuli)
    for _ in range(3):
        interrupted.advance()
        interrupted.save(tmp_path)
    resumed = fit(trial, resume_from=CheckpointFolder(tmp_path).latest(), stimuli=synthetic_stimuli)
    assert_same(resumed, whole)


def norms_of(evaluation: Evaluation) -> list[float]:
    return evaluation.replicates["train/grad_norm"]
