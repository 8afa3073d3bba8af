"""The hash that folds and held-out lists rest on."""

from __future__ import annotations

import numpy as np

from wmcore.hashing import splitmix64


def test_known_values():
    """The first outputs of the published generator, whose state begins at 0 and grows by the golden gamma."""
    gamma = np.uint64(0x9E3779B97F4A7C15)
    states = np.arange(3, dtype=np.uint64) * gamma
    expected = [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]
    assert splitmix64(states.view(np.int64)).tolist() == expected


def test_negative_and_shaped_numbers():
    values = np.array([[-1, 0], [5, 2**40]])
    found = splitmix64(values)
    assert found.shape == values.shape
    assert len(np.unique(found)) == 4
