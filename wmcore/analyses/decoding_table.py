"""The table of a decoding: contexts, their means by age, and relevance margins, each beside null and interval."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from wmcore.analyses.decoding_contexts import Context
from wmcore.analyses.resampling import interval

Cell = dict[str, Any]
CELL = "cell_"
"""Prefix of the columns that name the task cell (``cell_n`` is not ``n``, the number of trials)."""
ENOUGH = 20
"""Trials of the rarest class below which a row is called under-powered."""
_ROOM = 0.1  # a ceiling nearer to chance than this is "no information" (nback.md 6.0)
Found = Sequence[tuple[Cell, Context]]


def tabulate(found: Found) -> pd.DataFrame:
    """One row per cell, property and context; then by age; then margins.

    Args:
        found: (cell, context) pairs.
    """
    rows = [
        _row(
            "balanced_accuracy",
            cell,
            context.name,
            [context],
            (context.estimate, context.null, context.draws),
            source=context.source,
            read=context.read,
        )
        for cell, context in found
    ]
    cells: list[Cell] = []
    for cell, _ in found:
        if cell not in cells:
            cells.append(cell)
    for cell in cells:
        for first in (False, True):  # never pooled: the first item meets an empty state
            by_age = _by_age([c for other, c in found if other == cell and (c.source == 0) == first])
            rows += [
                _row("balanced_accuracy_by_age", cell, name, group, _mean(group)) for (name, _), group in by_age.items()
            ]
            if "feature" in cell:
                rows += _margins(cell, by_age)
    table = pd.DataFrame(rows)
    for name in ("source_step", "read_step"):
        table[name] = table[name].astype("Int64")
    return table


def relevance(cell: Cell, name: str) -> str:
    """``relevant`` (the task asks for it), ``partly`` (the category in identity tasks), ``irrelevant``, or empty."""
    if "feature" not in cell:
        return ""
    if name.split("_within_")[0] == cell["feature"]:
        return "relevant"
    return "partly" if (cell["feature"], name) == ("identity", "category") else "irrelevant"


def _by_age(contexts: Sequence[Context]) -> dict[tuple[str, int], list[Context]]:
    """Contexts by property and age."""
    groups: dict[tuple[str, int], list[Context]] = {}
    for context in contexts:
        groups.setdefault((context.name, context.read - context.source), []).append(context)
    return groups


def _mean(group: Sequence[Context]) -> tuple[float, np.ndarray, np.ndarray]:
    """Mean estimate, null draws and bootstrap draws: both sets of draws are shared by the contexts of a grouping."""
    return (
        float(np.mean([c.estimate for c in group])),
        np.mean([c.null for c in group], axis=0),
        np.mean([c.draws for c in group], axis=0),
    )


def _margins(cell: Cell, by_age: dict[tuple[str, int], list[Context]]) -> list[dict[str, Any]]:
    """Relevance margins (see ``DecodingSpec.compute``); none where no ceiling leaves room above chance."""
    rows = []
    feature = cell["feature"]
    for age in sorted({age for name, age in by_age if name == feature}):
        scores = {
            name: _normalised(group)
            for (name, other), group in by_age.items()
            if other == age and "_within_" not in name and (name == feature or relevance(cell, name) == "irrelevant")
        }
        own = scores.pop(feature)
        others = {name: score for name, score in scores.items() if score is not None}
        if own is None or not others:
            continue
        best = max(others, key=lambda name: others[name][0])
        margin, draws = own[0] - others[best][0], own[1] - others[best][1]
        tail = 1 + min(int((draws <= 1e-9).sum()), int((draws >= -1e-9).sum()))
        row = _row("relevance_margin", cell, feature, by_age[feature, age], (margin, np.zeros(1), draws))
        row |= dict.fromkeys(("ceiling", "input_readout", "input_new_images"), np.nan)
        row |= {"chance": 0.0, "compared_with": best, "p_value": min(1.0, 2 * tail / (1 + draws.size))}
        row["rarest"] = min(c.rarest for c in (*by_age[feature, age], *by_age[best, age]))
        row["warning"] = _warning([*by_age[feature, age], *by_age[best, age]])
        rows.append(row)
    return rows


def _normalised(group: Sequence[Context]) -> tuple[float, np.ndarray] | None:
    """Mean of (accuracy - chance) / (ceiling - chance), and its bootstrap draws; None where no context has room."""
    scores = []
    for c in group:
        room = (c.ceiling if np.isfinite(c.ceiling) else 1.0) - c.chance
        if room >= _ROOM:
            scores.append(((c.estimate - c.chance) / room, (c.draws - c.chance) / room))
    if not scores:
        return None
    return float(np.mean([estimate for estimate, _ in scores])), np.mean([draws for _, draws in scores], axis=0)


def _warning(group: Sequence[Context]) -> str:
    parts = []
    if all(c.source == 0 for c in group):
        parts.append("first item: nothing was held before it")
    if min(c.n_classes for c in group) < 2:
        parts.append("fewer than two classes: nothing to decode")
    left_out, rarest = max(c.left_out for c in group), min(c.rarest for c in group)
    if left_out:
        parts.append(f"{left_out} trials left out: their class is absent from the training fold")
    if rarest < ENOUGH:
        parts.append(f"under-powered: fewer than {ENOUGH} trials of the rarest class ({rarest})")
    return "; ".join(parts)


def _row(
    measure: str,
    cell: Cell,
    name: str,
    group: Sequence[Context],
    values: tuple[float, np.ndarray, np.ndarray],
    source: int | None = None,
    read: int | None = None,
) -> dict[str, Any]:
    """A row of contexts of one age, from their estimate, null draws and bootstrap draws."""
    estimate, null, draws = values
    ci_low, ci_high = interval(draws)
    null_low, null_high = interval(null)
    kind = relevance(cell, name)
    return {
        "measure": measure,
        **{CELL + key: value for key, value in cell.items()},
        "property": name,
        "relevance": kind,
        "relevant": kind == "relevant",
        "compared_with": "",
        "first_item": group[0].source == 0,
        "source_step": source,
        "read_step": read,
        "age": group[0].read - group[0].source,
        "estimate": estimate,
        "null": float(np.mean(null)),
        "null_low": float(null_low),
        "null_high": float(null_high),
        "p_value": float((1 + np.sum(null >= estimate - 1e-9)) / (1 + null.size)),
        "chance": float(np.mean([c.chance for c in group])),
        "ceiling": float(np.mean([c.ceiling for c in group])),
        "input_readout": float(np.mean([c.input_readout for c in group])),
        "input_new_images": float(np.mean([c.input_new_images for c in group])),
        "ci_low": float(ci_low),
        "ci_high": float(ci_high),
        "n": min(c.n for c in group),
        "n_groups": min(c.n_groups for c in group),
        "n_classes": min(c.n_classes for c in group),
        "rarest": min(c.rarest for c in group),
        "warning": _warning(group),
    }
