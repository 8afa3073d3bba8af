"""Connecting to Ray: a cluster of our own on this machine, or one that is running."""

from __future__ import annotations

import logging
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import ray

from sweeps.spec import SweepSpec
from wmcore.errors import InputError

_SETTINGS = {
    # Tune's own loggers write every result a second time; the ledger and MLflow hold them.
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    # Ctrl-C is ours to handle: it must reach the driver as KeyboardInterrupt.
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    # Tune's newer output cannot be silenced; the older one can.
    "RAY_AIR_NEW_OUTPUT": "0",
    # With usage statistics on, Ray Data leaves a thread that asks Ray for figures every ten seconds for as long as the
    # process lives; after the connection has ended, the question ends the process, whatever it is doing.
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}

PROBE = "import sys, ray; ray.init(address=sys.argv[1], log_to_driver=False, logging_level='ERROR'); ray.shutdown()"
PROBE_SECONDS = 18.0
CONNECT_SECONDS = 3.0
REMEDY = "Start one with cluster/local.sh, name the address of one that runs, or leave --address out."


@contextmanager
def connected(address: str | None = None) -> Iterator[None]:
    """A connection to Ray: ``address`` as of ``ray.init``; None starts one here and ends it afterwards.

    Raises:
        InputError: no Ray runs at the address.
    """
    if address is not None:
        check_address(address)
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)
    try:
        ray.init(
            address=address or "local",
            include_dashboard=False if address is None else None,
            log_to_driver=False,
            logging_level=logging.ERROR,
        )
    except ConnectionError as error:
        raise _unreachable(address, str(error)) from error
    try:
        yield
    finally:
        ray.shutdown()


def check_address(address: str) -> None:
    """Checks within 20 s that a Ray answers at an address: ``auto``, or host:port, with or without ``ray://``.

    Raises:
        InputError: it is no address, or no Ray answers there.
    """
    parts = re.fullmatch(r"(?:ray://)?(\[[^\]]+\]|[^\s:/]+):(\d{1,5})", address)
    if address != "auto" and (parts is None or not 0 < int(parts[2]) < 65536):
        raise InputError("--address", "must be auto or host:port, as in 127.0.0.1:6379", value=address, remedy=REMEDY)
    if parts is not None:
        try:
            socket.create_connection((parts[1].strip("[]"), int(parts[2])), timeout=CONNECT_SECONDS).close()
        except OSError as error:
            raise _unreachable(address, error.strerror or str(error)) from error
    # In a process of its own: ray.init itself tries for minutes where no Ray answers, and no setting shortens that.
    try:
        done = subprocess.run(
            [sys.executable, "-c", PROBE, address], capture_output=True, text=True, timeout=PROBE_SECONDS, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise _unreachable(address, f"no Ray answered within {PROBE_SECONDS:g} s") from error
    if done.returncode:
        said = done.stderr.strip().splitlines() or [f"its client ended with code {done.returncode}"]
        raise _unreachable(address, said[-1])


def _unreachable(address: str | None, why: str) -> InputError:
    return InputError("--address", f"must lead to a running Ray ({why})", value=address, remedy=REMEDY)


def slots(spec: SweepSpec) -> int:
    """Trials that the connected cluster can hold at once, at most ``resources.concurrency``.

    Raises:
        InputError: it can never hold one.
    """
    have = ray.cluster_resources()
    need = {"CPU": spec.resources.cpu, "GPU": spec.resources.gpu}
    for name, amount in need.items():
        if amount > have.get(name, 0):
            raise InputError(
                f"resources.{name.lower()}",
                f"exceeds what this cluster has ({have.get(name, 0):g})",
                value=amount,
                remedy="Ask for less, or join a larger cluster with --address.",
            )
    fits = min(int(have[name] / amount) for name, amount in need.items() if amount > 0)
    return min(fits, spec.resources.concurrency or fits)
