"""Checkpoints: whole or not there, the right ones kept, damage met with the one before, nothing pickled."""

from __future__ import annotations

import hashlib
import io
import json
import os
import pickle
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from tests.fixtures.banks import small_stimuli
from wmcore.errors import InputError
from wmcore.models.rnn import RNNSpec
from wmcore.tasks.nback import NBackSpec
from wmcore.training.checkpoint import CheckpointFolder, build_model, load_checkpoint
from wmcore.training.fit import TrainingRun
from wmcore.training.trial_spec import EvaluationSpec, TrainingSpec, TrialSpec

FLIPS = 40
FILES = ["metrics.jsonl", "sums.json", "training.pt", "trial.json", "weights.safetensors"]
TRIAL = TrialSpec(
    task=NBackSpec(stimuli=small_stimuli(), n=(1,), features=("location",), steps=3),
    model=RNNSpec(hidden_size=4, trunk_size=5, reduction_channels=2),
    training=TrainingSpec(steps=6, batch_size=4),
    evaluation=EvaluationSpec(every_steps=1, trials=8, test_trials=8),
    replicates=2,
)


def save(folder: CheckpointFolder, step: int, best_step: int) -> Path:
    weights = [build_model(TRIAL, r).state_dict() for r in range(2)]
    history = [
        {"step": s, "metrics": {"select/accuracy": 0.1}, "spread": {}, "replicates": {}} for s in range(1, step + 1)
    ]
    return folder.save(TRIAL, step, weights, {"optimizers": [], "best_step": best_step}, history, best_step, [0, 1])


@pytest.fixture
def folder(tmp_path: Path) -> CheckpointFolder:
    return CheckpointFolder(tmp_path / "checkpoints")


def halve(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def scramble(path: Path) -> None:
    path.write_bytes(bytes((value * 7 + 13) % 256 for value in path.read_bytes()))


def flip_each(path: Path) -> Iterator[int]:
    """Flips one bit of a file after the other, at places all over it; every other bit is as it was."""
    content = path.read_bytes()
    for place in np.linspace(0, len(content) - 1, FLIPS, dtype=int).tolist():
        damaged = bytearray(content)
        damaged[place] ^= 1
        path.write_bytes(damaged)
        yield place
    path.write_bytes(content)


def flip(path: Path) -> None:
    """Flips the lowest bit of the last digit: a number that is as good as any other."""
    content = bytearray(path.read_bytes())
    content[max(place for place, value in enumerate(content) if chr(value) in "0123456789")] ^= 1
    path.write_bytes(content)


def blank(path: Path) -> None:
    """Loses a block, which then reads as zeros."""
    content = path.read_bytes()
    third = len(content) // 3
    path.write_bytes(content[:third] + bytes(third) + content[2 * third :])


def lose_last_line(path: Path) -> None:
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))


DAMAGE: list[tuple[str, Callable[[Path], None]]] = [
    *((name, how) for name in FILES for how in (halve, empty, scramble, flip, blank, Path.unlink)),
    ("metrics.jsonl", lose_last_line),
]


# Keeping


def test_the_last_two_and_the_best_are_kept(folder: CheckpointFolder) -> None:
    kept = []
    for step, best in ((1, 1), (2, 2), (3, 2), (4, 2), (5, 2)):
        save(folder, step, best)
        kept.append(folder.steps())
    assert kept == [[1], [1, 2], [2, 3], [2, 3, 4], [2, 4, 5]]


def test_the_best_as_of_the_last_but_one_is_kept_too(folder: CheckpointFolder) -> None:
    """Step 4 is the new best; if it is damaged, step 3 must be able to go on, and its best was step 1."""
    for step, best in ((1, 1), (2, 1), (3, 1), (4, 4)):
        save(folder, step, best)
    assert folder.steps() == [1, 3, 4]
    halve(folder.at(4) / "weights.safetensors")
    with pytest.warns(UserWarning, match="damaged"):
        assert folder.latest() == folder.at(3)
    save(folder, 5, 4)
    assert folder.steps() == [4, 5]


def test_what_was_too_damaged_to_continue_from_does_not_crowd_out_the_new(folder: CheckpointFolder) -> None:
    for step in (7, 8, 9):
        save(folder, step, step)
    save(folder, 1, 1)
    assert folder.latest() == folder.at(1)


# Atomic


@pytest.mark.parametrize(("step", "pid"), [(2, os.getpid()), (2, 1), (5, 1)])
def test_a_leftover_temporary_directory_is_ignored_and_removed(folder: CheckpointFolder, step: int, pid: int) -> None:
    save(folder, 1, 1)
    leftover = folder.folder / f".step_{step:09d}.{pid}"
    shutil.copytree(folder.at(1), leftover)
    (leftover / "garbage").write_text("x")
    assert folder.steps() == [1]
    assert folder.latest() == folder.at(1)
    path = save(folder, 2, 2)
    assert sorted(file.name for file in path.iterdir()) == FILES
    assert not leftover.exists()


@pytest.mark.parametrize("function", ["safetensors.torch.save", "wmcore.training.checkpoint._flush"])
def test_a_save_that_dies_leaves_what_was_there(
    folder: CheckpointFolder, monkeypatch: pytest.MonkeyPatch, function: str
) -> None:
    save(folder, 1, 1)
    before = {path.name: path.read_bytes() for path in folder.at(1).iterdir()}

    def die(*args: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(function, die)
    for step in (1, 2):
        with pytest.raises(OSError, match="no space"):
            save(folder, step, 1)
    assert folder.steps() == [1]
    assert {path.name: path.read_bytes() for path in folder.at(1).iterdir()} == before
    assert folder.latest() == folder.at(1)


def test_saving_a_step_again_replaces_it(folder: CheckpointFolder) -> None:
    path = save(folder, 1, 1)
    (path / "foreign").write_text("x")
    save(folder, 1, 1)
    assert sorted(file.name for file in path.iterdir()) == FILES


def test_no_folder_and_no_checkpoint(folder: CheckpointFolder) -> None:
    assert folder.steps() == []
    assert folder.latest() is None


# Damage


@pytest.mark.parametrize(("name", "how"), DAMAGE, ids=[f"{name}-{how.__name__}" for name, how in DAMAGE])
def test_a_damaged_checkpoint_falls_back_to_the_one_before(
    folder: CheckpointFolder, name: str, how: Callable[[Path], None]
) -> None:
    for step in (1, 2):
        save(folder, step, step)
    assert folder.latest() == folder.at(2)
    how(folder.at(2) / name)
    with pytest.warns(UserWarning, match=re.escape(str(folder.at(2)))):
        assert folder.latest() == folder.at(1)


@pytest.mark.parametrize("name", FILES)
def test_a_checkpoint_with_any_bit_flipped_is_not_whole(folder: CheckpointFolder, name: str) -> None:
    path = save(folder, 1, 1)
    assert folder.is_whole(1)
    taken_as_whole = [place for place in flip_each(path / name) if folder.is_whole(1)]
    assert taken_as_whole == []
    assert folder.is_whole(1)


def test_a_checkpoint_without_sums_says_what_it_lacks(folder: CheckpointFolder) -> None:
    path = save(folder, 1, 1)
    (path / "sums.json").unlink()
    with pytest.raises(InputError, match=r"is not a whole checkpoint: it lacks sums\.json"):
        load_checkpoint(path)


def test_a_checkpoint_whose_best_is_lost_is_none_to_continue_from(folder: CheckpointFolder) -> None:
    for step, best in ((1, 1), (2, 2), (3, 2), (4, 2)):
        save(folder, step, best)
    halve(folder.at(2) / "weights.safetensors")
    with pytest.warns(UserWarning, match="damaged"):
        assert folder.latest() is None


def test_all_damaged_is_none(folder: CheckpointFolder) -> None:
    for step in (1, 2):
        empty(save(folder, step, step) / "training.pt")
    with pytest.warns(UserWarning, match="damaged") as warned:
        assert folder.latest() is None
    assert len(warned) == 2


def test_training_goes_on_from_the_one_before_and_ends_the_same(
    synthetic_stimuli: Path, folder: CheckpointFolder
) -> None:
    whole = TrainingRun(TRIAL, stimuli=synthetic_stimuli)
    while not whole.finished:
        whole.advance()
    expected = whole.finish()
    part = TrainingRun(TRIAL, stimuli=synthetic_stimuli)
    for _ in range(4):
        part.advance()
        part.save(folder.folder)
    halve(folder.at(4) / "training.pt")
    with pytest.warns(UserWarning, match="damaged"):
        latest = folder.latest()
    assert latest == folder.at(3)
    resumed = TrainingRun(TRIAL, stimuli=synthetic_stimuli)
    resumed.restore(latest)
    while not resumed.finished:
        resumed.advance()
        resumed.save(folder.folder)
    assert folder.latest() == folder.at(6)
    assert repr(resumed.finish()) == repr(expected)


@pytest.mark.parametrize(("name", "how"), DAMAGE, ids=[f"{name}-{how.__name__}" for name, how in DAMAGE])
def test_restoring_a_damaged_checkpoint_names_it(
    synthetic_stimuli: Path, folder: CheckpointFolder, name: str, how: Callable[[Path], None]
) -> None:
    run = TrainingRun(TRIAL, stimuli=synthetic_stimuli)
    run.advance()
    path = run.save(folder.folder)
    run.restore(path)
    how(path / name)
    with pytest.raises(InputError, match=re.escape(str(path))):
        run.restore(path)


def test_reading_weights_and_state_of_a_damaged_checkpoint_names_it(folder: CheckpointFolder) -> None:
    path = save(folder, 1, 1)
    found = load_checkpoint(path)
    halve(path / "weights.safetensors")
    empty(path / "training.pt")
    for read in (found.weights, found.training_state, found.check_whole, lambda: found.build(None)):
        with pytest.raises(InputError, match="stimuli|" + re.escape(str(path))):
            read()
    with pytest.raises(InputError, match=re.escape(str(path))):
        found.weights(1)


def rewrite(path: Path, name: str, content: bytes) -> None:
    """Another content, with its sum: not damage, but what someone else may have written."""
    sums = json.loads((path / "sums.json").read_text())
    (path / name).write_bytes(content)
    (path / "sums.json").write_text(json.dumps({**sums, name: hashlib.sha256(content).hexdigest()}))


@pytest.mark.parametrize("content", ["{}", "[]", '{"task": {"kind": "nback"}, "model": {"kind": "none"}}', "3"])
def test_a_trial_that_is_none_is_an_input_error(folder: CheckpointFolder, content: str) -> None:
    path = save(folder, 1, 1)
    rewrite(path, "trial.json", content.encode())
    with pytest.raises(InputError, match=re.escape(str(path))):
        load_checkpoint(path)


def test_load_errors_name_the_path(folder: CheckpointFolder, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=re.escape(str(tmp_path / "nowhere"))):
        load_checkpoint(tmp_path / "nowhere")
    renamed = tmp_path / "best"
    save(folder, 1, 1).rename(renamed)
    with pytest.raises(InputError, match=re.escape(str(renamed))):
        load_checkpoint(renamed)


def test_a_replicate_that_is_not_there_is_refused(folder: CheckpointFolder) -> None:
    with pytest.raises(InputError, match="replicate 2"):
        load_checkpoint(save(folder, 1, 1)).weights(2)


# Content


def test_holds_plain_files_only_and_gives_back_what_was_saved(
    synthetic_stimuli: Path, folder: CheckpointFolder
) -> None:
    run = TrainingRun(TRIAL, stimuli=synthetic_stimuli)
    run.advance()
    path = run.save(folder.folder)
    assert sorted(file.name for file in path.iterdir()) == FILES
    assert TrialSpec.parse(json.loads((path / "trial.json").read_text())) == TRIAL
    assert (path / "trial.json").read_text() == TRIAL.canonical_json()
    assert all(json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines())
    assert_plain(torch.load(path / "training.pt", weights_only=True))
    names = {f"replicate_{r}.{name}" for r in range(2) for name in run.models[0].state_dict()}
    assert set(load_file(path / "weights.safetensors")) == names
    found = load_checkpoint(path)
    assert (found.trial, found.step) == (TRIAL, 1)
    assert [line["metrics"] for line in found.history] == [run.history[0].metrics]


def assert_plain(value: Any) -> None:
    """Nothing but tensors, numbers, strings and built-in containers, however deep."""
    if type(value) is dict:
        for key, item in value.items():
            assert type(key) in (str, int)
            assert_plain(item)
    elif type(value) in (list, tuple):
        for item in value:
            assert_plain(item)
    else:
        assert type(value) in (torch.Tensor, int, float, str, bool, type(None)), type(value)


class Marker:
    """Unpickled, it would leave a file behind."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return os.mkdir, (self.path,)


@pytest.mark.parametrize("dump", [pickle.dumps, None], ids=["pickle", "torch"])
def test_a_pickled_object_is_refused_and_not_run(
    folder: CheckpointFolder, tmp_path: Path, dump: Callable[[object, int], bytes] | None
) -> None:
    path = save(folder, 1, 1)
    bomb = Marker(str(tmp_path / "exploded"))
    if dump is None:
        saved = io.BytesIO()
        torch.save({"best_step": bomb}, saved)
        rewrite(path, "training.pt", saved.getvalue())
    else:
        rewrite(path, "training.pt", dump(bomb, 2))
    with pytest.raises(InputError, match=re.escape(str(path)) + r".*(?i:unpickl|weights.only)"):
        load_checkpoint(path).training_state()
    assert not (tmp_path / "exploded").exists()


def test_builds_the_task_and_each_trained_network(synthetic_stimuli: Path, folder: CheckpointFolder) -> None:
    run = TrainingRun(TRIAL, stimuli=synthetic_stimuli)
    run.advance()
    found = load_checkpoint(run.save(folder.folder))
    for r in range(2):
        task, model = found.build(synthetic_stimuli, r)
        assert not model.training
        batch = task.sample(5, torch.Generator().manual_seed(0), "test")
        with torch.no_grad():
            assert torch.equal(model(batch.inputs).outputs, run.models[r](batch.inputs).outputs)
            assert not torch.equal(model(batch.inputs).outputs, run.models[1 - r](batch.inputs).outputs)
            fresh = build_model(TRIAL, r)
            assert not torch.equal(model(batch.inputs).outputs, fresh(batch.inputs).outputs)
