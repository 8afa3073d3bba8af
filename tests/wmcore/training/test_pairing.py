"""Replicates: trained in lockstep without touching one another, and paired over variants and sweeps.

Same root seed, same replicate number: same trials of the same stimuli, at every step and evaluation.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from sweeps.spec import SweepSpec
from tests.contracts.task import same_batch
from tests.fixtures.banks import write_bank
from tests.fixtures.sweeps import small_sweep
from tests.fixtures.variants import assert_same_weights, to_the_end, trial_of, weights_of
from wmcore.training.checkpoint import build_model
from wmcore.training.fit import TrainingRun
from wmcore.training.trial_spec import TrialSpec
from wmcore.trials import TrialBatch

# Lockstep


def test_a_replicate_is_the_same_however_many_there_are(synthetic_stimuli: Path) -> None:
    runs = {
        (0, 1, 2): TrainingRun(trial_of(replicates=3), stimuli=synthetic_stimuli),
        (0, 1): TrainingRun(trial_of(replicates=2), stimuli=synthetic_stimuli),
        (0,): TrainingRun(trial_of(), stimuli=synthetic_stimuli),
        (2, 0): TrainingRun(trial_of(), [2, 0], stimuli=synthetic_stimuli),
    }
    for run in runs.values():
        while not run.finished:
            run.advance()
    whole = runs[0, 1, 2]
    for seeds, run in runs.items():
        assert_same_weights(weights_of(run), [weights_of(whole)[r] for r in seeds])
        for together, found in zip(whole.history, run.history, strict=True):
            assert together.metrics.keys() == found.metrics.keys() == found.replicates.keys()
            for name, values in together.replicates.items():
                assert repr(found.replicates[name]) == repr([values[r] for r in seeds])
    for name in ("train/loss", "train/grad_norm", "select/accuracy"):
        values = whole.history[-1].replicates[name]
        assert len(set(values)) == 3
        assert whole.history[-1].metrics[name] == pytest.approx(np.mean(values))
        assert whole.history[-1].spread[name] == pytest.approx(np.std(values, ddof=1))
    alone, pair = runs[0,].finish(), runs[0, 1].finish()
    assert (alone.interval_unit, alone.n) == ("trials", 80)
    assert (pair.interval_unit, pair.n) == ("replicates", 2)


def test_replicates_take_every_step_together(synthetic_stimuli: Path) -> None:
    """At any moment no replicate is more than one optimiser step ahead of another."""
    run = TrainingRun(trial_of(replicates=3), stimuli=synthetic_stimuli)
    done: list[int] = []
    for i, optimizer in enumerate(run.optimizers):
        optimizer.register_step_post_hook(lambda *_, i=i: done.append(i))
    run.advance()
    assert done == [0, 1, 2] * 10


def test_a_replicate_that_is_lost_takes_no_other_with_it(synthetic_stimuli: Path) -> None:
    whole = TrainingRun(trial_of(replicates=3), stimuli=synthetic_stimuli)
    hurt = TrainingRun(trial_of(replicates=3), stimuli=synthetic_stimuli)
    with torch.no_grad():
        next(hurt.models[1].parameters()).fill_(float("nan"))
    expected, found = whole.advance(), hurt.advance()
    for name, values in expected.replicates.items():
        assert [found.replicates[name][r] for r in (0, 2)] == [values[r] for r in (0, 2)]
    kept = weights_of(hurt)
    assert_same_weights([kept[0], kept[2]], [weights_of(whole)[r] for r in (0, 2)])


# Pairing


@dataclass
class Met:
    """What the networks of one training met.

    Attributes:
        drawn: split -> everything that was sampled of it, in order.
        learned: the trials of each optimiser step, replicate after replicate.
    """

    drawn: dict[str, list[TrialBatch]] = field(default_factory=dict)
    learned: list[TrialBatch] = field(default_factory=list)


def met_by(trial: TrialSpec, stimuli: Path, seeds: list[int] | None = None) -> Met:
    """Trains a variant to its end."""
    run, met = TrainingRun(trial, seeds, stimuli=stimuli), Met()
    sample: Callable[..., TrialBatch] = run.task.sample
    loss: Callable[..., Tensor] = run.task.loss

    def sample_spy(batch_size: int, generator: torch.Generator, split: str) -> TrialBatch:
        batch = sample(batch_size, generator, split)
        met.drawn.setdefault(split, []).append(batch)
        return batch

    def loss_spy(outputs: Tensor, batch: TrialBatch) -> Tensor:
        met.learned.append(batch)
        return loss(outputs, batch)

    run.task.sample, run.task.loss = sample_spy, loss_spy
    to_the_end(run)
    return met


def agreement(one: list[TrialBatch], other: list[TrialBatch]) -> list[bool]:
    """Batch by batch, whether two networks met the same trials."""
    return [same_batch(a, b) for a, b in zip(one, other, strict=True)]


def assert_paired(one: Met, other: Met) -> None:
    assert one.drawn.keys() == other.drawn.keys()
    assert {"train", "select", "test"} < one.drawn.keys()
    assert all(all(agreement(batches, other.drawn[split])) for split, batches in one.drawn.items())
    assert all(agreement(one.learned, other.learned))


def assert_unrelated(one: Met, other: Met) -> None:
    assert not any(any(agreement(batches, other.drawn[split])) for split, batches in one.drawn.items())
    assert not any(agreement(one.learned, other.learned))


VARIANT = {"model": {"cell": "lstm", "hidden_size": 7, "dropout": 0.5}, "lr": 1e-4, "grad_clip": None}


def test_variants_meet_the_same_trials(synthetic_stimuli: Path) -> None:
    one = met_by(trial_of(model={"cell": "vanilla", "dropout": 0.0}), synthetic_stimuli)
    assert len(one.learned) == 25
    assert_paired(one, met_by(trial_of(**VARIANT), synthetic_stimuli))
    assert_unrelated(one, met_by(trial_of(seed=1, **VARIANT), synthetic_stimuli))
    assert_unrelated(one, met_by(trial_of(**VARIANT), synthetic_stimuli, [1]))


def test_variants_are_paired_replicate_by_replicate(synthetic_stimuli: Path) -> None:
    """Two and three replicates: the second of each meets the same, and nothing that the first or third meets."""
    two = met_by(trial_of(replicates=2), synthetic_stimuli)
    three = met_by(trial_of(replicates=3, **VARIANT), synthetic_stimuli)
    for r in range(2):
        assert all(agreement(two.learned[r::2], three.learned[r::3]))
    for r, other in ((0, 1), (1, 0), (0, 2), (1, 2)):
        assert not any(agreement(two.learned[r::2], three.learned[other::3]))
    # Each replicate draws its fixed trials of a split once per size: select at two sizes, test at one.
    for split, sizes in (("select", 2), ("test", 1)):
        for size in range(sizes):
            a = two.drawn[split][2 * size : 2 * size + 2]
            b = three.drawn[split][3 * size : 3 * size + 3]
            assert [[same_batch(x, y) for y in b] for x in a] == [[True, False, False], [False, True, False]]


@pytest.mark.parametrize("size", [4, 8])
def test_variants_of_other_batch_sizes_meet_the_same_trials_in_the_same_order(
    synthetic_stimuli: Path, size: int
) -> None:
    one = met_by(trial_of(), synthetic_stimuli)
    other = met_by(trial_of(training={"batch_size": size}), synthetic_stimuli)
    assert other.drawn.keys() == one.drawn.keys()
    for split, batches in one.drawn.items():
        assert all(agreement(batches, other.drawn[split]))
    mine, theirs = (torch.cat([batch.conditions["image"] for batch in met.learned]) for met in (one, other))
    assert len(theirs) == 25 * size
    assert torch.equal(mine[: 25 * size], theirs)


def test_batches_that_do_not_fill_a_block_leave_its_rest_out(synthetic_stimuli: Path) -> None:
    """Whatever the size, the second block begins with the same trials."""
    first = {}
    for size in (100, 1000):
        run = TrainingRun(trial_of(training={"batch_size": size, "steps": 12}), stimuli=synthetic_stimuli)
        source, batches_of_a_block = run.source, 1024 // size
        (part,) = source.training(0, batches_of_a_block, 0)
        assert part.batch.size == size
        first[size] = part.batch.rows(0, 100)
    assert same_batch(first[100], first[1000])


def sweep_of(name: str, **changes: Any) -> SweepSpec:
    return small_sweep(**{"name": name, "trial.training.steps": 20, "trial.replicates": 2, **changes})


def test_sweeps_meet_the_same_trials(tmp_path: Path) -> None:
    """Whatever their samplers, their seeds, their spaces and the points that they try."""
    first = sweep_of("first")
    second = sweep_of(
        "second",
        **{
            "trial.model.hidden_size": 9,
            "search.sampler": {"kind": "random", "seed": 7},
            "search.scheduler": {"kind": "none"},
            "search.space": {"model.dropout": {"choice": [0.0, 0.4]}},
        },
    )
    images = first.trial.task.stimulus_spec()
    assert images is not None
    stimuli = write_bank(tmp_path, images)
    one = first.trial_for({"model.cell": "vanilla", "training.optimizer.lr": 2e-2})
    other = second.trial_for({"model.dropout": 0.4})
    assert one.trial_id != other.trial_id
    met = met_by(one, stimuli)
    assert_paired(met, met_by(other, stimuli))
    reseeded = sweep_of("third", **{"trial.seed": 4}).trial_for({"model.cell": "gru", "training.optimizer.lr": 1e-3})
    assert_unrelated(met, met_by(reseeded, stimuli))


def test_new_trials_at_every_step_and_fixed_ones_at_every_evaluation(synthetic_stimuli: Path) -> None:
    drawn = met_by(trial_of(training={"batch_size": 64}), synthetic_stimuli).drawn
    # 25 steps in blocks of 16 batches.
    first, second = drawn["train"]
    assert not same_batch(first, second)
    images = torch.cat([batch.conditions["image"] for batch in drawn["train"]])
    assert len(images.unique(dim=0)) == len(images) == 2 * 16 * 64
    # 64 for all evaluations, 80 for the end.
    assert [batch.size for batch in drawn["select"]] == [64, 80]
    assert [batch.size for batch in drawn["test"]] == [80]


def test_noise_is_new_at_every_step_and_replicate_and_absent_from_evaluation(synthetic_stimuli: Path) -> None:
    run = TrainingRun(trial_of(replicates=2), stimuli=synthetic_stimuli)
    seeds: list[int | None] = []

    def spy(module: torch.nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
        noise = kwargs.get("generator")
        seeds.append(None if noise is None else noise.initial_seed())

    for model in run.models:
        model.register_forward_pre_hook(spy, with_kwargs=True)
    run.advance()
    training, evaluation = seeds[:20], seeds[20:]
    assert None not in training
    assert len(set(training)) == 20
    assert set(evaluation) == {None}


def test_initial_weights_are_a_function_of_seed_and_replicate() -> None:
    base = build_model(trial_of(), 0).state_dict()
    same = build_model(trial_of(lr=1e-4), 0).state_dict()
    assert all(torch.equal(value, same[name]) for name, value in base.items())
    for other in (build_model(trial_of(), 1), build_model(trial_of(seed=1), 0)):
        assert not torch.equal(other.state_dict()["readout.weight"], base["readout.weight"])
