"""Collects what a sweep's report shows from its ledger, its banks and its analyses."""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import yaml

from analysis_jobs import report_figures as figures
from analysis_jobs.analyse import RECORDING, Outcome
from analysis_jobs.report import AnalysisView, Headline, ReportData, write
from sweeps.banks import stimulus_specs
from sweeps.ledger import Ledger, TrialRecord
from sweeps.mechanism import chosen_trials, outcomes
from sweeps.schedule import Asha, stopping_rule
from sweeps.space import LogUniform
from sweeps.spec import SweepSpec
from sweeps.table import baselines, summary, test_metric, variants
from wmcore.stimuli.contact_sheet import contact_sheet
from wmcore.stimuli.feature_bank import FeatureBank
from wmcore.stimuli.image_bank import ImageBank

_PACKAGES = ("wmsweep", "torch", "ray", "optuna", "mlflow", "numpy", "scikit-learn", "pyvista")
_ROWS = 30


def report_path(folder: Path) -> Path:
    """The page of a sweep's report."""
    return folder / "report" / "index.html"


def write_report(spec: SweepSpec, folder: Path, stimuli: Path) -> Path:
    """Writes the report of a sweep as it stands; returns the page."""
    ledger = Ledger(folder / "ledger.jsonl")
    best = next((t for t in chosen_trials(spec, ledger) if t.result is not None), None)
    shown, captions = _figures(spec, ledger, best)
    gates, sheets = _stimuli(spec, stimuli, report_path(folder).parent)
    failed = [t for t in ledger.in_order() if t.state == "failed"]
    data = ReportData(
        title=f"Sweep {spec.name}",
        summary=summary(spec, ledger),
        headline=_headline(spec, ledger, best),
        variants=_variants(spec, ledger),
        splits=_by_split(best),
        sampling=_sampling(best),
        gates=gates,
        contact_sheets=sheets,
        figures=shown,
        captions=captions,
        analyses=_analyses(spec, folder, ledger),
        spec_yaml=yaml.safe_dump(ledger.spec, sort_keys=False),
        versions={"Python": platform.python_version(), **{p: importlib.metadata.version(p) for p in _PACKAGES}},
        notes=[f"Variant {t.number} failed: {t.reason}" for t in failed],
    )
    return write(data, report_path(folder).parent)


def _stimuli(spec: SweepSpec, stimuli: Path, report: Path) -> tuple[list[tuple[str, pd.DataFrame]], list[Path]]:
    """Of each bank: the figures of its gate, and a contact sheet beside the report."""
    gates, sheets = [], []
    report.mkdir(parents=True, exist_ok=True)
    for chosen in stimulus_specs(spec):
        bank = FeatureBank.load(stimuli, chosen)
        rows = [{"property": name, **figures} for name, figures in bank.gate.items()]
        gates.append((f"bank {bank.content_hash}", pd.DataFrame(rows)))
        images = ImageBank.load(stimuli, chosen)
        sheets.append(contact_sheet(images, report / f"stimuli_{bank.content_hash}.png"))
    return gates, sheets


def _headline(spec: SweepSpec, ledger: Ledger, best: TrialRecord | None) -> Headline | None:
    if best is None or best.result is None:
        return None
    name = test_metric(spec)
    split, _, metric = name.partition("/")
    if best.result["metrics"][name] is None:
        return None
    low, high = best.result["intervals"][name]
    return Headline(
        variant=best.number,
        metric=metric.replace("_", " "),
        estimate=best.result["metrics"][name],
        interval=(float("nan") if low is None else low, float("nan") if high is None else high),
        n=f"{best.result['n']} {best.result['interval_unit']}",
        baselines=baselines(spec, ledger, split),
        single=best.result["interval_unit"] == "trials",
    )


def _variants(spec: SweepSpec, ledger: Ledger) -> pd.DataFrame:
    rows = [
        {
            "variant": row.number,
            "state": row.state,
            "steps": row.step,
            spec.search.leading.metric: row.value,
            test_metric(spec): row.test,
            **row.point,
            "note": row.reason,
        }
        for row in variants(spec, ledger)
    ]
    return pd.DataFrame(rows)


def _splits(best: TrialRecord | None) -> pd.DataFrame:
    """Every metric of every split of one variant: estimate, interval, baselines."""
    if best is None or best.result is None:
        return pd.DataFrame()
    rows = []
    for name, estimate in best.result["metrics"].items():
        split, _, metric = name.partition("/")
        low, high = best.result["intervals"][name]
        policies = {p: scores.get(metric) for p, scores in best.result["baselines"][split].items()}
        rows.append({"split": split, "metric": metric, "estimate": estimate, "ci_low": low, "ci_high": high} | policies)
    return pd.DataFrame(rows)


def _by_split(best: TrialRecord | None) -> dict[str, pd.DataFrame]:
    """Split -> its metrics, the test split first."""
    scores = _splits(best)
    if scores.empty:
        return {}
    names = sorted(scores["split"].unique(), key=lambda split: split != "test")
    return {split: scores.loc[scores["split"] == split].drop(columns="split") for split in names}


def _sampling(best: TrialRecord | None) -> pd.DataFrame:
    if best is None or best.result is None:
        return pd.DataFrame()
    return pd.DataFrame([{"split": split, **rates} for split, rates in best.result["sampling"].items()])


def _figures(spec: SweepSpec, ledger: Ledger, best: TrialRecord | None) -> tuple[dict, dict[str, str]]:
    objective = spec.search.leading
    split, _, metric = objective.metric.partition("/")
    reports = pd.DataFrame(
        [
            {"trial": t.number, "state": t.state, "step": step, "value": values.get(objective.metric)}
            for t in ledger.in_order()
            for step, values in t.reports.items()
        ]
    )
    shown, captions = {}, {}
    if len(reports):
        rule = stopping_rule(spec.search.scheduler, objective, spec.trial.training.steps)
        rungs = sorted(rule.rungs) if isinstance(rule, Asha) else []
        shown["learning_curves"] = figures.learning_curves(
            reports, baselines(spec, ledger, split), objective.metric, rungs
        )
        captions["learning_curves"] = f"{objective.metric} of every variant as it trained, beside its baselines."
        points = pd.DataFrame(
            [{"state": r.state, "value": r.value, **r.point} for r in variants(spec, ledger) if r.value is not None]
        )
        log = [path for path, distribution in spec.search.space.items() if isinstance(distribution, LogUniform)]
        if len(points):
            shown["search_space"] = figures.search_space(points, objective.metric, log)
            captions["search_space"] = (
                f"Best {objective.metric} against each searched setting. Pruned variants (orange) had fewer steps."
            )
    if best is not None and best.result is not None:
        scores = _splits(best)
        policies = list(next(iter(best.result["baselines"].values())))
        scores = scores.loc[scores["metric"].str.startswith(metric)]
        shown["best_by_metric"] = figures.by_metric(scores, metric, policies)
        captions["best_by_metric"] = (
            f"Variant {best.number}, split by split, with 95 % intervals over {best.result['interval_unit']} "
            "and its baselines."
        )
    return shown, captions


def _analyses(spec: SweepSpec, folder: Path, ledger: Ledger) -> Sequence[AnalysisView]:
    views = []
    for trial in chosen_trials(spec, ledger):
        for replicate in range(spec.trial_for(trial.point).replicates):
            for outcome in outcomes(folder, trial.trial_id, replicate) or []:
                if outcome.analysis == RECORDING and not outcome.error:
                    continue
                views.append(_view(trial, replicate, outcome))
    return views


def _view(trial: TrialRecord, replicate: int, outcome: Outcome) -> AnalysisView:
    title = f"{outcome.name} of variant {trial.number}, replicate {replicate}"
    if outcome.error:
        return AnalysisView(title, (), None, None, outcome.error)
    table = Path(outcome.table)
    missing = [path for path in (table, *map(Path, outcome.figures)) if not path.exists()]
    if missing:
        return AnalysisView(title, (), None, None, f"{missing[0].name} is missing: `wmsweep analyze` makes it again.")
    return AnalysisView(title, [Path(f) for f in outcome.figures], pd.read_parquet(table).head(_ROWS), table)
