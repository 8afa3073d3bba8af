"""Rows and arrays of a temporal generalisation: the course, means over periods, and matrices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from wmcore.analyses.cross_temporal import Scores, Trials
from wmcore.analyses.phases import Phases
from wmcore.analyses.resampling import interval
from wmcore.analyses.rows import row

_VALUES = ("estimate", "null", "p", "ci_low", "ci_high")


@dataclass(frozen=True)
class Matrix:
    """Accuracies of the decoders of one variable, by step of the decoder and of the test.

    Attributes:
        cell: number of the cell.
        variable: name.
        information: all or direct.
        mean: kept or removed.
        positions: (R,) which of the cell's read steps it is of.
        values: name -> (R, R).
    """

    cell: int
    variable: str
    information: str
    mean: str
    positions: np.ndarray
    values: Mapping[str, np.ndarray]

    @classmethod
    def of(cls, cell: int, variable: str, information: str, mean: str, positions: np.ndarray, scores: Scores) -> Matrix:
        low, high = interval(scores.draws, axis=-1)
        found = (scores.estimate, scores.null.mean(axis=-1), p_value(scores.estimate, scores.null), low, high)
        return cls(cell, variable, information, mean, positions, dict(zip(_VALUES, found, strict=True)))


def matrix_arrays(matrices: Sequence[Matrix], steps: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
    """All matrices as arrays of one size, NaN where a matrix says nothing.

    Args:
        steps: of each cell, the (S,) steps that were read.
    """
    most = max(len(own) for own in steps)
    arrays = {"steps": np.stack([np.pad(own, (0, most - len(own)), constant_values=-1) for own in steps])}
    for key in _VALUES:
        grid = np.full((len(matrices), most, most), np.nan, dtype=np.float32)
        for whole, matrix in zip(grid, matrices, strict=True):
            whole[np.ix_(matrix.positions, matrix.positions)] = matrix.values[key]
        arrays["matrix" if key == "estimate" else f"matrix_{key}"] = grid
    arrays["matrix_cell"] = np.array([matrix.cell for matrix in matrices], dtype=np.int64)
    for key in ("variable", "information", "mean"):
        arrays[f"matrix_of_{key}"] = np.array([getattr(matrix, key) for matrix in matrices], dtype=np.str_)
    return arrays


def course_row(
    measure: str, scores: Scores, i: int, trials: Trials, size: int, warning: str, folds: int, columns: dict[str, Any]
) -> dict[str, Any]:
    """The row of the i-th step of some scores.

    Args:
        size: trials that there are.
        folds: of the cross-validation.
    """
    warnings = [warning] if warning else []
    if trials.n_groups < 2 * folds:
        warnings.append(f"under-powered: {trials.n_groups} groups in {folds} folds")
    if scores.n < size:
        warnings.append(f"{size - scores.n} trials left out: they have no such value, or none is in the training fold")
    return row(
        measure,
        scores.estimate[i],
        interval(scores.draws[i]),
        scores.n,
        scores.null[i],
        1.0,
        "; ".join(warnings),
        **columns,
        p_value=float(p_value(scores.estimate[i], scores.null[i])),
        chance=scores.chance,
        n_groups=trials.n_groups,
        n_classes=scores.classes,
    )


def period_rows(
    scores: Scores,
    steps: np.ndarray,
    phases: Phases,
    pairs: Sequence[tuple[str, str]],
    trials: Trials,
    columns: dict[str, Any],
    warning: str,
) -> list[dict[str, Any]]:
    """Transfer between two periods, or stability within one.

    Args:
        scores: (R, R) accuracies by step of decoder and test.
        steps: (R,) those steps.
    """
    rows = []
    for trained, tested in pairs:
        first, second = phases.steps_in(trained, steps), phases.steps_in(tested, steps)
        where = columns | {"trained_in": trained, "tested_in": tested}
        if not (first.size and second.size):
            continue
        if trained != tested:
            inside = np.zeros(scores.estimate.shape, dtype=bool)
            inside[np.ix_(first, second)] = True
            rows.append(_transfer(scores, inside, trials, where, warning))
        elif first.size > 1:
            rows += _stability(scores, first, trials, where, warning)
    return rows


def p_value(estimate: np.ndarray | float, null: np.ndarray) -> np.ndarray:
    """One-sided: the share of (..., D) null draws that reach the (...,) estimate, itself counted among them."""
    reached = (null >= np.asarray(estimate)[..., None] - 1e-9).sum(axis=-1)
    return (1 + reached) / (1 + null.shape[-1])


def _transfer(
    scores: Scores, inside: np.ndarray, trials: Trials, columns: dict[str, Any], warning: str
) -> dict[str, Any]:
    estimate, null, draws = (value[inside].mean(axis=0) for value in (scores.estimate, scores.null, scores.draws))
    return row(
        "transfer",
        estimate,
        interval(draws),
        scores.n,
        null,
        1.0,
        warning,
        **columns,
        p_value=float(p_value(estimate, null)),
        chance=scores.chance,
        n_groups=trials.n_groups,
        n_classes=scores.classes,
    )


def _stability(
    scores: Scores, own: np.ndarray, trials: Trials, columns: dict[str, Any], warning: str
) -> list[dict[str, Any]]:
    """The stability index, if the diagonal is above its null."""
    block = np.ix_(own, own)
    off = ~np.eye(len(own), dtype=bool)
    same, other = (
        [value[block][where].mean(axis=0) for value in (scores.estimate, scores.null, scores.draws)]
        for where in (~off, off)
    )
    if same[0] <= interval(same[1])[1]:
        return []
    estimate = (other[0] - scores.chance) / (same[0] - scores.chance)
    null = (other[1] - scores.chance) / (same[0] - scores.chance)
    above = same[2] - scores.chance
    draws = np.divide(other[2] - scores.chance, above, out=np.full(above.shape, np.nan), where=above > 0)
    return [
        row(
            "stability",
            estimate,
            interval(draws),
            scores.n,
            null,
            1.0,
            warning,
            **columns,
            p_value=float(p_value(estimate, null)),
            chance=0.0,
            n_groups=trials.n_groups,
            n_classes=scores.classes,
        )
    ]
