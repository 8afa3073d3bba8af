"""A hash of whole numbers that is the same in every process, on every machine and with every version."""

from __future__ import annotations

import numpy as np


def splitmix64(values: np.ndarray) -> np.ndarray:
    """64 well-mixed bits of each number (SplitMix64; Steele, Lea & Flood 2014, doi:10.1145/2714064.2660195).

    Args:
        values: integers of any shape.

    Returns:
        The same shape, uint64.
    """
    z = values.astype(np.int64).view(np.uint64) + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))
