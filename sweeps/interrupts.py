"""What Ctrl-C does. Imports nothing heavy: it is the first thing that is loaded."""

from __future__ import annotations

import os
import time

INTERRUPTED = 130
"""Exit code of what was interrupted."""
ENDING_S = 60.0
"""How long ending may take: Ray is ended, and MLflow gets what it lacks."""


def end_at_once(*_: object) -> None:
    """Handler of SIGINT while nothing has begun: libraries that are being loaded sometimes swallow a
    KeyboardInterrupt."""
    os.write(2, b"Interrupted before anything had begun.\n")
    os._exit(INTERRUPTED)


class Patient:
    """Handler of SIGINT that raises KeyboardInterrupt, but no second one while the first one is being answered.

    After ``ENDING_S`` it raises again, because libraries sometimes swallow a KeyboardInterrupt.
    """

    def __init__(self) -> None:
        self.raised: float | None = None

    def __call__(self, *_: object) -> None:
        """Raises KeyboardInterrupt."""
        now = time.monotonic()
        if self.raised is None or now - self.raised > ENDING_S:
            self.raised = now
            raise KeyboardInterrupt
