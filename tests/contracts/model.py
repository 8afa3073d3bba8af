"""What every sequence model must do. A test class inherits ``ModelContract`` and gives ``spec``.

Shapes: B trials, T steps, C output channels.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

import pytest
import torch
from torch import Tensor

from wmcore.errors import InputError
from wmcore.models.base import ModelSpec, SequenceModel, State
from wmcore.tasks.base import InputChannel
from wmcore.trials import Inputs, Lookup, at_step

TRIALS, STEPS, OUTPUTS = 5, 7, 3
CLOSE = {"rtol": 1e-10, "atol": 1e-10}


def source(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class ModelContract:
    """Inherit as ``class TestX(ModelContract)`` and override ``spec`` (and ``channels``, ``noisy``)."""

    noisy = False
    """Whether the model of ``spec`` is noisy when it is given a generator."""

    @pytest.fixture(scope="class")
    @classmethod
    def spec(cls) -> ModelSpec:
        raise NotImplementedError

    @pytest.fixture(scope="class")
    @classmethod
    def channels(cls) -> Mapping[str, InputChannel]:
        return {"features": InputChannel((6, 2, 2), "features"), "task": InputChannel((4,), "vector")}

    @pytest.fixture(scope="class")
    @classmethod
    def inputs(cls, channels: Mapping[str, InputChannel]) -> Inputs:
        """Features as rows of a table, everything else dense; float64."""
        found: dict[str, Tensor | Lookup] = {}
        for seed, (name, channel) in enumerate(sorted(channels.items())):
            if channel.kind == "features":
                table = torch.randn((11, *channel.shape), generator=source(seed), dtype=torch.float64)
                found[name] = Lookup(table, torch.randint(0, 11, (TRIALS, STEPS), generator=source(seed)))
            else:
                shape = (TRIALS, STEPS, *channel.shape)
                found[name] = torch.randn(shape, generator=source(seed), dtype=torch.float64)
        return found

    @pytest.fixture
    def model(self, spec: ModelSpec, channels: Mapping[str, InputChannel]) -> SequenceModel:
        return spec.build(channels, OUTPUTS, source()).double()

    def test_spec_survives_json(self, spec: ModelSpec) -> None:
        assert type(spec).parse(json.loads(spec.canonical_json())) == spec

    @pytest.mark.parametrize("seed", [None, 1])
    def test_step_equals_forward(self, spec: ModelSpec, model: SequenceModel, inputs: Inputs, seed: int | None) -> None:
        names = spec.recordable()
        rollout = model(inputs, generator=_source(seed), record=names)
        outputs, states = _steps(model, inputs, seed)
        assert rollout.outputs.shape == (TRIALS, STEPS, OUTPUTS)
        torch.testing.assert_close(rollout.outputs, outputs, **CLOSE)
        for name in names:
            # Index t is the state AFTER input t.
            torch.testing.assert_close(rollout.recorded[name], torch.stack([s[name] for s in states], 1), **CLOSE)
        assert rollout.final_state.keys() == states[-1].keys()
        for name, value in rollout.final_state.items():
            torch.testing.assert_close(value, states[-1][name], **CLOSE)

    @pytest.mark.parametrize("seed", [None, 1])
    def test_recording_changes_nothing_else(
        self, spec: ModelSpec, model: SequenceModel, inputs: Inputs, seed: int | None
    ) -> None:
        bare = model(inputs, generator=_source(seed))
        assert bare.recorded == {}
        for names in ((), *((name,) for name in spec.recordable()), spec.recordable()):
            rollout = model(inputs, generator=_source(seed), record=names)
            assert set(rollout.recorded) == set(names)
            torch.testing.assert_close(rollout.outputs, bare.outputs, **CLOSE)
            for name, value in rollout.recorded.items():
                assert value.shape[:2] == (TRIALS, STEPS)
                if name in rollout.final_state:
                    torch.testing.assert_close(value[:, -1], rollout.final_state[name], **CLOSE)

    def test_recorded_states_change_from_step_to_step(
        self, spec: ModelSpec, model: SequenceModel, inputs: Inputs
    ) -> None:
        for value in model(inputs, record=spec.recordable()).recorded.values():
            assert (value.diff(dim=1).flatten(2).abs().sum(-1) > 0).all()

    def test_the_default_state_stays_within_its_bound(
        self, spec: ModelSpec, model: SequenceModel, inputs: Inputs
    ) -> None:
        """Weights that grow drive a state close to its bound and never beyond; without a bound it grows with them."""
        name, bound = spec.recordable()[0], spec.state_bound()
        peaks = []
        for _ in range(3):
            peaks.append(float(model(inputs, record=[name]).recorded[name].detach().abs().max()))
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter.mul_(10)
        if bound is None:
            assert peaks[0] < peaks[1] < peaks[2]
        else:
            assert max(peaks) <= bound * (1 + 1e-9)
            assert peaks[-1] > 0.9 * bound

    def test_without_a_generator_nothing_is_random(self, model: SequenceModel, inputs: Inputs) -> None:
        model.train()
        first = model(inputs).outputs
        assert torch.equal(first, model(inputs).outputs)
        assert torch.equal(first, model.eval()(inputs).outputs)

    def test_noise_comes_from_the_generator_alone(self, model: SequenceModel, inputs: Inputs) -> None:
        before = torch.get_rng_state()
        first = model(inputs, generator=source(1)).outputs
        assert torch.equal(first, model(inputs, generator=source(1)).outputs)
        assert torch.equal(before, torch.get_rng_state())
        assert torch.equal(first, model(inputs, generator=source(2)).outputs) is not self.noisy
        assert torch.equal(first, model(inputs).outputs) is not self.noisy

    def test_an_unknown_state_is_refused_by_name(self, spec: ModelSpec, model: SequenceModel, inputs: Inputs) -> None:
        with pytest.raises(InputError, match="no_such_state") as caught:
            model(inputs, record=[spec.recordable()[0], "no_such_state"])
        assert all(name in str(caught.value) for name in spec.recordable())

    def test_initial_state_is_a_whole_state(self, model: SequenceModel, inputs: Inputs) -> None:
        state = model.initial_state(TRIALS, source())
        _, after = model.step(at_step(inputs, 0), state, source())
        assert state.keys() == after.keys()
        for name, value in state.items():
            assert value.shape == after[name].shape
            assert value.shape[0] == TRIALS
            assert value.dtype == after[name].dtype == torch.float64

    def test_step_leaves_the_state_that_it_was_given_alone(self, model: SequenceModel, inputs: Inputs) -> None:
        _, state = model.step(at_step(inputs, 0), model.initial_state(TRIALS))
        before = {name: value.clone() for name, value in state.items()}
        model.step(at_step(inputs, 1), state)
        assert all(torch.equal(state[name], value) for name, value in before.items())

    def test_outputs_depend_on_the_past_and_never_on_the_future(self, model: SequenceModel, inputs: Inputs) -> None:
        name = sorted(inputs)[0]
        value = inputs[name]
        for changed_step in (0, STEPS - 2):
            if isinstance(value, Lookup):
                index = value.index.clone()
                index[:, changed_step] = (index[:, changed_step] + 1) % len(value.table)
                changed: Lookup | Tensor = Lookup(value.table, index)
            else:
                changed = value.clone()
                changed[:, changed_step] += 1
            difference = (model({**inputs, name: changed}).outputs - model(inputs).outputs).abs().amax((0, 2))
            assert (difference[:changed_step] == 0).all()
            assert (difference[changed_step:] > 0).all()

    def test_trials_do_not_mix(self, model: SequenceModel, inputs: Inputs) -> None:
        alone = {k: v.rows(2, 3) if isinstance(v, Lookup) else v[2:3] for k, v in inputs.items()}
        torch.testing.assert_close(model(alone).outputs[0], model(inputs).outputs[2], **CLOSE)

    def test_every_input_counts(self, model: SequenceModel, inputs: Inputs) -> None:
        first = model(inputs).outputs
        for name, value in inputs.items():
            other = Lookup(value.table + 1, value.index) if isinstance(value, Lookup) else value + 1
            if isinstance(value, Lookup):
                other = Lookup(value.table.flip(0), value.index)
            assert not torch.equal(model({**inputs, name: other}).outputs, first), name

    def test_weights_come_from_the_generator_alone(self, spec: ModelSpec, channels: Mapping[str, InputChannel]) -> None:
        global_state = torch.get_rng_state()
        try:
            built = []
            for global_seed, seed in ((1, 0), (2, 0), (1, 5)):
                torch.manual_seed(global_seed)
                built.append(spec.build(channels, OUTPUTS, source(seed)).state_dict())
        finally:
            torch.set_rng_state(global_state)
        same, other = built[1], built[2]
        assert built[0].keys() == same.keys()
        assert all(torch.equal(value, same[name]) for name, value in built[0].items())
        random = [name for name, value in built[0].items() if value.unique().numel() > 1]
        assert random
        assert not any(torch.equal(built[0][name], other[name]) for name in random)

    def test_every_parameter_learns(self, model: SequenceModel, inputs: Inputs) -> None:
        outputs = model(inputs).outputs
        (outputs * torch.randn(outputs.shape, generator=source(8), dtype=torch.float64)).sum().backward()
        for name, parameter in model.named_parameters():
            assert parameter.grad is not None, name
            assert torch.isfinite(parameter.grad).all(), name
            assert parameter.grad.abs().sum() > 0, name

    def test_step_carries_the_gradient(self, model: SequenceModel, inputs: Inputs) -> None:
        state = {name: value.clone().requires_grad_() for name, value in model.initial_state(TRIALS).items()}
        output, _ = model.step(at_step(inputs, 0), state)
        output.sum().backward()
        assert sum(float(value.grad.abs().sum()) for value in state.values() if value.grad is not None) > 0


def _source(seed: int | None) -> torch.Generator | None:
    return None if seed is None else source(seed)


def _steps(model: SequenceModel, inputs: Inputs, seed: int | None) -> tuple[Tensor, list[State]]:
    """(B, T, C) outputs and the state after every input, by ``step``."""
    generator = _source(seed)
    state = model.initial_state(TRIALS, generator)
    outputs, states = [], []
    for t in range(STEPS):
        output, state = model.step(at_step(inputs, t), state, generator)
        outputs.append(output)
        states.append(state)
    return torch.stack(outputs, 1), states
