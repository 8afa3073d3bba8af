"""The stage after the search: records the best checkpoints and analyses them, so that variants are compared on their
mechanism and not only on their loss."""

from __future__ import annotations

from pathlib import Path

from analysis_jobs.analyse import Item, Outcome, analyse, load_outcomes
from sweeps.folder import best_checkpoint, trial_folder
from sweeps.ledger import Ledger, TrialRecord
from sweeps.progress import Display
from sweeps.spec import SweepSpec
from sweeps.table import variants
from sweeps.tracking import Tracker
from wmcore.stimuli.feature_bank import feature_bank_folder

_NOT_RUN = Outcome("", "", 0, "", "", "", [], 0.0, "not run")


def analysis_folder(folder: Path, trial_id: str, replicate: int) -> Path:
    """Where a network's recording, tables and figures lie."""
    return trial_folder(folder, trial_id) / "analyses" / f"replicate_{replicate}"


def chosen_trials(spec: SweepSpec, ledger: Ledger) -> list[TrialRecord]:
    """The best trials by the objective, as many as the spec asks for."""
    ranked = [row for row in variants(spec, ledger) if row.state in ("finished", "pruned") and row.value is not None]
    return [ledger.trials[row.trial_id] for row in ranked[: spec.checkpoints.best]]


def outcomes(folder: Path, trial_id: str, replicate: int) -> list[Outcome] | None:
    """What became of a network's analyses; None when they have not been run to their end."""
    return load_outcomes(analysis_folder(folder, trial_id, replicate))


def is_analysed(spec: SweepSpec, folder: Path, ledger: Ledger) -> bool:
    """Every chosen network has been through every analysis."""
    return not spec.analyses or not _open_items(spec, folder, ledger)


def analyse_best(spec: SweepSpec, folder: Path, stimuli: Path, display: Display, *, again: bool = False) -> None:
    """Runs the spec's analyses over the best checkpoints, on the connected Ray.

    Args:
        again: analyse networks that have been analysed before, too.
    """
    ledger = Ledger(folder / "ledger.jsonl")
    pairs = _networks(spec, ledger) if again else _open_items(spec, folder, ledger)
    if not spec.analyses or not pairs:
        return
    objective = spec.search.leading
    items = []
    for trial, replicate in pairs:
        checkpoint = best_checkpoint(folder, trial, objective.metric, objective.mode)
        assert checkpoint is not None  # the chosen trials have reported
        output = analysis_folder(folder, trial.trial_id, replicate)
        bank = spec.trial_for(trial.point).task.stimulus_spec()
        provenance = {} if bank is None else {"feature_bank": feature_bank_folder(stimuli, bank).name}
        items.append(Item(checkpoint, output, stimuli, replicate, provenance))
    with display.stage("Record and analyse", len(items)) as update:
        analyse(items, spec.analyses, spec.recording, update)


def track_results(spec: SweepSpec, folder: Path, tracker: Tracker) -> None:
    """Copies best checkpoints, tables and figures of the chosen trials into their runs."""
    ledger, objective = Ledger(folder / "ledger.jsonl"), spec.search.leading
    for trial in chosen_trials(spec, ledger):
        checkpoint = best_checkpoint(folder, trial, objective.metric, objective.mode)
        if checkpoint is not None:
            tracker.artifact(trial.trial_id, checkpoint, "best_checkpoint")
    for trial, replicate in _networks(spec, ledger):
        for outcome in outcomes(folder, trial.trial_id, replicate) or []:
            for path in (*outcome.figures, *([outcome.table] if outcome.table.endswith(".parquet") else [])):
                tracker.artifact(trial.trial_id, Path(path), f"analyses/replicate_{replicate}")


def failures(spec: SweepSpec, folder: Path) -> list[str]:
    """A sentence for each analysis that failed."""
    ledger = Ledger(folder / "ledger.jsonl")
    return [
        f"{outcome.name} of variant {trial.number}: {outcome.error}"
        for trial, replicate in _networks(spec, ledger)
        for outcome in outcomes(folder, trial.trial_id, replicate) or []
        if outcome.error
    ]


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
        if any(o.error for o in outcomes(folder, trial.trial_id, replicate) or [_NOT_RUN])
    ]
