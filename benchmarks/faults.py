"""Kills, interrupts and damages sweeps at random moments, and counts what was lost.

    python -m benchmarks.faults [--minutes N] [--seed S] [--keep DIR]          # from the repository's folder

One small sweep after the other, each with another sampler, each driven by the command line in a process of its own; a
driver that has died is followed by ``wmsweep resume``. Training is deterministic, so the table of results of every
sweep must be that of the same sweep trained in this process without Ray and without faults. After the last minute no
more faults are injected, and the sweep that is under way is resumed to its end.

Exit code 1 if a trial or a run is lost or double, a step is recorded twice, a table differs, a driver ends with an
unexpected code, or a process is left behind.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from mlflow import MlflowClient
from rich.console import Console
from rich.table import Table

from sweeps.folder import checkpoints_of
from sweeps.tracking import TRIAL, child_runs, tracking_uri
from tests.fixtures.driven import Driven, table, undisturbed
from tests.fixtures.processes import end_survivors

STEPS, TRIALS = 120, 8
SAMPLERS: tuple[dict[str, Any], ...] = (
    {"search.sampler": {"kind": "random", "seed": 1}},
    {"search.sampler": {"kind": "tpe", "seed": 1, "startup_trials": 3, "synchronous": True, "batch": 4}},
    {"search.sampler": {"kind": "sobol", "seed": 1}},
    # One at a time: with several, what ASHA decides depends on which of them reports first.
    {
        "search.sampler": {"kind": "tpe", "seed": 1, "startup_trials": 3},
        "search.scheduler": {"kind": "asha", "grace": 10, "reduction": 2},
        "resources": {"cpu": 0.5, "concurrency": 1},
    },
)
WORKER_KILLS = 2
"""A trial whose worker dies more often than this, under one driver, has failed."""


def changes(number: int) -> dict[str, Any]:
    """The sweep of this number."""
    return {
        "trial.seed": 100 + number,
        "trial.replicates": 2,
        "trial.training.steps": STEPS,
        "search.scheduler": {"kind": "none"},
        "search.trials": TRIALS,
        "resources": {"cpu": 0.5, "concurrency": 2},
        "analyses": [],
        "recording": {},
        **SAMPLERS[number % len(SAMPLERS)],
    }


@dataclass
class Account:
    """What was done to the sweeps, and what became of them."""

    injected: Counter[str] = field(default_factory=Counter)
    found: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)

    def close(self, sweep: Driven, expected: list[tuple[Any, ...]]) -> None:
        """Counts a sweep that has come to its end."""
        ledger = sweep.ledger
        self.found["sweeps"] += 1
        self.found.update(ledger.counts())
        self.found["lost"] += sum(row[1] not in ledger.trials for row in expected) + ledger.counts()["pending"]
        for event, key in (("planned", ("trial_id",)), ("reported", ("trial_id", "step"))):
            lines = Counter(tuple(line[name] for name in key) for line in sweep.events(event))
            self.found["duplicated"] += lines.total() - len(lines)
        ends = Counter(line["trial_id"] for line in sweep.events("finished", "pruned", "failed"))
        self.found["duplicated"] += ends.total() - len(ends)
        store = MlflowClient(tracking_uri(sweep.spec, sweep.folder))
        runs = child_runs(store, sweep.spec.name)
        tracked = Counter(run.data.tags[TRIAL] for run in runs)
        self.found["runs missing"] += len(set(ledger.trials) - set(tracked))
        self.found["runs double"] += tracked.total() - len(tracked)
        for run in runs:
            trial = ledger.trials[run.data.tags[TRIAL]]
            for name in run.data.metrics:
                steps = Counter(point.step for point in store.get_metric_history(run.info.run_id, name))
                self.found["steps double"] += steps.total() - len(steps)
                if name in trial.reports[trial.step]:
                    self.found["steps missing"] += len(set(trial.reports) - set(steps))
        if table(ledger) == expected:
            self.found["tables equal"] += 1

    @property
    def holds(self) -> bool:
        """Nothing is lost, double or different."""
        kinds = ("lost", "duplicated", "failed", "runs missing", "runs double", "steps double", "steps missing")
        equal = self.found["tables equal"] == self.found["sweeps"]
        return equal and not self.wrong and not any(self.found[kind] for kind in kinds)


def wait_until_empty(sweep: Driven, account: Account) -> None:
    """Nothing of a driver that has ended by itself may stay for long."""
    try:
        sweep.wait_until_empty()
    except AssertionError as error:
        account.wrong.append(str(error))
        end_survivors(sweep.ray_folder)


class Injector:
    """Drives one sweep to its end, and disturbs it until a deadline."""

    def __init__(
        self, sweep: Driven, account: Account, moments: np.random.Generator, deadline: float, rays: Path
    ) -> None:
        self.sweep, self.account, self.moments, self.deadline, self.rays = sweep, account, moments, deadline, rays
        self.faults: tuple[Callable[[subprocess.Popen[str]], None], ...] = (
            self._kill_worker,
            self._kill_driver,
            self._kill_group,
            self._interrupt,
            self._second_driver,
        )
        self.started_before = 0

    def run(self) -> bool:
        """Starts driver after driver until one comes to its end; False if one ends as none should."""
        while True:
            arguments = ("resume", str(self.sweep.folder)) if self.sweep.path.exists() else ()
            self.started_before = len(self.sweep.events("started"))
            # A Ray folder for each driver, so that what one of them leaves behind is not taken for another's.
            self.sweep.ray_folder = Path(tempfile.mkdtemp(dir=self.rays))
            with self.sweep.driver(*arguments) as process:
                while process.poll() is None and time.monotonic() < self.deadline:
                    self._wait(process)
                    if process.poll() is None and time.monotonic() < self.deadline:
                        self.faults[int(self.moments.integers(len(self.faults)))](process)
                code = process.wait(600)
            if code not in (0, 130, -signal.SIGKILL):
                self.account.wrong.append(f"a driver ended with {code}: {self.sweep.output[-500:]}")
                return False
            if code == 0:
                return True
            if code != -signal.SIGKILL:
                wait_until_empty(self.sweep, self.account)
            elif self.moments.random() < 0.5:
                # As after the machine went down; else the next driver meets what is left of the Ray of this one.
                end_survivors(self.sweep.ray_folder)
                self._damage()

    def _wait(self, process: subprocess.Popen[str]) -> None:
        """Until some moment: of the start, or of the training."""
        training = self.moments.random() < 0.75
        known = len(self.sweep.events())
        while training and process.poll() is None and len(self.sweep.events()) <= known:
            time.sleep(0.02)
        moment = time.monotonic() + self.moments.uniform(0, 3 if training else 15)
        while process.poll() is None and time.monotonic() < moment:
            time.sleep(0.02)

    def _did(self, kind: str) -> None:
        self.account.injected[kind] += 1
        ledger = self.sweep.path.exists() and self.sweep.ledger
        at = f"{len(ledger.trials)} trials planned, {ledger.lines} lines" if ledger else "no ledger yet"
        print(f"{time.strftime('%X')}  {kind} ({at})", flush=True)

    def _kill_worker(self, process: subprocess.Popen[str]) -> None:
        starts = Counter(line["trial_id"] for line in self.sweep.events("started")[self.started_before :])
        if starts and max(starts.values()) > WORKER_KILLS:
            return
        if self.sweep.path.exists() and self.sweep.kill_worker(process):
            self._did("worker killed")

    def _kill_driver(self, process: subprocess.Popen[str]) -> None:
        process.kill()
        process.wait()
        self._did("driver killed")

    def _kill_group(self, process: subprocess.Popen[str]) -> None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        self._did("driver and Ray killed")

    def _interrupt(self, process: subprocess.Popen[str]) -> None:
        if "libtorch" not in Path(f"/proc/{process.pid}/maps").read_text():
            return  # Python itself, which has just started, would answer
        os.killpg(process.pid, signal.SIGINT)
        process.wait(120)
        self._did("Ctrl-C")

    def _second_driver(self, process: subprocess.Popen[str]) -> None:
        if not self.sweep.path.exists():
            return
        code = self.sweep.resume()
        if code == 2:
            self._did("second driver refused")
        elif process.poll() is None:
            self.account.wrong.append(f"a second driver ended with {code}")

    def _damage(self) -> None:
        """What a crash of the machine may leave: half a line, half a file."""
        lines = self.sweep.path.read_bytes().splitlines(keepends=True) if self.sweep.path.exists() else []
        if not lines:
            return
        with self.sweep.path.open("ab") as file:
            file.write(lines[-1][: len(lines[-1]) // 2])
        self._did("ledger line torn")
        for trial in self.sweep.ledger.in_order():
            checkpoints = checkpoints_of(self.sweep.folder, trial.trial_id)
            if not trial.ended and (steps := checkpoints.steps()):
                file = checkpoints.at(steps[-1]) / str(self.moments.choice(["weights.safetensors", "training.pt"]))
                file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
                self._did("newest checkpoint cut")


def main() -> None:
    """Injects for some minutes and prints one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0, help="of faults")
    parser.add_argument("--seed", type=int, default=0, help="of the moments and of the kinds of faults")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="a new folder, where the sweeps stay")
    given = parser.parse_args()
    console, account = Console(), Account()
    moments, deadline = np.random.default_rng(given.seed), time.monotonic() + 60 * given.minutes
    with ExitStack() as stack:
        # Ray's sockets lie in a folder with a short name.
        temporary = stack.enter_context(tempfile.TemporaryDirectory(prefix="wm", ignore_cleanup_errors=True))
        rays, storages = Path(temporary) / "r", given.keep or Path(temporary)
        rays.mkdir()
        stack.callback(lambda: [end_survivors(folder) for folder in rays.iterdir()])
        number = 0
        while time.monotonic() < deadline:
            storage = storages.resolve() / str(number)
            storage.mkdir(parents=True)
            sweep = Driven(storage, rays, changes(number))
            sweep.write_banks()
            expected = table(undisturbed(sweep.spec, storage / "undisturbed", sweep.stimuli))
            if Injector(sweep, account, moments, deadline, rays).run():
                account.close(sweep, expected)
            kind = sweep.spec.search.sampler.kind
            console.print(f"sweep {number} ({kind}): {account.injected.total()} faults so far", highlight=False)
            wait_until_empty(sweep, account)
            number += 1
    shown = Table("what", "number")
    for group in (account.injected, account.found):
        for what, count in group.items():
            shown.add_row(what, str(count))
        shown.add_section()
    console.print(shown)
    for text in account.wrong:
        console.print(text, markup=False, highlight=False)
    sys.exit(0 if account.holds else 1)


if __name__ == "__main__":
    main()
