"""Perturbation: whether the codes that an analysis finds are those that the network uses.

Before the responses, the value i of one variable is replaced by j along its code, h' = h + alpha (M_p[j] - M_p[i]),
and the network runs on from there with the inputs that it had. Codes are fitted to one half of the sequences and used
in the other. Shapes: N trials, P variables, K values, H units of all states that the network carries.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import numpy as np
import xarray as xr
from matplotlib.figure import Figure
from pydantic import Field

from wmcore.analyses import perturbation_figures
from wmcore.analyses.additive import Additive
from wmcore.analyses.angles import covariance_root
from wmcore.analyses.base import AnalysisResult, AnalysisSpec
from wmcore.analyses.cells import Cell, cells_of, check_cells, timed
from wmcore.analyses.moments import Moment, check_moment
from wmcore.analyses.perturbation_run import carried, run_on
from wmcore.analyses.resampling import bootstrap_weights, interval
from wmcore.analyses.rows import row, table_of
from wmcore.analyses.split_halves import SplitHalves
from wmcore.analyses.variables import ITEM
from wmcore.errors import InputError

if TYPE_CHECKING:
    from wmcore.analyses.base import Conditions
    from wmcore.models.base import SequenceModel

CONTROLS = ("isotropic", "covariance", "other_code")
"""Edits of equal norm: any direction; one in which the states vary; the same values along another variable's code."""


class PerturbationSpec(AnalysisSpec):
    """Replaces a value along its code and lets the network answer, beside edits of equal norm elsewhere."""

    needs_all_states: ClassVar[bool] = True
    kind: Literal["perturbation"] = "perturbation"
    variables: tuple[str, ...] | None = None
    """Conditions that are replaced, in the order of ``responses``; null: the items of the sequence."""
    within: tuple[str, ...] | None = None
    """Conditions (trial) whose combinations are analysed apart; null: the length of the sequence, if there is one."""
    moment: Moment = "delay.end"
    """When the state is edited: delay.end, or a step. Every state that the network carries must be recorded."""
    responses: tuple[Moment, ...] | None = None
    """When the answer about each variable is read; null: the end of response_<p> for item_<p>."""
    alphas: Annotated[tuple[Annotated[float, Field(ge=0, le=3)], ...], Field(min_length=1)] = (0.0, 0.5, 1.0, 1.5)
    """Sizes of the edit; 1 moves a state from one value's code to the other's."""
    trials: Annotated[int, Field(ge=20)] = 400
    """Most trials of a cell that are edited; they are drawn at random where there are more."""
    bootstraps: Annotated[int, Field(ge=100)] = 500
    """Resamplings of the sequences for the 95 % intervals."""

    def check(self, conditions: Conditions, states: Sequence[str], steps: int | None, where: str) -> None:
        check_cells(self.variables, self.within, conditions, steps, where, least=2)
        check_moment(self.moment, steps, f"{where}.moment")
        for i, moment in enumerate(self.responses or ()):
            check_moment(moment, steps, f"{where}.responses.{i}")
        self._check_responses(where)

    def compute(
        self, recording: xr.Dataset, model: SequenceModel | None, generator: np.random.Generator
    ) -> AnalysisResult:
        """Measures of the table, for each variable and alpha; ``n`` counts sequences:

        - ``replaced``: rate of answers j about the variable. Null: the same after an edit of equal norm in a direction
          in which the states vary; ceiling: right answers without an edit.
        - ``changed_elsewhere``: rate of changed answers about the other variables. Null as before; no ceiling.
        - ``specificity``: the first less the second.

        Columns ``control_*``: the same with each of the edits ``CONTROLS``. The value j is one that the trial does not
        hold, the same for all variables; where a trial holds every value, it is any but the variable's own. Answers are
        the largest of the outputs whose numbers are the variables' values.

        Raises:
            InputError: there is no model, a state that it carries was not recorded, a variable, condition or moment is
                not in the recording, or the variables have one value only.
        """
        self._check_responses("perturbation")
        cells = cells_of(recording, self.variables, self.within, "perturbation", least=2)
        if model is None:
            raise InputError("perturbation", "needs the network that was recorded", remedy="Give it to compute().")
        if missing := [name for name in model.initial_state(1) if f"state_{name}" not in recording]:
            rule = f"must name every state that the network carries, which {', '.join(missing)} is too"
            raise InputError("recording.states", rule, remedy=f"Add {missing[0]} to recording.states.")
        if len(cells[0].values) == 1:
            rule = f"must have a value to put in another's place, but all are {cells[0].values[0]}"
            raise InputError("perturbation.variables", rule, value=cells[0].variables)
        if recording.sizes["channel"] <= cells[0].values.max():
            rule = f"must be numbers of outputs, of which there are {recording.sizes['channel']}"
            raise InputError("perturbation.variables", rule, value=cells[0].variables)
        states, parts = carried(recording, model)
        rows: list[dict[str, Any]] = []
        for whole in cells:
            answers = self._responses(whole)
            cell, steps = timed(recording, whole, [self.moment, *answers], "perturbation.moment")
            if self.moment in steps and all(moment in steps for moment in answers):
                read = np.stack([steps[moment] for moment in answers], axis=1)
                now = steps[self.moment]
                if (read <= now[:, None]).any():
                    raise InputError("perturbation.moment", "must come before all responses", value=self.moment)
                own = self._cell(recording, model, cell, states, parts, now, read, generator)
                rows += [cell.columns() | one for one in own]
        if not rows:
            rule = "must be a moment that some trials reach, as must the responses"
            raise InputError("perturbation.moment", rule, value=self.moment)
        return AnalysisResult(table_of(rows))

    def figures(self, result: AnalysisResult) -> dict[str, Figure]:
        """``perturbation``: effects at the edited variable and elsewhere by alpha, beside the controls."""
        return {"perturbation": perturbation_figures.draw(result)}

    def _check_responses(self, where: str) -> None:
        variables = self.variables or ()
        if self.responses is None and not all(ITEM.fullmatch(name) for name in variables):
            rule = "must be given for variables that are no items of a sequence"
            raise InputError(f"{where}.responses", rule, value=None)
        if self.responses is not None and len(self.responses) != len(variables):
            rule = "must name one moment for each of the variables"
            raise InputError(f"{where}.responses", rule, value=self.responses, remedy="Give variables, and as many.")

    def _responses(self, cell: Cell) -> list[Moment]:
        if self.responses is not None and self.variables is not None:
            return [self.responses[self.variables.index(name)] for name in cell.variables]
        return [f"response_{name.removeprefix('item_')}.end" for name in cell.variables]

    def _cell(
        self,
        recording: xr.Dataset,
        model: SequenceModel,
        cell: Cell,
        states: np.ndarray,
        parts: dict[str, slice],
        now: np.ndarray,
        read: np.ndarray,
        generator: np.random.Generator,
    ) -> list[dict[str, Any]]:
        before = states[cell.rows, now].astype(np.float64)  # (N, H)
        codes = self._codes(cell, before, generator)
        chosen = np.sort(generator.permutation(len(before))[: self.trials])
        labels, codes, before = cell.labels[chosen], codes[:, chosen], before[chosen]
        size, count = labels.shape
        new = _replacements(labels, len(cell.values), generator)
        root = covariance_root(before)
        weights = bootstrap_weights(cell.groups[chosen], self.bootstraps, generator)
        trial = np.arange(size)

        def answers(edit: np.ndarray) -> np.ndarray:
            found = run_on(recording, model, before + edit, parts, cell.rows[chosen], now[chosen], read[chosen])
            return found[:, :, cell.values].argmax(axis=2)  # (N, P) numbers of values

        plain = answers(np.zeros_like(before))
        rows = []
        for p, name in enumerate(cell.variables):
            q = (p + 1 + generator.integers(0, count - 1)) % count
            steps = {"code": codes[p, trial, new[:, p]] - codes[p, trial, labels[:, p]]}
            steps["other_code"] = codes[q, trial, new[:, p]] - codes[q, trial, labels[:, p]]
            steps["isotropic"] = generator.normal(size=before.shape)
            steps["covariance"] = generator.normal(size=before.shape) @ root
            norm = np.linalg.norm(steps["code"], axis=1, keepdims=True)
            for kind in CONTROLS:
                length = np.linalg.norm(steps[kind], axis=1, keepdims=True)
                steps[kind] = steps[kind] * np.divide(norm, length, out=np.zeros_like(norm), where=length > 0)
            for alpha in self.alphas:
                effects = {}
                for kind, step in steps.items():
                    found = answers(alpha * step)
                    replaced = (found[:, p] == new[:, p]).astype(float)
                    elsewhere = np.delete(found != plain, p, axis=1).mean(axis=1)
                    effects[kind] = {
                        "replaced": replaced,
                        "changed_elsewhere": elsewhere,
                        "specificity": replaced - elsewhere,
                    }
                right = float((plain[:, p] == labels[:, p]).mean())
                for measure, own in effects["code"].items():
                    controls = {f"control_{kind}": float(effects[kind][measure].mean()) for kind in CONTROLS}
                    bounds = interval((weights @ own) / weights.sum(axis=1))
                    ceiling = np.nan if measure == "changed_elsewhere" else right
                    n = len(np.unique(cell.groups[chosen]))
                    null = controls["control_covariance"]
                    named: dict[str, Any] = {"variable": name, "alpha": alpha, **controls}
                    rows.append(row(measure, float(own.mean()), bounds, n, null, ceiling, **named))
        return rows

    def _codes(self, cell: Cell, states: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        """(P, N, K, H) the codes that each trial is edited with: those of the half of the sequences it is not in."""
        halves = SplitHalves.draw(cell.labels, len(cell.values), cell.groups, 1, 0, generator)
        first = halves.first[0, np.unique(cell.groups, return_inverse=True)[1].reshape(-1)]
        fitted = [Additive.fit(states[rows], cell.labels[rows], len(cell.values)).effects for rows in (~first, first)]
        return np.where(first[None, :, None, None], fitted[0][:, None], fitted[1][:, None])


def _replacements(labels: np.ndarray, values: int, generator: np.random.Generator) -> np.ndarray:
    """(N, P) what to put in the place of each of the (N, P) labels: for all variables of a trial a value that it does
    not hold; where it holds all of them, for each variable one that is not its own."""
    preference = generator.random((len(labels), 1, values))
    own = labels[:, :, None] == np.arange(values)
    held = own.any(axis=1, keepdims=True)
    return np.where(np.where(held.all(axis=2, keepdims=True), own, held), -1.0, preference).argmax(axis=2)
