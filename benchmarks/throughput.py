"""Rendering and training, each beside its alternative in one run.

    python -m benchmarks.throughput [--quick]

1. Renders per second: one process that keeps its scene, and a pool of renderers through Ray Data.
2. Training sequences per second: from cached features, and with the frozen backbone in the training loop.

Machines are noisy: medians over rounds, and ratios. No test asserts a time.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import ray
import torch
from ray.data import from_items
from rich.console import Console
from rich.table import Table

from analysis_jobs.quiet import quiet
from analysis_jobs.render import prepare, rendered
from sweeps.cluster import connected
from sweeps.native_output import stderr_in
from wmcore.seeding import generator
from wmcore.spec import with_paths
from wmcore.stimuli.image_bank import ImageBank, render_object
from wmcore.stimuli.spec import StimulusSpec
from wmcore.training.checkpoint import build_model
from wmcore.training.fit import TrainingRun
from wmcore.training.trial_spec import TrialSpec
from wmcore.trials import Lookup

Row = tuple[str, str, float, str]
"""Comparison, way, figure, unit."""

TRIAL: dict[str, Any] = {
    "task": {"kind": "nback"},
    "model": {"kind": "rnn", "cell": "gru", "hidden_size": 128, "trunk_size": 128, "reduction_channels": 24},
    "training": {"steps": 2, "batch_size": 8},
    "evaluation": {"every_steps": 2, "trials": 16, "test_trials": 16},
}


def rendering(spec: StimulusSpec, rounds: int) -> Iterator[Row]:
    """Renders per second; pastes into screen locations are not counted."""
    meshes, views = spec.objects.meshes(), spec.views.views()
    total = len(meshes) * len(views)
    alone = []
    with spec.renderer.build() as renderer:
        for _ in range(rounds):
            began = time.perf_counter()
            for mesh in meshes:
                render_object(renderer, mesh, views)
            alone.append(total / (time.perf_counter() - began))
    yield "renders", "one process, scene kept", statistics.median(alone), "renders/s"
    workers = max(1, int(ray.cluster_resources()["CPU"]))
    steady, whole = [], []
    for _ in range(rounds):
        with quiet():
            began = time.perf_counter()
            arrivals = []
            items = [{"object": index} for index in range(len(meshes))]
            for _ in rendered(from_items(items, override_num_blocks=len(items)), spec, workers).iter_rows():
                arrivals.append(time.perf_counter())
        # The first objects of every worker carry its start-up.
        late = arrivals[workers:]
        steady.append((len(late) - 1) * len(views) / (late[-1] - late[0]))
        whole.append(total / (arrivals[-1] - began))
    yield "renders", f"Ray Data, {workers} workers, running", statistics.median(steady), "renders/s"
    yield "renders", f"Ray Data, {workers} workers, start-up included", statistics.median(whole), "renders/s"


def training(stimuli: Path, rounds: int, steps: int) -> Iterator[Row]:
    """Sequences per second of one thread, at batches of 64."""
    trial = TrialSpec.parse(
        with_paths(TRIAL, {"training.steps": 10**6, "training.batch_size": 64, "evaluation.every_steps": steps})
    )
    run = TrainingRun(trial, stimuli=stimuli)
    run.advance()
    cached = []
    for _ in range(rounds):
        began = time.perf_counter()
        run.advance()
        cached.append(64 * steps / (time.perf_counter() - began))
    yield "training", "cached features (evaluations included)", statistics.median(cached), "sequences/s"

    spec = trial.task.stimulus_spec()
    assert spec is not None
    images, backbone = ImageBank.load(stimuli, spec), spec.backbone.build()
    task, model = run.task, build_model(trial, 0)
    optimizer = torch.optim.AdamW(model.parameters())
    in_loop = []
    for step in range(rounds):
        batch = task.sample(64, generator(0, "benchmark", step), "train")
        # The kindest form of the backbone in the loop: each image once, in memory already, in batches that suit it.
        unique, inverse = batch.conditions["image"].unique(return_inverse=True)
        pixels = np.stack([images.image(int(row)) for row in unique])
        began = time.perf_counter()
        features = torch.cat([backbone(pixels[i : i + 2]) for i in range(0, len(pixels), 2)])
        inputs = {**batch.inputs, "features": Lookup(features, inverse)}
        loss = task.loss(model(inputs).outputs, batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        in_loop.append(64 / (time.perf_counter() - began))
    yield "training", "frozen backbone in the loop", statistics.median(in_loop), "sequences/s"


def main() -> None:
    """Runs both and prints one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer rounds and trials")
    quick = parser.parse_args().quick
    console = Console()
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as name, stderr_in(Path(name) / "libraries.log"), connected():
        scratch = Path(name)
        spec = TrialSpec.parse(TRIAL).task.stimulus_spec()
        assert spec is not None
        parts = (
            lambda: rendering(spec, 1 if quick else 3),
            lambda: training(scratch, 3 if quick else 5, 50 if quick else 200),
        )
        for i, part in enumerate(parts):
            if i == 1:
                console.print("making the feature bank ...")
                prepare(spec, scratch)
            for row in part():
                console.print(f"{row[0]}: {row[1]}: {row[2]:.3g} {row[3]}")
                rows.append(row)
    first = {comparison: figure for comparison, _, figure, _ in reversed(rows)}
    table = Table("comparison", "way", "figure", "unit", "against the first")
    for comparison, way, figure, unit in rows:
        table.add_row(comparison, way, f"{figure:.3g}", unit, f"{figure / first[comparison]:.3g}x")
    console.print(table)


if __name__ == "__main__":
    main()
