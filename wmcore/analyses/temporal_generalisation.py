"""Temporal generalisation: what the state tells of each item from its encoding to its report, and in which code.

A decoder fitted at step t is tested at every step t' (King & Dehaene 2014, doi:10.1016/j.tics.2014.01.002).
Its diagonal is the decoding course; off the diagonal it is high where the code stays as it is, and at chance where the
code turns. Shapes: N trials, T steps, S of which are read, H units, P variables, K values.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
import xarray as xr
from matplotlib.figure import Figure
from pydantic import Field

from wmcore.analyses import temporal_generalisation_figures
from wmcore.analyses.base import (
    PER_STEP,
    PER_TRIAL,
    AnalysisResult,
    AnalysisSpec,
    check_condition,
    check_state,
    first_state,
    require,
)
from wmcore.analyses.cells import Cell, cells_of, check_cells
from wmcore.analyses.cross_temporal import Readouts, Scores, States, Trials, effects_of, fit
from wmcore.analyses.phases import Phases, check_timing, phases_of, to_arrays
from wmcore.analyses.rows import table_of
from wmcore.analyses.temporal_generalisation_table import Matrix, course_row, matrix_arrays, period_rows
from wmcore.analyses.variables import ITEM
from wmcore.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from wmcore.analyses.base import Conditions
    from wmcore.models.base import SequenceModel

_NAME = "temporal_generalisation"
_HISTORY, _IMAGE = "history", "image"
_LEAST_FOLDS = 2


class TemporalGeneralisationSpec(AnalysisSpec):
    """Decoding of each item of a sequence over time, and of decoders of one step at every other step."""

    kind: Literal["temporal_generalisation"] = "temporal_generalisation"
    variables: tuple[str, ...] | None = None
    """Conditions to decode, e.g. location@0 and location@1; null: the items of the sequence."""
    within: tuple[str, ...] | None = None
    """Conditions (trial) whose combinations are decoded apart; null: the length of the sequence, if there is one."""
    state: str | None = None
    """The state to read; null: the first one recorded (the hidden state of an LSTM)."""
    group: str | None = None
    """Condition whose equal values stay in one fold. With a value at every step (the history up to it), the course
    groups trials by the step's own, and the matrix by the last one, the whole sequence. Null: history, if there is one,
    or else the images shown up to the step (condition image), or else each trial is a group."""
    every: Annotated[int, Field(ge=1, le=100)] = 2
    """Steps from one that is read to the next; the last step of every period is always read."""
    transfers: tuple[tuple[str, str], ...] | None = None
    """Pairs of periods, to fit decoders in and to test them in, of which the mean accuracy is reported; a * stands for
    the rank of the item. A pair of the same period gives the stability index. Null: stimulus_* to delay, delay to
    delay, and delay to response_*, as far as there are such periods."""
    folds: Annotated[int, Field(ge=2, le=20)] = 5
    """Folds of the cross-validation."""
    permutations: Annotated[int, Field(ge=20)] = 200
    """Shuffled labellings of the null: held-out labels go to other groups of the fold, decoders stay."""
    bootstraps: Annotated[int, Field(ge=100)] = 500
    """Resamplings of the groups for the 95 % interval; held-out decisions are resampled, decoders are not refitted."""
    penalties: Annotated[tuple[Annotated[float, Field(gt=0)], ...], Field(min_length=1)] = (0.001, 0.01, 0.1, 1.0, 10.0)
    """Ridge penalties per training trial, of which each training fold picks one."""

    def check(self, conditions: Conditions, states: Sequence[str], steps: int | None, where: str) -> None:
        check_state(self.state, states, f"{where}.state")
        check_cells(self.variables, self.within, conditions, steps, where)
        if self.group is not None:
            check_condition(self.group, conditions, f"{where}.group", (PER_TRIAL, PER_STEP))

    def check_timing(self, timing: Sequence[str], where: str) -> None:
        check_timing(self.within, timing, f"{where}.within")

    def compute(
        self, recording: xr.Dataset, model: SequenceModel | None, generator: np.random.Generator
    ) -> AnalysisResult:
        """Measures of the table, all balanced over classes, on held-out groups of trials.

        The null shuffles held-out labels between groups of a fold and leaves the decisions: where groups are few and
        folds thus uneven, it lies above chance, as guesses then do.

        - ``balanced_accuracy`` of each variable by step: the decoder of the step. Folds are groups that share their
          history up to the step, so that a network without noise is not tested on copies of its training states; a step
          at which each value has one history only (the first item while it is shown) has no row.
          ``information`` is all, or direct: decoded after what the other variables add to the state was removed, as
          estimated on the training trials. ``chance`` is 1 / K; ``indirect_chance`` is what knowledge of the other
          variables alone allows: the mean over trials of 1 / (values that occur together with those others), which is
          1 / (K - L + 1) without replacement. Where trials hold every list equally often, a list that is held out is
          just what the training lists lack, and a variable that the state does not hold falls below it, even below
          chance, unless it is decoded directly.
        - ``position_accuracy`` by step: at which position a given value stands (or at none), mean over the values.
        - ``transfer``: mean of the matrix over decoders of one period (``trained_in``) and tests in another.
          ``mean`` is kept, or removed: each step's mean state is subtracted before.
        - ``stability``: (mean off the diagonal - chance) / (mean of the diagonal - chance) inside a period; 1 a code
          that stays, 0 one that generalises to no other step. Its null has held-out labels shuffled off the diagonal;
          no row where the diagonal is not above its null.

        Arrays: ``matrix`` (M, S, S) by step of the decoder and of the test, with ``matrix_null``, ``matrix_p``,
        ``matrix_ci_low``, ``matrix_ci_high``, and which cell, variable, information and mean each is of; ``steps``
        (cells, S), -1 behind the last; the phases.

        Raises:
            InputError: a variable, condition or state is not in the recording, or trials of a cell differ in periods.
        """
        states = recording[first_state(recording, self.state, f"{_NAME}.state")].values
        states = states.reshape(*states.shape[:2], -1)
        groups = self._groups(recording)
        rows: list[dict[str, Any]] = []
        matrices: list[Matrix] = []
        timings, chosen = [], []
        for number, cell in enumerate(cells_of(recording, self.variables, self.within, _NAME)):
            phases = phases_of(recording, cell.rows, f"{_NAME}.within")
            steps = _steps(phases, self.every)
            reader = _Reader(self, number, cell, phases, steps, states[cell.rows][:, steps], generator)
            rows += reader.decode(groups[cell.rows], matrices)
            timings.append(phases)
            chosen.append(steps)
        if not rows:
            rule = f"must name conditions of which each value occurs in several groups ({self.group or 'of trials'})"
            raise InputError(f"{_NAME}.variables", rule, value=self.variables)
        table = table_of(rows, ("step", "n_groups", "n_classes"))
        return AnalysisResult(table, matrix_arrays(matrices, chosen) | to_arrays(timings))

    def figures(self, result: AnalysisResult) -> dict[str, Figure]:
        """``course`` (accuracy by step) and ``matrix_<cell>`` (a map of each variable)."""
        return temporal_generalisation_figures.draw(result)

    def _groups(self, recording: xr.Dataset) -> np.ndarray:
        """(N, T) group of each trial at each step."""
        size, steps = recording.sizes["trial"], recording.sizes["time"]
        name = self.group
        if name is None:
            held = [own for own in (_HISTORY, _IMAGE) if own in recording and recording[own].dims == PER_STEP]
            if held[:1] == [_IMAGE]:
                return prefixes(recording[_IMAGE].values)
            name = held[0] if held else "trial"
        else:
            require(recording, [name], f"{_NAME}.group", [PER_TRIAL, PER_STEP])
        values = recording[name].values
        if not (np.issubdtype(values.dtype, np.integer) or values.dtype == bool):
            raise InputError(f"{_NAME}.group", "must be a condition of whole numbers", value=name)
        return np.broadcast_to(values.reshape(size, -1), (size, steps)).astype(np.int64)

    def periods_of(self, variable: str, phases: Phases) -> list[tuple[str, str]]:
        """The pairs of periods of a variable that the trials have.

        Raises:
            InputError: one that was asked for is not there.
        """
        pairs = self.transfers
        if pairs is None:
            pairs = (("stimulus_*", "delay"), ("delay", "delay"), ("delay", "response_*"))
        rank = variable.removeprefix("item_") if ITEM.fullmatch(variable) else "*"
        named = [(first.replace("*", rank), second.replace("*", rank)) for first, second in pairs]
        missing = sorted({name for pair in named for name in pair} - set(phases.spans))
        if self.transfers is not None and missing:
            rule = f"must name periods of the trials, which are {', '.join(phases.spans) or 'none'}"
            raise InputError(f"{_NAME}.transfers", rule, value=missing[0])
        return [pair for pair in named if set(pair) <= set(phases.spans)]


def indirect_chance(labels: np.ndarray, p: int) -> float:
    """Accuracy of a guess of variable p by one who knows the others: mean over trials of 1 / (possible values).

    A value is possible if it occurs together with the value of each of the others, in whichever trials; pairs are met
    in far fewer trials than whole combinations are. Labels are (N, P).
    """
    classes = int(labels.max()) + 1
    present = np.bincount(labels[:, p], minlength=classes) > 0
    possible = np.broadcast_to(present, (len(labels), classes)).copy()
    for q in range(labels.shape[1]):
        if q != p:
            together = np.zeros((classes, classes), dtype=bool)
            together[labels[:, q], labels[:, p]] = True
            possible &= together[labels[:, q]]
    return float((1 / possible.sum(axis=1)).mean())


def prefixes(shown: np.ndarray) -> np.ndarray:
    """(N, T) number of what each trial has shown up to each step, by (N, T) what it shows there."""
    found = np.zeros(shown.shape, dtype=np.int64)
    before = np.zeros(len(shown), dtype=np.int64)
    for t, now in enumerate(shown.T):
        before = np.unique(np.stack([before, now], axis=1), axis=0, return_inverse=True)[1].reshape(-1)
        found[:, t] = before
    return found


def positions(labels: np.ndarray, value: int) -> np.ndarray:
    """(N,) at which of the P variables a value stands, P where at none, -1 where at several."""
    there = labels == value
    count = there.sum(axis=1)
    return np.where(count == 1, there.argmax(axis=1), np.where(count == 0, labels.shape[1], -1))


@dataclass(frozen=True)
class _Reader:
    """Decodes one cell."""

    spec: TemporalGeneralisationSpec
    number: int
    cell: Cell
    phases: Phases
    steps: np.ndarray  # (S,)
    states: np.ndarray  # (N, S, H)
    generator: np.random.Generator

    def decode(self, groups: np.ndarray, matrices: list[Matrix]) -> list[dict[str, Any]]:
        """The rows of the cell, by (N, T) groups; its matrices are added to ``matrices``."""
        whole = groups[:, self.phases.steps - 1]
        by_partition: dict[bytes, list[int]] = {}
        for s, step in enumerate(self.steps):
            same = _same_partition(groups[:, step], whole)
            own = whole if same else np.unique(groups[:, step], return_inverse=True)[1].reshape(-1)
            by_partition.setdefault(own.tobytes(), []).append(s)
        rows = []
        for own in by_partition.values():
            ids = groups[:, self.steps[own[0]]]
            if not _same_partition(ids, whole):
                rows += self._block(ids, np.array(own), np.array(own), None)
        own = np.array(by_partition.get(whole.tobytes(), []), dtype=int)
        return rows + self._block(whole, np.arange(len(self.steps)), own, matrices)

    def _block(
        self, groups: np.ndarray, fitted: np.ndarray, course: np.ndarray, matrices: list[Matrix] | None
    ) -> list[dict[str, Any]]:
        """Rows of the steps ``course`` under one grouping, and with ``matrices`` those of the whole matrix."""
        spec = self.spec
        trials = Trials.of(groups, spec.folds, spec.permutations, spec.bootstraps, self.generator)
        if len(np.unique(trials.fold)) < _LEAST_FOLDS:
            return []
        labels = self.cell.labels[trials.order]
        states = np.ascontiguousarray(self.states[trials.order][:, fitted])
        variables, values = labels.shape[1], len(self.cell.values)
        places = [positions(labels, k) for k in range(values)] if variables > 1 else []
        shown = [*labels.T, *places]
        classes = [values] * variables + [variables + 1] * len(places)
        plain = States(states, trials)
        found = fit(plain, shown, classes, len(fitted), trials, spec.penalties)
        at = np.searchsorted(fitted, course)
        rows = []
        for p in range(variables):
            rows += self._variable(p, "all", plain, found[p], trials, labels, fitted, at, matrices, "")
        if places:
            rows += self._positions(found[variables:], places, states, trials, fitted, at)
            effects, determined = effects_of(states, labels, values, trials)
            warning = "" if determined else "the trials do not determine what each variable adds"
            for p in range(variables):
                alone = States(states, trials, labels, p, effects)
                (own,) = fit(alone, [labels[:, p]], [values], len(fitted), trials, spec.penalties)
                rows += self._variable(p, "direct", alone, own, trials, labels, fitted, at, matrices, warning)
        return rows

    def _variable(
        self,
        p: int,
        information: str,
        states: States,
        readouts: Readouts,
        trials: Trials,
        labels: np.ndarray,
        fitted: np.ndarray,
        at: np.ndarray,
        matrices: list[Matrix] | None,
        warning: str,
    ) -> list[dict[str, Any]]:
        """Rows of one variable: its course at the positions ``at`` of the fitted steps, and those of its matrices."""
        name = self.cell.variables[p]
        first = self._onset(name)
        held_out = states.held_out()
        columns = self.cell.columns() | {
            "variable": name,
            "information": information,
            "indirect_chance": indirect_chance(labels, p),
        }
        at = at[self.steps[fitted[at]] >= first]
        rows = []
        if at.size:
            decided = readouts.same_time(held_out)[at]
            scores = Scores.of(decided, labels[:, p], readouts.absent, trials)
            rows += [
                course_row(
                    "balanced_accuracy",
                    scores,
                    i,
                    trials,
                    len(labels),
                    warning,
                    self.spec.folds,
                    columns | {"step": int(self.steps[fitted[s]])},
                )
                for i, s in enumerate(at)
                if scores.n
            ]
        if matrices is None:
            return rows
        later = np.flatnonzero(self.steps >= first)
        for mean, decided in zip(
            ("kept", "removed"), readouts.part(later).across_time(held_out[:, later]), strict=True
        ):
            scores = Scores.of(decided, labels[:, p], readouts.absent, trials)
            if scores.n:
                matrix = Matrix.of(self.number, name, information, mean, later, scores)
                matrices.append(matrix)
                pairs = self.spec.periods_of(name, self.phases)
                rows += period_rows(
                    scores, self.steps[later], self.phases, pairs, trials, columns | {"mean": mean}, warning
                )
        return rows

    def _positions(
        self,
        found: Sequence[Readouts],
        places: Sequence[np.ndarray],
        states: np.ndarray,
        trials: Trials,
        fitted: np.ndarray,
        at: np.ndarray,
    ) -> list[dict[str, Any]]:
        """Rows of the position of a value, mean over the values."""
        scored = [
            Scores.of(own.same_time(states)[at], place, own.absent, trials)
            for own, place in zip(found, places, strict=True)
        ]
        scored = [scores for scores in scored if scores.n and scores.classes > 1]
        if not scored:
            return []
        scores = Scores.mean(scored)
        return [
            course_row(
                "position_accuracy",
                scores,
                i,
                trials,
                len(states),
                "",
                self.spec.folds,
                self.cell.columns() | {"information": "all", "step": int(self.steps[fitted[s]])},
            )
            for i, s in enumerate(at)
        ]

    def _onset(self, name: str) -> int:
        """The first step at which a variable is shown; 0 where that is not known."""
        if ITEM.fullmatch(name):
            return self.phases.spans.get(f"stimulus_{name.removeprefix('item_')}", (0, 0))[0]
        return int(name.partition("@")[2] or 0)


def _steps(phases: Phases, every: int) -> np.ndarray:
    """The steps that are read: every so many, and the last one of every period."""
    last = {stop - 1 for _, stop in phases.spans.values()} | {phases.steps - 1}
    return np.array(sorted(set(range(0, phases.steps, every)) | last))


def _same_partition(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether two groupings of the same trials are the same, whatever the ids."""
    pairs = len(np.unique(np.stack([one, other]), axis=1).T)
    return pairs == len(np.unique(one)) == len(np.unique(other))
