"""Optimisers: what a user writes under ``training.optimizer``, and the torch optimiser that each spec builds.

theta: a parameter; g: the gradient of the loss; lambda: ``weight_decay``; eta: ``lr``; Adam's own constants are
beta_1 = 0.9, beta_2 = 0.999 and epsilon = 1e-8 throughout.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import nn

from wmcore.spec import Spec

LearningRate = Annotated[float, Field(gt=0, le=1)]
WeightDecay = Annotated[float, Field(ge=0, le=1)]


class AdamWSpec(Spec):
    """AdamW (Loshchilov & Hutter 2019, arXiv:1711.05101): theta <- (1 - eta lambda) theta, beside Adam's step for g."""

    kind: Literal["adamw"] = "adamw"
    lr: LearningRate = 1e-3
    """Learning rate."""
    weight_decay: WeightDecay = 1e-4
    """Decoupled weight decay."""

    def build(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        """The optimiser of one network."""
        return torch.optim.AdamW(parameters, lr=self.lr, weight_decay=self.weight_decay)


class AdamSpec(Spec):
    """Adam (Kingma & Ba 2015, arXiv:1412.6980) with L2 weight decay: its step for g + lambda theta."""

    kind: Literal["adam"] = "adam"
    lr: LearningRate = 1e-3
    """Learning rate."""
    weight_decay: WeightDecay = 0.0
    """Weight of the L2 penalty's gradient."""

    def build(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        """The optimiser of one network."""
        return torch.optim.Adam(parameters, lr=self.lr, weight_decay=self.weight_decay)


AnyOptimizer = Annotated[AdamWSpec | AdamSpec, Field(discriminator="kind")]
