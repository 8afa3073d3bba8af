"""Evenly spaced numbers, computed in decimals: 0 + 3 * 0.1 is 0.3."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Any

Grid = tuple[float, float, float]
"""[low, high, step]."""

MOST = 2**53
"""Up to it every integer is a float of its own."""


def whole_steps(grid: Grid) -> Grid:
    """The grid itself, if high lies a whole number of steps above low.

    Args:
        grid: its step is above 0.

    Raises:
        ValueError: it does not, or the bounds make no grid.
    """
    low, high, step = map(_exact, grid)
    if low >= high:
        raise ValueError(f"must be [low, high, step] with low below high, and {grid[0]} is not below {grid[1]}")
    if (high - low) / step > MOST or max(abs(low), abs(high)) > MOST:
        raise ValueError(f"must be [low, high, step] with bounds within {MOST} of 0 and at most as many steps")
    if (high - low) % step:
        last = low + (high - low) // step * step
        raise ValueError(
            f"must be [low, high, step] with high a whole number of steps above low, and {grid[1]} is not: "
            f"the steps meet {_number(last, grid)} and {_number(last + step, grid)}"
        )
    return grid


class Steps(Sequence[float]):
    """The values of a grid, both bounds included; integers if bounds and step are."""

    def __init__(self, grid: Grid) -> None:
        self._grid = grid
        self._low, high, self._step = map(_exact, grid)
        self._size = int((high - self._low) / self._step) + 1

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[place] for place in range(*index.indices(self._size))]
        if not -self._size <= index < self._size:
            raise IndexError(index)
        return _number(self._low + index % self._size * self._step, self._grid)

    def nearest(self, value: float) -> float:
        """The value next to a number."""
        place = round((_exact(value) - self._low) / self._step)
        return self[min(max(place, 0), self._size - 1)]


def _exact(number: float) -> Fraction:
    """The decimal number that is written, not the binary fraction nearest to it."""
    return Fraction(str(number))


def _number(value: Fraction, grid: Grid) -> float:
    return int(value) if all(isinstance(number, int) for number in grid) else float(value)
