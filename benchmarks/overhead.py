"""What a trial costs beyond its own training: this engine and bare Ray Tune, the same sweep, in one run.

    python -m benchmarks.overhead [--trials N] [--bare-trials N] [--rounds N]

The sweep: N-back from cached features, 3 replicates per trial, 2 trials at once. Both sides train networks of the same
size with the same code, evaluate and checkpoint as often, and record in MLflow (SQLite); bare Ray Tune does so with its
own OptunaSearch and MLflowLoggerCallback, in a function trainable.

Overhead per trial = (wall time - training time / trials at once) / trials. Training time is what the trials' own
optimiser steps and evaluations took, measured inside the trials. Wall time starts when Ray is up and ends when MLflow
has everything. Machines are noisy: medians over rounds, and ratios. No test asserts a time.
"""

from __future__ import annotations

import argparse
import math
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import mlflow
import torch
from ray import tune
from ray.air.integrations.mlflow import MLflowLoggerCallback
from ray.tune.search.optuna import OptunaSearch
from rich.console import Console
from rich.table import Table

from analysis_jobs.render import prepare
from sweeps.cluster import connected
from sweeps.driver import search
from sweeps.folder import open_folder
from sweeps.ledger import Ledger
from sweeps.native_output import stderr_in
from sweeps.progress import Display
from sweeps.spec import SweepSpec
from sweeps.tracking import Tracker
from wmcore.spec import with_paths
from wmcore.training.fit import TrainingRun
from wmcore.training.trial_spec import TrialSpec

AT_ONCE = 2
EVENTS = ("planned", "started")
"""The first of each: between them Ray starts the actors."""
TRIAL: dict[str, Any] = {
    "replicates": 3,
    "task": {
        "kind": "nback",
        "stimuli": {
            "objects": {"kind": "procedural", "train_identities": 2, "select_identities": 2, "test_identities": 2},
            "views": {"kind": "interpolated", "train_views": 5},
            "renderer": {"kind": "pyvista", "size_px": 32},
            "backbone": {"kind": "efficientnet_lite0", "layer": "block0", "pool_size": 2},
            "gate": "warn",
        },
    },
    "model": {"kind": "rnn", "cell": "gru", "hidden_size": 32, "trunk_size": 32, "reduction_channels": None},
    "training": {"steps": 30, "batch_size": 16},
    "evaluation": {"every_steps": 10, "trials": 256, "test_trials": 256},
}
SWEEP: dict[str, Any] = {
    "trial": TRIAL,
    "search": {
        "space": {"training.optimizer.lr": {"loguniform": [1e-4, 1e-2]}},
        "sampler": {"kind": "tpe"},
        "objective": {"metric": "select/accuracy"},
    },
    "resources": {"cpu": 1, "concurrency": AT_ONCE},
}


def ours(stimuli: Path, storage: Path, trials: int) -> tuple[float, float]:
    """(overhead per trial in s, of which until the first report)."""
    name = f"ours{time.monotonic_ns()}"
    spec = SweepSpec.parse(with_paths({**SWEEP, "name": name}, {"search.trials": trials}))
    folder, spec, _ = open_folder(spec, storage)
    with Tracker(spec, folder) as tracker:
        tracker.wait_until_open()
        began = time.perf_counter()
        search(spec, folder, stimuli, tracker, Display(Console(quiet=True), spec))
    wall = time.perf_counter() - began
    ledger = Ledger(folder / "ledger.jsonl")
    own = sum(trial.seconds for trial in ledger.in_order())
    begun = {event: next(x["time"] for x in ledger.whole_lines() if x["event"] == event) for event in EVENTS}
    return (wall - own / AT_ONCE) / trials, (begun["started"] - begun["planned"]) / trials


def bare(stimuli: Path, storage: Path, trials: int) -> tuple[float, float]:
    """The same on bare Ray Tune: a function trainable, OptunaSearch, MLflowLoggerCallback."""
    here = storage / f"bare{time.monotonic_ns()}"
    times = here / "times"
    times.mkdir(parents=True)

    def train(config: dict[str, Any]) -> None:
        own = 0.0
        run = TrainingRun(TrialSpec.parse(with_paths(TRIAL, config)), stimuli=stimuli)
        while not run.finished:
            started = time.perf_counter()
            metrics = run.advance().metrics
            own += time.perf_counter() - started
            with tempfile.TemporaryDirectory() as folder:
                run.save(Path(folder))
                done = run.finished
                if done:
                    started = time.perf_counter()
                    run.finish()
                    own += time.perf_counter() - started
                    (times / f"{os.getpid()}.{time.monotonic_ns()}").write_text(str(own))
                tune.report(
                    {"accuracy": metrics["select/accuracy"], "loss": metrics["train/loss"]},
                    checkpoint=tune.Checkpoint.from_directory(folder),
                )

    uri = f"sqlite:///{here / 'mlflow.db'}"
    mlflow.set_tracking_uri(uri)
    mlflow.search_experiments()
    began = time.perf_counter()
    tune.Tuner(
        tune.with_resources(train, {"cpu": 1}),
        param_space={"training.optimizer.lr": tune.loguniform(1e-4, 1e-2)},
        tune_config=tune.TuneConfig(
            num_samples=trials, metric="accuracy", mode="max", search_alg=OptunaSearch(), max_concurrent_trials=AT_ONCE
        ),
        run_config=tune.RunConfig(
            storage_path=str(here),
            verbose=0,
            callbacks=[MLflowLoggerCallback(tracking_uri=uri, experiment_name="bare")],
            checkpoint_config=tune.CheckpointConfig(num_to_keep=2),
        ),
    ).fit()
    wall = time.perf_counter() - began
    own = sum(float(path.read_text()) for path in times.iterdir())
    return (wall - own / AT_ONCE) / trials, float("nan")


def main() -> None:
    """Runs both sides, round by round, and prints one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=100)
    parser.add_argument("--bare-trials", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    torch.set_num_threads(1)
    console = Console()
    found: dict[str, list[tuple[float, float]]] = {"wmsweep": [], "bare": []}
    with tempfile.TemporaryDirectory() as name, stderr_in(Path(name) / "libraries.log"), connected():
        storage = Path(name)
        stimuli = TrialSpec.parse(TRIAL).task.stimulus_spec()
        assert stimuli is not None
        prepare(stimuli, storage / "stimuli")
        for number in range(given.rounds):
            found["wmsweep"].append(ours(storage / "stimuli", storage, given.trials))
            console.print(f"round {number}: wmsweep {found['wmsweep'][-1][0]:.3f} s/trial")
            found["bare"].append(bare(storage / "stimuli", storage, given.bare_trials))
            console.print(f"round {number}: bare Ray Tune {found['bare'][-1][0]:.3f} s/trial")
    table = Table("engine", "trials", "overhead, s/trial", "of which start-up", "against bare")
    bare_median = statistics.median(overhead for overhead, _ in found["bare"])
    for engine, trials in (("wmsweep", given.trials), ("bare", given.bare_trials)):
        overhead, start = (statistics.median(values) for values in zip(*found[engine], strict=True))
        label = engine if engine == "wmsweep" else "bare Ray Tune, OptunaSearch, MLflowLoggerCallback"
        begun = "" if math.isnan(start) else f"{start:.3f}"
        table.add_row(label, str(trials), f"{overhead:.3f}", begun, f"{overhead / bare_median:.2f}x")
    console.print(table)


if __name__ == "__main__":
    main()
