"""Changes to a sweep that has run: more trials, and failed ones again. Both are lines of its ledger."""

from __future__ import annotations

from pathlib import Path

from sweeps.folder import checkpoints_of
from sweeps.ledger import Ledger, TrialRecord
from sweeps.spec import MOST_TRIALS, SweepSpec
from wmcore.errors import InputError
from wmcore.spec import with_paths
from wmcore.training.divergence import FATAL


def extended(spec: SweepSpec, ledger: Ledger, more: int) -> SweepSpec:
    """The spec of a sweep with so many trials more; nothing is written.

    Raises:
        InputError: the space holds no more, or the sweep may not have so many.
    """
    size = spec.search.space.size()
    used_up = ledger.exhausted or (spec.search.sampler.kind == "grid" and spec.search.budget + more > (size or 0))
    if used_up:
        holds = len(ledger.trials) if ledger.exhausted else size
        raise InputError(
            "--trials",
            f"adds more trials than the space holds: {holds} different ones",
            value=more,
            remedy="Ask for fewer, or start a sweep with a larger space under another name.",
        )
    if spec.search.budget + more > MOST_TRIALS:
        raise InputError(
            "--trials",
            f"must leave the sweep at most {MOST_TRIALS} trials, and it has {spec.search.budget}",
            value=more,
            remedy="Ask for fewer.",
        )
    data = with_paths(spec.model_dump(mode="json"), {"search.trials": spec.search.budget + more})
    return SweepSpec.parse(data)


def retry_failed(folder: Path, ledger: Ledger) -> list[TrialRecord]:
    """Makes failed trials pending again; returns them.

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
    return failed
