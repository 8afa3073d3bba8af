"""The directions of a state that a model's linear readout reads."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from torch import nn

from wmcore.analyses.angles import basis

if TYPE_CHECKING:
    from wmcore.models.base import SequenceModel


def readout_basis(model: SequenceModel | None, state: str, units: int) -> np.ndarray | None:
    """(d, H) basis of the row space of W_out, less the direction that moves all outputs alike (no softmax sees it).

    Args:
        model: the module named ``readout`` is what it reads its state with.
        state: which state is analysed; an LSTM's cell state is not read.
        units: H.

    Returns:
        None where there is no model, or none with a linear readout of that state.
    """
    readout = getattr(model, "readout", None)
    if not isinstance(readout, nn.Linear) or readout.in_features != units or state != "state_h":
        return None
    weight = readout.weight.detach().cpu().numpy().astype(np.float64)
    centred = weight - weight.mean(axis=0)
    return basis(centred, int(np.linalg.matrix_rank(centred, rtol=1e-5))) if np.any(centred) else None
