"""Abstraction: whether a variable is coded alike whatever the other items, its rank and the length of the list.

Sources: Bernardi et al. 2020 (doi:10.1016/j.cell.2020.09.031) for cross-condition generalisation and parallelism. All
codes are M_p of the additive model fitted to all variables together. Shapes: N trials, P variables, K values, H units.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
import xarray as xr
from matplotlib.figure import Figure
from pydantic import Field

from wmcore.analyses import abstraction_figures
from wmcore.analyses.abstraction_cell import Abstraction, across_cells
from wmcore.analyses.base import AnalysisResult, AnalysisSpec, check_state, first_state
from wmcore.analyses.cells import cells_of, check_cells, encoding_moments, timed, undetermined, without
from wmcore.analyses.moments import Moment, check_moment
from wmcore.analyses.rows import table_of, warned
from wmcore.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from wmcore.analyses.base import Conditions
    from wmcore.models.base import SequenceModel


class AbstractionSpec(AnalysisSpec):
    """Generalisation of codes across other items, ranks and lengths: CCGP, parallelism, transfer, additivity."""

    kind: Literal["abstraction"] = "abstraction"
    variables: tuple[str, ...] | None = None
    """Conditions whose codes are examined, e.g. location@0 and location@1; null: the items of the sequence."""
    within: tuple[str, ...] | None = None
    """Conditions (trial) whose combinations are analysed apart; null: the length of the sequence, if there is one."""
    state: str | None = None
    """The state to read; null: the first one recorded (the hidden state of an LSTM)."""
    moment: Moment = "delay.mid"
    """When the states are read: delay.mid, stimulus_0.end, or a step."""
    contexts: Annotated[int, Field(ge=2, le=500)] = 35
    """Most ways to halve the values of another variable into two contexts (8 values: all 35)."""
    splits: Annotated[int, Field(ge=10, le=1000)] = 20
    """Random halvings of the sequences, for transfer and additivity."""
    blocks: Annotated[int, Field(ge=5, le=100)] = 10
    """Blocks of sequences that are left out in turn for the 95 % interval of the parallelism."""
    draws: Annotated[int, Field(ge=50)] = 200
    """Random pairings of the values for the nulls of parallelism and transfer."""
    rotations: Annotated[int, Field(ge=5)] = 10
    """Nulls of the CCGP, in which the states of one context are turned at random."""
    bootstraps: Annotated[int, Field(ge=100)] = 500
    """Resamplings of the sequences for the 95 % intervals of accuracies and additivity.

    Decoders and codes are not refitted: the intervals hold the spread of the tested sequences, not that of the fits.
    """

    def check(self, conditions: Conditions, states: Sequence[str], steps: int | None, where: str) -> None:
        check_state(self.state, states, f"{where}.state")
        check_cells(self.variables, self.within, conditions, steps, where, least=2)
        check_moment(self.moment, steps, f"{where}.moment")

    def compute(
        self, recording: xr.Dataset, model: SequenceModel | None, generator: np.random.Generator
    ) -> AnalysisResult:
        """Measures of the table; ``n`` counts sequences (combinations of the variables' values):

        - ``ccgp`` (balanced accuracy): a decoder of ``variable`` trained where the values of ``other`` come from one
          half of all, tested where they come from the other half, over all such halvings. Ceiling: the same within a
          context (fewer training trials, so that it can lie below); null: the states of one context turned at random,
          single halvings.
        - ``parallelism`` (mean cosine): of the vectors M_p[i] - M_p[j] of those two contexts. Ceiling: of random
          halves of the sequences; null: values paired at random.
        - ``transfer_across_ranks`` (balanced accuracy): the code of ``variable`` finds the value of ``other``, in what
          is left of the state without all the rest; column phase: each when it was shown (encoding), or both at
          ``moment`` (memory). Ceiling: the other's own code. Null: values paired at random.
        - ``transfer_across_cells``: the code of another cell (a shorter list, column source) finds the value at the
          same rank, counted from the start or the end (column alignment).
        - ``additivity`` (held-out R^2): of the additive model. Ceiling: of the exact mean of each sequence (less than
          1 by the noise of single trials); what is missing between the two is conjunctive. Null: labels shuffled
          between sequences.

        A cell with so few sequences that some half of them does not determine the codes has no rows, and the CCGP
        leaves out contexts with too few to be decoded: rows warn of both.

        Raises:
            InputError: a variable, condition, state or moment is not in the recording, or no cell has enough sequences.
        """
        name = first_state(recording, self.state, "abstraction.state")
        states = recording[name].values
        states = states.reshape(*states.shape[:2], -1)
        rows: list[dict[str, Any]] = []
        found = []
        for whole in cells_of(recording, self.variables, self.within, "abstraction", least=2):
            shown = encoding_moments(recording, whole.variables)
            cell, steps = timed(recording, whole, [self.moment, *shown.values()], "abstraction.moment")
            if self.moment in steps:
                at = {moment: states[cell.rows, own].astype(np.float64) for moment, own in steps.items()}
                found.append(Abstraction.of(cell, at, self.moment, shown, self.splits, generator))
        if not found:
            raise InputError("abstraction.moment", "must be a moment that some trials reach", value=self.moment)
        kept = [one for one in found if one.halves.determined]
        left_out = [one.cell for one in found if not one.halves.determined]
        if not kept:
            raise undetermined(left_out, "abstraction.variables")
        for one in kept:
            own = one.generalisation(self.contexts, self.rotations, self.bootstraps, generator)
            own += one.parallel(self.contexts, self.blocks, self.draws, generator)
            own += one.across_ranks(self.draws, self.bootstraps, generator)
            own += one.additive(self.bootstraps, generator)
            rows += [one.cell.columns() | row for row in own]
        rows += across_cells(kept, self.draws, self.bootstraps, generator)
        return AnalysisResult(table_of(warned(rows, without(left_out))))

    def figures(self, result: AnalysisResult) -> dict[str, Figure]:
        """``contexts`` (CCGP and parallelism) and ``transfer`` (across ranks and lengths, additivity)."""
        return abstraction_figures.draw(result)
