from __future__ import annotations

import numpy as np
import pytest

from tests.contracts.analysis import synthetic_recording
from wmcore.analyses.cells import cells_of
from wmcore.errors import InputError


def recording(conditions: dict[str, np.ndarray]):
    size = len(next(iter(conditions.values())))
    return synthetic_recording(np.zeros((size, 3, 2)), conditions)


def test_variables_of_different_sets_of_values_are_refused() -> None:
    rng = np.random.default_rng(1)
    data = recording({"location": rng.integers(0, 4, (90, 3)), "identity": rng.integers(0, 8, (90, 3))})
    with pytest.raises(
        InputError, match=r"x\.variables.*one set.*location has \[0, 1, 2, 3\], identity \[0, 1, .*apart"
    ):
        cells_of(data, ["location@0", "identity@0"], None, "x")
    (cell,) = cells_of(data, ["location@0", "location@2"], None, "x")
    assert cell.values.tolist() == [0, 1, 2, 3]


def test_values_that_few_trials_do_not_show_are_no_other_set() -> None:
    data = recording({"item_0": np.array([0, 1, 2]), "item_1": np.array([3, 0, 1])})
    (cell,) = cells_of(data, None, None, "x")
    assert cell.values.tolist() == [0, 1, 2, 3]
    assert cell.labels.tolist() == [[0, 3], [1, 0], [2, 1]]


def test_lists_of_several_lengths_in_one_cell_are_refused_not_dropped() -> None:
    items = {"item_0": np.array([0, 1, 2, 1]), "item_1": np.array([1, 2, 0, 0]), "item_2": np.array([-1, -1, 1, 2])}
    data = recording(items | {"length": np.array([2, 2, 3, 3])})
    with pytest.raises(InputError, match=r"x\.within is \(\).*2 of 4 lack some of .*item_2.*such as length"):
        cells_of(data, None, [], "x")
    assert [(cell.name, cell.variables, len(cell.rows)) for cell in cells_of(data, None, None, "x")] == [
        ({"length": 2}, ("item_0", "item_1"), 2),
        ({"length": 3}, ("item_0", "item_1", "item_2"), 2),
    ]
    (both,) = cells_of(data, ["item_0", "item_1"], [], "x")
    assert len(both.rows) == 4
