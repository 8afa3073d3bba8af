"""Subspaces: whether the items of a sequence are held in separate, shared or turned subspaces of the state.

The code of a variable (the item at a rank) is M_p of the additive model fitted to all variables together; two codes
are compared by the share V of one's variance in the other's subspace, and by principal angles, both cross-validated
between halves of the sequences and set beside what chance and the same code in the other half give.
Sources: Xie et al. 2022 (doi:10.1126/science.abm0204); Björck & Golub 1973 (doi:10.1090/S0025-5718-1973-0348991-3);
Elsayed et al. 2016 (doi:10.1038/ncomms13239); Libby & Buschman 2021 (doi:10.1038/s41593-021-00821-9).
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
import xarray as xr
from matplotlib.figure import Figure
from pydantic import Field

from wmcore.analyses import subspaces_figures
from wmcore.analyses.angles import basis, covariance_root, span
from wmcore.analyses.base import AnalysisResult, AnalysisSpec, check_state, first_state
from wmcore.analyses.cells import Cell, cells_of, check_cells, encoding_moments, timed, undetermined, without
from wmcore.analyses.moments import Moment, check_moment
from wmcore.analyses.readout import readout_basis
from wmcore.analyses.resampling import group_permutations
from wmcore.analyses.rows import table_of, warned
from wmcore.analyses.split_halves import SplitHalves
from wmcore.analyses.subspaces_measures import Codes, gain_rows, overlap_rows, shape_rows, share_rows
from wmcore.errors import InputError
from wmcore.recording import periods

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from wmcore.analyses.base import Conditions
    from wmcore.models.base import SequenceModel

_SILENT = 1e-10  # share of the state's variance below which a code is rounding


class SubspacesSpec(AnalysisSpec):
    """Overlap and principal angles of the subspaces that hold each item of a sequence, with nulls and ceilings."""

    kind: Literal["subspaces"] = "subspaces"
    variables: tuple[str, ...] | None = None
    """Conditions whose codes are compared, e.g. location@0 and location@1; null: the items of the sequence."""
    within: tuple[str, ...] | None = None
    """Conditions (trial) whose combinations are analysed apart; null: the length of the sequence, if there is one."""
    state: str | None = None
    """The state to read; null: the first one recorded (the hidden state of an LSTM)."""
    moments: Annotated[tuple[Moment, ...], Field(min_length=1)] = ("delay.mid",)
    """Moments at which all pairs of variables are compared: delay.mid, stimulus_0.end, or a step."""
    course: tuple[Moment, ...] | None = None
    """Moments, in order, at which each code is compared with itself when it was shown, and with the readout; null: the
    end of each stimulus, the delay's start, middle and end, and the start and end of each response, if there are any.
    """
    splits: Annotated[int, Field(ge=20, le=1000)] = 20
    """Random halvings of the sequences that every estimate is averaged over."""
    blocks: Annotated[int, Field(ge=5, le=100)] = 10
    """Blocks of sequences that are left out in turn for the 95 % interval."""
    draws: Annotated[int, Field(ge=50)] = 200
    """Random subspaces of each null, and random pairings of the values for the null of the shape."""
    shuffles: Annotated[int, Field(ge=10)] = 20
    """Nulls in which labels are shuffled between sequences before the fit."""

    def check(self, conditions: Conditions, states: Sequence[str], steps: int | None, where: str) -> None:
        check_state(self.state, states, f"{where}.state")
        check_cells(self.variables, self.within, conditions, steps, where, least=2)
        for name, moments in (("moments", self.moments), ("course", self.course or ())):
            for i, moment in enumerate(moments):
                check_moment(moment, steps, f"{where}.{name}.{i}")

    def compute(
        self, recording: xr.Dataset, model: SequenceModel | None, generator: np.random.Generator
    ) -> AnalysisResult:
        """Measures of the table; ``n`` counts sequences (combinations of the variables' values).

        Of two variables at one of ``moments``, for d = K - 1 (column subspace: full) and for the smallest d that holds
        90 % of the reliable variance of every code (reliable):

        - ``variance_ratio`` V_{p->q} (share, variable p, other q): of the variance of M_p in one half, that in the
          subspace of M_q in the other half. The rows p = q are the ceiling. Nulls: random subspaces inside the state's
          covariance (null, null_low, null_high), random subspaces (null_random = d / H), labels shuffled between
          sequences before the fit (null_shuffled).
        - ``normalised_overlap`` (V_pq - null) / (V_pp - null): 1 the same subspace, 0 as by chance, below 0 more
          orthogonal than that; for each of the three nulls (column reference: covariance, random, shuffled). Column
          relation: its interval lies above the 95 % range of the null (shared), below it (more_orthogonal), or neither
          (as_by_chance). No row where the interval of V_pp does not lie above the null, because the code is then too
          noisy to call it orthogonal to anything. The codes themselves make up the state's covariance, and with it
          what shuffled labels find: with few variables, subspaces drawn there overlap with every code (V = .5 for two
          codes and no other variance), so that against these two nulls orthogonal codes lie far below 0 and only
          strongly shared ones above it. The null ``random`` does not contain the codes.
        - ``overlap`` (mean cos^2), ``mean_angle`` and ``least_angle`` (radians): 90 degrees are not the yardstick, the
          null and the ceiling (the same variables in the other half) are.
        - ``gain`` (ratio of norms, to the first variable; null 1) and ``shape_correlation`` (of the distances among
          values, over their reliability; null: values paired at random).

        Of one variable at each moment of ``course``, with d = K - 1:

        - ``share_of_encoding``: the share of its code when it was shown that lies in its subspace now; ceiling: that
          of its code now.
        - ``share_in_readout``: the share of its code now that lies in the row space of W_out; only with a model that
          reads this state linearly.

        A variable that is not shown yet at a moment has no rows there. Nor has a cell with so few sequences that some
        half of them does not determine the codes: the rows of the others warn of it.

        Raises:
            InputError: a variable, condition, state or moment is not in the recording, or no cell has enough sequences.
        """
        name = first_state(recording, self.state, "subspaces.state")
        states = recording[name].values
        states = states.reshape(*states.shape[:2], -1)
        readout = readout_basis(model, name, states.shape[2])
        course = self._course(recording)
        rows: list[dict[str, Any]] = []
        left_out: list[Cell] = []
        for whole in cells_of(recording, self.variables, self.within, "subspaces", least=2):
            shown = encoding_moments(recording, whole.variables)
            asked = (*self.moments, *course, *shown.values())
            cell, steps = timed(recording, whole, asked, "subspaces.moments")
            reader = _Reader(self, cell, states, shown, steps, generator)
            if not reader.halves.determined:
                left_out.append(cell)
                continue
            for moment in self.moments:
                codes = reader.codes(moment, _leading)
                if codes is not None and len(codes.variables) > 1:
                    shuffled = reader.shuffled_effects(moment, codes.variables)
                    found = overlap_rows(codes, shuffled, self.draws, generator)
                    found += gain_rows(codes) + shape_rows(codes, self.draws, generator)
                    rows += [cell.columns() | {"moment": str(moment)} | one for one in found]
            for moment in course:
                found = reader.course(moment, readout)
                rows += [cell.columns() | {"moment": str(moment)} | one for one in found]
        if not rows and left_out:
            raise undetermined(left_out, "subspaces.variables")
        if not any(one["measure"] == "variance_ratio" for one in rows):
            rule = "must name a moment at which some trials have been shown two of the variables"
            raise InputError("subspaces.moments", rule, value=self.moments)
        table = table_of(warned(rows, without(left_out)), ("dimensions", "distance"))
        return AnalysisResult(table, {"course": np.array([str(moment) for moment in course], dtype=np.str_)})

    def figures(self, result: AnalysisResult) -> dict[str, Figure]:
        """``maps_<moment>`` (V and angle of all pairs), ``distance`` (angle by rank distance), ``course``."""
        return subspaces_figures.draw(result)

    def _course(self, recording: xr.Dataset) -> tuple[Moment, ...]:
        if self.course is not None:
            return self.course
        held = periods(recording)

        def numbered(prefix: str) -> list[str]:
            own = [name for name in held if name.startswith(prefix) and name.removeprefix(prefix).isdigit()]
            return sorted(own, key=lambda name: int(name.removeprefix(prefix)))

        moments = [f"{name}.end" for name in numbered("stimulus_")]
        moments += [f"delay.{point}" for point in ("start", "mid", "end") if "delay" in held]
        return (*moments, *(f"{name}.{point}" for name in numbered("response_") for point in ("start", "end")))


def _leading(effects: np.ndarray) -> np.ndarray:
    """(..., K - 1, H) singular vectors of (..., K, H) effects, the strongest first."""
    return basis(effects, effects.shape[-2] - 1)


class _Reader:
    """The codes of one cell at any moment, from the same halves of its sequences."""

    def __init__(
        self,
        spec: SubspacesSpec,
        cell: Cell,
        states: np.ndarray,
        shown: dict[str, Moment],
        steps: dict[Moment, np.ndarray],
        generator: np.random.Generator,
    ) -> None:
        self.spec, self.cell, self.states, self.shown, self.steps = spec, cell, states, shown, steps
        self.generator = generator
        values = len(cell.values)
        self.n = len(np.unique(cell.groups))
        self.halves = SplitHalves.draw(cell.labels, values, cell.groups, spec.splits, spec.blocks, generator)
        orders = group_permutations(cell.groups, spec.shuffles, generator)
        self.shuffled = [
            SplitHalves.draw(cell.labels[order], values, cell.groups, 1, 0, generator) for order in orders.T
        ]
        self._encoding: dict[str, np.ndarray] = {}

    def codes(self, moment: Moment, bases: Callable[[np.ndarray], np.ndarray]) -> Codes | None:
        """Of the variables shown by then; None where there is none, or no trial reaches the moment.

        Args:
            bases: of effects: ``_leading`` or, where the order of their rows is of no matter, ``span``.
        """
        if moment not in self.steps:
            return None
        now = self.steps[moment]
        states = self.states[self.cell.rows, now].astype(np.float64)
        effects = self.halves.effects(states)
        power = (effects[0] ** 2).sum(axis=(-1, -2)).mean(axis=(0, 1)) / len(self.cell.values)
        heard = power > _SILENT * states.var(axis=0).sum()
        for p, name in enumerate(self.cell.variables):
            begun = self.steps.get(self.shown[name]) if name in self.shown else None
            heard[p] &= begun is None or bool((begun <= now).all())
        if not heard.any():
            return None
        kept = np.flatnonzero(heard)
        effects = effects[..., kept, :, :]
        names = tuple(self.cell.variables[p] for p in kept)
        return Codes(names, effects, bases(effects), covariance_root(states), self.n)

    def shuffled_effects(self, moment: Moment, variables: Sequence[str]) -> np.ndarray:
        """(D, 2, P, K, H) codes of some variables in halves whose labels were shuffled between the sequences."""
        states = self.states[self.cell.rows, self.steps[moment]].astype(np.float64)
        kept = [self.cell.variables.index(name) for name in variables]
        return np.stack([one.effects(states)[0, 0] for one in self.shuffled])[..., kept, :, :]

    def course(self, moment: Moment, readout: np.ndarray | None) -> list[dict[str, Any]]:
        """Rows of every code at a moment against itself when shown, and against the readout."""
        codes = self.codes(moment, span)
        if codes is None:
            return []
        rows = []
        place = [p for p, name in enumerate(codes.variables) if name in self.shown]
        if place:
            first = tuple(codes.variables[p] for p in place)
            encoded = np.stack([self._encoded(name) for name in first], axis=3)
            then = replace(codes, variables=first, effects=encoded, bases=codes.bases[..., place, :, :])
            ceiling = codes.own_share()[0, place]
            rows += share_rows("share_of_encoding", then, then.bases, ceiling, self.spec.draws, self.generator)
        if readout is not None:
            rows += share_rows(
                "share_in_readout", codes, readout, codes.own_share()[0], self.spec.draws, self.generator
            )
        return rows

    def _encoded(self, name: str) -> np.ndarray:
        """(R, S, 2, K, H) the code of a variable when it was shown."""
        if name not in self._encoding:
            states = self.states[self.cell.rows, self.steps[self.shown[name]]].astype(np.float64)
            self._encoding[name] = self.halves.effects(states)[..., self.cell.variables.index(name), :, :]
        return self._encoding[name]
