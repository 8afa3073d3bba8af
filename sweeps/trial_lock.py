"""One writer for each trial's folder: the system frees the lock when the process ends, however it ends."""

from __future__ import annotations

import fcntl
import time
from pathlib import Path
from typing import IO

LOCK = "trial.lock"
ORPHAN_SECONDS = 300.0
"""How long a trial waits for an orphan: the actor of a killed driver may train it for some seconds more."""


def hold_trial(folder: Path, patience_s: float = ORPHAN_SECONDS) -> IO[str]:
    """The open file that holds a trial's folder, which is made if need be, for this process.

    Raises:
        TimeoutError: another process holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    file = (folder / LOCK).open("w")
    deadline = time.monotonic() + patience_s
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return file
        except BlockingIOError:
            if time.monotonic() >= deadline:
                file.close()
                raise TimeoutError(f"another process has held {folder / LOCK} for {patience_s:g} s") from None
            time.sleep(0.05)
