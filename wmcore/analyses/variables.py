"""What trials are told apart by: whole-number conditions of a trial, or of one of its steps.

``item_0`` names a condition with one value per trial; ``location@2`` the value at step 2 of one that has a value at
every step. So an analysis of "the item at rank p" reads any sequence task.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr

from wmcore.analyses.base import PER_STEP, PER_TRIAL, Conditions, check_condition, require
from wmcore.errors import InputError
from wmcore.recording import condition_labels

ITEM = re.compile(r"item_\d+")
"""Conditions that a task with items in an order has: the item at each rank, -1 where a trial is shorter."""


@dataclass(frozen=True)
class Variable:
    """A whole-number label of every trial.

    Attributes:
        name: as the spec writes it.
        values: (N,) values; negative where a trial has none.
        labels: the name of each value; empty where the task names none.
    """

    name: str
    values: np.ndarray
    labels: tuple[str, ...] = ()


def items_of(names: Sequence[str]) -> tuple[str, ...]:
    """Those of some condition names that are the items of a sequence, by rank."""
    return tuple(sorted((name for name in names if ITEM.fullmatch(name)), key=lambda name: int(name[5:])))


def check_variable(text: str, conditions: Conditions, steps: int | None, where: str) -> None:
    """Checks that a recording will hold a variable.

    Raises:
        InputError: there is no such condition, or its step is missing, not one of the trial's, or of no use.
    """
    name, step = _parts(text, where)
    check_condition(name, conditions, where, (PER_STEP,) if step is not None else (PER_TRIAL, PER_STEP))
    if step is None and conditions[name] == PER_STEP:
        raise InputError(where, "has a value at every step", value=text, remedy=f"Name one, as in {name}@0.")
    if step is not None and steps is not None and step >= steps:
        raise InputError(where, f"must name a step below {steps}", value=text, remedy=f"Write {name}@{steps - 1}.")


def variable(recording: xr.Dataset, text: str, where: str) -> Variable:
    """A variable of a recording.

    Raises:
        InputError: it is not there, has no value at the step, or does not hold whole numbers.
    """
    name, step = _parts(text, where)
    require(recording, [name], where, [PER_TRIAL if step is None else PER_STEP])
    values = recording[name].values
    if not (np.issubdtype(values.dtype, np.integer) or values.dtype == bool):
        raise InputError(where, "must be a condition of whole numbers", value=text)
    if step is not None:
        if step >= values.shape[1]:
            raise InputError(where, f"must name a step below {values.shape[1]}", value=text)
        values = values[:, step]
    return Variable(text, values.astype(np.int64), condition_labels(recording).get(name, ()))


def _parts(text: str, where: str) -> tuple[str, int | None]:
    found = re.fullmatch(r"([^@]+)(?:@(\d+))?", text)
    if found is None:
        rule = "must be the name of a condition, or a name with a step as in location@2"
        raise InputError(where, rule, value=text)
    return found[1], None if found[2] is None else int(found[2])
