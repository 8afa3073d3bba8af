"""Vanilla, GRU and LSTM networks behind one front end. Shapes: B trials, T steps, D trunk width, H units, C outputs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from wmcore.errors import InputError
from wmcore.models.base import ModelSpec, Rollout, SequenceModel, State
from wmcore.models.front_end import FrontEnd, uniform_
from wmcore.tasks.base import InputChannel
from wmcore.trials import Inputs, batch_shape


class RNNSpec(ModelSpec):
    """A recurrent network (vanilla, GRU or LSTM) with a perceptual front end and a linear readout."""

    kind: Literal["rnn"] = "rnn"
    cell: Literal["vanilla", "gru", "lstm"] = "gru"
    """Recurrent cell."""
    hidden_size: Annotated[int, Field(ge=1, le=8192)] = 256
    """H, units."""
    trunk_size: Annotated[int, Field(ge=1, le=8192)] = 256
    """D, width of the front end's output; the same D for cells that are compared at equal parameters."""
    reduction_channels: Annotated[int, Field(ge=1, le=4096)] | None = 32
    """Channels of the 1x1 convolution on features; null keeps all."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of trunk units silenced at each step of training."""

    def recordable(self) -> tuple[str, ...]:
        return ("h", "c") if self.cell == "lstm" else ("h",)

    def state_bound(self) -> float:
        return 1.0  # h is a tanh, a mean of tanh values, or a tanh times a gate

    def build(self, inputs: Mapping[str, InputChannel], output_size: int, generator: torch.Generator) -> RNN:
        return RNN(self, inputs, output_size, generator)


class RNN(SequenceModel):
    """Cells (zero initial state; u_t the front end's output):

    - vanilla: h_t = tanh(W_ih u_t + b_ih + W_hh h_{t-1} + b_hh)
    - GRU (Cho et al. 2014, arXiv:1406.1078): r = s(W_ir u + b_ir + W_hr h + b_hr); z = s(W_iz u + b_iz + W_hz h +
      b_hz); g = tanh(W_in u + b_in + r * (W_hn h + b_hn)); h_t = (1 - z) * g + z * h_{t-1}
    - LSTM (Hochreiter & Schmidhuber 1997, doi:10.1162/neco.1997.9.8.1735): c_t = f * c_{t-1} + i * g;
      h_t = o * tanh(c_t)

    Initialised from U(-1/sqrt(H), 1/sqrt(H)), linear layers from U(-1/sqrt(fan_in), 1/sqrt(fan_in)).
    """

    def __init__(
        self, spec: RNNSpec, inputs: Mapping[str, InputChannel], output_size: int, generator: torch.Generator
    ) -> None:
        super().__init__()
        self.spec = spec
        self.front_end = FrontEnd(inputs, spec.trunk_size, spec.reduction_channels, spec.dropout, generator)
        cell = {"vanilla": nn.RNN, "gru": nn.GRU, "lstm": nn.LSTM}[spec.cell]
        self.cell = cell(spec.trunk_size, spec.hidden_size, batch_first=True)
        self.readout = nn.Linear(spec.hidden_size, output_size)
        for module in (self.cell, self.readout):
            uniform_(module, 1 / math.sqrt(spec.hidden_size), generator)

    def initial_state(self, batch_size: int, generator: torch.Generator | None = None) -> State:
        zeros = self.readout.weight.new_zeros(batch_size, self.spec.hidden_size)
        return dict.fromkeys(self.spec.recordable(), zeros)

    def step(self, x: Inputs, state: State, generator: torch.Generator | None = None) -> tuple[Tensor, State]:
        u = self.front_end.silence(self.front_end(x), generator)
        h, state = self._run(u[:, None], state)
        return self.readout(h[:, 0]), state

    def forward(self, inputs: Inputs, generator: torch.Generator | None = None, record: Sequence[str] = ()) -> Rollout:
        unknown = sorted(set(record) - set(self.spec.recordable()))
        if unknown:
            raise InputError("record", f"must be among {', '.join(self.spec.recordable())}", value=unknown[0])
        batch_size, steps = batch_shape(inputs)
        u = self.front_end(inputs)
        if generator is not None and self.spec.dropout > 0:
            u = torch.stack([self.front_end.silence(u[:, t], generator) for t in range(steps)], dim=1)
        state = self.initial_state(batch_size)
        if set(record) <= {"h"}:
            h, state = self._run(u, state)
            recorded = {"h": h} if record else {}
        else:
            # The fused kernel gives h at every step but c only at the last: recording c goes step by step.
            states = []
            for t in range(steps):
                _, state = self._run(u[:, t : t + 1], state)
                states.append(state)
            recorded = {name: torch.stack([s[name] for s in states], dim=1) for name in {*record, "h"}}
            h = recorded["h"]
            recorded = {name: recorded[name] for name in record}
        return Rollout(self.readout(h), state, recorded)

    def _run(self, u: Tensor, state: State) -> tuple[Tensor, State]:
        """(B, T, D) through the fused kernel from a given state: (B, T, H) and the final state."""
        if self.spec.cell == "lstm":
            h, (last_h, last_c) = self.cell(u, (state["h"][None], state["c"][None]))
            return h, {"h": last_h[0], "c": last_c[0]}
        h, last = self.cell(u, state["h"][None])
        return h, {"h": last[0]}
