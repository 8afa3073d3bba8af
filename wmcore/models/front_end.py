"""What stands between a task's named inputs and a recurrent cell. Shapes: B trials, T steps, D trunk width."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from wmcore.models.initialisation import Initialisation, linear_
from wmcore.tasks.base import InputChannel
from wmcore.trials import Inputs, dense


class FrontEnd(nn.Module):
    """u = ReLU(LayerNorm(W [e; v] + b)), with e the reduced features and v the vector inputs (nback.md section 4).

    Features (C, h, w) pass a 1x1 convolution to ``reduction_channels`` and are flattened, so that coarse space is
    kept; vectors (task, cues) are appended as they are. LayerNorm eps 1e-5. Without a trunk u = [e; v]: vector inputs
    then reach the cell unchanged (sequence_recall.md section 4).

    Attributes:
        size: D, width of u.
    """

    def __init__(
        self,
        inputs: Mapping[str, InputChannel],
        trunk_size: int | None,
        reduction_channels: int | None,
        dropout: float,
        initialisation: Initialisation,
        generator: torch.Generator,
    ) -> None:
        """Args: ``dropout`` is the share of trunk units that are silenced at each step while a generator is given."""
        super().__init__()
        self.dropout = dropout
        self.reductions = nn.ModuleDict()
        self.input_names = tuple(sorted(inputs))
        width = 0
        for name in self.input_names:
            channel = inputs[name]
            if channel.kind == "features" and reduction_channels is not None:
                self.reductions[name] = nn.Linear(channel.shape[0], reduction_channels)
                width += reduction_channels * math.prod(channel.shape[1:])
            else:
                width += math.prod(channel.shape)
        self.size = width if trunk_size is None else trunk_size
        self.trunk = None if trunk_size is None else nn.Linear(width, trunk_size)
        self.norm = None if trunk_size is None else nn.LayerNorm(trunk_size, eps=1e-5)
        for module in (*self.reductions.values(), self.trunk):
            if isinstance(module, nn.Linear):
                linear_(module, initialisation, generator)

    def forward(self, inputs: Inputs) -> Tensor:
        """(..., D) for inputs of one step (B, ...) or of all steps (B, T, ...); no dropout."""
        parts = []
        for name in self.input_names:
            value = dense(inputs[name])
            if name in self.reductions:
                # Channels last, so that the 1x1 convolution is one matrix product over all places.
                value = self.reductions[name](value.movedim(-3, -1)).flatten(-3)
            elif value.ndim > 3:
                value = value.flatten(-3)
            parts.append(value)
        u = torch.cat(parts, dim=-1)
        if self.trunk is None or self.norm is None:
            return u
        return functional.relu(self.norm(self.trunk(u)))

    def silence(self, u: Tensor, generator: torch.Generator | None) -> Tensor:
        """Dropout of one step's (B, D), drawn from ``generator``; none without one."""
        if generator is None or self.dropout == 0:
            return u
        kept = torch.rand(u.shape, generator=generator, device=u.device) >= self.dropout
        return u * kept / (1 - self.dropout)
