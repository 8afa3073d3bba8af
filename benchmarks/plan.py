"""What `wmsweep plan` says, and what the sweep then takes: by stage, in fresh storages.

Prints the load of the machine beside each, because a probe of half a minute cannot know what else will run later.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

from rich.console import Console
from rich.table import Table

from sweeps.loading import load_sweep
from sweeps.planning.estimate import OUTSIDE, Estimate, Span, estimate, exactly
from sweeps.planning.probe import probe
from sweeps.planning.show import duration, size
from sweeps.planning.variants import variants_of

SAMPLE_SECONDS = 2.0
QUICKSTART = Path(__file__).parents[1] / "search_spaces" / "quickstart.yaml"
DONE = re.compile(r"^ *(?P<stage>\S.*): done in (?P<seconds>[\d.]+) s$", re.MULTILINE)


def planned(spec: Path, storage: Path) -> tuple[Estimate, float]:
    """The estimate, and the seconds that it took."""
    began = time.perf_counter()
    sweep = load_sweep(spec)
    variants = variants_of(sweep)
    found = estimate(sweep, variants, probe(sweep, variants, storage, lambda text: None))
    return found, time.perf_counter() - began


@dataclass(frozen=True)
class Actual:
    """What a sweep took: stage -> seconds, bytes on disk, and bytes of memory at most (0 where /proc is missing)."""

    stages: dict[str, float]
    disk: int
    memory: int


def ran(spec: Path, storage: Path) -> Actual:
    """A sweep that is run by the command line."""
    command = [sys.executable, "-m", "sweeps", "run", str(spec), "--storage", str(storage)]
    began, memory = time.perf_counter(), 0
    with tempfile.TemporaryFile("w+") as out:
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, text=True)
        while process.poll() is None:
            memory = max(memory, memory_of_tree(process.pid))
            time.sleep(SAMPLE_SECONDS)
        wall = time.perf_counter() - began
        out.seek(0)
        said = out.read()
    if process.returncode:
        raise SystemExit(f"the sweep ended with {process.returncode}: {said}")
    stages: dict[str, float] = {}
    for found in DONE.finditer(said):
        stages[found["stage"]] = stages.get(found["stage"], 0.0) + float(found["seconds"])
    disk = sum(file.stat().st_size for file in storage.rglob("*") if file.is_file())
    return Actual({OUTSIDE: wall - sum(stages.values()), **stages}, disk, memory)


def memory_of_tree(root: int) -> int:
    """Bytes of a process and of all that descend from it, shared pages counted once (Linux)."""
    parents: dict[int, int] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            parents[int(path.parent.name)] = int(path.read_text().rpartition(")")[2].split()[1])
    tree, total = {root}, 0
    while grown := {child for child, parent in parents.items() if parent in tree} - tree:
        tree |= grown
    for process in tree:
        with contextlib.suppress(OSError):
            lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
            total += sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))
    return total


def row(name: str, planned: Span, actual: float, unit: Callable[[float], str]) -> tuple[str, str, str, str, str]:
    """A line of the table."""
    width = f"{unit(planned.low)} to {unit(planned.high)}" if planned.low < planned.high else ""
    ratio = f"{actual / planned.mean:.2f}" if planned.mean else ""
    return name, unit(planned.mean), width, unit(actual), ratio


def main() -> None:
    """Plans and runs by turns; prints a table for each round, and one line at the end."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--spec", type=Path, default=QUICKSTART, help="a sweep spec (default: the quickstart)")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    console, ratios = Console(), []
    for number in range(1, arguments.rounds + 1):
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
            before = os.getloadavg()[0]
            # One process connects to Ray once.
            with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as apart:
                plan, took = apart.submit(planned, arguments.spec, Path(name)).result()
            between = os.getloadavg()[0]
            actual = ran(arguments.spec, Path(name))
            after = os.getloadavg()[0]
        seconds = sum(actual.stages.values())
        table = Table("stage", "planned", "range", "actual", "actual / planned", title=f"round {number}")
        for stage in {**plan.stages, **actual.stages}:
            span = plan.stages.get(stage, exactly(0.0))
            table.add_row(*row(stage, span, actual.stages.get(stage, 0.0), duration))
        table.add_row(*row("in all", plan.total, seconds, duration))
        table.add_row(*row("disk", plan.disk_bytes, actual.disk, size))
        table.add_row(*row("memory", exactly(plan.memory_bytes), actual.memory, size))
        ratios.append(seconds / plan.total.mean)
        console.print(table)
        console.print(
            f"plan took {took:.0f} s; load before it {before:.1f}, before the run {between:.1f}, after {after:.1f}"
        )
    shown = ", ".join(f"{ratio:.2f}" for ratio in ratios)
    console.print(f"actual / planned: {shown}; median {statistics.median(ratios):.2f}")


if __name__ == "__main__":
    main()
