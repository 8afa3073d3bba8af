"""Divergence: the ways in which training fails to give a network that does the task. Pure functions of what was seen.

``nonfinite_loss``        the training loss became NaN or infinite
``exploding_gradients``   the loss is finite, but the gradient is far too long, or not finite
``silent``                nearly no unit is ever active
``saturated``             nearly every state value of the units that are not silent lies at the bound of their range
``at_chance``             at the end, the score on the test split cannot be told from the ``chance`` baseline

Each replicate is judged by itself. The first two are fatal: training cannot recover from them, and a network has one of
them at most (a gradient says nothing once the loss is lost, so ``nonfinite_loss`` takes precedence). The others are
counted beside the figures that the network goes on to reach.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from typing import Annotated, Literal

from pydantic import Field
from torch import Tensor

from wmcore.spec import Spec
from wmcore.training.intervals import Interval

FATAL = ("nonfinite_loss", "exploding_gradients")
KINDS = (*FATAL, "silent", "saturated", "at_chance")


class DivergenceSpec(Spec):
    """From where on a network counts as diverged.

    The defaults lie between what networks that learn and networks that are lost showed on N-back (three cells, learning
    rates from 0.001 to 0.3); the figures are with the fields.
    """

    grad_norm: Annotated[float, Field(gt=0)] = 1000.0
    """Norm of the gradient before clipping, mean over the steps since the last evaluation, above which gradients
    explode. Networks that learn had 0.2 to 1.0, lost ones up to 8.1. Far above both, because it ends a trial."""
    silent_activity: Annotated[float, Field(ge=0)] = 0.01
    """A unit whose absolute state never exceeds this, in the state's own unit, is silent."""
    silent_share: Annotated[float, Field(gt=0, le=1)] = 0.95
    """Share of silent units from which on the network is silent. Networks that learn had up to 0.14."""
    saturated_margin: Annotated[float, Field(ge=0, lt=1)] = 0.001
    """A value this close to the bound of its unit's range, as a share of the bound, lies at the bound: tanh has lost
    99.8 % of its slope there."""
    saturated_share: Annotated[float, Field(gt=0, le=1)] = 0.9
    """Share of values at the bound from which on the network is saturated. Networks that learn had up to 0.79
    (vanilla), 0.30 (gru) and 0.03 (lstm), and lost ones 0.93 and more (vanilla; gru from a learning rate of 0.1 on)."""


def fatal_kind(loss: float, grad_norm: float, spec: DivergenceSpec) -> str | None:
    """Which of ``FATAL`` one network shows, if any.

    Args:
        loss: mean training loss since the last evaluation.
        grad_norm: mean norm of the gradient before clipping, over the same steps.
    """
    if not math.isfinite(loss):
        return "nonfinite_loss"
    if not grad_norm <= spec.grad_norm:
        return "exploding_gradients"
    return None


def activity_kinds(states: Tensor, bound: float | None, spec: DivergenceSpec) -> list[str]:
    """``silent`` or ``saturated``, if a network is; never both, and neither where the states are NaN.

    Args:
        states: (N, ...) states at N steps of any trials; one unit per position of the further dims.
        bound: the largest absolute value of a state; None for units without one, which never saturate.
    """
    size = states.abs().flatten(1)
    active = ~(size.amax(0) <= spec.silent_activity)
    if float((~active).double().mean()) >= spec.silent_share:
        return ["silent"]
    # Of a gated cell some units never leave 0 while all others are stuck at the bound: only the active ones can tell.
    if bound is not None:
        stuck = size[:, active] >= bound * (1 - spec.saturated_margin)
        if float(stuck.double().mean()) >= spec.saturated_share:
            return ["saturated"]
    return []


def at_chance(interval: Interval, chance: float, mode: Literal["max", "min"]) -> bool:
    """Whether the interval of a score reaches chance, from its better side; an interval of NaN reaches nothing.

    Args:
        mode: whether more or less of the score is better.
    """
    low, high = interval
    return low <= chance if mode == "max" else high >= chance


def count(kinds: Iterable[str | None]) -> dict[str, int]:
    """Kind -> number of networks, in the order of ``KINDS``; only those above 0."""
    found = Counter(kinds)
    return {kind: found[kind] for kind in KINDS if found[kind]}
