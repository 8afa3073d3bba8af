"""Keeps what compiled libraries write to the terminal (Ray's core, VTK) in a file."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def stderr_in(path: Path) -> Iterator[None]:
    """Appends everything that is written to file descriptor 2 to a file, and restores it afterwards.

    Progress is written to standard output and errors are shown after the end, so a user misses nothing but advice of
    libraries that only their authors can act on.
    """
    sys.stderr.flush()
    terminal = os.dup(2)
    try:
        with path.open("ab") as file:
            os.dup2(file.fileno(), 2)
        yield
    finally:
        sys.stderr.flush()
        os.dup2(terminal, 2)
        os.close(terminal)
