"""Which trials of a batch must be run at which steps. Shapes: B trials, T steps, U histories.

A network without noise is in the same state in all trials that have been shown the same so far, and nothing is asked of
it behind the end of a trial. So each history is run once, and a trial that has ended no more: exact, and a third of the
work less for short lists of few items.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from wmcore.trials import Inputs, Lookup, batch_shape


@dataclass(frozen=True)
class Segment:
    """Consecutive steps at which the same histories are run.

    Attributes:
        start, stop: first step, and the step after the last.
        rows: (U,) a trial of each history.
        member: (B,) the history of each trial, in 0..U-1; any of them for a trial that has ended.
    """

    start: int
    stop: int
    rows: Tensor
    member: Tensor


def segments(inputs: Inputs, lengths: Tensor | None) -> list[Segment]:
    """The steps of a batch, up to the end of its longest trial, in order.

    Histories are told apart by the indices of inputs that are looked up; if any input is dense, each trial is its own.

    Args:
        lengths: (B,) steps of each trial; None: T.
    """
    size, steps = batch_shape(inputs)
    last = np.full(size, steps) if lengths is None else lengths.numpy()
    order, parted = _sorted(inputs)
    found: list[Segment] = []
    starts = sorted({0, *parted.tolist(), *last.tolist()} & set(range(int(last.max()))))
    for start, stop in zip(starts, [*starts[1:], int(last.max())], strict=True):
        history = np.empty(size, dtype=np.int64)
        history[order] = np.cumsum(parted <= start)
        on = np.flatnonzero(last > start)
        _, first, own = np.unique(history[on], return_index=True, return_inverse=True)
        member = np.zeros(size, dtype=np.int64)
        member[on] = own
        found.append(Segment(start, stop, torch.from_numpy(on[first]), torch.from_numpy(member)))
    return found


def whole(size: int, steps: int, device: torch.device) -> list[Segment]:
    """All trials at all steps."""
    rows = torch.arange(size, device=device)
    return [Segment(0, steps, rows, rows)]


def _sorted(inputs: Inputs) -> tuple[np.ndarray, np.ndarray]:
    """(B,) trials in an order in which those that begin alike are neighbours, and (B,) the step at which each parts
    from the one before it (T: never)."""
    size, steps = batch_shape(inputs)
    shown = _shown(inputs)
    if shown is None:
        return np.arange(size), np.zeros(size, dtype=np.int64)
    order = np.ascontiguousarray(shown).view(f"V{shown.itemsize * steps}")[:, 0].argsort(kind="stable")
    differs = np.diff(shown[order], axis=0, prepend=-1) != 0
    return order, np.where(differs.any(axis=1), differs.argmax(axis=1), steps)


def _shown(inputs: Inputs) -> np.ndarray | None:
    """(B, T) whole numbers that are equal exactly where all inputs are the same rows; None if an input is dense."""
    shown = None
    for value in inputs.values():
        if not isinstance(value, Lookup):
            return None
        index = value.index.numpy()
        shown = index if shown is None else np.unique(shown * len(value.table) + index, return_inverse=True)[1]
    return shown
