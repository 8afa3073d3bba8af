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
    """Writes the manifest and, last, ``bank.json`` with the manifest's checksum."""
    manifest.to_parquet(folder / MANIFEST, index=False)
    checksum = hashlib.sha256((folder / MANIFEST).read_bytes()).hexdigest()
    write_json(folder / DESCRIPTION, {**description, "manifest_sha256": checksum})


def write_json(path: Path, data: dict[str, Any]) -> None:
    """Writes indented JSON under a temporary name, then renames it."""
    temporary = path.with_name(f".{path.name}-{os.getpid()}")
    temporary.write_text(json.dumps(data, indent=2, sort_keys=True, allow_nan=False) + "\n")
    temporary.replace(path)


def read_description(folder: Path, what: str, content_hash: str) -> tuple[pd.DataFrame, dict[str, Any]]:
    """The manifest and ``bank.json`` of a finished bank.

    Raises:
        InputError: the bank is not there, or is damaged.
    """
    if not (folder / DESCRIPTION).is_file():
        raise InputError(
            str(folder),
            f"must hold the {what} bank of these stimuli, but there is none",
            remedy="Run `wmsweep render` with the same spec and storage.",
        )
    try:
        description = json.loads((folder / DESCRIPTION).read_text())
        content = (folder / MANIFEST).read_bytes()
        sound = (
            description["content_hash"] == content_hash
            and description["manifest_sha256"] == hashlib.sha256(content).hexdigest()
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise damaged(folder, what, str(error)) from error
    if not sound:
        raise damaged(folder, what, "its manifest is not the one that was written")
    return pd.read_parquet(folder / MANIFEST), description


def damaged(folder: Path, what: str, why: str) -> InputError:
    """The error for a bank whose content is not what was written."""
    return InputError(
        str(folder),
        f"holds a damaged {what} bank ({why})",
        remedy="Delete this folder and run `wmsweep render` again.",
    )
