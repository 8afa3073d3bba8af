"""The ceiling of decoding: what a linear readout of the inputs gives (the perceptual probe)."""

from __future__ import annotations

import numpy as np
import torch
import xarray as xr
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from wmcore.analyses.decoding_contexts import Ceiling, Decoder, Item, decode_inputs
from wmcore.recording import inputs_of
from wmcore.trials import Lookup

COMPONENTS = 128
_GRID = 8


def input_ceiling(
    recording: xr.Dataset,
    items: list[Item],
    groups: np.ndarray,
    first_image: np.ndarray | None,
    lengths: np.ndarray,
    decoder: Decoder,
) -> Ceiling:
    """Balanced accuracy of the same decoder on the inputs of the step at which an item is shown.

    Inputs do not depend on the task cell, so all trials are used together. Maps larger than 8x8 are average-pooled;
    each input is reduced to its first 128 principal components, which are found without labels.

    Returns:
        (property, source step, read step is 0) -> balanced accuracy, with the groups of such a context (images at
        step 0, if ``first_image`` is given); empty where the recording has no inputs.
    """
    inputs = inputs_of(recording)
    if not inputs:
        return {}
    values = np.concatenate([reduced(value) for value in inputs.values()], axis=2)
    by_trial = decode_inputs(values, items, groups, None, lengths, decoder)
    by_image = decode_inputs(values[:, :1], items, groups, first_image, lengths, decoder)
    return {
        **{(name, step, False): value for (name, step), value in by_trial.items()},
        **{(name, step, True): value for (name, step), value in by_image.items()},
    }


def reduced(value: Tensor | Lookup) -> np.ndarray:
    """(N, T, D <= 128) float32: an input, pooled, flattened and projected on its principal components."""
    if isinstance(value, Lookup):
        table = _flat(value.table, 1)
        used, count = np.unique(value.index.numpy(), return_counts=True)
        weight = np.zeros(len(table))
        weight[used] = count
        return _project(table, weight)[value.index.numpy()]
    flat = _flat(value, 2)
    return _project(flat, np.ones(len(flat))).reshape(*value.shape[:2], -1)


def _flat(value: Tensor, leading: int) -> np.ndarray:
    rows = value.reshape(-1, *value.shape[leading:]).to(torch.float32)
    if rows.ndim == 4 and max(rows.shape[2:]) > _GRID:
        rows = adaptive_avg_pool2d(rows, _GRID)
    return rows.reshape(len(rows), -1).numpy()


def _project(rows: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """(M, D) rows to their first components under row weights; unchanged if they have no more than that."""
    if rows.shape[1] <= COMPONENTS:
        return rows
    share = (weight / weight.sum()).astype(np.float32)
    centred = rows - share @ rows
    scaled = centred * np.sqrt(share)[:, None]
    if len(rows) < rows.shape[1]:
        power, left = np.linalg.eigh(scaled @ scaled.T)
        axes = scaled.T @ left[:, -COMPONENTS:]
        axes /= np.sqrt(np.maximum(power[-COMPONENTS:], 1e-12 * power[-1]))
    else:
        axes = np.linalg.eigh(scaled.T @ scaled)[1][:, -COMPONENTS:]
    return centred @ axes
