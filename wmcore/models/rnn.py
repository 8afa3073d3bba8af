"""Vanilla, GRU and LSTM networks behind one front end. Shapes: B trials, T steps, D width of the cell's input, H
units, C outputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from wmcore.errors import InputError
from wmcore.models.base import ModelSpec, Rollout, SequenceModel, State
from wmcore.models.front_end import FrontEnd
from wmcore.models.gru import gru
from wmcore.models.histories import Segment, segments, whole
from wmcore.models.initialisation import Initialisation, linear_, recurrent_
from wmcore.tasks.base import InputChannel
from wmcore.trials import Inputs


class RNNSpec(ModelSpec):
    """A recurrent network (vanilla, GRU or LSTM) with a linear readout, and a perceptual front end if it has one."""

    kind: Literal["rnn"] = "rnn"
    cell: Literal["vanilla", "gru", "lstm"] = "gru"
    """Recurrent cell."""
    hidden_size: Annotated[int, Field(ge=1, le=8192)] = 256
    """H, units."""
    trunk_size: Annotated[int, Field(ge=1, le=8192)] | None = 256
    """D, width of the front end's output; the same D for cells that are compared at equal parameters. null: no trunk,
    the cell takes the task's vectors (and its features, reduced and flattened) as they are."""
    reduction_channels: Annotated[int, Field(ge=1, le=4096)] | None = 32
    """Channels of the 1x1 convolution on feature inputs; null keeps all."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of trunk units silenced at each step of training."""
    initialisation: Initialisation = "uniform"
    """How weights start: ``uniform`` is torch's own U(-1/sqrt(H), 1/sqrt(H)); ``orthogonal`` has recurrent matrices of
    0.9 times a random rotation (per gate), Xavier-uniform input and output weights, and zero biases."""
    state_noise: Annotated[float, Field(ge=0, le=10)] = 0.0
    """Standard deviation of the Gaussian noise that is added to every unit's h after the nonlinearity, at each step of
    training, in the unit of h (which has a range of -1 to 1). Step by step: training is several times slower."""

    @model_validator(mode="after")
    def _dropout_has_effect(self) -> RNNSpec:
        if self.trunk_size is None and self.dropout > 0:
            raise ValueError(
                f"dropout is {self.dropout}, but it silences units of the trunk and trunk_size is null: leave dropout "
                "out, or give the network a trunk"
            )
        return self

    def recordable(self) -> tuple[str, ...]:
        return ("h", "c") if self.cell == "lstm" else ("h",)

    def state_bound(self) -> float:
        return 1.0  # h, when there is no noise, is a tanh, a mean of tanh values, or a tanh times a gate

    def build(self, inputs: Mapping[str, InputChannel], output_size: int, generator: torch.Generator) -> RNN:
        return RNN(self, inputs, output_size, generator)


class RNN(SequenceModel):
    """Cells (zero initial state; u_t the front end's output):

    - vanilla: h_t = tanh(W_ih u_t + b_ih + W_hh h_{t-1} + b_hh)
    - GRU (Cho et al. 2014, arXiv:1406.1078): r = s(W_ir u + b_ir + W_hr h + b_hr); z = s(W_iz u + b_iz + W_hz h +
      b_hz); g = tanh(W_in u + b_in + r * (W_hn h + b_hn)); h_t = (1 - z) * g + z * h_{t-1}
    - LSTM (Hochreiter & Schmidhuber 1997, doi:10.1162/neco.1997.9.8.1735): c_t = f * c_{t-1} + i * g;
      h_t = o * tanh(c_t)

    With ``state_noise`` sigma, while a generator is given, h_t + sigma * N(0, 1) takes the place of h_t in readout and
    recurrence, alike in all cells; an LSTM's c has none of its own.

    Parameters, G = 1, 3 or 4 gates: G (H D + H^2 + 2 H) + C H + C. These are torch's layers, with two biases per gate
    that are added. For the GRU and the LSTM the published counts are the same (sequence_recall.md section 4); the
    published vanilla cell has no b_hh, H parameters fewer, and computes the same functions.
    """

    def __init__(
        self, spec: RNNSpec, inputs: Mapping[str, InputChannel], output_size: int, generator: torch.Generator
    ) -> None:
        super().__init__()
        self.spec = spec
        self.front_end = FrontEnd(
            inputs, spec.trunk_size, spec.reduction_channels, spec.dropout, spec.initialisation, generator
        )
        cell = {"vanilla": nn.RNN, "gru": nn.GRU, "lstm": nn.LSTM}[spec.cell]
        self.cell = cell(self.front_end.size, spec.hidden_size, batch_first=True)
        self.readout = nn.Linear(spec.hidden_size, output_size)
        recurrent_(self.cell, spec.initialisation, generator)
        linear_(self.readout, spec.initialisation, generator)

    def initial_state(self, batch_size: int, generator: torch.Generator | None = None) -> State:
        zeros = self.readout.weight.new_zeros(batch_size, self.spec.hidden_size)
        return dict.fromkeys(self.spec.recordable(), zeros)

    def step(self, x: Inputs, state: State, generator: torch.Generator | None = None) -> tuple[Tensor, State]:
        state = self._advance(self.front_end(x), state, generator)
        return self.readout(state["h"]), state

    def forward(
        self,
        inputs: Inputs,
        generator: torch.Generator | None = None,
        record: Sequence[str] = (),
        lengths: Tensor | None = None,
    ) -> Rollout:
        unknown = sorted(set(record) - set(self.spec.recordable()))
        if unknown:
            raise InputError("record", f"must be among {', '.join(self.spec.recordable())}", value=unknown[0])
        u = self.front_end(inputs)
        is_noisy = generator is not None and self.spec.state_noise > 0
        # The fused kernel takes no noise between steps, and gives c, unlike h, only at the last.
        if is_noisy or "c" in record:
            return self._step_by_step(u, generator, record)
        drops_out = generator is not None and self.spec.dropout > 0
        if drops_out:
            u = torch.stack([self.front_end.silence(u[:, t], generator) for t in range(u.shape[1])], dim=1)
        # A GPU runs the whole batch in less time than it takes to find out what may be left out.
        is_whole = drops_out or u.device.type != "cpu"
        parts = whole(len(u), u.shape[1], u.device) if is_whole else segments(inputs, lengths)
        return self._by_history(u, parts, record)

    def _step_by_step(self, u: Tensor, generator: torch.Generator | None, record: Sequence[str]) -> Rollout:
        """All steps of (B, T, D), each by itself."""
        state, states = self.initial_state(len(u)), []
        for t in range(u.shape[1]):
            state = self._advance(u[:, t], state, generator)
            states.append(state)
        kept = {name: torch.stack([s[name] for s in states], dim=1) for name in {*record, "h"}}
        return Rollout(self.readout(kept["h"]), state, {name: kept[name] for name in record})

    def _by_history(self, u: Tensor, parts: Sequence[Segment], record: Sequence[str]) -> Rollout:
        """All steps of (B, T, D), segment by segment through the fused kernel, each history once."""
        size, steps, _ = u.shape
        outputs, recorded, before = [], [], None
        state = self.initial_state(size)
        for part in parts:
            earlier = part.rows if before is None else before.member[part.rows]
            h, state = self._run(
                u[part.rows, part.start : part.stop], {name: v.index_select(0, earlier) for name, v in state.items()}
            )
            outputs.append(self.readout(h).index_select(0, part.member))
            recorded += [h.index_select(0, part.member)] if record else []
            before = part
        outputs.append(u.new_zeros(size, steps - parts[-1].stop, self.readout.out_features))
        recorded.append(u.new_zeros(size, steps - parts[-1].stop, self.spec.hidden_size))
        final = {name: value[parts[-1].member] for name, value in state.items()}
        return Rollout(torch.cat(outputs, dim=1), final, {name: torch.cat(recorded, dim=1) for name in record})

    def _advance(self, u: Tensor, state: State, generator: torch.Generator | None) -> State:
        """The state after one step's (B, D), with that step's dropout and noise if there is a generator."""
        _, state = self._run(self.front_end.silence(u, generator)[:, None], state)
        if generator is None or self.spec.state_noise == 0:
            return state
        h = state["h"]
        noise = torch.randn(h.shape, generator=generator, device=h.device, dtype=h.dtype)
        return {**state, "h": h + self.spec.state_noise * noise}

    def _run(self, u: Tensor, state: State) -> tuple[Tensor, State]:
        """(B, T, D) through the fused kernel from a given state: (B, T, H) and the final state."""
        if self.spec.cell == "lstm":
            h, (last_h, last_c) = self.cell(u, (state["h"][None], state["c"][None]))
            return h, {"h": last_h[0], "c": last_c[0]}
        if self.spec.cell == "gru" and u.device.type == "cpu" and torch.is_grad_enabled():
            h = gru(self.cell, u, state["h"])
            return h, {"h": h[:, -1]}
        h, last = self.cell(u, state["h"][None])
        return h, {"h": last[0]}
