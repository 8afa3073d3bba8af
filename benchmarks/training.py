"""Training on sequence recall: this engine, and the plain loop that one would write for one study, in one run.

    python -m benchmarks.training [--updates N] [--rounds N]           # from the repository's folder

Both train the same GRU (128 units, linear readout, Adam, gradient norm clipped) on as many trials of each length per
update. The plain loop makes its trials one after the other in Python and takes a batch, with an optimiser step, for
each length; the engine draws them at once and takes one padded batch with one step. ``--per-length`` trials of each
length make an update of both: trials per second compare equal work, whatever counts as a step.

One core, one thread. The sides take turns, so that what else the machine does falls on both; medians, and ratios. No
test asserts a time.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from wmcore.training.fit import TrainingRun
from wmcore.training.trial_spec import TrialSpec

ITEMS, LENGTHS, CUES = 8, (2, 3, 4), 4
FIXATION, STIMULUS, DELAY, RESPONSE = 5, 5, 10, 5
UNITS, LR, DECAY, CLIP = 128, 1e-2, 1e-5, 1.0


class PlainNetwork(nn.Module):
    """A GRU and a linear readout."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.GRU(ITEMS + 3 + CUES, UNITS, batch_first=True)
        self.readout = nn.Linear(UNITS, ITEMS)

    def forward(self, x: Tensor) -> Tensor:
        return self.readout(self.cell(x)[0])


def plain_trial(length: int, source: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Inputs (T, 15) and targets (T,) of one trial, step by step."""
    items = source.permutation(ITEMS)[:length]
    inputs, targets = [], []

    def add(steps: int, channels: list[int], target: int = -1) -> None:
        for _ in range(steps):
            x = np.zeros(ITEMS + 3 + CUES, dtype=np.float32)
            for channel in channels:
                x[channel] = 1.0
            inputs.append(x)
            targets.append(target)

    add(FIXATION, [ITEMS])
    for item in items:
        add(STIMULUS, [int(item), ITEMS + 1])
    add(DELAY, [ITEMS + 2])
    for rank, item in enumerate(items):
        add(RESPONSE, [ITEMS + 3 + rank], int(item))
    return np.stack(inputs), np.array(targets)


def plain_loop(per_length: int) -> Callable[[int], None]:
    """Trains for a number of updates."""
    torch.manual_seed(0)
    model, source = PlainNetwork(), np.random.default_rng(0)
    optimizer = torch.optim.Adam(model.parameters(), lr=LR, weight_decay=DECAY)
    count = nn.CrossEntropyLoss(ignore_index=-1)

    def train(updates: int) -> None:
        model.train()
        for _ in range(updates):
            for length in LENGTHS:
                trials = [plain_trial(length, source) for _ in range(per_length)]
                x = torch.from_numpy(np.stack([inputs for inputs, _ in trials]))
                y = torch.from_numpy(np.stack([targets for _, targets in trials]))
                loss = count(model(x).flatten(0, 1), y.flatten())
                optimizer.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(model.parameters(), CLIP)
                optimizer.step()

    return train


def engine(per_length: int, updates: int) -> Callable[[int], None]:
    """The same, in blocks of ``updates`` between two evaluations, which are part of it and small."""
    trial = TrialSpec.parse(
        {
            "task": {"kind": "sequence_recall", "lengths": list(LENGTHS), "items": ITEMS, "cue_channels": CUES},
            "model": {"kind": "rnn", "cell": "gru", "hidden_size": UNITS, "trunk_size": None},
            "training": {
                "steps": 10**6,
                "batch_size": per_length * len(LENGTHS),
                "optimizer": {"kind": "adam", "lr": LR, "weight_decay": DECAY},
                "grad_clip": CLIP,
            },
            "evaluation": {"every_steps": updates, "trials": 32, "test_trials": 32},
        }
    )
    run = TrainingRun(trial, threads=1)

    def train(updates: int) -> None:
        assert updates == trial.evaluation.every_steps
        run.advance()

    return train


def seconds(train: Callable[[int], None], updates: int) -> float:
    """Of one update."""
    began = time.perf_counter()
    train(updates)
    return (time.perf_counter() - began) / updates


def main() -> None:
    """Both sides by turns, and one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--updates", type=int, default=100, help="of each measurement")
    parser.add_argument("--per-length", type=int, default=21, help="trials of each length in an update")
    parser.add_argument("--rounds", type=int, default=7)
    given = parser.parse_args()
    torch.set_num_threads(1)
    sides = {"plain": plain_loop(given.per_length), "wmsweep": engine(given.per_length, given.updates)}
    found: dict[str, list[float]] = {side: [] for side in sides}
    for number in range(given.rounds + 1):
        for side, train in sides.items():
            taken = seconds(train, given.updates)
            if number:  # the first round warms up
                found[side].append(taken)
    table = Table("loop", "optimiser steps per update", "updates/s", "trials/s", "against plain")
    for side, taken in found.items():
        rate = 1 / statistics.median(taken)
        ratio = statistics.median(plain / own for plain, own in zip(found["plain"], taken, strict=True))
        steps = len(LENGTHS) if side == "plain" else 1
        trials = rate * given.per_length * len(LENGTHS)
        table.add_row(side, str(steps), f"{rate:.1f}", f"{trials:,.0f}", f"{ratio:.2f}x")
    Console().print(table)


if __name__ == "__main__":
    main()
