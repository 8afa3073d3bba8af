"""Banks as folders: written under a temporary name, renamed when complete, and checked when read."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd

from wmcore.errors import InputError

DESCRIPTION = "bank.json"
MANIFEST = "manifest.parquet"


@contextmanager
def new_bank(target: Path) -> Iterator[Path]:
    """A temporary folder beside ``target`` that takes its name when the block ends without an error.

    If another process finished the same bank first, that one stays: equal names mean equal content.

    Raises:
        InputError: the folder cannot be written.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    except OSError as error:
        raise InputError(str(target.parent), f"cannot be written ({error.strerror})") from error
    try:
        yield temporary
        # mkdtemp makes private folders; a bank is read by whoever may read its parent.
        temporary.chmod(0o755)
        try:
            temporary.rename(target)
        except OSError:
            if not (target / DESCRIPTION).is_file():
                # What is in the way is no finished bank.
                shutil.rmtree(target)
                temporary.rename(target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_description(folder: Path, manifest: pd.DataFrame, description: dict[str, Any]) -> None:
    """Writes the manifest and, last, ``bank.json`` with the checksums of all files that lie in the folder by then."""
    manifest.to_parquet(folder / MANIFEST, index=False)
    checksums = {path.name: _checksum(path) for path in sorted(folder.iterdir()) if path.is_file()}
    write_json(folder / DESCRIPTION, {**description, "sha256": checksums})


def write_json(path: Path, data: dict[str, Any]) -> None:
    """Writes indented JSON under a temporary name, then renames it."""
    temporary = path.with_name(f".{path.name}-{os.getpid()}")
    temporary.write_text(json.dumps(data, indent=2, sort_keys=True, allow_nan=False) + "\n")
    temporary.replace(path)


def read_description(folder: Path, what: str, content_hash: str) -> tuple[pd.DataFrame, dict[str, Any]]:
    """The manifest and ``bank.json`` of a finished bank; the files beside them are those that were written.

    Raises:
        InputError: the bank is not there, or is damaged.
    """
    if not folder.exists():
        raise InputError(
            str(folder),
            f"must hold the {what} bank of these stimuli, but there is none",
            remedy="Run `wmsweep render` with the same spec and storage.",
        )
    if not (folder / DESCRIPTION).is_file():
        raise damaged(folder, what, f"{DESCRIPTION} is missing")
    try:
        description = json.loads((folder / DESCRIPTION).read_text())
        changed = [name for name, checksum in description["sha256"].items() if _checksum(folder / name) != checksum]
        same = description["content_hash"] == content_hash and MANIFEST in description["sha256"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise damaged(folder, what, str(error)) from error
    if changed:
        raise damaged(folder, what, f"{changed[0]} is not the one that was written")
    if not same:
        raise damaged(folder, what, f"{DESCRIPTION} is not the one that was written")
    return pd.read_parquet(folder / MANIFEST), description


def _checksum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def damaged(folder: Path, what: str, why: str) -> InputError:
    """The error for a bank whose content is not what was written."""
    return InputError(
        str(folder),
        f"holds a damaged {what} bank ({why})",
        remedy="Delete this folder: `wmsweep render` and `wmsweep run` make it again.",
    )
