"""The Tune trainable: one actor trains one variant after another without starting a process for each."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import ray
import torch
from ray import tune

from wmcore.training.checkpoint import CheckpointFolder
from wmcore.training.fit import TrainingRun
from wmcore.training.trial_spec import TrialSpec


class VariantTrainable(tune.Trainable):
    """Trains the variant that its config names; one ``step`` is one evaluation.

    Config: ``trial`` (canonical JSON of the TrialSpec), ``folder`` (where its checkpoints go), ``stimuli`` (the banks'
    folder), ``threads``. A variant that has checkpoints in its folder continues from the newest whole one, and reports
    that one again first, lest its report was lost with the worker that made it.
    """

    def setup(self, config: dict[str, Any]) -> None:
        self._start(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self._start(new_config)
        return True

    def step(self) -> dict[str, Any]:
        started = time.perf_counter()
        if self.restored:
            evaluation, self.restored = self.run.history[-1], False
        else:
            evaluation = self.run.advance()
            self.run.save(self.checkpoints.folder)
        finished = self.run.finished
        result: dict[str, Any] = {"evaluation": asdict(evaluation), "best_step": self.run.best_step, "done": finished}
        if finished:
            outcome = self.run.finish()
            result["final"] = {
                "best_step": outcome.best_step,
                "metrics": outcome.final.metrics,
                "spread": outcome.final.spread,
                "replicates": outcome.final.replicates,
                "intervals": outcome.intervals,
                "interval_unit": outcome.interval_unit,
                "n": outcome.n,
                "baselines": outcome.baselines,
                "sampling": outcome.sampling,
            }
        self.seconds += time.perf_counter() - started
        result["training_seconds"] = self.seconds
        return result

    def _start(self, config: dict[str, Any]) -> None:
        trial = TrialSpec.parse(json.loads(config["trial"]))
        self.checkpoints = CheckpointFolder(Path(config["folder"]) / "checkpoints")
        self.seconds = 0.0
        # Ray shows an actor only the devices that it was given.
        device = torch.device("cuda" if ray.get_gpu_ids() and torch.cuda.is_available() else "cpu")
        self.run = TrainingRun(trial, stimuli=Path(config["stimuli"]), device=device, threads=int(config["threads"]))
        latest = self.checkpoints.latest()
        self.restored = latest is not None
        if latest is not None:
            self.run.restore(latest)
