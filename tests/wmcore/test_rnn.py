"""Vanilla, GRU and LSTM networks against an independent formula, and the contract of every model."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import nn
from torch.nn import functional

from tests.contracts.model import STEPS, TRIALS, ModelContract, source
from wmcore.models.base import ModelSpec
from wmcore.models.rnn import RNN, RNNSpec
from wmcore.tasks.base import InputChannel
from wmcore.tasks.sequence_recall import SequenceRecallSpec
from wmcore.trials import Inputs, Lookup, TrialBatch, at_step, dense

CELLS = ("vanilla", "gru", "lstm")
CHANNELS = {"features": InputChannel((6, 2, 2), "features"), "task": InputChannel((4,), "vector")}
SMALL = {"hidden_size": 9, "trunk_size": 8, "reduction_channels": 3}


class TestVanilla(ModelContract):
    @pytest.fixture(scope="class")
    @classmethod
    def spec(cls) -> ModelSpec:
        return RNNSpec(cell="vanilla", **SMALL)


class TestGRU(ModelContract):
    @pytest.fixture(scope="class")
    @classmethod
    def spec(cls) -> ModelSpec:
        return RNNSpec(cell="gru", **SMALL)


class TestLSTM(ModelContract):
    @pytest.fixture(scope="class")
    @classmethod
    def spec(cls) -> ModelSpec:
        return RNNSpec(cell="lstm", **SMALL)


class TestLSTMWithDropout(ModelContract):
    noisy = True

    @pytest.fixture(scope="class")
    @classmethod
    def spec(cls) -> ModelSpec:
        return RNNSpec(cell="lstm", **SMALL, dropout=0.4)


class TestGRUWithoutReduction(ModelContract):
    @pytest.fixture(scope="class")
    @classmethod
    def spec(cls) -> ModelSpec:
        return RNNSpec(cell="gru", hidden_size=9, trunk_size=8, reduction_channels=None)


class TestGRUWithoutTrunk(ModelContract):
    """Features, reduced, and vectors straight into the cell."""

    @pytest.fixture(scope="class")
    @classmethod
    def spec(cls) -> ModelSpec:
        return RNNSpec(cell="gru", hidden_size=9, trunk_size=None, reduction_channels=3)


class OnRecall(ModelContract):
    """On the inputs of the recall task, without any front end."""

    @pytest.fixture(scope="class")
    @classmethod
    def channels(cls) -> Mapping[str, InputChannel]:
        return SequenceRecallSpec().input_channels()


class TestVanillaOnRecall(OnRecall):
    noisy = True

    @pytest.fixture(scope="class")
    @classmethod
    def spec(cls) -> ModelSpec:
        return RNNSpec(cell="vanilla", hidden_size=9, trunk_size=None, initialisation="orthogonal", state_noise=0.1)


class TestGRUOnRecall(OnRecall):
    noisy = True

    @pytest.fixture(scope="class")
    @classmethod
    def spec(cls) -> ModelSpec:
        return RNNSpec(cell="gru", hidden_size=9, trunk_size=None, initialisation="orthogonal", state_noise=0.1)


class TestLSTMOnRecall(OnRecall):
    noisy = True

    @pytest.fixture(scope="class")
    @classmethod
    def spec(cls) -> ModelSpec:
        return RNNSpec(cell="lstm", hidden_size=9, trunk_size=None, initialisation="orthogonal", state_noise=0.1)


class TestLSTMWithDropoutAndNoise(ModelContract):
    """Both come from one generator, and step and forward draw them in the same order."""

    noisy = True

    @pytest.fixture(scope="class")
    @classmethod
    def spec(cls) -> ModelSpec:
        return RNNSpec(cell="lstm", **SMALL, dropout=0.4, state_noise=0.1)


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def by_formula(model: RNN, features: np.ndarray, vector: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(T, C) outputs, (T, H) h and (T, H) c of ONE trial by the equations of nback.md section 4, in plain numpy.

    Args: (T, channels, height, width) features and (T, V) vector; no channels at all where there are no features.
    """
    w = {name: value.detach().numpy() for name, value in model.named_parameters()}
    weight_ih, weight_hh = w["cell.weight_ih_l0"], w["cell.weight_hh_l0"]
    bias_ih, bias_hh = w["cell.bias_ih_l0"], w["cell.bias_hh_l0"]
    size = weight_hh.shape[1]
    h, c = np.zeros(size), np.zeros(size)
    outputs, all_h, all_c = [], [], []
    for t in range(len(features)):
        reduced = []
        channels, height, width = features[t].shape
        for y in range(height):
            for x in range(width):
                pixel = features[t][:, y, x]
                if "front_end.reductions.features.weight" in w:
                    pixel = w["front_end.reductions.features.weight"] @ pixel + w["front_end.reductions.features.bias"]
                reduced.append(pixel)
        if "front_end.reductions.features.weight" in w:
            e = np.concatenate(reduced)
        else:
            e = np.array([features[t][k, y, x] for k in range(channels) for y in range(height) for x in range(width)])
        u = np.concatenate([e, vector[t]])
        if "front_end.trunk.weight" in w:
            a = w["front_end.trunk.weight"] @ u + w["front_end.trunk.bias"]
            normalised = (a - a.mean()) / math.sqrt(((a - a.mean()) ** 2).mean() + 1e-5)
            u = np.maximum(normalised * w["front_end.norm.weight"] + w["front_end.norm.bias"], 0)

        def gate(k: int, name: str, u: np.ndarray = u, h: np.ndarray = h) -> np.ndarray:
            rows = slice(k * size, (k + 1) * size)
            return weight_ih[rows] @ u + bias_ih[rows] if name == "i" else weight_hh[rows] @ h + bias_hh[rows]

        if model.spec.cell == "vanilla":
            h = np.tanh(gate(0, "i") + gate(0, "h"))
        elif model.spec.cell == "gru":
            r = sigmoid(gate(0, "i") + gate(0, "h"))
            z = sigmoid(gate(1, "i") + gate(1, "h"))
            g = np.tanh(gate(2, "i") + r * gate(2, "h"))
            h = (1 - z) * g + z * h
        else:
            i, f, o = (sigmoid(gate(k, "i") + gate(k, "h")) for k in (0, 1, 3))
            c = f * c + i * np.tanh(gate(2, "i") + gate(2, "h"))
            h = o * np.tanh(c)
        outputs.append(w["readout.weight"] @ h + w["readout.bias"])
        all_h.append(h)
        all_c.append(c)
    return np.array(outputs), np.array(all_h), np.array(all_c)


@pytest.mark.parametrize("trunk", [8, None])
@pytest.mark.parametrize("reduction", [3, None])
@pytest.mark.parametrize("cell", CELLS)
def test_equals_the_published_equations(cell: str, reduction: int | None, trunk: int | None) -> None:
    spec = RNNSpec(cell=cell, hidden_size=9, trunk_size=trunk, reduction_channels=reduction)
    model = spec.build(CHANNELS, 3, source(4)).double()
    assert isinstance(model, RNN)
    if model.front_end.norm is not None:
        with torch.no_grad():
            # Away from its initial values, so that scale and shift of the normalisation are tested too.
            model.front_end.norm.weight.uniform_(0.5, 2, generator=source(5))
            model.front_end.norm.bias.uniform_(-0.5, 0.5, generator=source(6))
    features = torch.randn((TRIALS, STEPS, 6, 2, 2), generator=source(1), dtype=torch.float64)
    vector = torch.randn((TRIALS, STEPS, 4), generator=source(2), dtype=torch.float64)
    rollout = model({"features": features, "task": vector}, record=spec.recordable())
    for trial in range(TRIALS):
        outputs, h, c = by_formula(model, features[trial].numpy(), vector[trial].numpy())
        np.testing.assert_allclose(rollout.outputs[trial].detach(), outputs, rtol=1e-10, atol=1e-10)
        np.testing.assert_allclose(rollout.recorded["h"][trial].detach(), h, rtol=1e-10, atol=1e-10)
        if cell == "lstm":
            np.testing.assert_allclose(rollout.recorded["c"][trial].detach(), c, rtol=1e-10, atol=1e-10)
            np.testing.assert_allclose(rollout.final_state["c"][trial].detach(), c[-1], rtol=1e-10, atol=1e-10)


def recall_batch(trials: int = TRIALS, **fields) -> TrialBatch:
    return SequenceRecallSpec(**fields).build().sample(trials, source(3), "train")


def float64(batch: TrialBatch) -> Inputs:
    return {name: dense(value).double() for name, value in batch.inputs.items()}


def without_front_end(cell: str, **fields) -> RNN:
    spec = RNNSpec(cell=cell, **{"hidden_size": 16, "trunk_size": None, **fields})
    return spec.build(SequenceRecallSpec().input_channels(), 8, source(4)).double()


@pytest.mark.parametrize("initialisation", ["uniform", "orthogonal"])
@pytest.mark.parametrize("cell", CELLS)
def test_forward_equals_the_layers_of_torch_on_the_recall_task(cell: str, initialisation: str) -> None:
    model = without_front_end(cell, initialisation=initialisation)
    inputs = float64(recall_batch())
    x = dense(inputs["task"])
    layer = {"vanilla": nn.RNN, "gru": nn.GRU, "lstm": nn.LSTM}[cell](x.shape[2], 16, batch_first=True).double()
    readout = nn.Linear(16, 8).double()
    layer.load_state_dict(model.cell.state_dict())
    readout.load_state_dict(model.readout.state_dict())
    h, last = layer(x)
    rollout = model(inputs, record=model.spec.recordable())
    torch.testing.assert_close(rollout.recorded["h"], h, rtol=0, atol=1e-10)
    torch.testing.assert_close(rollout.outputs, readout(h), rtol=0, atol=1e-10)
    if cell == "lstm":
        torch.testing.assert_close(rollout.final_state["c"], last[1][0], rtol=0, atol=1e-10)
        torch.testing.assert_close(rollout.recorded["c"][:, -1], last[1][0], rtol=0, atol=1e-10)


@pytest.mark.parametrize("noise", [0.0, 0.2])
@pytest.mark.parametrize("cell", CELLS)
def test_step_and_noise_equal_the_cells_of_torch_on_the_recall_task(cell: str, noise: float) -> None:
    """Torch's own single-step cells, with the noise that the document writes added to h after the nonlinearity."""
    model = without_front_end(cell, state_noise=noise)
    inputs = float64(recall_batch())
    x = dense(inputs["task"])
    layer = {"vanilla": nn.RNNCell, "gru": nn.GRUCell, "lstm": nn.LSTMCell}[cell](x.shape[2], 16).double()
    layer.load_state_dict({name.removesuffix("_l0"): value for name, value in model.cell.state_dict().items()})
    h = c = torch.zeros(TRIALS, 16, dtype=torch.float64)
    expected, mine, theirs = [], source(7), source(7)
    state, outputs = model.initial_state(TRIALS), []
    for t in range(x.shape[1]):
        if cell == "lstm":
            h, c = layer(x[:, t], (h, c))
        else:
            h = layer(x[:, t], h)
        if noise:
            h = h + noise * torch.randn(h.shape, generator=theirs, dtype=torch.float64)
        expected.append(h)
        output, state = model.step(at_step(inputs, t), state, mine)
        outputs.append(output)
        torch.testing.assert_close(state["h"], h, rtol=0, atol=1e-10)
        if cell == "lstm":
            torch.testing.assert_close(state["c"], c, rtol=0, atol=1e-10)
    rollout = model(inputs, generator=source(7), record=["h"])
    torch.testing.assert_close(rollout.recorded["h"], torch.stack(expected, 1), rtol=0, atol=1e-10)
    torch.testing.assert_close(rollout.outputs, torch.stack(outputs, 1), rtol=0, atol=1e-10)


def test_noise_is_the_same_in_all_cells_and_silent_without_a_generator() -> None:
    """Networks whose weights are all 0 hold nothing but the noise (of which a GRU keeps half from step to step)."""
    inputs = float64(recall_batch())
    held = {}
    for cell in CELLS:
        model = without_front_end(cell, state_noise=0.5)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.zero_()
        h = model(inputs, generator=source(2), record=["h"]).recorded["h"].detach()
        held[cell] = h - 0.5 * functional.pad(h, (0, 0, 1, 0))[:, :-1] if cell == "gru" else h
        assert (model(inputs, record=["h"]).recorded["h"] == 0).all()
    noise = held["vanilla"]
    assert float(noise.std()) == pytest.approx(0.5, rel=5 / math.sqrt(2 * noise.numel()))
    torch.testing.assert_close(held["gru"], noise)
    torch.testing.assert_close(held["lstm"], noise)


@pytest.mark.parametrize("cell", CELLS)
def test_orthogonal_start(cell: str) -> None:
    spec = RNNSpec(cell=cell, hidden_size=40, trunk_size=24, reduction_channels=5, initialisation="orthogonal")
    model = spec.build(CHANNELS, 3, source()).double()
    assert isinstance(model, RNN)
    gates = model.cell.weight_hh_l0.detach().split(40)
    assert len(gates) == {"vanilla": 1, "gru": 3, "lstm": 4}[cell]
    for gate in gates:
        torch.testing.assert_close(gate @ gate.T, 0.81 * torch.eye(40, dtype=torch.float64), rtol=0, atol=1e-5)
    assert len({float(gate[0, 0]) for gate in gates}) == len(gates)
    linear = [model.front_end.trunk, model.front_end.reductions["features"], model.readout]
    blocks = [layer.weight for layer in linear if isinstance(layer, nn.Linear)] + list(
        model.cell.weight_ih_l0.split(40)
    )
    assert len(blocks) == 3 + len(gates)
    for weight in blocks:
        bound = math.sqrt(6 / sum(weight.shape))
        assert float(weight.detach().abs().max()) <= bound
        assert float(weight.detach().std()) == pytest.approx(bound / math.sqrt(3), rel=3 / math.sqrt(weight.numel()))
    assert all((p == 0).all() for name, p in model.named_parameters() if "bias" in name)


@pytest.mark.parametrize(
    ("cell", "hidden", "published"),
    [
        ("gru", 128, 56_712),
        ("lstm", 128, 75_272),
        ("lstm", 110, 56_768),
        # The published vanilla cell has one bias of H where torch's has two that are added.
        ("vanilla", 128, 19_464 + 128),
        ("vanilla", 226, 56_508 + 226),
    ],
)
def test_parameter_counts_of_the_recall_table(cell: str, hidden: int, published: int) -> None:
    task = SequenceRecallSpec(cue_channels=4)
    spec = RNNSpec(cell=cell, hidden_size=hidden, trunk_size=None)
    model = spec.build(task.input_channels(), task.output_size, source())
    gates = {"vanilla": 1, "gru": 3, "lstm": 4}[cell]
    count = sum(parameter.numel() for parameter in model.parameters())
    assert count == published == gates * (hidden * 15 + hidden**2 + 2 * hidden) + 8 * hidden + 8


def test_looked_up_and_dense_inputs_are_the_same() -> None:
    model = without_front_end("gru").float()
    batch = recall_batch()
    assert isinstance(batch.inputs["task"], Lookup)
    expected = model({"task": dense(batch.inputs["task"])}).outputs
    torch.testing.assert_close(model(batch.inputs).outputs, expected)
    output, _ = model.step(at_step(batch.inputs, 0), model.initial_state(TRIALS))
    torch.testing.assert_close(output, expected[:, 0])


def test_padding_changes_no_step_before_it() -> None:
    """A trial alone, without padding, gives the outputs that it gives in a batch of mixed lengths."""
    model = without_front_end("gru")
    batch = recall_batch(30)
    shortest = int(batch.lengths.argmin())
    assert batch.lengths[shortest] < batch.targets.shape[1]
    inputs, steps = float64(batch), int(batch.lengths[shortest])
    alone = model({"task": dense(inputs["task"])[shortest : shortest + 1, :steps]}).outputs
    torch.testing.assert_close(alone[0], model(inputs).outputs[shortest, :steps], rtol=0, atol=1e-10)


@pytest.mark.parametrize(
    ("cell", "hidden", "published"),
    [
        ("vanilla", 512, 394_240),
        ("gru", 256, 394_752),
        ("lstm", 211, 395_836),
        ("lstm", 256, 526_336),
        ("vanilla", 608, 526_528),
    ],
)
def test_parameter_counts_of_the_published_table(cell: str, hidden: int, published: int) -> None:
    model = RNNSpec(cell=cell, hidden_size=hidden, trunk_size=256).build(CHANNELS, 3, source())
    assert isinstance(model, RNN)
    gates = {"vanilla": 1, "gru": 3, "lstm": 4}[cell]
    count = sum(parameter.numel() for parameter in model.cell.parameters())
    assert count == published == gates * (hidden * 256 + hidden**2 + 2 * hidden)
    front = sum(parameter.numel() for parameter in model.front_end.parameters())
    # 1x1 convolution, trunk on 32 channels x 4 places and 4 vector values, normalisation.
    assert front == (6 * 32 + 32) + (256 * (32 * 4 + 4) + 256) + 2 * 256
    assert sum(parameter.numel() for parameter in model.readout.parameters()) == 3 * hidden + 3


@pytest.mark.parametrize("cell", CELLS)
def test_initial_weights_are_uniform_within_their_bounds(cell: str) -> None:
    model = RNNSpec(cell=cell, hidden_size=64, trunk_size=48, reduction_channels=5).build(CHANNELS, 3, source())
    assert isinstance(model, RNN)
    bounds = {
        "front_end.reductions.features": 1 / math.sqrt(6),
        "front_end.trunk": 1 / math.sqrt(5 * 4 + 4),
        "cell": 1 / math.sqrt(64),
        "readout": 1 / math.sqrt(64),
    }
    for prefix, bound in bounds.items():
        values = torch.cat([p.detach().flatten() for name, p in model.named_parameters() if name.startswith(prefix)])
        assert values.abs().max() <= bound
        # Mean 0 and standard deviation bound / sqrt(3), to within five standard errors.
        assert abs(float(values.mean())) < 5 * bound / math.sqrt(3 * len(values))
        assert float(values.std()) == pytest.approx(bound / math.sqrt(3), rel=3 / math.sqrt(len(values)))
    assert (model.front_end.norm.weight == 1).all()
    assert (model.front_end.norm.bias == 0).all()


def test_dropout_silences_the_stated_share_and_keeps_the_mean() -> None:
    model = RNNSpec(trunk_size=200, dropout=0.3).build(CHANNELS, 3, source())
    assert isinstance(model, RNN)
    u = torch.ones(500, 200)
    silenced = model.front_end.silence(u, source(3))
    share = float((silenced == 0).float().mean())
    assert share == pytest.approx(0.3, abs=5 * math.sqrt(0.3 * 0.7 / u.numel()))
    assert torch.allclose(silenced[silenced != 0], torch.tensor(1 / 0.7))
    assert model.front_end.silence(u, None) is u
    # Every step draws anew.
    generator = source(3)
    first = model.front_end.silence(u, generator)
    assert torch.equal(first, silenced)
    assert not torch.equal(model.front_end.silence(u, generator), first)


def test_dropout_needs_a_generator_and_a_rate() -> None:
    inputs = {
        "features": torch.randn((4, 5, 6, 2, 2), generator=source(1)),
        "task": torch.randn((4, 5, 4), generator=source(2)),
    }
    plain = RNNSpec(**SMALL).build(CHANNELS, 3, source()).train()
    noisy = RNNSpec(**SMALL, dropout=0.5).build(CHANNELS, 3, source()).train()
    assert torch.equal(plain(inputs).outputs, noisy(inputs).outputs)
    assert torch.equal(plain(inputs, generator=source(1)).outputs, plain(inputs).outputs)
    assert not torch.equal(noisy(inputs, generator=source(1)).outputs, noisy(inputs).outputs)


def test_reduction_shares_its_weights_over_places() -> None:
    """A 1x1 convolution: the same pixel gives the same reduced values wherever it stands."""
    model = RNNSpec(**SMALL).build(CHANNELS, 3, source())
    assert isinstance(model, RNN)
    pixel = torch.randn(6, generator=source(1))
    flat = model.front_end.reductions["features"](pixel)
    with torch.no_grad():
        model.front_end.trunk.weight.zero_()
        model.front_end.trunk.bias.zero_()
        # The trunk copies its first 8 of 12 reduced values: with place-major order, places 0 and 1 and part of 2.
        model.front_end.trunk.weight[:, :8] = torch.eye(8)
    features = pixel[None, :, None, None].expand(1, 6, 2, 2)
    u = model.front_end({"features": features, "task": torch.zeros(1, 4)})
    expected = torch.nn.functional.layer_norm(torch.cat([flat, flat, flat[:2]])[None], (8,)).relu()
    torch.testing.assert_close(u, expected)


def test_no_reduction_keeps_every_channel_and_appends_the_vectors() -> None:
    channels = {**CHANNELS, "cue": InputChannel((2,), "vector")}
    model = RNNSpec(hidden_size=9, trunk_size=8, reduction_channels=None).build(channels, 3, source())
    assert isinstance(model, RNN)
    assert model.front_end.trunk.in_features == 6 * 2 * 2 + 4 + 2
    assert not list(model.front_end.reductions)


def test_vectors_alone_need_no_reduction() -> None:
    model = RNNSpec(**SMALL).build({"cue": InputChannel((4,), "vector")}, 2, source())
    assert model({"cue": torch.randn((3, 5, 4), generator=source())}).outputs.shape == (3, 5, 2)


def test_training_keeps_the_fused_kernel() -> None:
    """Without c asked for, an LSTM's cell is called once per pass, not once per step."""
    model = RNNSpec(cell="lstm", **SMALL).build(CHANNELS, 3, source())
    assert isinstance(model, RNN)
    calls: list[int] = []
    model.cell.register_forward_pre_hook(lambda module, args: calls.append(args[0].shape[1]))
    inputs = {"features": torch.zeros(2, 5, 6, 2, 2), "task": torch.zeros(2, 5, 4)}
    model(inputs)
    model(inputs, record=["h"])
    model(inputs, generator=source())
    assert calls == [5, 5, 5]


@pytest.mark.parametrize("cell", CELLS)
def test_a_noisy_network_keeps_the_fused_kernel_where_it_has_no_noise(cell: str) -> None:
    model = without_front_end(cell, state_noise=0.1)
    calls: list[int] = []
    model.cell.register_forward_pre_hook(lambda module, args: calls.append(args[0].shape[1]))
    with torch.no_grad():  # while training, the GRU's own passes take all steps at once
        model({"task": torch.zeros(2, 5, 17, dtype=torch.float64)})
    assert calls == [5]


def test_dropout_needs_a_trunk() -> None:
    with pytest.raises(
        ValidationError, match=r"dropout is 0\.2, but it silences units of the trunk and trunk_size is null"
    ):
        RNNSpec(trunk_size=None, dropout=0.2)


def test_only_an_lstm_has_c() -> None:
    assert [RNNSpec(cell=cell).recordable() for cell in CELLS] == [("h",), ("h",), ("h", "c")]


@pytest.mark.parametrize(
    "changes",
    [
        {"cell": "rnn"},
        {"hidden_size": 0},
        {"dropout": 1.0},
        {"reduction_channels": 0},
        {"width": 3},
        {"trunk_size": 1.5},
        {"trunk_size": 0},
        {"state_noise": -0.1},
        {"initialisation": "identity"},
    ],
)
def test_spec_refuses(changes: dict) -> None:
    with pytest.raises(ValidationError, match=next(iter(changes))):
        RNNSpec.parse({"kind": "rnn", **changes})
