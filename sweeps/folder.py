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
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sweeps.ledger import VERSION, Ledger
from sweeps.spec import SweepSpec
from wmcore.errors import InputError
from wmcore.spec import canonical_json


def stimuli_folder(storage: Path) -> Path:
    """Where the banks of all sweeps of a storage lie."""
    return storage / "stimuli"


def open_folder(spec: SweepSpec, storage: Path, source: Path | None = None) -> tuple[Path, Ledger]:
    """Makes the folder of a sweep with its ledger, or opens the one that is there.

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
    if ledger.spec is None:
        # Two drivers may start at the same moment: only one of them begins the ledger.
        with driver_lock(folder):
            ledger = Ledger(folder / "ledger.jsonl")
            if ledger.spec is None and (folder / "trials").exists():
                raise InputError(
                    str(folder),
                    "holds trials but not the ledger that says what they are",
                    remedy="Restore ledger.jsonl from a backup, or give the new sweep another name.",
                )
            if ledger.spec is None:
                if source is not None:
                    (folder / "spec.yaml").write_text(source.read_text())
                ledger.append("sweep", version=VERSION, spec=resolved)
    if canonical_json(ledger.spec) != canonical_json(resolved):
        changes = "; ".join(differences(ledger.spec, resolved))
        raise InputError(
            str(folder),
            f"holds a sweep with another spec ({changes})",
            remedy="Give the new sweep another name, or restore the spec to go on with this one.",
        )
    return folder, ledger


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
    return SweepSpec.parse(ledger.spec), ledger


def is_driven(folder: Path) -> bool:
    """Whether a driver holds the folder just now."""
    path = folder / "driver.lock"
    if not path.exists():
        return False
    with path.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return True
    return False


@contextmanager
def driver_lock(folder: Path) -> Iterator[None]:
    """Holds a sweep's folder for this process; the system frees it when the process ends, however it ends.

    Raises:
        InputError: another process holds it.
    """
    path = folder / "driver.lock"
    with path.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            file.seek(0)
            raise InputError(
                str(folder),
                f"is being run by another driver ({file.read().strip() or 'unknown'})",
                remedy="Wait for it, or end it; `wmsweep status` shows how far it is.",
            ) from error
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        file.flush()
        yield


def differences(old: Any, new: Any, path: str = "") -> list[str]:
    """``path: old -> new`` for every value that differs."""
    if isinstance(old, dict) and isinstance(new, dict):
        return [
            line
            for key in sorted({*old, *new})
            for line in differences(old.get(key), new.get(key), f"{path}.{key}" if path else key)
        ]
    return [] if old == new else [f"{path}: {old!r} -> {new!r}"]
