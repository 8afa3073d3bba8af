"""A sweep's folder: made before Ray starts, held by one driver at a time, and never run with another spec.

<storage>/<name>/
  spec.yaml        as the user wrote it
  ledger.jsonl     the record; its first line holds the resolved spec
  trials/<id>/     checkpoints, recordings and analyses of a variant
  mlflow.db        tracking, unless the spec names a server
  report/          index.html and its figures
<storage>/stimuli/ image and feature banks, shared by all sweeps of the storage
"""

from __future__ import annotations

import fcntl
import os
import socket
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from pydantic import ValidationError

from sweeps.ledger import CHANGEABLE, VERSION, Ledger, TrialRecord
from sweeps.messages import explain
from sweeps.spec import SweepSpec
from wmcore.errors import InputError
from wmcore.spec import canonical_json, with_paths
from wmcore.training.checkpoint import CheckpointFolder

LOCK = "driver.lock"
LOCK_SECONDS = 0.5


def stimuli_folder(storage: Path) -> Path:
    """Where the banks of all sweeps of a storage lie."""
    return storage / "stimuli"


def trial_folder(sweep: Path, trial_id: str) -> Path:
    """Where a trial keeps its checkpoints, recordings and analyses."""
    return sweep / "trials" / trial_id


def checkpoints_of(sweep: Path, trial_id: str) -> CheckpointFolder:
    """The checkpoints of a trial."""
    return CheckpointFolder(trial_folder(sweep, trial_id) / "checkpoints")


def best_checkpoint(sweep: Path, trial: TrialRecord, metric: str, mode: str) -> Path | None:
    """The checkpoint of a trial's best report."""
    best = trial.best(metric, mode)
    return None if best is None else checkpoints_of(sweep, trial.trial_id).at(best[0])


def open_folder(spec: SweepSpec, storage: Path, source: Path | None = None) -> tuple[Path, SweepSpec, Ledger]:
    """Makes the folder of a sweep with its ledger, or opens the one that is there. Where the sweep is tracked and what
    a trial occupies may change; the ledger takes it down.

    Returns:
        The folder, the spec with the number of trials that the sweep has by now, and the ledger.

    Raises:
        InputError: the folder belongs to a different spec (the difference is shown), or cannot be written.
    """
    folder = storage / spec.name
    resolved = spec.model_dump(mode="json")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            "--storage", f"cannot be written ({error.strerror})", value=str(storage), remedy="Name another folder."
        ) from error
    ledger = Ledger(folder / "ledger.jsonl")
    if not ledger.trials and not _same(ledger.spec, resolved):
        # Two drivers may start at the same moment: only one of them begins the ledger.
        with driver_lock(folder):
            ledger = Ledger(folder / "ledger.jsonl")
            if ledger.spec is None and (folder / "trials").exists():
                raise InputError(
                    str(folder),
                    "holds trials but not the ledger that says what they are",
                    remedy="Restore ledger.jsonl from a backup, or give the new sweep another name.",
                )
            if not ledger.trials and not _same(ledger.spec, resolved):
                if source is not None:
                    (folder / "spec.yaml").write_text(source.read_text())
                sweep_id = ledger.sweep_id or uuid.uuid4().hex[:16]
                ledger.append("sweep", version=VERSION, sweep_id=sweep_id, spec=resolved)
    if ledger.spec is not None and not _same(ledger.spec, resolved) and _same(_fixed(ledger.spec), _fixed(resolved)):
        with driver_lock(folder):
            ledger = Ledger(folder / "ledger.jsonl")
            known = ledger.spec or {}
            ledger.append("changed", **{name: resolved[name] for name in CHANGEABLE if known[name] != resolved[name]})
    if not _same(ledger.spec, resolved):
        changes = "; ".join(differences(_fixed(ledger.spec or {}), _fixed(resolved)))
        raise InputError(
            str(folder),
            f"holds a sweep with another spec ({changes})",
            remedy="Give the new sweep another name, or restore the spec to go on with this one; "
            "`wmsweep resume DIR --trials N` adds trials.",
        )
    return folder, as_extended(spec, ledger), ledger


def _same(one: Mapping[str, Any] | None, other: Mapping[str, Any]) -> bool:
    return one is not None and canonical_json(one) == canonical_json(other)


def _fixed(spec: Mapping[str, Any]) -> dict[str, Any]:
    """What cannot change once a sweep has begun."""
    return {name: value for name, value in spec.items() if name not in CHANGEABLE}


def as_extended(spec: SweepSpec, ledger: Ledger) -> SweepSpec:
    """The spec with the number of trials that the ledger says.

    Raises:
        InputError: the space does not hold so many.
    """
    if ledger.extended_to is None:
        return spec
    return _parsed(with_paths(spec.model_dump(mode="json"), {"search.trials": ledger.extended_to}))


def _parsed(data: dict[str, Any]) -> SweepSpec:
    try:
        return SweepSpec.parse(data)
    except ValidationError as error:
        raise explain(error, data, SweepSpec) from error


def read_folder(folder: Path) -> tuple[SweepSpec, Ledger]:
    """The spec and the ledger of a sweep's folder, for commands that only read.

    Raises:
        InputError: it is not the folder of a sweep.
    """
    ledger = Ledger(folder / "ledger.jsonl")
    if ledger.spec is None:
        raise InputError(
            str(folder), "is not the folder of a sweep: it holds no ledger.jsonl", remedy="Name DIR/<name> of a run."
        )
    return as_extended(_parsed(ledger.spec), ledger), ledger


def holder(folder: Path) -> str:
    """The driver that holds the folder just now, as in ``process 12 on host``; an empty string if none does."""
    path = folder / LOCK
    if not path.exists():
        return ""
    with path.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return file.read().strip() or "unknown"
    return ""


@contextmanager
def driver_lock(folder: Path) -> Iterator[None]:
    """Holds a sweep's folder for this process; the system frees it when the process ends, however it ends.

    Raises:
        InputError: another process holds it.
    """
    path = folder / LOCK
    with path.open("a+") as file:
        # Whoever asks for the holder takes the lock for a moment.
        deadline = time.monotonic() + LOCK_SECONDS
        while not _locked(file):
            if time.monotonic() > deadline:
                file.seek(0)
                raise InputError(
                    str(folder),
                    f"is being run by another driver ({file.read().strip() or 'unknown'})",
                    remedy="Wait for it, or end it; `wmsweep status` shows how far it is.",
                )
            time.sleep(0.05)
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        file.flush()
        yield


def _locked(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        raise InputError(
            file.name, f"cannot be locked ({error.strerror})", remedy="Keep sweeps on a file system with locks."
        ) from error
    return True


def differences(old: Any, new: Any, path: str = "") -> list[str]:
    """``path: old -> new`` for every value that differs."""
    if isinstance(old, dict) and isinstance(new, dict):
        return [
            line
            for key in sorted({*old, *new})
            for line in differences(old.get(key), new.get(key), f"{path}.{key}" if path else key)
        ]
    return [] if old == new else [f"{path}: {old!r} -> {new!r}"]
