"""Behaviour of serial recall: serial-position curves, and which errors are made.

Source: the error types of serial recall (Henson 1998, doi:10.1006/cogp.1998.0685). A response is the largest output at
a step of the period ``response_<p>``. Shapes: N trials, T steps, L ranks, K items, D simulated nulls, B resamplings.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
import xarray as xr
from matplotlib.figure import Figure
from pydantic import Field
from scipy.stats import binomtest

from wmcore.analyses import behaviour_figures
from wmcore.analyses.base import PER_TRIAL, AnalysisResult, AnalysisSpec, check_condition, require
from wmcore.analyses.cells import Cell, cells_of, check_cells
from wmcore.analyses.resampling import bootstrap_weights, interval
from wmcore.analyses.rows import row, table_of
from wmcore.analyses.variables import items_of
from wmcore.errors import InputError
from wmcore.recording import periods

if TYPE_CHECKING:
    from collections.abc import Sequence

    from wmcore.analyses.base import Conditions
    from wmcore.models.base import SequenceModel


@dataclass(frozen=True)
class _Event:
    """Something that can happen in a response.

    Attributes:
        measure: its name.
        columns: rank or distance.
        count: (D, N) how often it happened in each trial, for D sets of responses.
        possible: (N,) how often it could have.
    """

    measure: str
    columns: dict[str, int]
    count: np.ndarray
    possible: np.ndarray


@dataclass(frozen=True)
class _Units:
    """What is resampled: trials that count as one.

    Attributes:
        groups: (N,) id of each trial's unit.
        weights: (B, N) how often each trial is drawn.
    """

    groups: np.ndarray
    weights: np.ndarray


class BehaviourSpec(AnalysisSpec):
    """Serial-position curves and error types of serial recall, against errors spread evenly over the items."""

    kind: Literal["behaviour"] = "behaviour"
    within: tuple[str, ...] | None = None
    """Conditions (trial) whose combinations are counted apart; null: the length of the list, if there is one."""
    group: str | None = None
    """Condition (trial) whose equal values are resampled together, e.g. sequence; null: each trial on its own."""
    simulations: Annotated[int, Field(ge=20)] = 200
    """Nulls: every wrong response is replaced by any of the wrong items, all alike."""
    bootstraps: Annotated[int, Field(ge=100)] = 500
    """Resamplings of the groups for the 95 % interval."""

    def check(self, conditions: Conditions, states: Sequence[str], steps: int | None, where: str) -> None:
        if not items_of(list(conditions)):
            raise InputError(where, "needs a task with the items of a list: the conditions item_0, item_1, ...")
        check_cells(None, self.within, conditions, steps, where)
        if self.group is not None:
            check_condition(self.group, conditions, f"{where}.group", (PER_TRIAL,))

    def compute(
        self, recording: xr.Dataset, model: SequenceModel | None, generator: np.random.Generator
    ) -> AnalysisResult:
        """Measures of the table, all shares.

        - ``item_accuracy`` by ``rank``, at ``all`` steps of the response and at the ``last`` one (column ``steps``);
          null: any item, 1 / K.
        - ``sequence_accuracy``: every response of the list is right, at all steps or at the last; null: any list that
          can occur, (K - L)! / K! where no list repeats an item, or else K^-L.
        - Of the responses at the last step, in all and by rank: ``transposition`` (an item of another rank),
          ``intrusion`` (an item that was not shown); with the accuracy they add up to 1. ``repetition``: a wrong
          response that was given at an earlier rank already (also one of the other two).
        - ``transposition_by_distance``: how often an item is reported ``distance`` ranks from its own, of the times
          that it could be.

        The null of the errors leaves them where they are and draws each wrong response evenly from the wrong items.
        ``n`` counts groups, and the interval at 0 or 1 is exact for so many.

        Raises:
            InputError: the recording lacks items or the response periods, or its outputs are not one per item.
        """
        _require_recall(recording)
        if self.group is not None:
            require(recording, [self.group], "behaviour.group", [PER_TRIAL])
        groups = recording[self.group or "trial"].values
        outputs = recording["outputs"].values
        answers, choices = outputs.argmax(axis=-1), outputs.shape[-1]
        rows: list[dict[str, Any]] = []
        for cell in cells_of(recording, None, self.within, "behaviour"):
            own = groups[cell.rows]
            units = _Units(own, bootstrap_weights(own, self.bootstraps, generator))
            rows += [cell.columns() | one for one in self._cell(recording, cell, answers, choices, units, generator)]
        return AnalysisResult(table_of(rows, ("rank", "distance")))

    def figures(self, result: AnalysisResult) -> dict[str, Figure]:
        """``behaviour``: serial-position curves, error types and transpositions by distance."""
        return {"behaviour": behaviour_figures.draw(result)}

    def _cell(
        self,
        recording: xr.Dataset,
        cell: Cell,
        answers: np.ndarray,
        choices: int,
        units: _Units,
        generator: np.random.Generator,
    ) -> list[dict[str, Any]]:
        items = cell.values[cell.labels]
        if items.max() >= choices:
            rule = f"must have an output for each item, but there is an item {items.max()} and {choices} outputs"
            raise InputError("behaviour", rule)
        size, ranks = items.shape
        share = np.empty(items.shape)
        last = np.empty(items.shape, dtype=np.int64)
        time = np.arange(answers.shape[1])
        held = periods(recording)
        for p, name in enumerate(cell.variables):
            start, stop = held[f"response_{name.removeprefix('item_')}"][cell.rows].T
            if (start < 0).any():
                raise InputError("behaviour", f"needs a response period of {name} in every trial that has the item")
            inside = (time >= start[:, None]) & (time < stop[:, None])
            right = (answers[cell.rows] == items[:, p, None]) & inside
            share[:, p] = right.sum(axis=1) / inside.sum(axis=1)
            last[:, p] = answers[cell.rows, stop - 1]
        right = last == items
        once = np.ones(size)
        lists = _lists(items, choices)
        found = []
        for steps, own in (("all", share), ("last", right.astype(float))):
            for p in range(ranks):
                found.append(_row("item_accuracy", own[:, p], once, 1 / choices, units, steps=steps, rank=p))
            found.append(_row("sequence_accuracy", (own == 1).all(axis=1), once, 1 / lists, units, steps=steps))
        simulated = _events(_even_errors(last, items, choices, self.simulations, generator), items)
        for event, even in zip(_events(last[None], items), simulated, strict=True):
            null = even.count.sum(axis=1) / even.possible.sum()
            count, columns = event.count[0], {"steps": "last", **event.columns}
            found.append(_row(event.measure, count, event.possible, null, units, **columns))
        return found


def _events(answers: np.ndarray, items: np.ndarray) -> list[_Event]:
    """What happened in (D, N, L) responses to lists of (N, L) items."""
    size, ranks = items.shape
    wrong = answers != items
    shown = (answers[..., None] == items[:, None, :]).any(axis=-1)
    repeated = np.zeros(answers.shape, dtype=bool)
    for p in range(1, ranks):
        repeated[..., p] = (answers[..., p, None] == answers[..., :p]).any(axis=-1)
    kinds = {"transposition": wrong & shown, "intrusion": wrong & ~shown, "repetition": wrong & repeated}
    once = np.ones(size)
    found = []
    for measure, happened in kinds.items():
        found.append(_Event(measure, {}, happened.sum(axis=-1), ranks * once))
        found += [_Event(measure, {"rank": p}, happened[..., p].astype(float), once) for p in range(ranks)]
    for distance in range(1, ranks):
        # Of the item that is due, one that stands at both ranks is no transposition.
        count, possible = np.zeros(answers.shape[:2]), np.zeros(size)
        for p in range(ranks):
            for q in (p - distance, p + distance):
                if 0 <= q < ranks:
                    count += wrong[..., p] & (answers[..., p] == items[:, q])
                    possible += items[:, p] != items[:, q]
        if possible.any():
            found.append(_Event("transposition_by_distance", {"distance": distance}, count, possible))
    return found


def _even_errors(
    answers: np.ndarray, items: np.ndarray, choices: int, draws: int, generator: np.random.Generator
) -> np.ndarray:
    """(D, N, L) responses that are right where the (N, L) ones are, and else any of the other items."""
    other = generator.integers(0, choices - 1, (draws, *items.shape))
    other += other >= items
    return np.where(answers == items, items, other)


def _lists(items: np.ndarray, choices: int) -> float:
    """How many lists can occur: K! / (K - L)!, or K^L if some list repeats an item."""
    ranks = np.arange(items.shape[1])
    repeats = (np.diff(np.sort(items, axis=1), axis=1) == 0).any()
    return float(np.prod(np.full(len(ranks), choices) if repeats else choices - ranks))


def _row(
    measure: str,
    count: np.ndarray,
    possible: np.ndarray,
    null: float | np.ndarray,
    units: _Units,
    **columns: Any,
) -> dict[str, Any]:
    """The row of a share: (N,) counts of (N,) possible ones."""
    estimate = count.sum() / possible.sum()
    draws = (units.weights @ count) / np.maximum(units.weights @ possible, 1e-9)
    bounds = interval(draws)
    n = len(np.unique(units.groups[possible > 0]))
    if estimate in (0, 1):  # resamplings are then all alike: Clopper & Pearson (1934, doi:10.1093/biomet/26.4.404)
        exact = binomtest(round(estimate * n), n).proportion_ci(0.95, method="exact")
        bounds = exact.low, exact.high
    ceiling = 1.0 if "accuracy" in measure else np.nan
    return row(measure, estimate, bounds, n, null, ceiling, **columns)


def _require_recall(recording: xr.Dataset) -> None:
    """Refuses a recording in which no lists are recalled; an item that no trial has needs no response."""
    items = items_of([str(name) for name in recording.data_vars])
    items = tuple(name for name in items if (recording[name].values >= 0).any())
    needed = [f"period_response_{name.removeprefix('item_')}" for name in items]
    missing = [name for name in needed if name not in recording]
    if not items or missing:
        rule = (
            "needs the items of a list (conditions item_0, item_1, ...) and their periods response_0, response_1, ..."
        )
        lacking = f"{', '.join(missing)} is not in the recording" if missing else "the recording has no items"
        raise InputError("behaviour", rule, remedy=f"Here {lacking}; leave the analysis out for such a task.")
    require(recording, ["outputs"], "behaviour")
