"""What `wmsweep plan` says, and what the sweep then takes: by stage, in fresh storages.

Prints the load of the machine beside each, because a probe of half a minute cannot know what else will run later.
"""

from __future__ import annotations

import argparse
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

from rich.console import Console
from rich.table import Table

from sweeps.loading import load_sweep
from sweeps.planning.estimate import OUTSIDE, Estimate, estimate
from sweeps.planning.probe import probe
from sweeps.planning.variants import variants_of

QUICKSTART = Path(__file__).parents[1] / "search_spaces" / "quickstart.yaml"
DONE = re.compile(r"^ *(?P<stage>\S.*): done in (?P<seconds>[\d.]+) s$", re.MULTILINE)


def planned(spec: Path, storage: Path) -> tuple[Estimate, float]:
    """The estimate, and the seconds that it took."""
    began = time.perf_counter()
    sweep = load_sweep(spec)
    variants = variants_of(sweep)
    found = estimate(sweep, variants, probe(sweep, variants, storage, lambda text: None))
    return found, time.perf_counter() - began


def ran(spec: Path, storage: Path) -> dict[str, float]:
    """Stage -> seconds of a sweep that is run by the command line."""
    command = [sys.executable, "-m", "sweeps.cli", "run", str(spec), "--storage", str(storage)]
    began = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    wall = time.perf_counter() - began
    if done.returncode:
        raise SystemExit(f"the sweep ended with {done.returncode}: {done.stderr}")
    stages: dict[str, float] = {}
    for found in DONE.finditer(done.stdout):
        stages[found["stage"]] = stages.get(found["stage"], 0.0) + float(found["seconds"])
    return {OUTSIDE: wall - sum(stages.values()), **stages}


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
        table = Table("stage", "planned", "range", "actual", "actual / planned", title=f"round {number}")
        rows = [(stage, plan.stages.get(stage), actual.get(stage, 0.0)) for stage in {**plan.stages, **actual}]
        for stage, span, seconds in [*rows, ("in all", plan.total, sum(actual.values()))]:
            if span is None:
                table.add_row(stage, "-", "", f"{seconds:.1f} s", "")
                continue
            width = f"{span.low:.0f} to {span.high:.0f} s" if span.low < span.high else ""
            table.add_row(stage, f"{span.mean:.1f} s", width, f"{seconds:.1f} s", f"{seconds / span.mean:.2f}")
        ratios.append(sum(actual.values()) / plan.total.mean)
        console.print(table)
        console.print(
            f"plan took {took:.0f} s; load before it {before:.1f}, before the run {between:.1f}, after {after:.1f}"
        )
    shown = ", ".join(f"{ratio:.2f}" for ratio in ratios)
    console.print(f"actual / planned: {shown}; median {statistics.median(ratios):.2f}")


if __name__ == "__main__":
    main()
