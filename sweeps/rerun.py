"""Trains finished trials again and compares every figure with the record, bit for bit."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from sweeps.folder import stimuli_folder
from sweeps.ledger import Ledger, TrialRecord
from sweeps.spec import SweepSpec
from sweeps.verify import Check
from wmcore.seeding import numpy_generator
from wmcore.training.fit import Evaluation, fit

COMPARED = ("best_step", "metrics", "spread", "replicates", "intervals", "baselines", "sampling", "divergence")
"""What of a finished trial's result must come out again."""


def rerun(
    spec: SweepSpec, folder: Path, ledger: Ledger, count: int, seed: int, told: Callable[[str], None]
) -> list[Check]:
    """Retrains ``count`` finished trials, drawn at random, in this process and without Ray; the folder is only read.

    Trials that were trained on a GPU are left out: there the same seeds do not give the same bits.

    Args:
        seed: of the draw.
        told: called with a line before each trial.
    """
    finished = [trial for trial in ledger.in_order() if trial.result is not None]
    eligible = [trial for trial in finished if trial.result and trial.result.get("device", "cpu") == "cpu"]
    chosen = numpy_generator(seed, "rerun").permutation(len(eligible))[:count]
    threads, checks = torch.get_num_threads(), []
    try:
        for index in sorted(chosen):
            trial = eligible[index]
            told(f"training variant {trial.number} again ...")
            checks.append(_check(spec, folder, trial))
    finally:
        torch.set_num_threads(threads)
    if len(checks) < count:
        on_gpu = len(finished) - len(eligible)
        checks.append(
            Check(
                "as many trials as asked for",
                False,
                f"{len(checks)} of {count}: {len(finished)} have finished, {on_gpu} of them on a GPU",
            )
        )
    return checks


def _check(spec: SweepSpec, folder: Path, trial: TrialRecord) -> Check:
    assert trial.result is not None
    again: dict[int, Any] = {}

    def keep(evaluation: Evaluation) -> None:
        again[evaluation.step] = _plain(evaluation.metrics)

    result = fit(
        spec.trial_for(trial.point),
        report=keep,
        threads=int(trial.result.get("threads", 1)),
        stimuli=stimuli_folder(folder.parent),
    )
    figures = {**asdict(result.final), **asdict(result)}
    wrong = [name for name in COMPARED if _plain(figures[name]) != trial.result.get(name)]
    wrong += ["reports"] if again != trial.reports else []
    values = sum(map(len, again.values())) + len(trial.result["metrics"])
    name = f"variant {trial.number} trains to the same bits"
    return Check(name, not wrong, f"{', '.join(wrong)} differ" if wrong else f"{values} figures, and all that follows")


def _plain(value: Any) -> Any:
    """As the ledger gives it back: lists for tuples, null for what is no finite number."""
    return json.loads(json.dumps(value), parse_constant=lambda _: None)
