"""Samplers that look at no outcome: the point of a trial is a pure function of the sampler's spec, the space and the
trial's number. Nothing repeats after a resume, and no order of calls or number of workers matters."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any, Protocol

from scipy.stats import qmc

from sweeps.samplers import AnySampler, GridSpec, RandomSpec, SobolSpec
from sweeps.space import Space
from wmcore.seeding import numpy_generator
from wmcore.spec import canonical_json

LISTED_CELLS = 1_000_000
"""Cells of a grid that is listed (a seeded one, or one with conditions), at most."""


class PointSequence(Protocol):
    """Points by number."""

    def at(self, index: int) -> dict[str, Any] | None:
        """The point of this number, from 0; None after the last one."""
        ...


class RandomPoints:
    """Independent points without end."""

    def __init__(self, space: Space, seed: int) -> None:
        self._space, self._seed = space, seed

    def at(self, index: int) -> dict[str, Any] | None:
        return self._space.point(numpy_generator(self._seed, "point", index))


class SobolPoints:
    """A scrambled Sobol' sequence (Sobol' 1967, doi:10.1016/0041-5553(67)90144-9; Owen 1998,
    doi:10.1006/jcom.1998.0487), one dimension for each path, whether it is active or not.

    The first 2^k points hold one in each of 2^k equal intervals of every path.
    """

    def __init__(self, space: Space, seed: int) -> None:
        self._space = space
        self._engine = qmc.Sobol(len(space.paths), scramble=True, rng=numpy_generator(seed, "sobol"))
        self._next = 0

    def at(self, index: int) -> dict[str, Any] | None:
        if index < self._next:
            self._engine.reset()
            self._next = 0
        if index > self._next:
            self._engine.fast_forward(index - self._next)
        self._next = index + 1
        shares = self._engine.random(1)[0].tolist()
        return self._space.point_at(dict(zip(self._space.paths, shares, strict=True)))


class GridPoints:
    """Every cell once, in the order of the file or in a random one."""

    def __init__(self, space: Space, seed: int | None) -> None:
        size = space.size()
        if size is None:
            raise TypeError("a grid needs a discrete space")
        self._size = size
        self._places = None if seed is None else numpy_generator(seed, "grid").permutation(size)
        self._values = {path: distribution.values() or () for path, distribution in space.items()}
        self._conditional = any(distribution.when for _, distribution in space.items())
        self._listed: list[dict[str, Any]] = []
        self._cells = space.cells()

    def at(self, index: int) -> dict[str, Any] | None:
        if index >= self._size:
            return None
        place = index if self._places is None else int(self._places[index])
        return self._by_listing(place) if self._conditional else self._by_digits(place)

    def _by_digits(self, place: int) -> dict[str, Any]:
        """The digits of a cell's number, each to the base of its path's size."""
        point = {}
        for path, values in reversed(self._values.items()):
            place, digit = divmod(place, len(values))
            point[path] = copy.deepcopy(values[digit])
        return {path: point[path] for path in self._values}

    def _by_listing(self, place: int) -> dict[str, Any]:
        while len(self._listed) <= place:
            self._listed.append(next(self._cells))
        return copy.deepcopy(self._listed[place])


def point_sequence(spec: AnySampler, space: Space) -> PointSequence:
    """The points that a sampler names, by number.

    Raises:
        TypeError: a sampler that learns from outcomes, or a grid over a continuous space.
    """
    match spec:
        case RandomSpec():
            return RandomPoints(space, spec.seed)
        case SobolSpec():
            return SobolPoints(space, spec.seed)
        case GridSpec():
            return GridPoints(space, spec.seed)
    raise TypeError(f"{spec.kind} learns from outcomes")


def remaining_cells(space: Space, tried: set[str]) -> Iterator[dict[str, Any]]:
    """The cells of a discrete space that were not tried, in its order.

    Args:
        space: without continuous distributions.
        tried: points in canonical JSON.
    """
    return (cell for cell in space.cells() if canonical_json(cell) not in tried)
