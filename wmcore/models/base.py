"""The contract of a sequence model. Shapes: B trials, T steps, C output channels."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor, nn

from wmcore.spec import Spec
from wmcore.tasks.base import InputChannel, Protocol
from wmcore.trials import Inputs

State = dict[str, Tensor]
"""The full carry of a model, name -> (B, ...); an LSTM's is h and c."""


@dataclass(frozen=True)
class Rollout:
    """What a forward pass gives.

    Attributes:
        outputs: (B, T, C).
        final_state: the state after the last input.
        recorded: name -> (B, T, ...); index t is the state AFTER input t.
    """

    outputs: Tensor
    final_state: State
    recorded: dict[str, Tensor] = field(default_factory=dict)


class ModelSpec(Spec, ABC):
    """What a user writes under ``model``; ``build`` makes the network."""

    protocol: ClassVar[Protocol] = "sequence"

    @abstractmethod
    def recordable(self) -> tuple[str, ...]:
        """State names that ``SequenceModel.forward`` can record; the first is the default."""

    @abstractmethod
    def state_bound(self) -> float | None:
        """The largest absolute value that the default recordable state can take; None where it has no bound."""

    @abstractmethod
    def build(self, inputs: Mapping[str, InputChannel], output_size: int, generator: torch.Generator) -> SequenceModel:
        """A freshly initialised network for a task's inputs; every weight is drawn from ``generator``."""


class SequenceModel(nn.Module, ABC):
    """A network that carries a state from step to step."""

    @abstractmethod
    def initial_state(self, batch_size: int, generator: torch.Generator | None = None) -> State:
        """The state before the first input."""

    @abstractmethod
    def step(self, x: Inputs, state: State, generator: torch.Generator | None = None) -> tuple[Tensor, State]:
        """One step: inputs (B, ...) by name and the state give (B, C) outputs and the next state.

        Agrees with ``forward`` to rounding, given a generator in the same state. No generator means no noise.
        """

    @abstractmethod
    def forward(
        self,
        inputs: Inputs,
        generator: torch.Generator | None = None,
        record: Sequence[str] = (),
        lengths: Tensor | None = None,
    ) -> Rollout:
        """All steps: inputs (B, T, ...) by name. Only the states named in ``record`` are kept over time.

        ``lengths``, (B,), says where trials end: what is given for a trial behind its end means nothing, the final
        state of a trial of less than T steps included, and need not be computed. None: all T steps count.
        """
