"""Connecting to Ray: a cluster of our own on this machine, or one that is running."""

from __future__ import annotations

import logging
import os
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


@contextmanager
def connected(address: str | None = None) -> Iterator[None]:
    """A connection to Ray: ``address`` as of ``ray.init``; None starts one here and ends it afterwards.

    Raises:
        InputError: nothing runs at the address.
    """
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
        raise InputError(
            "--address", f"cannot be reached ({error})", value=address, remedy="Start Ray: cluster/local.sh."
        ) from error
    try:
        yield
    finally:
        ray.shutdown()


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
