"""Recording: states, inputs, outputs and conditions of a probe set, as one labelled data set. Stored as Zarr.

Dims: trial, time (steps), unit (state), channel (output). Index t of a state is the state AFTER input t.
"""

from __future__ import annotations

import difflib
import json
import os
import shutil
import uuid
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import torch
import xarray as xr
from pydantic import Field
from torch import Tensor

from wmcore.errors import InputError
from wmcore.spec import Spec, canonical_json
from wmcore.trials import Input, Lookup

if TYPE_CHECKING:
    from wmcore.models.base import SequenceModel
    from wmcore.tasks.base import Task

FORMAT = 1
_PERIOD = "period_"
_BATCH = 256  # trials in one forward pass: bounds memory, does not change results


class RecordingSpec(Spec):
    """Which trials are shown to a trained network, and which of its states are kept."""

    split: str = "neutral"
    """Split of the task that the trials are drawn from."""
    trials: Annotated[int, Field(ge=2)] = 1800
    """Trials in all (a task with several cells shares them out)."""
    states: tuple[str, ...] | None = None
    """States to keep; null: the model's default one."""


def resolve(
    spec: RecordingSpec, recordable: Sequence[str], splits: Collection[str] | None = None, where: str = "recording"
) -> RecordingSpec:
    """The spec with its states filled in, checked against what the model records and the task's splits.

    Args:
        recordable: of the model's spec; the first is the default.
        splits: of the task; None where the task is not built yet (the split is then checked by ``record``).
        where: field path for errors.

    Raises:
        InputError: a state that the model cannot record, or a split that the task does not have.
    """
    if splits is not None:
        _one_of(spec.split, splits, f"{where}.split")
    states = spec.states if spec.states is not None else tuple(recordable[:1])
    if not states:
        rule = f"must name at least one of {', '.join(recordable)}"
        raise InputError(f"{where}.states", rule, value=states, remedy="Leave it out for the default one.")
    for i, name in enumerate(states):
        _one_of(name, recordable, f"{where}.states.{i}")
    if len(set(states)) < len(states):
        raise InputError(f"{where}.states", "must name each state once", value=states)
    return spec.model_copy(update={"states": states})


def record(
    task: Task,
    model: SequenceModel,
    spec: RecordingSpec,
    generator: torch.Generator,
    device: torch.device | str = "cpu",
    provenance: Mapping[str, Any] | None = None,
) -> xr.Dataset:
    """Shows freshly drawn trials to a network, without noise or gradients, and keeps what happened.

    Variables, which mean nothing behind the end of a trial: ``state_<name>`` (trial, time, unit), ``outputs`` (trial,
    time, channel), ``targets``, ``loss_mask`` (trial, time), ``lengths`` (trial), each condition by its own name, and
    the inputs (see ``inputs_of``). ``period_<name>`` (trial, bound) holds the first step of a period and the step after
    its last one, -1 where a trial lacks it. Attributes are JSON: ``condition_labels``, ``splits``, ``recording`` (the
    spec), ``provenance`` (what the caller gives: trial id, checkpoint step, seed, replicate, specs, bank hash).

    Args:
        spec: as ``resolve`` gives it.
        generator: draws the trials (CPU).
        device: where the model is.
        provenance: plain data that is stored as it is.

    Raises:
        InputError: the task has no such split, or the states are not resolved.
    """
    _one_of(spec.split, task.splits, "recording.split")
    if spec.states is None:
        raise InputError("recording.states", "must be resolved before recording", remedy="Call resolve() first.")
    batch = task.sample(spec.trials, generator, spec.split)
    was_training = model.training
    model.eval()
    outputs, states = [], {name: [] for name in spec.states}
    try:
        with torch.no_grad():
            for start in range(0, batch.size, _BATCH):
                rows = slice(start, start + _BATCH)
                inputs = {name: _rows(value, rows).to(device) for name, value in batch.inputs.items()}
                rollout = model(inputs, record=spec.states, lengths=batch.lengths[rows].to(device))
                outputs.append(rollout.outputs.cpu())
                for name, parts in states.items():
                    parts.append(rollout.recorded[name].cpu())
    finally:
        model.train(was_training)

    data: dict[str, tuple[tuple[str, ...], np.ndarray]] = {}
    unit_sizes: dict[str, int] = {}
    for name, parts in states.items():
        value = torch.cat(parts).to(torch.float32).numpy()
        dims = _state_dims(name, value.shape[2:], unit_sizes)
        data[f"state_{name}"] = (("trial", "time", *dims), value)
    data["outputs"] = (("trial", "time", "channel"), torch.cat(outputs).to(torch.float32).numpy())
    target_dims = ("trial", "time", *(f"target_{i}" for i in range(batch.targets.ndim - 2)))
    data["targets"] = (target_dims, batch.targets.numpy())
    data["loss_mask"] = (("trial", "time"), batch.loss_mask.numpy())
    data["lengths"] = (("trial",), batch.lengths.numpy())
    for name, value in batch.inputs.items():
        data |= _stored_input(name, value)
    for name, value in batch.conditions.items():
        if name in data or name in ("trial", "time"):
            raise ValueError(f"condition {name!r} has the name of something that every recording holds")
        data[name] = (("trial", "time")[: value.ndim], value.numpy())
    data |= {_PERIOD + name: (("trial", "bound"), bounds.numpy()) for name, bounds in batch.periods.items()}
    attrs = {
        "format": FORMAT,
        "first_state": f"state_{spec.states[0]}" if spec.states else "",
        "conditions": _json(list(batch.conditions)),
        "condition_labels": _json({name: list(labels) for name, labels in task.condition_labels.items()}),
        "inputs": _json({name: "lookup" if isinstance(v, Lookup) else "dense" for name, v in batch.inputs.items()}),
        "splits": _json(dict(task.splits)),
        "recording": spec.canonical_json(),
        "provenance": _json(dict(provenance or {})),
    }
    steps = batch.targets.shape[1]
    coords = {"trial": np.arange(batch.size), "time": np.arange(steps)}
    return xr.Dataset(data, coords=coords, attrs=attrs)


def inputs_of(recording: xr.Dataset) -> dict[str, Input]:
    """Name -> exactly the values that the model received: a tensor, or a ``Lookup`` whose table has the used rows."""
    restored: dict[str, Input] = {}
    for name, form in json.loads(recording.attrs.get("inputs", "{}")).items():
        if form == "lookup":
            table = torch.from_numpy(np.array(recording[f"input_{name}_table"].values))
            restored[name] = Lookup(table, torch.from_numpy(np.array(recording[f"input_{name}_index"].values)))
        else:
            restored[name] = torch.from_numpy(np.array(recording[f"input_{name}"].values))
    return restored


def condition_labels(recording: xr.Dataset) -> dict[str, tuple[str, ...]]:
    """Condition name -> the label of each of its integer values."""
    stored = json.loads(recording.attrs.get("condition_labels", "{}"))
    return {name: tuple(labels) for name, labels in stored.items()}


def periods(recording: xr.Dataset) -> dict[str, np.ndarray]:
    """Period name -> (N, 2): each trial's first step and the step after its last one; -1 where it lacks the period."""
    held = [str(name) for name in recording.data_vars if str(name).startswith(_PERIOD)]
    return {name.removeprefix(_PERIOD): recording[name].values for name in held}


def provenance(recording: xr.Dataset) -> dict[str, Any]:
    """What the caller of ``record`` said about the origin of the recording."""
    return json.loads(recording.attrs.get("provenance", "{}"))


def save(recording: xr.Dataset, path: Path) -> Path:
    """Writes a Zarr (format 3) folder to a temporary name beside ``path``, then renames it; replaces an older one."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    try:
        recording.to_zarr(temporary, mode="w", zarr_format=3, consolidated=False)
        if path.exists():
            old = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.old")
            os.replace(path, old)
            os.replace(temporary, path)
            shutil.rmtree(old)
        else:
            os.replace(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return path


def load(path: Path) -> xr.Dataset:
    """Reads a recording into memory.

    Raises:
        InputError: there is no recording, or one of a format that this version does not read.
    """
    if not (Path(path) / "zarr.json").is_file():
        raise InputError(str(path), "must be the folder of a recording (Zarr, format 3)")
    with xr.open_zarr(path, consolidated=False, chunks=None) as stored:
        recording = stored.load()
    if recording.attrs.get("format") != FORMAT:
        raise InputError(str(path), f"must be a recording of format {FORMAT}", value=recording.attrs.get("format"))
    return recording


def _rows(value: Input, rows: slice) -> Input:
    return Lookup(value.table, value.index[rows]) if isinstance(value, Lookup) else value[rows]


def _stored_input(name: str, value: Input) -> dict[str, tuple[tuple[str, ...], np.ndarray]]:
    if isinstance(value, Lookup):
        used, index = torch.unique(value.index, return_inverse=True)
        table = value.table[used.to(value.table.device)].cpu().numpy()
        return {
            f"input_{name}_table": ((f"row_{name}", *_axes(name, table.ndim - 1)), table),
            f"input_{name}_index": (("trial", "time")[: index.ndim], index.cpu().numpy()),
        }
    array = _tensor(value)
    return {f"input_{name}": (("trial", "time", *_axes(name, array.ndim - 2)), array)}


def _tensor(value: Tensor) -> np.ndarray:
    return value.cpu().numpy()


def _axes(name: str, count: int) -> tuple[str, ...]:
    return tuple(f"input_{name}_axis{i}" for i in range(count))


def _state_dims(name: str, shape: tuple[int, ...], unit_sizes: dict[str, int]) -> tuple[str, ...]:
    """``unit`` for a vector state of the common width; dims of its own for any other state."""
    if len(shape) == 1 and unit_sizes.setdefault("unit", shape[0]) == shape[0]:
        return ("unit",)
    return ("unit_" + name,) if len(shape) == 1 else tuple(f"unit_{name}_{i}" for i in range(len(shape)))


def _json(value: Any) -> str:
    return canonical_json(value)


def _one_of(name: str, allowed: Collection[str], where: str) -> None:
    if name in allowed:
        return
    near = difflib.get_close_matches(name, list(allowed), n=1)
    remedy = f"Did you mean {near[0]}?" if near else ""
    raise InputError(where, f"must be one of {', '.join(allowed)}", value=name, remedy=remedy)
