"""Serial recall from training to analyses: a curriculum of lengths with replay, its resumption, and what is made of a
recording of the network."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr

import wmcore.analyses
from tests.fixtures.variants import assert_same, assert_same_weights, to_the_end
from wmcore.analyses.abstraction import AbstractionSpec
from wmcore.analyses.base import AnalysisSpec, column, select
from wmcore.analyses.behaviour import BehaviourSpec
from wmcore.analyses.geometry import GeometrySpec
from wmcore.analyses.perturbation import PerturbationSpec
from wmcore.analyses.speed import SpeedSpec
from wmcore.analyses.subspaces import SubspacesSpec
from wmcore.analyses.temporal_generalisation import TemporalGeneralisationSpec
from wmcore.analyses.trajectories import TrajectoriesSpec
from wmcore.models.base import SequenceModel
from wmcore.recording import RecordingSpec, record, resolve
from wmcore.registry import kind_of, kinds
from wmcore.training.checkpoint import CheckpointFolder
from wmcore.training.fit import FitResult, TrainingRun
from wmcore.training.trial_spec import TrialSpec

LENGTHS, TRIALS = (2, 3), 360
Trained = tuple[TrainingRun, list[dict[str, torch.Tensor]], FitResult]
TRIAL = TrialSpec.parse(
    {
        "replicates": 2,
        "task": {
            "kind": "sequence_recall",
            "items": 5,
            "lengths": LENGTHS,
            "fixation_ms": 100,
            "stimulus_ms": 200,
            "delay_ms": 300,
            "response_ms": 100,
        },
        "model": {"kind": "rnn", "cell": "gru", "hidden_size": 16, "trunk_size": None},
        "training": {
            "steps": 60,
            "batch_size": 24,
            "optimizer": {"kind": "adam", "lr": 0.01},
            "curriculum": {
                "stages": [{"set": {"task.lengths": [2]}}, {"set": {"task.lengths": [3]}, "replay": 0.3}],
                "advance": {"metric": "accuracy", "threshold": 0.0, "evaluations": 2, "trials": 32},
            },
        },
        "evaluation": {"every_steps": 10, "trials": 48, "test_trials": 48},
    }
)
ANALYSES: tuple[tuple[AnalysisSpec, tuple[str, ...]], ...] = (
    (
        AbstractionSpec(splits=10, blocks=5, draws=50, rotations=5, bootstraps=100),
        ("additivity", "ccgp", "parallelism", "transfer_across_ranks"),
    ),
    (
        BehaviourSpec(simulations=20, bootstraps=100, group="sequence"),
        ("item_accuracy", "sequence_accuracy", "transposition", "intrusion"),
    ),
    (
        GeometrySpec(sequences=40, blocks=5, shuffles=20),
        ("participation_ratio", "partial_correlation_item", "unique_variance_position"),
    ),
    (PerturbationSpec(alphas=(0.0, 1.0), trials=40, bootstraps=100), ("replaced", "changed_elsewhere", "specificity")),
    (SpeedSpec(shuffles=20, bootstraps=100, group="sequence"), ("speed", "period_speed")),
    (SubspacesSpec(splits=20, blocks=5, draws=50, shuffles=10), ("variance_ratio", "overlap")),
    (
        TemporalGeneralisationSpec(every=6, folds=2, permutations=20, bootstraps=100),
        ("balanced_accuracy", "position_accuracy", "transfer"),
    ),
)
"""Each kind that treats every length on its own, and measures that it must have of each."""
POOLED = TrajectoriesSpec(color_by="item_0", within=("length",), shuffles=10, permutations=20, bootstraps=50)
"""Its table is of all lengths together; lengths have means of their own in its arrays."""
ELSEWHERE = {"decoding"}
"""Kinds that read conditions with a value at every step, which serial recall has none of to decode."""


@pytest.fixture(scope="module")
def trained() -> Trained:
    """A run that nobody disturbs, its last weights and its result."""
    run = TrainingRun(TRIAL)
    return run, *to_the_end(run)


@pytest.fixture(scope="module")
def model(trained: Trained) -> SequenceModel:
    return trained[0].models[0]


@pytest.fixture(scope="module")
def recording(trained: Trained, model: SequenceModel) -> xr.Dataset:
    spec = resolve(RecordingSpec(split="neutral", trials=TRIALS), TRIAL.model.recordable())
    return record(trained[0].task, model, spec, torch.Generator().manual_seed(3))


@pytest.mark.parametrize("evaluations", [1, 3], ids=["in the first length", "in the second, with replay"])
def test_resumed_is_bit_identical_to_uninterrupted(trained: Trained, evaluations: int, tmp_path: Path) -> None:
    whole, weights, result = trained
    assert [progress.entered for progress in whole.progress] == [(20,)] * 2
    interrupted = TrainingRun(TRIAL)
    for _ in range(evaluations):
        interrupted.advance()
        interrupted.save(tmp_path)
    latest = CheckpointFolder(tmp_path).latest()
    assert latest is not None
    resumed = TrainingRun(TRIAL)
    resumed.restore(latest)
    resumed_weights, resumed_result = to_the_end(resumed, tmp_path)
    assert_same_weights(resumed_weights, weights)
    assert_same(resumed_result, result)
    assert resumed.progress == whole.progress


def test_the_first_length_is_trained_beside_the_second(trained: Trained) -> None:
    parts = trained[0].source.training(0, 30, 1)
    assert [set(part.batch.conditions["length"].tolist()) for part in parts] == [{3}, {2}]
    assert [part.weight for part in parts] == [0.7, 0.3]


def test_every_kind_of_analysis_is_here() -> None:
    here = {kind_of(type(spec)) for spec in (*(spec for spec, _ in ANALYSES), POOLED)}
    assert here == kinds(wmcore.analyses, AnalysisSpec).keys() - ELSEWHERE


@pytest.mark.parametrize(("spec", "measures"), ANALYSES, ids=[kind_of(type(spec)) for spec, _ in ANALYSES])
def test_an_analysis_has_finite_estimates_for_each_length(
    spec: AnalysisSpec, measures: tuple[str, ...], recording: xr.Dataset, model: SequenceModel
) -> None:
    spec.check(TRIAL.task.condition_dims(), TRIAL.model.recordable(), None, "analyses.0")
    result = spec.compute(recording, model, np.random.default_rng(5))
    for measure in measures:
        assert set(select(result.table, {"measure": measure})["cell_length"]) == set(LENGTHS), measure
    assert np.isfinite(column(result.table, "estimate")).all()
    assert spec.figures(result)


def test_trajectories_have_finite_means_of_each_length(recording: xr.Dataset, model: SequenceModel) -> None:
    POOLED.check(TRIAL.task.condition_dims(), TRIAL.model.recordable(), None, "analyses.0")
    result = POOLED.compute(recording, model, np.random.default_rng(5))
    assert np.isfinite(column(result.table, "estimate")).all()
    assert result.arrays["overall_labels"].tolist() == ["length 2", "length 3"]
    steps = result.arrays["phase_steps"].tolist()
    assert steps == [recording["lengths"].values[recording["length"].values == length].max() for length in LENGTHS]
    for mean, own in zip(result.arrays["overall"], steps, strict=True):
        assert np.isfinite(mean[:own]).all()
    assert POOLED.figures(result)


def test_behaviour_is_what_the_task_scores_and_more_than_a_guess(
    trained: Trained, recording: xr.Dataset, model: SequenceModel
) -> None:
    """The same trials by two ways: the recording's table, and the task's metrics of the outputs."""
    task = trained[0].task
    batch = task.sample(TRIALS, torch.Generator().manual_seed(3), "neutral")
    scores = task.metrics(torch.from_numpy(recording["outputs"].values), batch)
    table = BehaviourSpec(simulations=20, bootstraps=100).compute(recording, model, np.random.default_rng(5)).table
    for length in LENGTHS:
        ranks = select(table, {"measure": "item_accuracy", "steps": "all", "cell_length": length})
        assert column(ranks, "rank").tolist() == list(range(length))
        found = column(ranks, "estimate").mean()
        assert found == pytest.approx(scores[f"accuracy_L{length}"], abs=1e-6)
        assert found > 1.5 * column(ranks, "null").mean()
