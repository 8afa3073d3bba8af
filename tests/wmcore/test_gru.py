"""The GRU's own backward pass: torch's layer is the reference."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from wmcore.models.gru import gru

B, T, D, H = 3, 6, 4, 5


@pytest.fixture
def layer() -> nn.GRU:
    layer = nn.GRU(D, H, batch_first=True).double()
    with torch.no_grad():
        for seed, parameter in enumerate(layer.parameters()):
            parameter.copy_(torch.randn(parameter.shape, generator=source(seed), dtype=torch.float64))
    return layer


def source(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def drawn(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=source(seed), dtype=torch.float64).requires_grad_()


@pytest.mark.parametrize("steps", [1, T])
def test_states_and_gradients_are_those_of_torch(layer, steps):
    u, h, weight = drawn(10, B, steps, D), drawn(11, B, H), drawn(12, B, steps, H).detach()
    expected, found = layer(u, h[None])[0], gru(layer, u, h)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-10)
    wanted = [u, h, *layer.parameters()]
    pairs = zip(
        torch.autograd.grad((found * weight).sum(), wanted),
        torch.autograd.grad((expected * weight).sum(), wanted),
        strict=True,
    )
    for mine, theirs in pairs:
        torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-10)


def test_gradients_are_those_of_small_changes(layer):
    torch.autograd.gradcheck(lambda u, h: gru(layer, u, h), (drawn(1, 2, 3, D), drawn(2, 2, H)))


def test_inputs_that_are_data_get_no_gradient(layer):
    u = drawn(1, B, T, D).detach()
    gru(layer, u, drawn(2, B, H)).sum().backward()
    assert u.grad is None
    assert all(parameter.grad is not None for parameter in layer.parameters())


def test_a_second_derivative_is_refused(layer):
    u = drawn(1, B, T, D)
    (first,) = torch.autograd.grad(gru(layer, u, drawn(2, B, H)).square().sum(), [u], create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        first.sum().backward()


def test_states_cannot_be_changed_in_place(layer):
    states = gru(layer, drawn(1, B, T, D), drawn(2, B, H))
    with pytest.raises(RuntimeError, match="modified inplace"):
        states.mul_(2)


@pytest.mark.parametrize("autocast", [False, True])
def test_mixed_types_are_refused_rather_than_rounded(layer, autocast):
    u, h = drawn(1, B, T, D).bfloat16(), drawn(2, B, H).float()
    with torch.autocast("cpu", enabled=autocast), pytest.raises(RuntimeError, match="dtype"):
        gru(layer.float(), u, h)
