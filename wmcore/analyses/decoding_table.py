"""The table of a decoding: contexts, their means by age, and relevance margins, each beside null and interval."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from wmcore.analyses.decoding_contexts import Ceiling, Context
from wmcore.analyses.resampling import interval

Cell = dict[str, Any]
CELL = "cell_"
"""Prefix of the columns that name the task cell (``cell_n`` is not ``n``, the number of trials)."""
Found = Sequence[tuple[Cell, Context]]


def tabulate(found: Found, ceiling: Ceiling) -> pd.DataFrame:
    """One row per cell, property and context; then by age; then margins.

    Args:
        found: (cell, context) pairs.
        ceiling: balanced accuracies from the inputs.
    """
    rows = [
        _row(
            "balanced_accuracy",
            cell,
            context.name,
            context.estimate,
            context.null,
            context.draws,
            ceiling=_ceiling(ceiling, context),
            chance=context.chance,
            source=context.source,
            read=context.read,
            age=context.read - context.source,
            counts=(context.n, context.n_groups, context.n_classes),
            warning=_warning([context]),
        )
        for cell, context in found
    ]
    cells: list[Cell] = []
    for cell, _ in found:
        if cell not in cells:
            cells.append(cell)
    for cell in cells:
        by_age = _by_age([context for other, context in found if other == cell])
        rows += [_age_row(cell, name, age, group, ceiling) for (name, age), group in by_age.items()]
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
    """Contexts of source steps >= 1 by property and age; of step 0 for an age that no other step reaches."""
    groups: dict[tuple[str, int], list[Context]] = {}
    for context in contexts:
        groups.setdefault((context.name, context.read - context.source), []).append(context)
    return {key: [c for c in group if c.source > 0] or group for key, group in groups.items()}


def _mean(group: Sequence[Context]) -> tuple[float, np.ndarray, np.ndarray]:
    """Mean estimate, null draws and bootstrap draws: both sets of draws are shared by the contexts of a grouping."""
    return (
        float(np.mean([c.estimate for c in group])),
        np.mean([c.null for c in group], axis=0),
        np.mean([c.draws for c in group], axis=0),
    )


def _age_row(cell: Cell, name: str, age: int, group: Sequence[Context], ceiling: Ceiling) -> dict[str, Any]:
    estimate, null, draws = _mean(group)
    return _row(
        "balanced_accuracy_by_age",
        cell,
        name,
        estimate,
        null,
        draws,
        ceiling=float(np.mean([_ceiling(ceiling, c) for c in group])),
        chance=float(np.mean([c.chance for c in group])),
        age=age,
        counts=(min(c.n for c in group), min(c.n_groups for c in group), min(c.n_classes for c in group)),
        warning=_warning(group),
    )


def _margins(cell: Cell, by_age: dict[tuple[str, int], list[Context]]) -> list[dict[str, Any]]:
    """Relevant property less the best irrelevant one, in normalised accuracy (acc - chance) / (1 - chance).

    Properties differ in their number of classes, so that raw accuracies would not compare.
    """
    rows = []
    feature = cell["feature"]
    for age in sorted({age for name, age in by_age if name == feature}):
        others = [name for name, a in by_age if a == age and relevance(cell, name) == "irrelevant"]
        others = [name for name in others if "_within_" not in name]
        own = by_age[feature, age]
        if not others or own[0].chance >= 1:
            continue
        parts = [_normalised(own), *(_normalised(by_age[name, age]) for name in others)]
        estimate, null, draws = (
            parts[0][i] - np.max(np.stack([np.asarray(part[i]) for part in parts[1:]]), axis=0) for i in range(3)
        )
        rows.append(
            _row(
                "relevance_margin",
                cell,
                feature,
                float(estimate),
                np.asarray(null),
                np.asarray(draws),
                ceiling=np.nan,
                chance=0.0,
                age=age,
                counts=(min(c.n for c in own), min(c.n_groups for c in own), min(c.n_classes for c in own)),
                warning=_warning(own),
            )
        )
    return rows


def _normalised(group: Sequence[Context]) -> tuple[float, np.ndarray, np.ndarray]:
    estimate, null, draws = _mean(group)
    chance = float(np.mean([c.chance for c in group]))
    scale = 1 - chance if chance < 1 else 1.0
    return (estimate - chance) / scale, (null - chance) / scale, (draws - chance) / scale


def _ceiling(ceiling: Ceiling, context: Context) -> float:
    return ceiling.get((context.name, context.source, context.read == 0), np.nan)


def _warning(group: Sequence[Context]) -> str:
    parts = []
    if all(c.source == 0 for c in group):
        parts.append("first item: nothing was held before it")
    if min(c.n_classes for c in group) < 2:
        parts.append("fewer than two classes: nothing to decode")
    left_out, rarest = max(c.left_out for c in group), min(c.rarest for c in group)
    if left_out:
        parts.append(f"{left_out} trials left out: their class is absent from the training fold")
    if rarest < 10:
        parts.append(f"the rarest class has {rarest} trials")
    return "; ".join(parts)


def _row(
    measure: str,
    cell: Cell,
    name: str,
    estimate: float,
    null: np.ndarray,
    draws: np.ndarray,
    *,
    ceiling: float,
    chance: float,
    age: int,
    counts: tuple[int, int, int],
    warning: str,
    source: int | None = None,
    read: int | None = None,
) -> dict[str, Any]:
    ci_low, ci_high = interval(draws)
    null_low, null_high = interval(null)
    kind = relevance(cell, name)
    return {
        "measure": measure,
        **{CELL + key: value for key, value in cell.items()},
        "property": name,
        "relevance": kind,
        "relevant": kind == "relevant",
        "source_step": source,
        "read_step": read,
        "age": age,
        "estimate": estimate,
        "null": float(np.mean(null)),
        "null_low": float(null_low),
        "null_high": float(null_high),
        "p_value": float((1 + np.sum(null >= estimate - 1e-9)) / (1 + null.size)),
        "chance": chance,
        "ceiling": ceiling,
        "ci_low": float(ci_low),
        "ci_high": float(ci_high),
        "n": counts[0],
        "n_groups": counts[1],
        "n_classes": counts[2],
        "warning": warning,
    }
