"""Finished trials of other sweeps on the same storage: same trial id, same variant, so nothing is trained again."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sweeps.folder import checkpoints_of
from sweeps.ledger import Ledger, TrialRecord
from sweeps.trial_lock import hold_trial
from wmcore.errors import InputError
from wmcore.training.checkpoint import UNFINISHED, load_checkpoint


@dataclass(frozen=True)
class Found:
    """A finished trial of another sweep.

    Attributes:
        sweep: the folder of the sweep that holds it.
        trial: its record there.
    """

    sweep: Path
    trial: TrialRecord

    def event(self) -> dict[str, Any]:
        """The fields of a ``reused`` event: the trial as it was, and the sweep that trained it."""
        trial = self.trial
        reports = [
            {"step": step, "metrics": metrics, "replicates": trial.replicates.get(step, [])}
            for step, metrics in trial.reports.items()
        ]
        return {
            "source": trial.source or self.sweep.name,
            "step": trial.step,
            "reports": reports,
            "result": trial.result,
        }

    def check_whole(self) -> None:
        """Reads the checkpoint of its best step.

        Raises:
            InputError: it cannot be read.
        """
        assert self.trial.result is not None
        best = checkpoints_of(self.sweep, self.trial.trial_id).at(self.trial.result["best_step"])
        load_checkpoint(best).check_whole()

    def copy_checkpoints(self, folder: Path) -> None:
        """Gives the checkpoints a second place; the files are shared where the file system can do that.

        Raises:
            OSError: they cannot be copied.
            TimeoutError: another process is writing checkpoints there.
        """
        source, target = checkpoints_of(self.sweep, self.trial.trial_id).folder, folder / "checkpoints"
        # The actor of a driver that was killed may be training the trial still, and would remove what it finds.
        with hold_trial(folder, patience_s=0.0):
            shutil.rmtree(target, ignore_errors=True)
            shutil.copytree(source, target, copy_function=_link, ignore=shutil.ignore_patterns(UNFINISHED))


class FinishedElsewhere:
    """The finished trials of a storage's other sweeps, as of the moment at which this is made."""

    def __init__(self, storage: Path, but: Path) -> None:
        """Reads the ledgers of ``storage``, that of the folder ``but`` aside.

        A ledger that cannot be read is left out and named in ``unreadable``: the sweep does not depend on it.
        """
        self.unreadable: list[str] = []
        self.untaken: dict[str, list[str]] = {}
        """Trial id -> why it could not be taken over from where it has finished, a sentence each."""
        self._found: dict[str, list[Found]] = {}
        for path in sorted(storage.glob("*/ledger.jsonl")):
            if path.parent.resolve() == but.resolve():
                continue
            try:
                ledger = Ledger(path)
            except InputError as error:
                self.unreadable.append(str(error))
                continue
            for trial in ledger.trials.values():
                if trial.state == "finished" and trial.result is not None:
                    self._found.setdefault(trial.trial_id, []).append(Found(path.parent, trial))

    def take(self, trial_id: str, folder: Path) -> Found | None:
        """Gives the folder of a trial the checkpoints of one that has finished elsewhere; None where there is none
        whose best checkpoint is whole."""
        for found in self._found.get(trial_id, ()):
            try:
                found.check_whole()
                found.copy_checkpoints(folder)
            except (InputError, OSError) as error:
                said = f"not taken over from {found.sweep.name}: {error}"
                self.untaken.setdefault(trial_id, []).append(said)
            else:
                return found
        return None


def _link(source: str, target: str) -> None:
    """A second name for a file: checkpoints are never changed, only replaced."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
