"""State speed: how far the state moves from one step to the next, by step and by period.

v_t = |h_{t+1} - h_t|, the mean over trials. A state that is held by a fixed point is slow (Sussillo & Barak 2013,
doi:10.1162/NECO_a_00409). Shapes: N trials, T steps, H units, D shuffles, B resamplings.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
import xarray as xr
from matplotlib.figure import Figure
from pydantic import Field

from wmcore.analyses import speed_figures
from wmcore.analyses.base import (
    PER_TRIAL,
    AnalysisResult,
    AnalysisSpec,
    check_condition,
    check_state,
    first_state,
    require,
)
from wmcore.analyses.cells import CELL, trials_within
from wmcore.analyses.phases import check_timing, phases_of, to_arrays
from wmcore.analyses.resampling import bootstrap_weights, interval
from wmcore.analyses.rows import row, table_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from wmcore.analyses.base import Conditions
    from wmcore.analyses.phases import Phases
    from wmcore.models.base import SequenceModel


class SpeedSpec(AnalysisSpec):
    """Speed of the state by step and by period, against the same states in shuffled order."""

    kind: Literal["speed"] = "speed"
    within: tuple[str, ...] | None = None
    """Conditions (trial) whose combinations are averaged apart; null: the length of the sequence, if there is one."""
    state: str | None = None
    """The state to read; null: the first one recorded (the hidden state of an LSTM)."""
    group: str | None = None
    """Condition (trial) whose equal values are resampled together, e.g. sequence; null: each trial on its own."""
    shuffles: Annotated[int, Field(ge=20)] = 200
    """Nulls: the steps of every trial in a random order."""
    bootstraps: Annotated[int, Field(ge=100)] = 500
    """Resamplings of the groups for the 95 % interval."""

    def check(self, conditions: Conditions, states: Sequence[str], steps: int | None, where: str) -> None:
        check_state(self.state, states, f"{where}.state")
        for i, name in enumerate(self.within or ()):
            check_condition(name, conditions, f"{where}.within.{i}", (PER_TRIAL,))
        if self.group is not None:
            check_condition(self.group, conditions, f"{where}.group", (PER_TRIAL,))

    def check_timing(self, timing: Sequence[str], where: str) -> None:
        check_timing(self.within, timing, f"{where}.within")

    def compute(
        self, recording: xr.Dataset, model: SequenceModel | None, generator: np.random.Generator
    ) -> AnalysisResult:
        """Measures of the table, in the unit of the state, per step.

        - ``speed`` by ``step``: from step t to t + 1.
        - ``period_speed`` by ``period``: the mean over the moves between steps of the period.

        The null puts the steps of every trial in a random order: a state that drifts is slower than that, one that
        jumps about is not.

        Raises:
            InputError: a condition or state is not in the recording, or trials of a cell differ in periods.
        """
        states = recording[first_state(recording, self.state, "speed.state")].values
        states = states.reshape(*states.shape[:2], -1)
        if self.group is not None:
            require(recording, [self.group], "speed.group", [PER_TRIAL])
        groups = recording[self.group or "trial"].values
        rows: list[dict[str, Any]] = []
        timings = []
        for name, members in trials_within(recording, self.within, "speed.within"):
            phases = phases_of(recording, members, "speed.within")
            timings.append(phases)
            if phases.steps > 1:
                own = states[members, : phases.steps]
                columns = {CELL + key: value for key, value in name.items()}
                rows += [columns | one for one in self._rows(own, groups[members], phases, generator)]
        return AnalysisResult(table_of(rows, ("step",)), to_arrays(timings))

    def figures(self, result: AnalysisResult) -> dict[str, Figure]:
        """``speed``: by step, a panel for each cell."""
        return {"speed": speed_figures.draw(result)}

    def _rows(
        self, states: np.ndarray, groups: np.ndarray, phases: Phases, generator: np.random.Generator
    ) -> list[dict[str, Any]]:
        distances = _distances(states)
        size, steps = states.shape[:2]
        trial, step = np.arange(size)[:, None], np.arange(steps - 1)
        moved = distances[trial, step, step + 1]
        weights = bootstrap_weights(groups, self.bootstraps, generator)
        draws = weights @ moved / weights.sum(axis=1, keepdims=True)
        null = np.empty((self.shuffles, steps - 1))
        for shuffle in null:
            order = generator.permuted(np.tile(np.arange(steps), (size, 1)), axis=1)
            shuffle[:] = distances[trial, order[:, :-1], order[:, 1:]].mean(axis=0)
        found = [
            row("speed", moved[:, t].mean(), interval(draws[:, t]), size, null[:, t], step=t, period="")
            for t in range(steps - 1)
        ]
        for period, (start, stop) in phases.spans.items():
            if stop - start > 1:
                own = slice(start, stop - 1)
                bounds = interval(draws[:, own].mean(axis=1))
                shuffled = null[:, own].mean(axis=1)
                found.append(row("period_speed", moved[:, own].mean(), bounds, size, shuffled, period=period))
        return found


def _distances(states: np.ndarray) -> np.ndarray:
    """(N, T, T) Euclidean distances between the states of each trial, float32."""
    centred = states.astype(np.float64) - states.mean(axis=1, keepdims=True)
    inner = centred @ centred.transpose(0, 2, 1)
    square = np.einsum("ntt->nt", inner)
    return np.sqrt(np.maximum(square[:, :, None] + square[:, None] - 2 * inner, 0)).astype(np.float32)
