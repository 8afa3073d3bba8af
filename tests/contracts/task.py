"""What every task must do. A test class inherits ``TaskContract`` and gives ``spec`` (and ``stimuli``, if it has any).

Shapes: B trials, T steps, C output channels.
"""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from wmcore.errors import InputError
from wmcore.tasks.base import Task, TaskSpec
from wmcore.trials import Lookup, TrialBatch, at_step, batch_shape, dense

SIZE = 96


def source(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def same_batch(a: TrialBatch, b: TrialBatch) -> bool:
    """Whether two batches hold the same values, types and names."""
    pairs: list[tuple[Tensor, Tensor]] = [(a.targets, b.targets), (a.loss_mask, b.loss_mask), (a.lengths, b.lengths)]
    for left, right in ((a.inputs, b.inputs), (a.conditions, b.conditions), (a.periods, b.periods)):
        if left.keys() != right.keys():
            return False
        pairs += [(dense(left[name]), dense(right[name])) for name in left]
    return all(x.dtype == y.dtype and torch.equal(x, y) for x, y in pairs)


def scored(spec: TaskSpec) -> set[str]:
    """Splits that networks are scored on: every metric is defined there. One for analyses may lack some condition."""
    return {"train", "select", *spec.final_splits()}


class TaskContract:
    """Inherit as ``class TestX(TaskContract)`` and override ``spec``."""

    @pytest.fixture(scope="class")
    @classmethod
    def spec(cls) -> TaskSpec:
        raise NotImplementedError

    @pytest.fixture(scope="class")
    @classmethod
    def stimuli(cls) -> Path | None:
        return None

    @pytest.fixture(scope="class")
    @classmethod
    def task(cls, spec: TaskSpec, stimuli: Path | None) -> Task:
        return spec.build(stimuli)

    @pytest.fixture(scope="class")
    @classmethod
    def batches(cls, spec: TaskSpec, task: Task) -> dict[str, TrialBatch]:
        return {split: task.sample(SIZE, source(), split) for split in spec.split_names()}

    def test_spec_survives_json(self, spec: TaskSpec) -> None:
        assert type(spec).parse(json.loads(spec.canonical_json())) == spec

    def test_has_at_least_the_three_splits_and_says_what_each_holds(self, spec: TaskSpec, task: Task) -> None:
        assert {"train", "select", "test"} <= set(spec.split_names())
        assert {"test"} <= set(spec.final_splits()) <= set(spec.split_names())
        assert tuple(task.splits) == tuple(spec.split_names())
        assert all(text.strip() for text in task.splits.values())

    def test_periods_hang_on_the_timing_alone(self, spec: TaskSpec, batches: dict[str, TrialBatch]) -> None:
        assert all(spec.condition_dims()[name] == ("trial",) for name in spec.timing())
        for batch in batches.values():
            told = torch.stack([*(batch.conditions[name] for name in spec.timing()), torch.zeros(SIZE)], dim=1)
            cells = len(torch.unique(told, dim=0))
            bounds = torch.cat([told, batch.lengths[:, None], *batch.periods.values()], dim=1)
            assert len(torch.unique(bounds, dim=0)) == cells

    def test_inputs_are_those_that_the_spec_announced(self, spec: TaskSpec, batches: dict[str, TrialBatch]) -> None:
        for batch in batches.values():
            size, steps = batch_shape(batch.inputs)
            assert size == batch.size == SIZE
            assert batch.inputs.keys() == spec.input_channels().keys()
            for name, channel in spec.input_channels().items():
                value = dense(batch.inputs[name])
                assert value.shape == (SIZE, steps, *channel.shape)
                assert value.dtype == torch.float32
                assert torch.isfinite(value).all()
                one_step = dense(at_step(batch.inputs, steps - 1)[name])
                torch.testing.assert_close(one_step, value[:, steps - 1], rtol=0, atol=0)

    def test_targets_and_masks_fit_the_inputs(self, spec: TaskSpec, batches: dict[str, TrialBatch]) -> None:
        for batch in batches.values():
            shape = batch_shape(batch.inputs)
            assert batch.targets.shape[:2] == shape
            if not batch.targets.is_floating_point():
                assert batch.targets.shape == shape
                assert batch.targets.min() >= 0
                assert batch.targets.max() < spec.output_size
            assert batch.loss_mask.shape == shape
            assert (batch.loss_mask >= 0).all()
            assert (batch.loss_mask.sum(1) > 0).all()
            assert batch.lengths.shape == (SIZE,)
            assert (batch.lengths >= 1).all()
            assert (batch.lengths <= shape[1]).all()
            padding = torch.arange(shape[1])[None] >= batch.lengths[:, None]
            assert (batch.loss_mask[padding] == 0).all()
            assert batch.periods
            for name, bounds in batch.periods.items():
                assert bounds.shape == (SIZE, 2), name
                start, stop = bounds.unbind(1)
                inside = (start >= 0) & (start < stop) & (stop <= batch.lengths)
                assert (inside | (bounds == -1).all(1)).all(), name
                assert inside.any(), name

    def test_conditions_are_those_that_the_spec_announced(self, spec: TaskSpec, batches: dict[str, TrialBatch]) -> None:
        for batch in batches.values():
            dims = {name: ("trial", "time")[: value.ndim] for name, value in batch.conditions.items()}
            assert dims == dict(spec.condition_dims())

    def test_conditions_are_labelled(self, task: Task, batches: dict[str, TrialBatch]) -> None:
        for batch in batches.values():
            shape = batch_shape(batch.inputs)
            assert batch.conditions
            for name, value in batch.conditions.items():
                assert value.shape == shape[: value.ndim], name
                if name in task.condition_labels:
                    assert not value.is_floating_point()
                    assert value.min() >= -1, name  # -1: none
                    assert value.max() < len(task.condition_labels[name]), name

    def test_an_unknown_split_is_refused_by_name(self, task: Task) -> None:
        with pytest.raises(InputError, match="no_such_split"):
            task.sample(4, source(), "no_such_split")

    def test_sample_is_a_pure_function_of_the_generator(self, task: Task, batches: dict[str, TrialBatch]) -> None:
        before = torch.get_rng_state()
        for split, batch in batches.items():
            assert same_batch(batch, task.sample(SIZE, source(), split))
            assert not same_batch(batch, task.sample(SIZE, source(1), split))
        assert torch.equal(before, torch.get_rng_state())

    def test_a_generator_goes_on_where_it_was(self, task: Task) -> None:
        generator = source()
        first = task.sample(SIZE, generator, "train")
        assert not same_batch(first, task.sample(SIZE, generator, "train"))

    def test_any_batch_size(self, task: Task, spec: TaskSpec) -> None:
        for size in (1, 2, 7):
            batch = task.sample(size, source(), "train")
            assert batch.size == size
            assert task.metrics(torch.zeros(*batch.targets.shape[:2], spec.output_size), batch).keys() == set(
                spec.metric_names()
            )

    def test_loss_is_a_finite_differentiable_scalar(self, spec: TaskSpec, task: Task) -> None:
        batch = task.sample(SIZE, source(), "train")
        outputs = self._outputs(batch, spec).requires_grad_()
        loss = task.loss(outputs, batch)
        assert loss.shape == ()
        assert torch.isfinite(loss)
        loss.backward()
        assert outputs.grad is not None
        assert torch.isfinite(outputs.grad).all()
        counted = batch.loss_mask > 0
        assert (outputs.grad[counted].abs().sum(-1) > 0).all()
        with torch.no_grad():
            assert task.loss(outputs - 0.1 * outputs.grad, batch) < loss

    def test_masked_steps_do_not_count(self, spec: TaskSpec, task: Task) -> None:
        batch = task.sample(SIZE, source(), "train")
        masked = torch.rand(batch.loss_mask.shape, generator=source(3)) < 0.3
        batch = replace(batch, loss_mask=batch.loss_mask.masked_fill(masked, 0))
        outputs = self._outputs(batch, spec)
        other = torch.where(masked[..., None], outputs + 5 * torch.randn(outputs.shape, generator=source(4)), outputs)
        assert torch.equal(task.loss(outputs, batch), task.loss(other, batch))
        assert not torch.equal(
            task.loss(outputs, batch),
            task.loss(outputs + (outputs - other), replace(batch, loss_mask=torch.ones_like(batch.loss_mask))),
        )

    def test_metrics_are_those_that_the_spec_announced(
        self, spec: TaskSpec, task: Task, batches: dict[str, TrialBatch]
    ) -> None:
        names = spec.metric_names()
        assert len(set(names)) == len(names)
        for split, batch in batches.items():
            metrics = task.metrics(self._outputs(batch, spec), batch)
            assert sorted(metrics) == sorted(names)
            assert all(type(value) is float for value in metrics.values())
            assert split not in scored(spec) or all(map(math.isfinite, metrics.values()))

    def test_baselines_score_every_metric(self, spec: TaskSpec, task: Task, batches: dict[str, TrialBatch]) -> None:
        for split, batch in batches.items():
            baselines = task.baselines(batch)
            assert "chance" in baselines
            for scores in baselines.values():
                assert sorted(scores) == sorted(spec.metric_names())
                assert all(type(value) is float for value in scores.values())
                assert split not in scored(spec) or all(map(math.isfinite, scores.values()))

    def test_the_sampling_says_what_it_achieved(self, task: Task, batches: dict[str, TrialBatch]) -> None:
        for batch in batches.values():
            summary = task.sampling_summary(batch)
            assert all(isinstance(name, str) and type(value) is float for name, value in summary.items())
        assert summary.keys() == task.sampling_summary(batches["train"]).keys()

    def test_rows_are_those_trials(self, spec: TaskSpec, task: Task) -> None:
        batch = task.sample(SIZE, source(), "train")
        part = batch.rows(10, 31)
        assert part.size == 21
        assert torch.equal(part.targets, batch.targets[10:31])
        assert torch.equal(part.loss_mask, batch.loss_mask[10:31])
        assert torch.equal(part.lengths, batch.lengths[10:31])
        for name, bounds in batch.periods.items():
            assert torch.equal(part.periods[name], bounds[10:31])
        for name, value in batch.inputs.items():
            assert torch.equal(dense(part.inputs[name]), dense(value)[10:31])
        for name, value in batch.conditions.items():
            assert torch.equal(part.conditions[name], value[10:31])
        assert sorted(task.metrics(self._outputs(part, spec), part)) == sorted(spec.metric_names())

    def test_moves_between_devices(self, task: Task) -> None:
        batch = task.sample(8, source(), "train")
        assert same_batch(batch, batch.to("cpu"))
        moved = batch.to("meta")
        values = [moved.targets, moved.loss_mask, moved.lengths, *moved.conditions.values(), *moved.periods.values()]
        for value in moved.inputs.values():
            values += [value.table, value.index] if isinstance(value, Lookup) else [value]
        assert {value.device.type for value in values} == {"meta"}

    def test_trials_do_not_repeat(self, task: Task) -> None:
        """Trials of one batch differ from each other: nothing is drawn once and copied."""
        inputs = task.sample(SIZE, source(), "train").inputs
        flat = np.concatenate([dense(value).flatten(1).numpy() for value in inputs.values()], axis=1)
        assert len(np.unique(flat, axis=0)) > SIZE / 2

    @staticmethod
    def _outputs(batch: TrialBatch, spec: TaskSpec) -> Tensor:
        return torch.randn((*batch.targets.shape[:2], spec.output_size), generator=source(9))
