"""A real Ray, real checkpoints of a small network, and a feature bank with planted features."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import ray
import torch
import xarray as xr

from analysis_jobs.analyse import RECORDING, Item, analyse, analyse_one
from wmcore.analyses.decoding import DecodingSpec
from wmcore.analyses.storage import load_result
from wmcore.analyses.trajectories import TrajectoriesSpec
from wmcore.models.rnn import RNNSpec
from wmcore.recording import RecordingSpec, load, provenance
from wmcore.stimuli.feature_bank import write_feature_bank
from wmcore.stimuli.image_bank import write_image_bank
from wmcore.stimuli.object_sets.procedural import ProceduralSpec
from wmcore.stimuli.spec import StimulusSpec
from wmcore.tasks.nback import NBackSpec
from wmcore.training.checkpoint import CheckpointFolder, build_model
from wmcore.training.trial_spec import TrialSpec

DECODING = DecodingSpec(properties=("location",), permutations=20, bootstraps=100)
FAILING = TrajectoriesSpec(color_by="colour", permutations=20, bootstraps=50)
TRAJECTORIES = TrajectoriesSpec(permutations=20, bootstraps=50)
RECORD = RecordingSpec(trials=120)
STIMULI = StimulusSpec(objects=ProceduralSpec(train_identities=2, select_identities=2, test_identities=2), gate="warn")

# Ray Data's own settings object sets deprecated fields of its own when it is made.
pytestmark = pytest.mark.filterwarnings(r"ignore:.*is deprecated:Warning:ray\.data\.context")


@pytest.fixture(scope="module")
def stimuli(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bank whose features say where an object is, and little else."""
    folder = tmp_path_factory.mktemp("stimuli")
    spec = STIMULI
    views = len(spec.views.views())
    blank = np.zeros((views, 112, 112, 3), dtype=np.uint8)
    images = write_image_bank(folder, spec, (blank for _ in spec.objects.meshes()))
    shape = (len(images.manifest), *spec.backbone.feature_shape())
    source = torch.Generator().manual_seed(0)
    location = torch.tensor(images.manifest["location"].tolist())
    pattern = torch.randn((4, *shape[1:]), generator=source)
    features = pattern[location] + 0.3 * torch.randn(shape, generator=source)
    write_feature_bank(folder, spec, images, features)
    return folder


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained network with two replicates."""
    trial = TrialSpec(
        seed=3,
        replicates=2,
        task=NBackSpec(n=(1,), features=("location",), steps=3, stimuli=STIMULI),
        model=RNNSpec(hidden_size=16, trunk_size=16, reduction_channels=None),
    )
    weights = [build_model(trial, r).state_dict() for r in range(2)]
    folder = CheckpointFolder(tmp_path_factory.mktemp("trial") / "checkpoints")
    return folder.save(trial, 5, weights, {}, [], 5, [0, 1])


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, configure_logging=False)
    yield
    ray.shutdown()


def test_records_and_analyses_through_ray_and_keeps_what_did_not_fail(
    stimuli: Path, checkpoint: Path, cluster: None, tmp_path: Path
) -> None:
    items = [
        Item(checkpoint, tmp_path / "a", stimuli, 0, {"bank_hash": "b"}),
        Item(tmp_path / "step_000000001", tmp_path / "b", stimuli),
        Item(checkpoint, tmp_path / "c", stimuli, 1),
    ]
    seen: list[tuple[int, int]] = []
    outcomes = analyse(
        items, [DECODING, FAILING, TRAJECTORIES], RECORD, progress=lambda done, total: seen.append((done, total))
    )
    assert seen == [(0, 3), (1, 3), (2, 3), (3, 3)]
    assert [o.name for o in outcomes] == [RECORDING, "decoding", "trajectories", "trajectories_2"] * 3
    assert [bool(o.error) for o in outcomes] == [False, False, True, False] + [True] * 4 + [False, False, True, False]
    assert "trajectories.color_by is 'colour'" in outcomes[2].error
    assert "is not a whole checkpoint" in outcomes[4].error
    assert outcomes[4].checkpoint == str(items[1].checkpoint)
    assert outcomes[5].error.startswith("not run: recording failed")
    assert {o.trial_id for o in outcomes[:4]} == {o.trial_id for o in outcomes[8:]} != {""}

    table = pd.read_parquet(outcomes[1].table)
    shown_now = table[(table["measure"] == "balanced_accuracy") & (table["age"] == 0) & (table["read_step"] > 0)]
    assert (shown_now["estimate"] > 0.9).all()  # the planted location reaches even an untrained network
    assert all(Path(figure).stat().st_size > 5000 for figure in outcomes[1].figures + outcomes[3].figures)
    assert load_result(tmp_path / "c", "trajectories_2").arrays["mean"].shape == (1, 3, 10)

    recording = load(Path(outcomes[0].table))
    origin = provenance(recording)
    assert (origin["checkpoint_step"], origin["seed"], origin["replicate"], origin["split"]) == (5, 3, 0, "neutral")
    assert origin["bank_hash"] == "b"
    assert origin["trial_id"] == outcomes[0].trial_id
    assert json.loads(recording.attrs["recording"])["states"] == ["h"]

    # The same item in this process: the same files.
    again = analyse_one(Item(checkpoint, tmp_path / "again", stimuli, 0, {"bank_hash": "b"}), [DECODING], RECORD)
    xr.testing.assert_identical(load(Path(again[0].table)), recording)
    pd.testing.assert_frame_equal(pd.read_parquet(again[1].table), table)


def test_replicates_meet_trials_of_their_own(stimuli: Path, checkpoint: Path, tmp_path: Path) -> None:
    first, second = (
        load(Path(analyse_one(Item(checkpoint, tmp_path / str(r), stimuli, r), [], RECORD)[0].table)) for r in range(2)
    )
    assert (first["location"].values != second["location"].values).any()


def test_nothing_to_do_needs_no_ray() -> None:
    assert analyse([], [DECODING], RECORD) == []
