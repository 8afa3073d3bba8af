"""Checkpoints: directories of plain files, written to a temporary name and renamed.

step_0000500/
  trial.json            the TrialSpec, canonical JSON
  weights.safetensors   ``replicate_<r>.<parameter>`` for every replicate
  training.pt           optimisers, places in the curriculum, counters; tensors and plain containers only
  metrics.jsonl         one line per evaluation so far
  sums.json             the SHA-256 of each of these files

Storage that has lost a block or a bit may still hold a file that can be parsed: a file counts only if its sum does.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from wmcore.errors import InputError
from wmcore.models.base import SequenceModel
from wmcore.seeding import generator
from wmcore.tasks.base import Task
from wmcore.training.trial_spec import TrialSpec

UNFINISHED = ".step_*"
"""Names of checkpoints that are being written, or whose writer was killed."""
_STEP = "step_{:09d}"
_FILES = ("trial.json", "weights.safetensors", "training.pt", "metrics.jsonl")
_SUMS = "sums.json"


@dataclass(frozen=True)
class Checkpoint:
    """One checkpoint that has been read from disk, weights aside.

    Attributes:
        path: its directory.
        trial: the variant.
        step: optimiser steps done.
        history: every evaluation so far, as plain mappings.
        sums: file name -> SHA-256 of what was written.
    """

    path: Path
    trial: TrialSpec
    step: int
    history: list[dict[str, Any]]
    sums: Mapping[str, str]

    def weights(self, replicate: int = 0) -> dict[str, Tensor]:
        """Parameter name -> tensor of one replicate."""
        prefix = f"replicate_{replicate}."
        weights = {
            name.removeprefix(prefix): value for name, value in self._tensors().items() if name.startswith(prefix)
        }
        if not weights:
            raise InputError(str(self.path), f"holds no replicate {replicate}")
        return weights

    def training_state(self) -> dict[str, Any]:
        """Optimisers, places in the curriculum, and counters.

        Raises:
            InputError: the file cannot be read, or is not what was written.
        """
        with _reading(self.path):
            return torch.load(io.BytesIO(_content(self.path, "training.pt", self.sums)), weights_only=True)

    def check_whole(self) -> int:
        """Reads everything that a resumed run needs from here; returns the step whose weights were the best so far.

        Raises:
            InputError: something cannot be read, or is not what was written.
        """
        self._tensors()
        state = self.training_state()
        with _reading(self.path):
            if (self.history[-1]["step"] if self.history else 0) != self.step:
                raise ValueError(f"metrics.jsonl does not end at step {self.step}")
            return int(state["best_step"])

    def _tensors(self) -> dict[str, Tensor]:
        with _reading(self.path):
            return safetensors.torch.load(_content(self.path, "weights.safetensors", self.sums))

    def build(
        self, stimuli: Path | None, replicate: int = 0, device: str | torch.device = "cpu"
    ) -> tuple[Task, SequenceModel]:
        """The task and the trained network of one replicate, in evaluation mode."""
        task = self.trial.task.build(stimuli)
        model = build_model(self.trial, replicate)
        model.load_state_dict(self.weights(replicate))
        return task, model.to(device).eval()


def build_model(trial: TrialSpec, replicate: int) -> SequenceModel:
    """A network as it is before training: a pure function of (trial, replicate)."""
    weights = generator(trial.seed, "replicate", replicate, "initial_weights")
    return trial.model.build(trial.task.input_channels(), trial.task.output_size, weights)


def load_checkpoint(path: Path) -> Checkpoint:
    """Reads a checkpoint's description.

    Raises:
        InputError: a file is missing or unreadable, or the description is not what was written.
    """
    missing = [name for name in (*_FILES, _SUMS) if not (path / name).is_file()]
    if missing:
        raise InputError(str(path), f"is not a whole checkpoint: it lacks {', '.join(missing)}")
    with _reading(path):
        sums = json.loads((path / _SUMS).read_bytes())
        trial = TrialSpec.parse(json.loads(_content(path, "trial.json", sums)))
        history = [json.loads(line) for line in _content(path, "metrics.jsonl", sums).splitlines()]
        return Checkpoint(path, trial, int(path.name.removeprefix("step_")), history, sums)


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Whatever goes wrong meanwhile makes a checkpoint unreadable: damaged bytes bring up any kind of exception."""
    try:
        yield
    except Exception as error:
        raise InputError(str(path), f"cannot be read as a checkpoint ({error or type(error).__name__})") from error


def _content(path: Path, name: str, sums: Mapping[str, str]) -> bytes:
    """A file of a checkpoint.

    Raises:
        ValueError: it is not what was written.
    """
    content = (path / name).read_bytes()
    if _sum(content) != sums[name]:
        raise ValueError(f"{name} is not what was written: its SHA-256 differs from that in {_SUMS}")
    return content


def _sum(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


class CheckpointFolder:
    """The checkpoints of one trial: the last two are kept, and the best one as of each of them.

    So the last but one can be continued from if the last is damaged, whichever was the best by then. A folder has one
    writer at a time.
    """

    keep_last = 2

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def save(
        self,
        trial: TrialSpec,
        step: int,
        weights: Sequence[Mapping[str, Tensor]],
        training_state: Mapping[str, Any],
        history: Sequence[Mapping[str, Any]],
        best_step: int,
        replicates: Sequence[int],
    ) -> Path:
        """Writes one checkpoint and removes those that are no longer kept; returns its directory."""
        target = self.folder / _STEP.format(step)
        for left in self.folder.glob(UNFINISHED):
            shutil.rmtree(left, ignore_errors=True)
        temporary = self.folder / f".{target.name}.{os.getpid()}"
        temporary.mkdir(parents=True)
        flat = {
            f"replicate_{r}.{name}": value.detach().cpu().contiguous()
            for r, values in zip(replicates, weights, strict=True)
            for name, value in values.items()
        }
        state = io.BytesIO()
        torch.save(dict(training_state), state)
        files = {
            "trial.json": trial.canonical_json().encode(),
            "weights.safetensors": safetensors.torch.save(flat),
            "training.pt": state.getvalue(),
            "metrics.jsonl": "".join(json.dumps(line) + "\n" for line in history).encode(),
        }
        files[_SUMS] = json.dumps({name: _sum(content) for name, content in files.items()}).encode()
        for name, content in files.items():
            (temporary / name).write_bytes(content)
            _flush(temporary / name)
        shutil.rmtree(target, ignore_errors=True)
        temporary.rename(target)
        _flush(self.folder)
        # Anything after this step was too damaged to continue from, and will be written anew.
        last = [other for other in self.steps() if other <= step][-self.keep_last :]
        keep = {best_step, *last, *(self._best_as_of(other) for other in last if other != step)}
        for other in self.steps():
            if other not in keep:
                shutil.rmtree(self.at(other))
        return target

    def steps(self) -> list[int]:
        """Steps of the checkpoints on disk, ascending."""
        return sorted(int(path.name.removeprefix("step_")) for path in self.folder.glob("step_*"))

    def at(self, step: int) -> Path:
        """The directory of the checkpoint of a step."""
        return self.folder / _STEP.format(step)

    def is_whole(self, step: int) -> bool:
        """Whether the checkpoint of a step is there and can be read."""
        try:
            load_checkpoint(self.at(step)).check_whole()
        except InputError:
            return False
        return True

    def latest(self) -> Path | None:
        """The newest checkpoint that a run can continue from (it and the best one are whole), or None."""
        for step in reversed(self.steps()):
            try:
                best_step = load_checkpoint(self.at(step)).check_whole()
                if best_step != step:
                    load_checkpoint(self.at(best_step)).check_whole()
            except InputError as error:
                warnings.warn(f"{self.at(step)} is damaged ({error}): using the one before it", stacklevel=2)
                continue
            return self.at(step)
        return None

    def _best_as_of(self, step: int) -> int:
        """The step that was the best when the checkpoint of ``step`` was written; itself if that cannot be told."""
        try:
            return int(load_checkpoint(self.at(step)).training_state().get("best_step", step))
        except InputError:
            return step


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
