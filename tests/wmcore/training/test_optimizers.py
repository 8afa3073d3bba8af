"""Optimisers against their equations, in float64."""

from __future__ import annotations

import json

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from tests.fixtures.variants import trial_of
from wmcore.training.optimizers import AdamSpec, AdamWSpec
from wmcore.training.trial_spec import TrainingSpec

LR, DECAY, STEPS = 0.03, 0.2, 7


def curve(start: Tensor) -> Tensor:
    """The gradient of a quartic at ``start``."""
    return start**3 - 0.5 * start + 0.1


def by_hand(start: Tensor, l2: float, decoupled: float) -> Tensor:
    """Adam's algorithm 1 for g + l2 theta; with decoupled decay, algorithm 2 of Loshchilov & Hutter (2019)."""
    theta, m, v = start.clone(), torch.zeros_like(start), torch.zeros_like(start)
    for t in range(1, STEPS + 1):
        g = curve(theta) + l2 * theta
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
        step = LR * (m / (1 - 0.9**t)) / ((v / (1 - 0.999**t)).sqrt() + 1e-8)
        theta = theta - step - LR * decoupled * theta
    return theta


@pytest.mark.parametrize(
    ("spec", "l2", "decoupled"),
    [
        (AdamSpec(lr=LR, weight_decay=DECAY), DECAY, 0.0),
        (AdamSpec(lr=LR), 0.0, 0.0),
        (AdamWSpec(lr=LR, weight_decay=DECAY), 0.0, DECAY),
    ],
)
def test_an_optimiser_does_what_its_equations_say(spec: AdamSpec | AdamWSpec, l2: float, decoupled: float) -> None:
    start = torch.linspace(-2, 2, 9, dtype=torch.float64)
    theta = nn.Parameter(start.clone())
    optimizer = spec.build([theta])
    for _ in range(STEPS):
        theta.grad = curve(theta.detach())
        optimizer.step()
    torch.testing.assert_close(theta.detach(), by_hand(start, l2, decoupled), rtol=0, atol=1e-12)


def test_the_kind_is_part_of_the_identity_and_the_default_is_what_it_was() -> None:
    written = {kind: TrainingSpec.parse({"optimizer": {"kind": kind, "lr": 0.01}}) for kind in ("adam", "adamw")}
    assert isinstance(written["adam"].optimizer, AdamSpec)
    assert isinstance(written["adamw"].optimizer, AdamWSpec)
    default = json.loads(trial_of(lr=1e-3).canonical_json())["training"]["optimizer"]
    assert default == {"kind": "adamw", "lr": 0.001, "weight_decay": 0.0001}


@pytest.mark.parametrize("wrong", [{"kind": "sgd"}, {"kind": "adam", "momentum": 0.9}, {"kind": "adam", "lr": 0}])
def test_what_no_optimiser_has_is_refused(wrong: dict) -> None:
    with pytest.raises(ValidationError, match="optimizer"):
        TrainingSpec.parse({"optimizer": wrong})


def test_a_learning_rate_alone_is_that_of_adamw() -> None:
    assert TrainingSpec.parse({"optimizer": {"lr": 0.01}}).optimizer == AdamWSpec(lr=0.01)
