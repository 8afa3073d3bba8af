"""The Tune trainable: one actor trains one variant after another without starting a process for each."""

from __future__ import annotations

import json
import time
import warnings
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

import ray
import torch
from ray import tune

from sweeps.trial_lock import hold_trial
from wmcore.tasks.base import Task
from wmcore.training.checkpoint import CheckpointFolder
from wmcore.training.evaluation import Evaluation
from wmcore.training.fit import TrainingRun
from wmcore.training.trial_spec import TrialSpec

T = TypeVar("T")


class VariantTrainable(tune.Trainable):
    """Trains the variant that its config names; one ``step`` is one evaluation.

    Config: ``trial`` (canonical JSON of the TrialSpec), ``folder`` (where its checkpoints go), ``stimuli`` (the banks'
    folder), ``threads``, ``seconds`` (trained so far), ``step`` (of the last report in the ledger). A variant that has
    checkpoints in its folder continues from the newest whole one. It reports first what that one holds beyond the
    ledger, and its last evaluation in any case: reports may be lost with a worker, or with the end of a ledger.

    A result holds one JSON text, so that Tune passes it on as it is.
    """

    def setup(self, config: dict[str, Any]) -> None:
        self._start(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self.lock.close()
        self._start(new_config)
        return True

    def step(self) -> dict[str, Any]:
        if self.again:
            evaluation = self.again.popleft()
        else:
            evaluation = self._timed(self.run.advance)
            self.run.save(self.checkpoints.folder)
        finished = self.run.finished and not self.again
        report: dict[str, Any] = {"evaluation": asdict(evaluation), "done": finished, "notes": self.notes}
        report["entered"] = self._entered(evaluation.step)
        if finished:
            outcome = self._timed(self.run.finish)
            report["final"] = {
                "best_step": outcome.best_step,
                "metrics": outcome.final.metrics,
                "spread": outcome.final.spread,
                "replicates": outcome.final.replicates,
                "intervals": outcome.intervals,
                "interval_unit": outcome.interval_unit,
                "n": outcome.n,
                "baselines": outcome.baselines,
                "sampling": outcome.sampling,
                "divergence": outcome.divergence,
                "device": self.run.device.type,
                "threads": torch.get_num_threads(),
                "gpus": ray.get_gpu_ids(),
                "node": ray.get_runtime_context().get_node_id(),
            }
        self.notes = []
        report["seconds"] = self.seconds
        return {"report": json.dumps(report), "done": finished}

    def _timed(self, work: Callable[[], T]) -> T:
        """Training and evaluation count as the trial's own time; checkpoints and start-up do not."""
        started = time.perf_counter()
        done = work()
        self.seconds += time.perf_counter() - started
        return done

    def _known_tasks(self, trial: TrialSpec) -> Mapping[str, Task]:
        """The tasks of the trial before: most sweeps search the model alone."""
        run: TrainingRun | None = getattr(self, "run", None)
        return run.tasks if run is not None and run.trial.seed == trial.seed else {}

    def _entered(self, step: int) -> dict[str, int]:
        """Replicate -> the stage of its curriculum, from 1, that it entered at the evaluation of a step."""
        progress = zip(self.run.seeds, self.run.progress, strict=True)
        return {str(r): own.entered.index(step) + 2 for r, own in progress if step in own.entered}

    def cleanup(self) -> None:
        self.lock.close()

    def _start(self, config: dict[str, Any]) -> None:
        trial, folder = TrialSpec.parse(json.loads(config["trial"])), Path(config["folder"])
        self.lock = hold_trial(folder)
        self.checkpoints = CheckpointFolder(folder / "checkpoints")
        # Ray shows an actor only the devices that it was given.
        device = torch.device("cuda" if ray.get_gpu_ids() and torch.cuda.is_available() else "cpu")
        stimuli, threads = Path(config["stimuli"]), int(config["threads"])
        self.run = TrainingRun(trial, stimuli=stimuli, device=device, threads=threads, tasks=self._known_tasks(trial))
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            latest = self.checkpoints.latest()
        self.notes = [str(warning.message) for warning in told]
        self.again: deque[Evaluation] = deque()
        if latest is not None:
            self.run.restore(latest)
            known, history = int(config["step"]), self.run.history
            self.again.extend([*(entry for entry in history[:-1] if entry.step > known), history[-1]])
        self.seconds = float(config["seconds"])
