"""One row of an analysis's table, and the table of many."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from wmcore.analyses.resampling import interval


def row(
    measure: str,
    estimate: float,
    bounds: tuple[float | np.ndarray, float | np.ndarray],
    n: int,
    null: float | np.ndarray,
    ceiling: float = np.nan,
    warning: str = "",
    **columns: Any,
) -> dict[str, Any]:
    """A row with the columns that every table has.

    Args:
        bounds: 95 % interval.
        n: independent units.
        null: its expected value, or (D,) draws, whose mean and 95 % range are given.
        columns: those that name the row.
    """
    draws = np.atleast_1d(np.asarray(null, dtype=float))
    low, high = interval(draws) if draws.size > 1 else (np.nan, np.nan)
    return {
        "measure": measure,
        **columns,
        "estimate": float(estimate),
        "null": float(draws.mean()),
        "null_low": float(low),
        "null_high": float(high),
        "ceiling": float(ceiling),
        "ci_low": float(bounds[0]),
        "ci_high": float(bounds[1]),
        "n": n,
        "warning": warning,
    }


def warned(rows: Sequence[dict[str, Any]], text: str) -> list[dict[str, Any]]:
    """The rows with one more warning, if the text is not empty."""
    return [one | {"warning": "; ".join(filter(None, (one["warning"], text)))} for one in rows]


def table_of(rows: Sequence[dict[str, Any]], integers: Sequence[str] = ()) -> pd.DataFrame:
    """The rows as a table; columns of integers that only some rows have keep their type."""
    table = pd.DataFrame(list(rows))
    for name in integers:
        table[name] = pd.array(table[name].to_list() if name in table else [None] * len(table), dtype="Int64")
    return table
