"""The stage after the search: records the best checkpoints and analyses them, so that variants are compared on their
mechanism and not only on their loss."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from analysis_jobs.analyse import Item, Outcome, analyse
from sweeps.bookkeeper import best_checkpoint, trial_folder
from sweeps.ledger import Ledger, TrialRecord
from sweeps.progress import Display
from sweeps.spec import SweepSpec
from sweeps.table import variants
from sweeps.tracking import Tracker
from wmcore.errors import WmsweepError
from wmcore.stimuli.feature_bank import feature_bank_folder

_OUTCOMES = "outcomes.json"
"""What became of each analysis, written when all of a network's are through."""


def analysis_folder(folder: Path, trial_id: str, replicate: int) -> Path:
    """Where a network's recording, tables and figures lie."""
    return trial_folder(folder, trial_id) / "analyses" / f"replicate_{replicate}"


def chosen_trials(spec: SweepSpec, ledger: Ledger) -> list[TrialRecord]:
    """The best trials by the objective, as many as the spec asks for."""
    ranked = [row for row in variants(spec, ledger) if row.state in ("finished", "pruned") and row.value is not None]
    return [ledger.trials[row.trial_id] for row in ranked[: spec.checkpoints.best]]


def outcomes(folder: Path, trial_id: str, replicate: int) -> list[Outcome] | None:
    """What became of a network's analyses; None when they have not been run."""
    path = analysis_folder(folder, trial_id, replicate) / _OUTCOMES
    if not path.exists():
        return None
    return [Outcome(**outcome) for outcome in json.loads(path.read_text())]


def is_analysed(spec: SweepSpec, folder: Path, ledger: Ledger) -> bool:
    """Every chosen network has been through every analysis."""
    return not spec.analyses or not _open_items(spec, folder, ledger)


def analyse_best(
    spec: SweepSpec, folder: Path, stimuli: Path, tracker: Tracker, display: Display, *, again: bool = False
) -> list[Outcome]:
    """Runs the spec's analyses over the best checkpoints, on the connected Ray; results also go to the trials' runs.

    Args:
        again: analyse networks that have been analysed before, too.
    """
    if not spec.analyses:
        return []
    ledger = Ledger(folder / "ledger.jsonl")
    pairs = _networks(spec, ledger) if again else _open_items(spec, folder, ledger)
    objective = spec.search.objective
    items = []
    for trial, replicate in pairs:
        checkpoint = best_checkpoint(folder, trial, objective.metric, objective.mode)
        if checkpoint is not None:
            output = analysis_folder(folder, trial.trial_id, replicate)
            bank = spec.trial_for(trial.point).task.stimulus_spec()
            provenance = {} if bank is None else {"feature_bank": feature_bank_folder(stimuli, bank).name}
            items.append(Item(checkpoint, output, stimuli, replicate, provenance))
    with display.stage("Record and analyse", len(items)) as update:
        found = analyse(items, spec.analyses, spec.recording, update)
    for (trial, replicate), item in zip(pairs, items, strict=True):
        mine = [o for o in found if o.trial_id in ("", trial.trial_id) and o.checkpoint == str(item.checkpoint)]
        mine = [o for o in mine if o.replicate == replicate]
        (item.output / _OUTCOMES).write_text(json.dumps([asdict(outcome) for outcome in mine]))
        for outcome in mine:
            for path in (*outcome.figures, *([outcome.table] if outcome.table.endswith(".parquet") else [])):
                tracker.artifact(trial.trial_id, Path(path), f"analyses/replicate_{replicate}")
    return found


def track_best_checkpoints(spec: SweepSpec, folder: Path, tracker: Tracker) -> None:
    """Copies the best checkpoints into their trials' runs."""
    objective = spec.search.objective
    for trial in chosen_trials(spec, Ledger(folder / "ledger.jsonl")):
        checkpoint = best_checkpoint(folder, trial, objective.metric, objective.mode)
        if checkpoint is not None:
            tracker.artifact(trial.trial_id, checkpoint, "best_checkpoint")


def raise_failures(found: list[Outcome]) -> None:
    """Raises ``WmsweepError`` with one paragraph when any analysis failed."""
    failures = [outcome for outcome in found if outcome.error]
    if failures:
        first = failures[0]
        raise WmsweepError(
            f"{len(failures)} of {len(found)} analyses failed. The first is {first.name} of variant {first.trial_id}: "
            f"{first.error} The others are kept; `wmsweep analyze` runs them again."
        )


def _networks(spec: SweepSpec, ledger: Ledger) -> list[tuple[TrialRecord, int]]:
    return [
        (trial, replicate)
        for trial in chosen_trials(spec, ledger)
        for replicate in range(spec.trial_for(trial.point).replicates)
    ]


def _open_items(spec: SweepSpec, folder: Path, ledger: Ledger) -> list[tuple[TrialRecord, int]]:
    return [
        (trial, replicate)
        for trial, replicate in _networks(spec, ledger)
        if any(o.error for o in outcomes(folder, trial.trial_id, replicate) or [_missing()])
    ]


def _missing() -> Outcome:
    return Outcome("", "", 0, "", "", "", [], 0.0, "not run")
