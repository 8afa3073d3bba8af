"""Whether the nodes of a cluster can hold a trial, and how many at once. No Ray here: nodes are plain data."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from sweeps.spec import ResourceSpec
from wmcore.errors import InputError


@dataclass(frozen=True)
class Node:
    """One machine of a cluster, as Ray counts it.

    Attributes:
        name: its address.
        cpu: CPUs in all, in use or not.
        gpu: GPUs in all.
    """

    name: str
    cpu: float
    gpu: float = 0.0

    def __str__(self) -> str:
        return f"{self.name} has {self.cpu:g} CPU and {self.gpu:g} GPU"


def alive_nodes(listing: Iterable[Mapping[str, Any]]) -> list[Node]:
    """The nodes that are up, from what ``ray.nodes()`` returns."""
    return [
        Node(node["NodeManagerAddress"], node["Resources"].get("CPU", 0.0), node["Resources"].get("GPU", 0.0))
        for node in listing
        if node["Alive"]
    ]


def fits(node: Node, resources: ResourceSpec) -> int:
    """Trials that an empty node holds at once.

    CPUs are divided freely. GPUs are not: a share of one lies on one device (0.6 fits once on each), and whole ones are
    all on this node.
    """
    cpu, gpu = _exact(resources.cpu), _exact(resources.gpu)
    by_cpu = _exact(node.cpu) // cpu
    if not gpu:
        return by_cpu
    devices = int(node.gpu)
    return min(by_cpu, devices * (1 // gpu) if gpu < 1 else devices // gpu)


def fitting(nodes: Sequence[Node], resources: ResourceSpec) -> int:
    """Trials that a cluster holds at once when nothing else runs on it, at most ``resources.concurrency``.

    Raises:
        InputError: no node can ever hold one; names what is short and the largest node.
    """
    total = sum(fits(node, resources) for node in nodes)
    if total:
        return min(total, resources.concurrency or total)
    for name, amount in (("cpu", resources.cpu), ("gpu", resources.gpu)):
        largest = max(nodes, key=lambda node: (getattr(node, name), node.cpu, node.gpu))
        most = getattr(largest, name)
        if amount > most:
            remedy = (
                f"Ask for at most {most:g}" if most else "Set it to 0" if name == "gpu" else "Start a node with CPUs"
            )
            raise InputError(
                f"resources.{name}",
                f"exceeds what any node of this cluster has ({largest})",
                value=amount,
                remedy=f"{remedy}, or join another cluster by --address; a trial runs on one node.",
            )
    shapes = {(node.cpu, node.gpu): str(node) for node in nodes}
    raise InputError(
        "resources",
        f"must be found on one node, and none of this cluster has both ({'; '.join(shapes.values())})",
        value={"cpu": resources.cpu, "gpu": resources.gpu},
        remedy="Ask for less of one, or join another cluster by --address; a trial runs on one node.",
    )


def _exact(amount: float) -> Fraction:
    """What was meant: 0.1 ten times is 1."""
    return Fraction(str(amount))
