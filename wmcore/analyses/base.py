"""The contract of an analysis: a spec plus ``compute``; a tidy table, named arrays, and figures drawn from those."""

from __future__ import annotations

import difflib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.figure import Figure

from wmcore.errors import InputError
from wmcore.spec import Spec

if TYPE_CHECKING:
    from wmcore.models.base import SequenceModel

REQUIRED_COLUMNS = ("measure", "estimate", "null", "ceiling", "ci_low", "ci_high", "n", "warning")
"""Every table has these; condition columns (time, property, ...) stand beside them.

``estimate`` in the measure's unit, ``null`` its expected value under the null (never missing), ``ceiling`` the best
attainable value or NaN, ``ci_low`` and ``ci_high`` the 95 % interval, ``n`` the independent units (trials, unless the
measure says otherwise), ``warning`` an empty string or what a reader must know.
"""


PER_TRIAL, PER_STEP = ("trial",), ("trial", "time")
Conditions = Mapping[str, tuple[str, ...]]
"""Condition name -> its dims: ("trial",) or ("trial", "time")."""


@dataclass(frozen=True)
class AnalysisResult:
    """What an analysis gives: the table has one row per measure and condition."""

    table: pd.DataFrame
    arrays: dict[str, np.ndarray] = field(default_factory=dict)

    def __post_init__(self) -> None:
        missing = [name for name in REQUIRED_COLUMNS if name not in self.table.columns]
        if missing:
            raise ValueError(f"the table of an analysis lacks the columns {missing}")


class AnalysisSpec(Spec, ABC):
    """What a user writes under ``analyses``."""

    needs_all_states: ClassVar[bool] = False
    """Whether the recording must have every state of the network, as where that is run on from a step."""

    @abstractmethod
    def check(self, conditions: Conditions, states: Sequence[str], steps: int | None, where: str) -> None:
        """Refuses options that no recording could satisfy, before anything is trained.

        Args:
            conditions: those that the recording will hold.
            states: names of the states that will be recorded.
            steps: T; None where it is not known yet.
            where: field path of the analysis, for errors.

        Raises:
            InputError: an option does not fit.
        """

    def check_timing(self, timing: Sequence[str], where: str) -> None:
        """Refuses trials together in which a step does not mean the same, by an analysis that averages step by step.

        Args:
            timing: conditions (trial) that the periods of the task's trials hang on.
            where: field path of the analysis, for errors.

        Raises:
            InputError: names the condition by which trials must be told apart.
        """

    @abstractmethod
    def compute(
        self, recording: xr.Dataset, model: SequenceModel | None, generator: np.random.Generator
    ) -> AnalysisResult:
        """The analysis of one recording; a pure function of its arguments.

        Raises:
            InputError: the recording lacks a condition or state that the analysis needs.
        """

    @abstractmethod
    def figures(self, result: AnalysisResult) -> dict[str, Figure]:
        """File stem -> figure, drawn from the result alone."""


def require(recording: xr.Dataset, names: Sequence[str], field_path: str, dims: Sequence[tuple[str, ...]] = ()) -> None:
    """Checks that a recording has variables of these names (and, if given, one of these dims).

    Raises:
        InputError: names the first that is missing or has other dims, the field that asked for it, and what there is.
    """
    for name in names:
        if name not in recording.data_vars:
            present = ", ".join(sorted(str(key) for key in recording.data_vars))
            raise InputError(field_path, f"must name what the recording holds, which is {present}", value=name)
        if dims and recording[name].dims not in dims:
            allowed = " or ".join("(" + ", ".join(d) + ")" for d in dims)
            raise InputError(
                field_path, f"must have the dims {allowed}; it has {tuple(recording[name].dims)}", value=name
            )


def check_condition(name: str, conditions: Conditions, where: str, dims: Sequence[tuple[str, ...]]) -> None:
    """Checks that there will be a condition of this name with one of these dims.

    Raises:
        InputError: names the nearest and all allowed ones.
    """
    allowed = [other for other, own in conditions.items() if own in dims]
    if name in allowed:
        return
    kind = "" if len(dims) > 1 else " with a value per trial" if PER_TRIAL in dims else " with a value at every step"
    rule = f"must be a condition{kind}: {', '.join(allowed) or 'the task has none'}"
    raise InputError(where, rule, value=name, remedy=_nearest(name, allowed))


def check_state(name: str | None, states: Sequence[str], where: str) -> None:
    """Checks that a state will be recorded; None stands for the first one.

    Raises:
        InputError: names the nearest and all allowed ones.
    """
    if name is not None and name not in states:
        rule = f"must be a state that is recorded (recording.states): {', '.join(states)}"
        raise InputError(where, rule, value=name, remedy=_nearest(name, states))


def _nearest(name: str, allowed: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, allowed, n=1)
    return f"Did you mean {near[0]}?" if near else ""


def first_state(recording: xr.Dataset, state: str | None, field_path: str) -> str:
    """The variable that holds a state: ``state_<state>``, or the first state recorded where ``state`` is None."""
    recorded = [str(name) for name in recording.data_vars if str(name).startswith("state_")]
    if state is None and recorded:
        first = recording.attrs.get("first_state", "")
        return first if first in recorded else recorded[0]
    if f"state_{state}" in recorded:
        return f"state_{state}"
    names = ", ".join(name.removeprefix("state_") for name in recorded) or "no state at all"
    raise InputError(field_path, f"must be a state of the recording, which holds {names}", value=state)


def select(table: pd.DataFrame, values: Mapping[str, object]) -> pd.DataFrame:
    """The rows of a table in which each named column has the given value; where it has none, a row is left out."""
    keep = np.ones(len(table), dtype=bool)
    for name, value in values.items():
        keep &= np.asarray((table[name] == value).fillna(False), dtype=bool)
    return table.take(np.flatnonzero(keep))


def column(table: pd.DataFrame, name: str) -> np.ndarray[Any, Any]:
    """A column as an array."""
    return np.asarray(table[name])
