"""Runs a recorded network on from an edited state. Shapes: N trials, T steps, H units of all carried states."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
import xarray as xr

from wmcore.recording import inputs_of
from wmcore.trials import Input, Lookup, at_step

if TYPE_CHECKING:
    from wmcore.models.base import SequenceModel


def carried(recording: xr.Dataset, model: SequenceModel) -> tuple[np.ndarray, dict[str, slice]]:
    """(N, T, H) all states that the model carries side by side (an LSTM's h and c), and where each of them is."""
    names = list(model.initial_state(1))
    values = [recording[f"state_{name}"].values for name in names]
    flat = [value.reshape(*value.shape[:2], -1) for value in values]
    ends = np.cumsum([value.shape[2] for value in flat])
    places = {
        name: slice(int(end) - value.shape[2], int(end)) for name, value, end in zip(names, flat, ends, strict=True)
    }
    return np.concatenate(flat, axis=2), places


def run_on(
    recording: xr.Dataset,
    model: SequenceModel,
    states: np.ndarray,
    places: dict[str, slice],
    rows: np.ndarray,
    now: np.ndarray,
    read: np.ndarray,
) -> np.ndarray:
    """(N, P, C) outputs at some later steps, without noise.

    Args:
        states: (N, H) after the input of step ``now``.
        places: of ``carried``.
        rows: (N,) trials of the recording, whose inputs are used again.
        now: (N,) step of each state.
        read: (N, P) later steps at which the outputs are read.
    """
    inputs = {name: _of(value, rows) for name, value in inputs_of(recording).items()}
    example = model.initial_state(1)
    outputs = np.empty((*read.shape, recording.sizes["channel"]))
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            for start in np.unique(now):
                mine = np.flatnonzero(now == start)
                state = {
                    name: torch.from_numpy(states[mine][:, place])
                    .to(example[name])
                    .reshape(len(mine), *example[name].shape[1:])
                    for name, place in places.items()
                }
                own = {name: _of(value, mine) for name, value in inputs.items()}
                for step in range(int(start) + 1, int(read[mine].max()) + 1):
                    output, state = model.step(at_step(own, step), state)
                    here = read[mine] == step
                    trial, which = np.nonzero(here)
                    outputs[mine[trial], which] = output.cpu().numpy()[trial]
    finally:
        model.train(was_training)
    return outputs


def _of(value: Input, rows: np.ndarray) -> Input:
    chosen = torch.from_numpy(rows)
    return Lookup(value.table, value.index[chosen]) if isinstance(value, Lookup) else value[chosen]
