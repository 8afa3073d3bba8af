"""Geometry: how many dimensions the states of sequences fill, and what makes two sequences near or far.

Sources: Gao et al. 2017 (doi:10.1101/214262) for the participation ratio; Kriegeskorte, Mur & Bandettini 2008
(doi:10.3389/neuro.06.004.2008) for dissimilarities. Shapes: N trials, P ranks, M sequences, H units.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
import xarray as xr
from matplotlib.figure import Figure
from pydantic import Field

from wmcore.analyses import geometry_figures
from wmcore.analyses.base import AnalysisResult, AnalysisSpec, check_state, first_state
from wmcore.analyses.cells import Cell, cells_of, check_cells, timed
from wmcore.analyses.moments import Moment, check_moment
from wmcore.analyses.rdm_regression import (
    MEASURES,
    informative,
    model_distances,
    regress,
    reliability,
    sequence_distances,
)
from wmcore.analyses.resampling import jackknife_interval
from wmcore.analyses.rows import row, table_of
from wmcore.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from wmcore.analyses.base import Conditions
    from wmcore.models.base import SequenceModel

_EXACT = 1e-10  # share of the variance within sequences below which their states hold no noise
_SUBSETS = 20  # draws of equally many trials, over which the participation ratio is averaged


class GeometrySpec(AnalysisSpec):
    """Participation ratio of the states, and distances between sequences by shared items and positions."""

    kind: Literal["geometry"] = "geometry"
    variables: tuple[str, ...] | None = None
    """Conditions that make a sequence, e.g. location@0 and location@1; null: its items."""
    within: tuple[str, ...] | None = None
    """Conditions (trial) whose combinations are analysed apart; null: the length of the sequence, if there is one."""
    state: str | None = None
    """The state to read; null: the first one recorded (the hidden state of an LSTM)."""
    moment: Moment = "delay.mid"
    """When the states are read: delay.mid, stimulus_0.end, or a step."""
    sequences: Annotated[int, Field(ge=10, le=400)] = 120
    """Most sequences between which distances are taken; they are drawn at random where there are more."""
    blocks: Annotated[int, Field(ge=5, le=100)] = 10
    """Blocks of sequences that are left out in turn for the 95 % intervals."""
    shuffles: Annotated[int, Field(ge=20)] = 100
    """Nulls: sequences shuffled against the models, and (a fifth as many) units shuffled over trials."""

    def check(self, conditions: Conditions, states: Sequence[str], steps: int | None, where: str) -> None:
        check_state(self.state, states, f"{where}.state")
        check_cells(self.variables, self.within, conditions, steps, where, least=2)
        check_moment(self.moment, steps, f"{where}.moment")

    def compute(
        self, recording: xr.Dataset, model: SequenceModel | None, generator: np.random.Generator
    ) -> AnalysisResult:
        """Measures of the table, each cell apart:

        - ``participation_ratio`` (dimensions): (sum of the covariance's eigenvalues)^2 / sum of their squares, of
          equally many trials of every cell. Null: every unit shuffled over trials; ceiling: what so many trials and
          units allow; ``n`` trials.
        - ``partial_correlation_item``, ``partial_correlation_position``: Spearman's, of the distances between sequences
          with P less the items that they share, and P less those at the same rank, each given the other.
        - ``unique_variance_item``, ``unique_variance_position``: R^2 that a non-negative regression on both loses
          without the one; ``explained_variance`` is that of both.

        For the distances ``n`` counts sequences, the null shuffles them, and the ceiling is what the reliability of the
        distances between halves of the trials allows. Distances are products of independent halves, unless the states
        of every sequence that occurs again are the same: the recording then holds no noise, so that one trial of a
        sequence is enough, also in a cell without repeats, and the ceiling is 1. Where no repeats tell whether there is
        noise, distances are not cross-validated and the ceiling is NaN.

        Arrays: ``rdm_<i>`` (M, M) distances of the i-th cell.

        Raises:
            InputError: a variable, condition, state or moment is not in the recording.
        """
        states = recording[first_state(recording, self.state, "geometry.state")].values
        states = states.reshape(*states.shape[:2], -1)
        cells = []
        for whole in cells_of(recording, self.variables, self.within, "geometry", least=2):
            cell, steps = timed(recording, whole, [self.moment], "geometry.moment")
            if steps:
                cells.append((cell, states[cell.rows, steps[self.moment]].astype(np.float64)))
        if not cells:
            raise InputError("geometry.moment", "must be a moment that some trials reach", value=self.moment)
        fewest = min(len(cell.rows) for cell, _ in cells)
        exact = [repeats_agree(own, cell.groups) for cell, own in cells]
        known = [one for one in exact if one is not None]
        elsewhere = all(known) if known else None
        rows: list[dict[str, Any]] = []
        arrays: dict[str, np.ndarray] = {}
        for i, (cell, own) in enumerate(cells):
            found = [self._dimensions(cell, own, fewest, generator)]
            is_exact = elsewhere if exact[i] is None else exact[i]
            if found_distances := self._distances(cell, own, is_exact, generator):
                found += found_distances[0]
                arrays[f"rdm_{i}"] = found_distances[1].astype(np.float32)
            rows += [cell.columns() | one for one in found]
        return AnalysisResult(table_of(rows), arrays)

    def figures(self, result: AnalysisResult) -> dict[str, Figure]:
        """``geometry``: participation ratio and both models' contributions, by cell."""
        return {"geometry": geometry_figures.draw(result)}

    def _dimensions(
        self, cell: Cell, states: np.ndarray, trials: int, generator: np.random.Generator
    ) -> dict[str, Any]:
        block = _blocks(cell.groups, self.blocks, generator)
        draws = _SUBSETS if trials < len(states) else 1
        found, null = [], []
        for _ in range(draws):
            chosen = generator.permutation(len(states))[:trials]
            kept, of = states[chosen], block[chosen]
            left_out = [kept[of != b] for b in range(block.max() + 1)]
            found.append([participation_ratio(one) for one in (kept, *left_out)])
        for _ in range(self.shuffles // 5):
            kept = states[generator.permutation(len(states))[:trials]]
            null.append(participation_ratio(generator.permuted(kept, axis=0)))
        replicates = np.mean(found, axis=0)
        top = min(trials - 1, states.shape[1])
        return row(
            "participation_ratio", replicates[0], jackknife_interval(replicates), trials, np.array(null), float(top)
        )

    def _distances(
        self, cell: Cell, states: np.ndarray, is_exact: bool | None, generator: np.random.Generator
    ) -> tuple[list[dict[str, Any]], np.ndarray] | None:
        """Rows and distances; None where the models do not vary independently."""
        number, labels, warning, halves = self._chosen(cell, is_exact, generator)
        if len(labels) < 3:
            return None
        models = model_distances(labels, len(cell.values))
        if not informative(models):
            return None
        means = np.stack([_means(states, number, half, len(labels)) for half in halves])
        neural = sequence_distances(means)
        block = _blocks(np.arange(len(labels)), self.blocks, generator)
        kept = [np.arange(len(labels)), *(np.flatnonzero(block != b) for b in range(block.max() + 1))]
        replicates = np.array([regress(neural[np.ix_(rows, rows)], models[:, rows][:, :, rows]) for rows in kept])
        orders = [generator.permutation(len(labels)) for _ in range(self.shuffles)]
        null = np.array([regress(neural[np.ix_(order, order)], models) for order in orders])
        if len(halves) == 2:
            highest = reliability(*(sequence_distances(one[None]) for one in means))
        else:
            highest = np.nan if warning else 1.0
        low, high = jackknife_interval(replicates)
        found = []
        for j, measure in enumerate((*MEASURES, "explained_variance")):
            ceiling = np.sqrt(highest) if measure.startswith("partial") else highest
            bounds = (low[j], high[j])
            found.append(row(measure, replicates[0, j], bounds, len(labels), null[:, j], ceiling, warning))
        return found, neural

    def _chosen(
        self, cell: Cell, is_exact: bool | None, generator: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray, str, list[np.ndarray]]:
        """(N,) number of each trial's sequence among the M chosen (-1: none), their (M, P) labels, a warning, and the
        trials of each half: of one half alone where there is nothing to halve."""
        groups, first, member, count = np.unique(
            cell.groups, return_index=True, return_inverse=True, return_counts=True
        )
        single = count.max() == 1
        allowed = np.arange(len(groups)) if is_exact or single else np.flatnonzero(count > 1)
        chosen = np.sort(generator.permutation(allowed)[: self.sequences])
        number = np.full(len(groups), -1)
        number[chosen] = np.arange(len(chosen))
        mine = number[member]
        if is_exact or single:
            warning = "" if is_exact else "no sequence occurs twice: distances are not cross-validated"
            return mine, cell.labels[first[chosen]], warning, [mine >= 0]
        order = generator.permutation(len(member))
        order = order[np.argsort(member[order], kind="stable")]
        place = np.empty(len(member), dtype=int)
        place[order] = np.arange(len(member)) - (np.cumsum(count) - count)[member[order]]
        return mine, cell.labels[first[chosen]], "", [(mine >= 0) & (place % 2 == half) for half in (0, 1)]


def repeats_agree(states: np.ndarray, groups: np.ndarray) -> bool | None:
    """Whether the (N, H) states of each of the (N,) groups are all the same; None where no group has two."""
    _, member, count = np.unique(groups, return_inverse=True, return_counts=True)
    if count.max() == 1:
        return None
    means = np.stack([np.bincount(member, column) for column in states.T], axis=1) / count[:, None]
    within, total = states - means[member], states - states.mean(axis=0)
    return bool((within**2).sum() <= _EXACT * (total**2).sum())


def participation_ratio(states: np.ndarray) -> float:
    """(tr C)^2 / tr(C^2) of the covariance C of (N, H) states: 1 for a line, H for a ball; 0 without variance."""
    centred = states - states.mean(axis=0)
    gram = centred.T @ centred if states.shape[0] > states.shape[1] else centred @ centred.T
    squares = float((gram**2).sum())
    return float(np.trace(gram) ** 2 / squares) if squares > 0 else 0.0


def _blocks(groups: np.ndarray, count: int, generator: np.random.Generator) -> np.ndarray:
    """(N,) the block that each trial's group is in, of equally many groups each."""
    _, member = np.unique(groups, return_inverse=True)
    return (generator.permutation(int(member.max()) + 1) % count)[member.reshape(-1)]


def _means(states: np.ndarray, number: np.ndarray, chosen: np.ndarray, count: int) -> np.ndarray:
    """(M, H) mean state of each sequence over the chosen trials."""
    one_hot = (number[chosen, None] == np.arange(count)).astype(float)
    return (one_hot.T @ states[chosen]) / one_hot.sum(axis=0)[:, None]
