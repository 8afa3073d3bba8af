"""Collects what a sweep's report shows from its ledger, its banks and its analyses."""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import yaml

from analysis_jobs.analyse import RECORDING, Outcome
from analysis_jobs.report import AnalysisView, Headline, ReportData, write
from sweeps.banks import stimulus_specs
from sweeps.ledger import Ledger, TrialRecord
from sweeps.mechanism import chosen_trials, outcomes
from sweeps.overview import divergences, replicates_text, summary
from sweeps.spec import SweepSpec
from sweeps.sweep_figures import split_scores, sweep_figures
from sweeps.table import Score, Variant, baselines, test_metric, variants
from wmcore.stimuli.contact_sheet import contact_sheet
from wmcore.stimuli.feature_bank import FeatureBank
from wmcore.stimuli.image_bank import ImageBank

_PACKAGES = ("wmsweep", "torch", "ray", "optuna", "mlflow", "numpy", "scikit-learn", "pyvista")
_ROWS = 30
_FAILED = 10
"""Failed trials that are named at the top."""


def report_path(folder: Path) -> Path:
    """The page of a sweep's report."""
    return folder / "report" / "index.html"


def write_report(spec: SweepSpec, folder: Path, stimuli: Path) -> Path:
    """Writes the report of a sweep as it stands; returns the page."""
    ledger = Ledger(folder / "ledger.jsonl")
    rows = variants(spec, ledger)
    best = next((trial for row in rows if (trial := ledger.trials[row.trial_id]).result is not None), None)
    shown = sweep_figures(spec, ledger, rows, best)
    gates, sheets = _stimuli(spec, stimuli, report_path(folder).parent)
    data = ReportData(
        title=f"Sweep {spec.name}",
        summary=summary(spec, ledger),
        headline=_headline(spec, rows, best),
        divergence=divergences(ledger),
        variants=_variants(spec, rows),
        explained=_explained(spec),
        splits=_by_split(best),
        sampling=_sampling(best),
        gates=gates,
        contact_sheets=sheets,
        figures={name: figure for name, (figure, _) in shown.items()},
        captions={name: caption for name, (_, caption) in shown.items()},
        analyses=_analyses(spec, folder, ledger),
        spec_yaml=yaml.safe_dump(ledger.spec, sort_keys=False),
        versions={"Python": platform.python_version(), **{p: importlib.metadata.version(p) for p in _PACKAGES}},
        notes=_failed(ledger),
    )
    return write(data, report_path(folder).parent)


def _failed(ledger: Ledger) -> list[str]:
    """A sentence for each of the first trials that failed."""
    failed = [trial for trial in ledger.in_order() if trial.state == "failed"]
    said = [f"Variant {trial.number} failed: {trial.reason}" for trial in failed[:_FAILED]]
    more = len(failed) - len(said)
    return [*said, *([f"{more} more failed: the notes in the table of variants say why."] if more else [])]


def _explained(spec: SweepSpec) -> str:
    """What the figures in the table of variants are."""
    parts = []
    if len(spec.search.objectives) > 1:
        parts.append(
            f"The figures of a variant are those of one set of weights, its best by {spec.search.leading.metric}."
        )
    if replicates := replicates_text(spec):
        parts.append(f"Figures are {replicates}.")
    return " ".join(parts)


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


def _headline(spec: SweepSpec, rows: Sequence[Variant], best: TrialRecord | None) -> Headline | None:
    if best is None or best.result is None:
        return None
    objectives = spec.search.objectives
    name = test_metric(objectives[0])
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
        baselines=baselines(objectives[0], best.result, split),
        single=best.result["interval_unit"] == "trials",
        chosen="on selection" if len(objectives) == 1 else _chosen_among(spec, rows),
    )


def _chosen_among(spec: SweepSpec, rows: Sequence[Variant]) -> str:
    members = [row.number for row in rows if row.front]
    others = f", with variant{'s' if len(members) > 2 else ''} {_listed(members[1:])}" if len(members) > 1 else ""
    first, count = spec.search.leading.name.replace("_", " "), len(spec.search.objectives)
    return f"on selection by {first}, the first of {count} objectives, and on the Pareto front{others}"


def _listed(numbers: list[int], most: int = 8) -> str:
    more = len(numbers) - most
    return ", ".join(map(str, numbers[:most])) + (f" and {more} more" if more > 0 else "")


def _variants(spec: SweepSpec, rows: Sequence[Variant]) -> pd.DataFrame:
    objectives = spec.search.objectives
    several = len(objectives) > 1
    table = pd.DataFrame(
        [
            {"variant": row.number, "state": row.label, "steps": row.step}
            | ({"Pareto front": "\N{BLACK CIRCLE}" if row.front else ""} if several else {})
            | {o.metric: _cell(score) for o, score in zip(objectives, row.values, strict=True)}
            | {test_metric(o): _cell(score) for o, score in zip(objectives, row.tests, strict=True)}
            | row.point
            | {"note": row.note}
            for row in rows
        ]
    )
    # A setting that only a later variant has would otherwise come after the notes.
    order = [name for name in table.columns if name not in (*spec.search.space.paths, "note")]
    settings = [path for path in spec.search.space.paths if path in table.columns]
    return table.reindex(columns=[*order, *settings, *(["note"] if any(row.note for row in rows) else [])])


def _cell(score: Score | None) -> str | float | None:
    return None if score is None else score.mean if score.spread is None else str(score)


def _by_split(best: TrialRecord | None) -> dict[str, pd.DataFrame]:
    """Split -> its metrics, the test split first."""
    scores = split_scores(None if best is None else best.result)
    if scores.empty:
        return {}
    names = sorted(scores["split"].unique(), key=lambda split: split != "test")
    return {split: scores.loc[scores["split"] == split].drop(columns="split") for split in names}


def _sampling(best: TrialRecord | None) -> pd.DataFrame:
    if best is None or best.result is None:
        return pd.DataFrame()
    return pd.DataFrame([{"split": split, **rates} for split, rates in best.result["sampling"].items()])


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
