"""Checks of files and folders that the user names, before anything is started."""

from __future__ import annotations

import tempfile
from pathlib import Path

from wmcore.errors import InputError


def check_storage(folder: Path) -> None:
    """Checks that ``folder`` exists or can be made, and can be written to; leaves nothing behind.

    Raises:
        InputError: it, or the nearest folder above it that exists, cannot be written to.
    """
    folder = folder.expanduser().absolute()
    existing, where = existing_part(folder), f"the storage folder {folder}"
    remedy = "Name another one with --storage."
    if not existing.is_dir():
        what = "is a file" if existing == folder else f"lies below {existing}, which is a file"
        raise InputError(where, f"must be a folder that exists or can be made, and it {what}", remedy=remedy)
    try:
        with tempfile.TemporaryFile(dir=existing) as file:
            file.write(b"wmsweep")
    except OSError as error:
        rule = f"must be a folder that can be written to, and {existing} refuses ({error.strerror})"
        raise InputError(where, rule, remedy=remedy) from error


def existing_part(folder: Path) -> Path:
    """The folder itself or, if it does not exist, the nearest thing above it that does."""
    folder = folder.expanduser().absolute()
    return next(path for path in (folder, *folder.parents) if path.exists())


def write_text(path: Path, text: str) -> None:
    """Writes a file that the user named.

    Raises:
        InputError: it cannot be written.
    """
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise InputError(
            f"the output {path}", f"cannot be written ({error.strerror})", remedy="Name another file."
        ) from error
