"""Results on disk: ``<name>.parquet`` (table), ``<name>.npz`` (arrays), ``<name>.<figure>.png``. No pickles."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from wmcore.analyses.base import AnalysisResult
from wmcore.errors import InputError

FIGURE_DPI = 110


@dataclass(frozen=True)
class StoredResult:
    """Where a result lies."""

    table: Path
    arrays: Path
    figures: dict[str, Path]


def save_result(result: AnalysisResult, folder: Path, name: str, figures: Mapping[str, Figure]) -> StoredResult:
    """Writes a result and its figures; each file appears whole or not at all, the table last.

    Args:
        folder: made if it does not exist.
        name: file stem, e.g. the analysis kind.
        figures: of ``AnalysisSpec.figures``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    stored = StoredResult(
        folder / f"{name}.parquet",
        folder / f"{name}.npz",
        {stem: folder / f"{name}.{stem}.png" for stem in figures},
    )
    for stem, figure in figures.items():
        canvas = FigureCanvasAgg(figure)
        _atomic(stored.figures[stem], lambda path, c=canvas: c.figure.savefig(path, format="png", dpi=FIGURE_DPI))
    _atomic(stored.arrays, lambda path: _write_arrays(path, result.arrays))
    _atomic(stored.table, lambda path: result.table.to_parquet(path, index=False))
    return stored


def load_result(folder: Path, name: str) -> AnalysisResult:
    """Reads what ``save_result`` wrote.

    Raises:
        InputError: a file is missing.
    """
    table, arrays = folder / f"{name}.parquet", folder / f"{name}.npz"
    for path in (table, arrays):
        if not path.is_file():
            raise InputError(str(path), "must be a stored analysis result")
    with np.load(arrays, allow_pickle=False) as stored:
        return AnalysisResult(pd.read_parquet(table), {key: stored[key] for key in stored.files})


def _write_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    for key, value in arrays.items():
        if value.dtype.hasobject:
            raise TypeError(f"array {key!r} holds Python objects, which only a pickle could store")
    with path.open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, **arrays)


def _atomic(target: Path, write: Callable[[Path], object]) -> None:
    temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}")
    try:
        write(temporary)
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)
