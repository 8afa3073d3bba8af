"""Cells: the trials that an analysis treats on their own, told apart by several variables of one set of values.

Lists of one length, or lags of one n-back, are a cell each. Shapes: N trials of a cell, P variables, K values.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from wmcore.analyses.base import PER_TRIAL, Conditions, check_condition, column, require
from wmcore.analyses.moments import Moment, steps_at
from wmcore.analyses.variables import ITEM, check_variable, items_of, variable
from wmcore.errors import InputError
from wmcore.recording import condition_labels, periods

_LENGTH = "length"
CELL = "cell_"
"""Prefix of the columns that name a cell."""


@dataclass(frozen=True)
class Cell:
    """Some trials and their labels.

    Attributes:
        name: value (or its label) of each condition that makes the cell.
        rows: (N,) their numbers in the recording.
        variables: names of the P variables that the trials have.
        labels: (N, P) number of each value in the sorted list of all values, 0..K-1.
        values: (K,) that list, the same for all cells and variables.
        groups: (N,) number of each trial's combination of labels: the unit of cross-validation.
    """

    name: dict[str, Any]
    rows: np.ndarray
    variables: tuple[str, ...]
    labels: np.ndarray
    values: np.ndarray
    groups: np.ndarray

    def take(self, keep: np.ndarray) -> Cell:
        """The cell without the trials that (N,) ``keep`` leaves out."""
        return replace(self, rows=self.rows[keep], labels=self.labels[keep], groups=self.groups[keep])

    def columns(self) -> dict[str, Any]:
        """Columns of a table that name the cell."""
        return {CELL + key: value for key, value in self.name.items()}


def check_cells(
    variables: Sequence[str] | None,
    within: Sequence[str] | None,
    conditions: Conditions,
    steps: int | None,
    where: str,
    least: int = 1,
) -> None:
    """Checks that a recording will hold the variables and the conditions that make the cells.

    Args:
        least: how many variables the analysis needs.

    Raises:
        InputError: one of them will not be there, or there are too few variables.
    """
    names = _variables(variables, list(conditions), where, least)
    for i, name in enumerate(names):
        check_variable(name, conditions, steps, f"{where}.variables.{i}")
    for i, name in enumerate(within or ()):
        check_condition(name, conditions, f"{where}.within.{i}", (PER_TRIAL,))


def cells_of(
    recording: xr.Dataset, variables: Sequence[str] | None, within: Sequence[str] | None, where: str, least: int = 1
) -> list[Cell]:
    """Each combination of the conditions ``within`` that occurs, sorted; a variable that no trial has is left out of
    its cell.

    Args:
        variables: null: the items of the sequence.
        within: null: the length, if there is one.

    Raises:
        InputError: a variable or condition is not in the recording, there are too few variables, they take values of
            different sets, or some trials of a cell lack a variable that others have (lists of several lengths).
    """
    names = _variables(variables, [str(name) for name in recording.data_vars], where, least)
    values = np.stack([variable(recording, name, f"{where}.variables").values for name in names], axis=1)
    _check_one_set(names, values, f"{where}.variables")
    known = np.unique(values[values >= 0])
    found = []
    for shown, rows in trials_within(recording, within, f"{where}.within"):
        present = np.any(values[rows] >= 0, axis=0)
        if present.sum() < least:
            continue
        lacking = int((values[rows][:, present] < 0).any(axis=1).sum())
        if lacking:
            rule = (
                f"must tell apart trials that have different variables; {lacking} of {len(rows)} lack some of {names}"
            )
            remedy = "Add the condition that tells them apart, such as length, or name variables that all trials have."
            raise InputError(f"{where}.within", rule, value=None if within is None else tuple(within), remedy=remedy)
        labels = np.searchsorted(known, values[rows][:, present])
        groups = np.unique(labels, axis=0, return_inverse=True)[1].reshape(-1)
        kept = tuple(names[p] for p in np.flatnonzero(present))
        found.append(Cell(shown, rows, kept, labels, known, groups))
    if not found:
        rule = f"must name at least {least} conditions that the trials of a cell have"
        raise InputError(f"{where}.variables", rule, value=names)
    return found


def trials_within(
    recording: xr.Dataset, within: Sequence[str] | None, where: str
) -> list[tuple[dict[str, Any], np.ndarray]]:
    """Each combination of the conditions ``within`` that occurs, sorted: its names and the rows of its trials.

    Args:
        within: null: the length, if there is one.

    Raises:
        InputError: a condition is not in the recording.
    """
    by = within if within is not None else ((_LENGTH,) if _LENGTH in recording else ())
    require(recording, by, where, [PER_TRIAL])
    texts = condition_labels(recording)
    size = recording.sizes["trial"]
    keys = np.stack([recording[name].values for name in by], axis=1) if by else np.zeros((size, 1), dtype=int)
    found = []
    for key in np.unique(keys, axis=0):
        shown = {name: texts[name][v] if name in texts else int(v) for name, v in zip(by, key, strict=False)}
        found.append((shown, np.flatnonzero((keys == key).all(axis=1))))
    return found


def without(cells: Sequence[Cell]) -> str:
    """A warning that some cells were left out, whose sequences do not determine their codes; empty for none."""
    names = " and ".join(cell_title(cell.columns()) for cell in cells)
    return f"without {names}: halves of so few sequences do not determine the codes" if names else ""


def undetermined(cells: Sequence[Cell], where: str) -> InputError:
    """The error that all cells had to be left out for that."""
    cell = max(cells, key=lambda own: len(own.variables))
    free = 1 + len(cell.variables) * (len(cell.values) - 1)
    rule = (
        f"must be variables whose codes halves of the recorded sequences determine: {2 * free} sequences or more, in "
        f"which each of the {len(cell.variables)} takes all of the {len(cell.values)} values several times; "
        f"{cell_title(cell.columns())} has {len(np.unique(cell.groups))}"
    )
    return InputError(where, rule, value=cell.variables, remedy="Record more trials, or a split with more sequences.")


def timed(
    recording: xr.Dataset, cell: Cell, moments: Sequence[Moment], where: str
) -> tuple[Cell, dict[Moment, np.ndarray]]:
    """The trials of a cell that reach all the moments which any of them reaches, and their (N,) steps at those.

    Raises:
        InputError: the recording has no such moment.
    """
    steps = {moment: steps_at(recording, moment, where)[cell.rows] for moment in dict.fromkeys(moments)}
    steps = {moment: own for moment, own in steps.items() if (own >= 0).any()}
    keep = np.all([own >= 0 for own in steps.values()], axis=0) if steps else np.ones(len(cell.rows), dtype=bool)
    return cell.take(keep), {moment: own[keep] for moment, own in steps.items()}


def encoding_moments(recording: xr.Dataset, variables: Sequence[str]) -> dict[str, Moment]:
    """When each variable has been shown: the end of ``stimulus_<p>`` for ``item_<p>``, step 2 for ``location@2``.

    A variable of which neither is known has no entry.
    """
    held = periods(recording)
    moments: dict[str, Moment] = {}
    for name in variables:
        shown = f"stimulus_{name.removeprefix('item_')}"
        if ITEM.fullmatch(name) and shown in held:
            moments[name] = f"{shown}.end"
        elif found := re.search(r"@(\d+)$", name):
            moments[name] = int(found[1])
    return moments


def _variables(names: Sequence[str] | None, available: Sequence[str], where: str, least: int) -> tuple[str, ...]:
    if names is None:
        names = items_of(available)
        if len(names) < least:
            remedy = "Name the conditions to compare, as in [location@0, location@1]."
            raise InputError(
                f"{where}.variables", "must be given where the task has no item_0, item_1, ...", remedy=remedy
            )
    if len(names) < least:
        raise InputError(f"{where}.variables", f"must name at least {least} conditions", value=tuple(names))
    if len(set(names)) < len(names):
        raise InputError(f"{where}.variables", "must name each condition once", value=tuple(names))
    return tuple(names)


def _check_one_set(names: Sequence[str], values: np.ndarray, where: str) -> None:
    """Checks that (N, P) values are of one set: K, and with it the dimensions of every code, is one number.

    Items of a sequence, and steps of one condition, are of one set even where few trials show less than all of it.
    """
    conditions = ["the items" if ITEM.fullmatch(name) else name.partition("@")[0] for name in names]
    sets = {}
    for condition in dict.fromkeys(conditions):
        own = values[:, [other == condition for other in conditions]]
        sets[condition] = np.unique(own[own >= 0]).tolist()
    first, *others = sets
    for other in others:
        if sets[other] and sets[first] and sets[other] != sets[first]:
            rule = f"must be variables with one set of values; {first} has {sets[first]}, {other} {sets[other]}"
            raise InputError(where, rule, value=tuple(names), remedy="Analyse them apart.")


def cells_in(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Columns and values of each cell of a table, in its order."""
    names = [name for name in table.columns if name.startswith(CELL)]
    if not names:
        return [{}]
    keys = zip(*(column(table, name) for name in names), strict=True)
    return [dict(zip(names, key, strict=True)) for key in dict.fromkeys(keys)]


def cell_title(cell: Mapping[str, Any]) -> str:
    """The cell in words."""
    return (
        ", ".join(f"{name.removeprefix(CELL).replace('_', ' ')} {value}" for name, value in cell.items())
        or "all trials"
    )
