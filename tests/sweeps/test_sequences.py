"""Points by number: pure, order-free, inside the space, and as even as they should be."""

from __future__ import annotations

from itertools import islice
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import qmc

from sweeps.samplers import CmaEsSpec, GridSpec, Nsga2Spec, RandomSpec, SobolSpec, TpeSpec
from sweeps.sequences import point_sequence, remaining_cells
from sweeps.space import Space
from tests.fixtures.spaces import MIXED, NESTED, NESTED_SIZE, space, spaces
from wmcore.spec import canonical_json

ENDLESS = (RandomSpec(seed=3), SobolSpec(seed=3))
ALL = (*ENDLESS, GridSpec(), GridSpec(seed=3))


def first(spec: Any, some: Space, count: int) -> list[dict[str, Any]]:
    sequence = point_sequence(spec, some)
    points = [sequence.at(index) for index in range(count)]
    assert None not in points
    return [point for point in points if point is not None]


@pytest.mark.parametrize("spec", ENDLESS, ids=lambda spec: spec.kind)
@settings(deadline=None)
@given(some=spaces(continuous=True), indices=st.lists(st.integers(0, 200), min_size=1, max_size=6))
def test_endless_points_are_pure_and_inside(spec, some, indices):
    used, fresh = point_sequence(spec, some), [point_sequence(spec, some).at(index) for index in indices]
    assert [used.at(index) for index in indices] == fresh
    assert all(some.contains(point) for point in fresh if point is not None)
    assert None not in fresh


@pytest.mark.parametrize("seed", [None, 5])
@settings(deadline=None)
@given(some=spaces(), data=st.data())
def test_a_grid_is_every_cell_once_in_any_order_of_calls(seed, some, data):
    size = some.size()
    assert size is not None
    order = data.draw(st.permutations(range(size))) if size < 40 else range(size)[::-1]
    grid = point_sequence(GridSpec(seed=seed), some)
    found = {index: grid.at(index) for index in order}
    cells = list(some.cells())
    if seed is None:
        assert [found[index] for index in range(size)] == cells
    else:
        listed = {canonical_json(found[index]) for index in range(size)}
        assert listed == {canonical_json(cell) for cell in cells}
        assert [found[index] for index in range(size)] == first(GridSpec(seed=seed), some, size)
    assert grid.at(size) is None
    assert grid.at(size + 7) is None


@pytest.mark.parametrize("spec", ALL, ids=lambda spec: f"{spec.kind}-{spec.seed}")
def test_another_seed_gives_other_points(spec):
    if spec.seed is None:
        assert first(spec, NESTED, 30) != first(GridSpec(seed=0), NESTED, 30)
    else:
        assert first(spec, NESTED, 30) != first(spec.model_copy(update={"seed": 4}), NESTED, 30)


def test_a_large_grid_is_not_listed():
    huge = space(**{f"p{i}": {"int": [0, 9]} for i in range(18)})
    grid = point_sequence(GridSpec(), huge)
    assert grid.at(0) == dict.fromkeys(huge.paths, 0)
    assert "".join(str(v) for v in (grid.at(123_456_789_012_345_678) or {}).values()) == "123456789012345678"
    assert grid.at(10**18) is None


def test_random_points_do_not_repeat_in_a_continuous_space():
    points = first(RandomSpec(seed=0), MIXED, 300)
    assert len({canonical_json(point) for point in points}) == 300
    assert [points[0]["cell"], points[1]["cell"], points[2]["cell"]] != [points[0]["cell"]] * 3


@pytest.mark.parametrize("seed", range(4))
def test_sobol_puts_one_point_into_each_interval_of_every_path(seed):
    plane = space(x={"uniform": [0, 1]}, y={"loguniform": [1, 2]}, z={"int": [0, 31]})
    points = first(SobolSpec(seed=seed), plane, 32)
    assert sorted(int(point["x"] * 32) for point in points) == list(range(32))
    assert sorted(int(np.log2(point["y"]) * 32) for point in points) == list(range(32))
    assert sorted(point["z"] for point in points) == list(range(32))
    # And one into each cell of the 4 x 8 grid of two paths.
    assert len({(int(point["x"] * 4), int(np.log2(point["y"]) * 8)) for point in points}) == 32


def test_sobol_covers_a_space_better_than_chance():
    plane = space(x={"uniform": [0, 1]}, y={"uniform": [0, 1]})

    def uneven(spec: Any) -> float:
        return qmc.discrepancy(np.array([[p["x"], p["y"]] for p in first(spec, plane, 64)]))

    worst = max(uneven(SobolSpec(seed=seed)) for seed in range(10))
    assert worst < min(uneven(RandomSpec(seed=seed)) for seed in range(10))


def test_remaining_cells_are_those_not_tried():
    cells = list(NESTED.cells())
    tried = {canonical_json(cell) for cell in (*cells[:7], cells[20])}
    assert list(remaining_cells(NESTED, tried)) == [*cells[7:20], *cells[21:]]
    assert list(remaining_cells(NESTED, {canonical_json(cell) for cell in cells})) == []
    assert len(list(remaining_cells(NESTED, set()))) == NESTED_SIZE
    # Lazily, even where nobody could try them all.
    huge = space(**{f"p{i}": {"int": [0, 9]} for i in range(30)})
    assert len(list(islice(remaining_cells(huge, set()), 5))) == 5


@pytest.mark.parametrize("spec", [TpeSpec(), CmaEsSpec(), Nsga2Spec()], ids=lambda spec: spec.kind)
def test_samplers_that_learn_are_no_sequences(spec):
    with pytest.raises(TypeError, match=f"{spec.kind} learns from outcomes"):
        point_sequence(spec, NESTED)


def test_a_grid_over_a_continuous_space_is_an_error():
    with pytest.raises(TypeError, match="discrete"):
        point_sequence(GridSpec(), MIXED)
