"""The phases of the trials of a cell: their periods, which must be the same for all of them.

Analyses over time average trials step by step, which says something only where a step means the same in all of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr

from wmcore.errors import InputError
from wmcore.recording import periods

_KEYS = ("phase_cell", "phase_name", "phase_start", "phase_stop", "phase_steps")


@dataclass(frozen=True)
class Phases:
    """What happens when in the trials of a cell.

    Attributes:
        steps: of a trial; later ones are padding.
        spans: period -> its first step and the step after its last one, in the order of the steps; without those that
            the trials lack.
    """

    steps: int
    spans: Mapping[str, tuple[int, int]]

    def borders(self) -> dict[str, tuple[int, int]]:
        """The spans that divide a trial: without those that are all of it."""
        return {name: span for name, span in self.spans.items() if span != (0, self.steps)}

    def steps_in(self, name: str, chosen: np.ndarray) -> np.ndarray:
        """Positions in (S,) ``chosen`` steps of those inside a period; none where the trials lack it."""
        start, stop = self.spans.get(name, (0, 0))
        return np.flatnonzero((chosen >= start) & (chosen < stop))


def common_phases(recording: xr.Dataset, rows: np.ndarray) -> Phases:
    """The phases that some trials share; ``steps`` is that of the longest trial.

    Args:
        rows: numbers of the trials.
    """
    spans = {}
    for name, bounds in periods(recording).items():
        own = np.unique(bounds[rows], axis=0)
        if len(own) == 1 and own[0, 0] >= 0:
            spans[name] = (int(own[0, 0]), int(own[0, 1]))
    return Phases(int(_lengths(recording)[rows].max()), dict(sorted(spans.items(), key=lambda item: item[1])))


def check_timing(within: Sequence[str] | None, timing: Sequence[str], where: str) -> None:
    """Checks that the conditions which make the cells tell apart trials of different periods.

    Args:
        within: null: the length, if there is one.
        timing: conditions that the periods hang on.
        where: field path of ``within``.

    Raises:
        InputError: names a condition that is not among them.
    """
    told = within if within is not None else ("length",)
    if missing := [name for name in timing if name not in told]:
        rule = f"must tell apart trials that differ in {missing[0]}, or steps would not mean the same in all of them"
        raise InputError(where, rule, value=within, remedy=f"Write within: [{', '.join(timing)}].")


def phases_of(recording: xr.Dataset, rows: np.ndarray, where: str) -> Phases:
    """The phases of trials that must have all of them at the same steps.

    Args:
        rows: numbers of the trials.
        where: field path of the conditions that tell the cells apart.

    Raises:
        InputError: the trials differ in length or in a period.
    """
    differing = [name for name, bounds in periods(recording).items() if len(np.unique(bounds[rows], axis=0)) > 1]
    if len(np.unique(_lengths(recording)[rows])) > 1:
        differing.append("lengths")
    if differing:
        rule = f"must tell apart trials that differ in {differing[0]}, or steps would not mean the same in all of them"
        raise InputError(where, rule, remedy="Add the condition that makes the difference, such as length or delay.")
    return common_phases(recording, rows)


def _lengths(recording: xr.Dataset) -> np.ndarray:
    if "lengths" in recording:
        return recording["lengths"].values
    return np.full(recording.sizes["trial"], recording.sizes["time"])


def to_arrays(phases: Sequence[Phases]) -> dict[str, np.ndarray]:
    """The phases of the cells of an analysis, by their number, as arrays of its result."""
    entries = [(c, name, *span) for c, own in enumerate(phases) for name, span in own.spans.items()]
    names = np.array([entry[1] for entry in entries], dtype=np.str_)
    cell, start, stop = np.array([(c, *span) for c, _, *span in entries], dtype=np.int64).reshape(-1, 3).T
    steps = np.array([own.steps for own in phases], dtype=np.int64)
    return dict(zip(_KEYS, (cell, names, start, stop, steps), strict=True))


def from_arrays(arrays: Mapping[str, np.ndarray]) -> list[Phases]:
    """What ``to_arrays`` stored."""
    cell, name, start, stop, steps = (arrays[key] for key in _KEYS)
    found = []
    for c, length in enumerate(steps):
        own = np.flatnonzero(cell == c)
        found.append(Phases(int(length), {str(name[i]): (int(start[i]), int(stop[i])) for i in own}))
    return found
