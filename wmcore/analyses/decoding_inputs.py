"""The inputs of a recording as flat values, for the readouts that a decoding is compared with (perceptual probe)."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
import xarray as xr
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from wmcore.recording import inputs_of
from wmcore.trials import Lookup

MOST_VALUES = 8192
_GRIDS = (8, 4, 2, 1)


@dataclass(frozen=True)
class Inputs:
    """What was shown, as one vector per trial and step.

    Principal components would not do in place of the values: the decoder standardises each value, so that components
    would be whitened, and on few trials the noise of the small ones hides what the inputs plainly hold.

    Attributes:
        tables: per input, (M, D) float32: its distinct values, flattened; maps larger than 8x8 are average-pooled to
            that, and further while there are more than 8192 values.
        indices: per input, (N, T) rows of its table.
    """

    tables: tuple[np.ndarray, ...]
    indices: tuple[np.ndarray, ...]

    @classmethod
    def of(cls, recording: xr.Dataset) -> Inputs | None:
        """All inputs of a recording; None where it has none."""
        tables, indices = [], []
        for value in inputs_of(recording).values():
            if isinstance(value, Lookup):
                tables.append(_flat(value.table))
                indices.append(value.index.numpy())
            else:
                tables.append(_flat(value.flatten(0, 1)))
                indices.append(np.arange(len(tables[-1])).reshape(value.shape[:2]))
        return cls(tuple(tables), tuple(indices)) if tables else None

    def take(self, rows: np.ndarray) -> Inputs:
        """The inputs of some trials."""
        return replace(self, indices=tuple(index[rows] for index in self.indices))

    def at(self, rows: np.ndarray, step: int) -> np.ndarray:
        """(M, D) values that some trials show at a step."""
        pairs = zip(self.tables, self.indices, strict=True)
        return np.concatenate([table[index[rows, step]] for table, index in pairs], axis=1)


def _flat(table: Tensor) -> np.ndarray:
    rows = table.to(torch.float32)
    if rows.ndim == 4:
        for grid in _GRIDS:
            if max(rows.shape[2:]) > grid and (grid == _GRIDS[0] or rows[0].numel() > MOST_VALUES):
                rows = adaptive_avg_pool2d(rows, grid)
    return rows.reshape(len(rows), -1).numpy()
