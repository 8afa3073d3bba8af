"""Checks of files and folders that the user names, before anything is started."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from wmcore.errors import InputError

REMEDY = "Name another one with --storage."


def storage_folder(folder: Path) -> Path:
    """The storage folder that the user means: absolute, with ``~`` expanded and links followed.

    Raises:
        InputError: there is no such user's home, or links go in a circle.
    """
    try:
        return folder.expanduser().resolve()
    except (RuntimeError, OSError) as error:
        raise InputError(f"the storage folder {folder}", f"cannot be found ({error})", remedy=REMEDY) from error


def check_storage(folder: Path) -> Path:
    """Checks that ``folder`` exists or can be made, and can be written to; leaves nothing behind.

    Returns:
        It, as ``storage_folder`` gives it: the one that everything else must use.

    Raises:
        InputError: it, or the nearest folder above it that exists, cannot be written to.
    """
    folder = storage_folder(folder)
    existing, where, remedy = existing_part(folder), f"the storage folder {folder}", REMEDY
    if not existing.is_dir():
        what = "is a file" if existing == folder else f"lies below {existing}, which is a file"
        raise InputError(where, f"must be a folder that exists or can be made, and it {what}", remedy=remedy)
    try:
        with tempfile.TemporaryFile(dir=existing) as file:
            file.write(b"wmsweep")
    except OSError as error:
        rule = f"must be a folder that can be written to, and {existing} refuses ({error.strerror})"
        raise InputError(where, rule, remedy=remedy) from error
    return folder


def check_sweep_folder(folder: Path) -> None:
    """Checks that a sweep's folder, in a storage that has been checked, is one or can be made.

    Raises:
        InputError: a file is in its place.
    """
    if os.path.lexists(folder) and not folder.is_dir():
        raise InputError(
            f"the sweep's folder {folder}",
            "must be a folder, and something else is in its place",
            remedy="Remove that, or give the sweep another name with --set name=NAME.",
        )


def existing_part(folder: Path) -> Path:
    """The folder itself or, if it does not exist, the nearest thing above it that does."""
    folder = storage_folder(folder)
    # os.path, because Path.exists raises where a folder on the way cannot be searched.
    return next(path for path in (folder, *folder.parents) if os.path.exists(path))


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
