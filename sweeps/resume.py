"""Changes to a sweep that has run: more trials, and failed ones again. Both are lines of its ledger."""

from __future__ import annotations

from pathlib import Path

from sweeps.folder import as_extended, checkpoints_of
from sweeps.ledger import Ledger
from sweeps.spec import SweepSpec
from wmcore.errors import InputError
from wmcore.training.divergence import FATAL


def extend(spec: SweepSpec, ledger: Ledger, more: int) -> SweepSpec:
    """Gives a sweep so many trials more; returns its spec.

    Raises:
        InputError: the space holds no more.
    """
    if ledger.exhausted:
        raise InputError(
            "--trials",
            f"adds trials, but the space is used up: it holds {len(ledger.trials)} different ones",
            value=more,
            remedy="Leave it out, or start a sweep with a larger space under another name.",
        )
    trials = spec.search.budget + more
    # Checked before it is written: a grid has only so many cells.
    before, ledger.extended_to = ledger.extended_to, trials
    try:
        extended = as_extended(spec, ledger)
    finally:
        ledger.extended_to = before
    ledger.append("extended", trials=trials)
    return extended


def retry_failed(folder: Path, ledger: Ledger) -> int:
    """Makes failed trials pending again; returns how many.

    One that broke goes on from its last checkpoint. One that diverged would do so again from there: it starts anew,
    and its checkpoints are kept aside.
    """
    failed = [trial for trial in ledger.in_order() if trial.state == "failed"]
    for trial in failed:
        restarts = any(kind in trial.divergence for kind in FATAL)
        checkpoints = checkpoints_of(folder, trial.trial_id).folder
        if restarts and checkpoints.exists():
            checkpoints.rename(checkpoints.with_name(f"checkpoints_of_failure_{trial.failures}"))
        ledger.append("retried", trial_id=trial.trial_id, restarts=restarts)
    return len(failed)
