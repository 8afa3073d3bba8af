"""Draws the figures of a sweep as a whole from its ledger, each with a caption."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from analysis_jobs import report_figures as figures
from sweeps.ledger import Ledger, TrialRecord
from sweeps.schedule import Asha
from sweeps.spec import SweepSpec
from sweeps.table import Variant, baselines

_SINGLED_OUT = 3
"""Best variants whose replicates are drawn one by one."""
_CURVES = 200
"""Variants whose learning curves can still be told apart a little."""

Captioned = tuple[Figure, str]


def split_scores(result: Mapping[str, Any] | None) -> pd.DataFrame:
    """Every metric of every final split of one variant: split, metric, estimate, ci_low, ci_high, and a column per
    baseline; empty without a result."""
    rows = []
    for name, estimate in (result or {"metrics": {}})["metrics"].items():
        assert result is not None
        split, _, metric = name.partition("/")
        low, high = result["intervals"][name]
        policies = {policy: scores.get(metric) for policy, scores in result["baselines"][split].items()}
        rows.append({"split": split, "metric": metric, "estimate": estimate, "ci_low": low, "ci_high": high} | policies)
    return pd.DataFrame(rows)


def sweep_figures(
    spec: SweepSpec, ledger: Ledger, rows: Sequence[Variant], best: TrialRecord | None
) -> dict[str, Captioned]:
    """Name -> figure and caption, in the order of the report; what there are no data for is left out.

    Args:
        rows: all variants, the best first.
        best: the best finished trial.
    """
    result = None if best is None else best.result
    drawn = {
        "pareto": _pareto(spec, rows, result),
        "learning_curves": _learning_curves(spec, ledger, rows, result),
        "training_history": _training_history(spec, best),
        "search_space": _search_space(spec, rows),
        "best_by_metric": _best_by_metric(spec, best),
    }
    return {name: captioned for name, captioned in drawn.items() if captioned is not None}


def _pareto(spec: SweepSpec, rows: Sequence[Variant], result: Mapping[str, Any] | None) -> Captioned | None:
    objectives = spec.search.objectives
    finished = [row for row in rows if row.state == "finished" and None not in row.values]
    if len(objectives) == 1 or not finished:
        return None
    points = pd.DataFrame(
        [
            {"variant": row.number, "front": row.front}
            | {o.metric: value.mean for o, value in zip(objectives, row.values, strict=True) if value is not None}
            for row in finished
        ]
    )
    policies: dict[str, dict[str, float]] = {}
    for objective in objectives:
        for policy, score in baselines(objective, result, "select").items():
            policies.setdefault(policy, {})[objective.metric] = score
    figure = figures.pareto(points, {o.metric: o.mode for o in objectives}, policies)
    members = sum(row.front for row in finished)
    compared = "both" if len(objectives) == 2 else "the two objectives of the panel"
    return figure, (
        f"The objectives of {len(finished)} finished variants, each at its best weights by {objectives[0].metric}"
        f"{_means(spec)}. {members} {'is' if members == 1 else 'are'} on the Pareto front: no other is better in one "
        f"objective without being worse in another. The line joins those that no other beats in {compared}."
    )


def _learning_curves(
    spec: SweepSpec, ledger: Ledger, rows: Sequence[Variant], result: Mapping[str, Any] | None
) -> Captioned | None:
    objective = spec.search.leading
    reporting = [row for row in rows if ledger.trials[row.trial_id].reports]
    shown = reporting[:_CURVES]
    if not shown:
        return None
    reports = pd.DataFrame(
        [
            {"trial": row.number, "state": row.label, "step": step, "value": metrics.get(objective.metric)}
            for row in shown
            for step, metrics in ledger.trials[row.trial_id].reports.items()
        ]
    )
    single = [
        {"trial": row.number, "replicate": r, "step": step, "value": value}
        for row in [row for row in shown if row.value is not None][:_SINGLED_OUT]
        for step, values in ledger.trials[row.trial_id].replicates.items()
        if len(values) > 1
        for r, value in enumerate(values)
    ]
    rule = spec.stopping_rule()
    figure = figures.learning_curves(
        reports.astype({"value": float}),
        baselines(objective, result, "select"),
        objective.metric,
        sorted(rule.rungs) if isinstance(rule, Asha) else [],
        pd.DataFrame(single).astype({"value": float}) if single else None,
    )
    which = "every variant" if len(shown) == len(reporting) else f"the {len(shown)} best variants"
    caption = f"{objective.metric} of {which} as it trained{_means(spec)}, beside its baselines."
    if single:
        chosen = len({row["trial"] for row in single})
        below = f"the {chosen} best variants" if chosen > 1 else "the best variant"
        caption += f" Below: {below}, the mean with each of the n replicates."
    return figure, caption


def _training_history(spec: SweepSpec, best: TrialRecord | None) -> Captioned | None:
    if best is None or not best.reports:
        return None
    history = pd.DataFrame([{"step": step, **metrics} for step, metrics in best.reports.items()])
    name = spec.search.leading.name
    related = [column for column in history if str(column).startswith(f"select/{name}")]
    figure = figures.training_history(history.astype(float), related, name)
    stages = ", and the stage of its curriculum" if "train/stage" in history else ""
    return (
        figure,
        f"Variant {best.number} as it trained{_means(spec)}: loss, {name.replace('_', ' ')} on select{stages}.",
    )


def _search_space(spec: SweepSpec, rows: Sequence[Variant]) -> Captioned | None:
    points = [
        {"state": row.label, "value": row.value}
        # None is a value like others; only what does not apply is missing.
        | {path: "none" if value is None else value for path, value in row.point.items()}
        for row in rows
        if row.value is not None
    ]
    if not points:
        return None
    metric, space = spec.search.leading.metric, spec.search.space
    log = [path for path, distribution in space.items() if distribution.log]
    columns = ["state", "value", *(path for path in space.paths if any(path in point for point in points))]
    figure = figures.search_space(pd.DataFrame(points, columns=columns), metric, log)
    pruned = any(row.state == "pruned" for row in rows)
    fewer = " Pruned variants (orange) had fewer steps." if pruned else ""
    return figure, f"Best {metric} against each searched setting.{fewer}"


def _best_by_metric(spec: SweepSpec, best: TrialRecord | None) -> Captioned | None:
    if best is None or best.result is None:
        return None
    name, scores = spec.search.leading.name, split_scores(best.result)
    policies = list(next(iter(best.result["baselines"].values())))
    figure = figures.by_metric(scores.loc[scores["metric"].str.startswith(name)], name, policies)
    return figure, (
        f"Variant {best.number}, split by split, with 95 % intervals over {best.result['interval_unit']} "
        f"(n = {best.result['n']}) and its baselines."
    )


def _means(spec: SweepSpec) -> str:
    """What a value is, where variants have several replicates."""
    if "replicates" in spec.search.space.paths:
        return " (the mean of its replicates)"
    return f" (the mean of n = {spec.trial.replicates} replicates)" if spec.trial.replicates > 1 else ""
