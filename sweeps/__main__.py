"""Where ``wmsweep`` and ``python -m sweeps`` start: Ctrl-C is answered from the first line to the last."""

from __future__ import annotations

import signal

from sweeps.interrupts import Patient, end_at_once


def main() -> None:
    """Runs the command line and exits."""
    signal.signal(signal.SIGINT, end_at_once)
    from sweeps import cli

    signal.signal(signal.SIGINT, Patient())
    try:
        cli.main()
    finally:
        # All is said: what is left is that libraries end, which an interruption would only make untidy.
        signal.signal(signal.SIGINT, signal.SIG_IGN)


if __name__ == "__main__":
    main()
