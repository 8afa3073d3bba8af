"""Finished trials of other sweeps on the same storage: same trial id, same variant, so nothing is trained again."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sweeps.folder import checkpoints_of
from sweeps.ledger import Ledger, TrialRecord
from wmcore.errors import InputError


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

    def copy_checkpoints(self, folder: Path) -> None:
        """Gives the checkpoints a second place; the files are shared where the file system can do that."""
        source, target = checkpoints_of(self.sweep, self.trial.trial_id).folder, folder / "checkpoints"
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(source, target, copy_function=_link)


class FinishedElsewhere:
    """The finished trials of a storage's other sweeps, as of the moment at which this is made."""

    def __init__(self, storage: Path, but: Path) -> None:
        """Reads the ledgers of ``storage``, that of the folder ``but`` aside.

        A ledger that cannot be read is left out and named in ``unreadable``: the sweep does not depend on it.
        """
        self.unreadable: list[str] = []
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
                if trial.state == "finished":
                    self._found.setdefault(trial.trial_id, []).append(Found(path.parent, trial))

    def take(self, trial_id: str, folder: Path) -> Found | None:
        """Gives the folder of a trial the checkpoints of one that has finished elsewhere; None where there is none
        whose best checkpoint is whole."""
        for found in self._found.get(trial_id, ()):
            result = found.trial.result
            if result is not None and checkpoints_of(found.sweep, trial_id).is_whole(result["best_step"]):
                try:
                    found.copy_checkpoints(folder)
                except OSError as error:
                    self.unreadable.append(f"{found.sweep}: {error}")
                else:
                    return found
        return None


def _link(source: str, target: str) -> None:
    """A second name for a file: checkpoints are never changed, only replaced."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
