"""Connecting to Ray: a cluster of our own on this machine, or one that is running."""

from __future__ import annotations

import logging
import os
import re
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from sweeps.placement import alive_nodes, fitting
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

PROBE = """
import sys, ray
print(flush=True)
ray.init(address=sys.argv[1], log_to_driver=False, logging_level="ERROR")
ray.shutdown()
"""
PROBE_SECONDS = 18.0
CONNECT_SECONDS = 3.0
COPIES = "working_dir_files"
"""Folder, among Ray's own files, of the copies that it makes of jobs' working directories."""
SEEN = "seen-by-"
"""How a file of a sweep's folder begins that its nodes are asked for."""
REMEDY = "Start one with cluster/local.sh, name the address of one that runs, or leave --address out."


@contextmanager
def connected(address: str | None = None) -> Iterator[None]:
    """A connection to Ray: ``address`` as of ``ray.init``; None starts one here and ends it afterwards.

    Raises:
        InputError: no Ray runs at the address, or there is none and this process is a job of a running Ray.
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
        if address is None and _working_dir() is not None:
            raise InputError(
                "--address",
                "must be given inside a Ray job: a Ray of its own does not hold the job's working directory",
                remedy="Add --address auto.",
            )
        yield
    finally:
        ray.shutdown()


def check_address(address: str) -> None:
    """Checks within 20 s that a Ray answers at an address: ``auto`` or host:port.

    Raises:
        InputError: it is no address, or no Ray answers there.
    """
    if address.startswith("ray://"):
        raise InputError(
            "--address",
            "must be auto or host:port: a sweep cannot be driven through Ray's client",
            value=address,
            remedy="Submit it as a job (cluster/README.md), or run it on a node of the cluster with --address auto.",
        )
    parts = re.fullmatch(r"(\[[^\]]+\]|[^\s:/]+):(\d{1,5})", address)
    if address != "auto" and (parts is None or not 0 < int(parts[2]) < 65536):
        raise InputError("--address", "must be auto or host:port, as in 127.0.0.1:6379", value=address, remedy=REMEDY)
    if parts is not None:
        try:
            socket.create_connection((parts[1].strip("[]"), int(parts[2])), timeout=CONNECT_SECONDS).close()
        except OSError as error:
            raise _unreachable(address, error.strerror or str(error)) from error
    # In a process of its own: ray.init itself tries for minutes where no Ray answers, and no setting shortens that.
    with subprocess.Popen(
        [sys.executable, "-c", PROBE, address], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as probe:
        assert probe.stdout is not None
        probe.stdout.readline()  # the time starts when Ray is imported, which takes long on a busy machine
        try:
            _, said = probe.communicate(timeout=PROBE_SECONDS)
        except subprocess.TimeoutExpired as error:
            probe.kill()
            raise _unreachable(address, f"no Ray answered within {PROBE_SECONDS:g} s") from error
    if probe.returncode:
        lines = said.strip().splitlines() or [f"its client ended with code {probe.returncode}"]
        raise _unreachable(address, lines[-1])


def _unreachable(address: str | None, why: str) -> InputError:
    return InputError("--address", f"must lead to a running Ray ({why})", value=address, remedy=REMEDY)


def slots(spec: SweepSpec) -> int:
    """Trials that the connected cluster can hold at once, at most ``resources.concurrency``.

    Raises:
        InputError: none of its nodes can ever hold one.
    """
    return fitting(alive_nodes(ray.nodes()), spec.resources)


def check_cluster(spec: SweepSpec, folder: Path) -> None:
    """Checks that the connected cluster can run a sweep: it can hold a trial, its nodes have wmsweep, and what they
    write to the sweep's folder (an existing one) lasts and can be read here.

    Raises:
        InputError: it cannot; says what is short on which node.
    """
    slots(spec)
    if _working_dir() is not None and COPIES in folder.resolve().parts:
        raise InputError(
            "--storage",
            "must lie outside the job's working directory, which is a copy that Ray deletes",
            value=str(folder.parent),
            remedy="Name a folder that every node sees, by its absolute path.",
        )
    for left in folder.glob(f"{SEEN}*"):  # by a driver that was killed here
        left.unlink(missing_ok=True)
    with tempfile.NamedTemporaryFile(dir=folder, prefix=SEEN) as file:
        blind = nodes_without(Path(file.name))
    if blind:
        raise InputError(
            "--storage",
            f"must be seen by every node of the cluster, and it is not by {', '.join(blind)}",
            value=str(folder.parent),
            remedy="Name a folder on a file system that all nodes share: trials write their checkpoints there.",
        )


def nodes_without(path: Path) -> list[str]:
    """The addresses of the nodes, other than this process's own, that do not see a file.

    Raises:
        InputError: a node cannot run wmsweep.
    """
    here = ray.get_runtime_context().get_node_id()
    others = {node["NodeID"]: node["NodeManagerAddress"] for node in ray.nodes() if node["Alive"]}
    others.pop(here, None)
    # No CPU is asked for: on a busy node it need not wait for one.
    sees = ray.remote(num_cpus=0, max_retries=0)(_sees)
    asked = [
        (address, sees.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False)).remote(str(path)))
        for node, address in others.items()
    ]
    blind = []
    for address, answer in asked:
        try:
            if not ray.get(answer):
                blind.append(address)
        except RayError as error:
            raise InputError(
                "--address",
                f"must lead to a cluster whose nodes have wmsweep, and {address} fails "
                f"({str(error).strip().splitlines()[-1]})",
                remedy="Install the same version on every node, or submit the sweep as a job with --working-dir.",
            ) from error
    return blind


def _sees(path: str) -> bool:
    """Runs on a node; that it can be imported there shows that the node has wmsweep."""
    return os.path.exists(path)


def _working_dir() -> str | None:
    """The package that Ray made of this job's working directory, as an address; None without one."""
    return ray.get_runtime_context().runtime_env.get("working_dir")
