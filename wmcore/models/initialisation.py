"""How the weights of a recurrent network start. Every number is drawn from the generator that is passed in."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import nn

Initialisation = Literal["uniform", "orthogonal"]
RECURRENT_GAIN = 0.9
"""Scale of orthogonal recurrent matrices: just inside the unit circle, so that states neither grow nor soon fade."""


def linear_(layer: nn.Linear, scheme: Initialisation, generator: torch.Generator) -> None:
    """Draws a linear layer, in place.

    ``uniform``: weights and biases from U(-1/sqrt(fan_in), 1/sqrt(fan_in)). ``orthogonal``: Xavier-uniform weights
    (Glorot & Bengio 2010, https://proceedings.mlr.press/v9/glorot10a.html), zero biases.
    """
    if scheme == "uniform":
        _uniform_(layer, 1 / math.sqrt(layer.in_features), generator)
    else:
        nn.init.xavier_uniform_(layer.weight, generator=generator)
        nn.init.zeros_(layer.bias)


def recurrent_(cell: nn.RNNBase, scheme: Initialisation, generator: torch.Generator) -> None:
    """Draws a recurrent layer of H units, in place.

    ``uniform``: everything from U(-1/sqrt(H), 1/sqrt(H)). ``orthogonal``, gate by gate: W_ih Xavier-uniform, W_hh 0.9
    times a random orthogonal matrix (Saxe, McClelland & Ganguli 2014, arXiv:1312.6120), zero biases.
    """
    if scheme == "uniform":
        _uniform_(cell, 1 / math.sqrt(cell.hidden_size), generator)
        return
    with torch.no_grad():
        for name, parameter in cell.named_parameters():
            if name.startswith("bias"):
                nn.init.zeros_(parameter)
                continue
            for gate in parameter.split(cell.hidden_size):
                if name.startswith("weight_ih"):
                    nn.init.xavier_uniform_(gate, generator=generator)
                else:
                    nn.init.orthogonal_(gate, gain=RECURRENT_GAIN, generator=generator)


def _uniform_(module: nn.Module, bound: float, generator: torch.Generator) -> None:
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.uniform_(-bound, bound, generator=generator)
