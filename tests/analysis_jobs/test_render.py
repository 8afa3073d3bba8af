"""Rendering and features through a real, small Ray."""

from __future__ import annotations

import shutil

import numpy as np
import pandas as pd
import pytest
import ray
import torch
from ray.data import DataContext

from analysis_jobs.render import _error_from, _error_text, _FeatureActor, _RenderActor, prepare
from wmcore.errors import GateError, InputError, MissingPartError
from wmcore.renderers.pyvista import PyVistaSpec
from wmcore.stimuli.feature_bank import feature_bank_folder, make_feature_bank
from wmcore.stimuli.image_bank import ImageBank, image_bank_folder, make_image_bank
from wmcore.stimuli.spec import StimulusSpec

# Ray warns about the defaults of its own context.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:ray.data.context")

SMALL = {
    "objects": {"kind": "procedural", "train_identities": 2, "select_identities": 2, "test_identities": 2},
    "views": {"kind": "interpolated", "train_views": 5},
    "backbone": {"kind": "efficientnet_lite0", "layer": "block2"},
    "gate": "warn",
}
RENDERS = 24 * 9


@pytest.fixture(scope="module", autouse=True)
def local_ray():
    if ray.is_initialized():
        yield
        return
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    yield
    ray.shutdown()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("ray")


@pytest.fixture(scope="module")
def progress():
    return []


@pytest.fixture(scope="module")
def bank(folder, progress):
    return prepare(StimulusSpec.parse(SMALL), folder, lambda *at: progress.append(at))


def test_same_bank_as_in_one_process(bank, folder, tmp_path):
    alone = make_feature_bank(StimulusSpec.parse(SMALL), tmp_path)
    assert alone.content_hash == bank.content_hash
    pd.testing.assert_frame_equal(alone.manifest, bank.manifest)
    assert torch.equal(alone.features, bank.features)


def test_progress_reaches_the_total(bank, progress):
    assert progress[-1] == (RENDERS, RENDERS)
    assert [done for done, _ in progress] == list(range(9, RENDERS + 1, 9))


def test_ray_datas_own_bars_come_back(bank):
    assert DataContext.get_current().enable_progress_bars


def test_cached_bank_needs_no_ray(bank, folder, monkeypatch):
    monkeypatch.setattr("analysis_jobs.render.from_items", lambda *_, **__: pytest.fail("computed again"))
    again = prepare(StimulusSpec.parse(SMALL), folder)
    assert torch.equal(again.features, bank.features)


def test_finished_renders_are_used_again(bank, folder, monkeypatch):
    """Another layer of the same images: nothing is rendered, and a stricter gate stops without losing the bank."""
    monkeypatch.setattr("analysis_jobs.render._RenderActor", None)
    spec = StimulusSpec.parse(
        {**SMALL, "backbone": {"kind": "efficientnet_lite0", "layer": "block0", "pool_size": 1}, "gate": "stop"}
    )
    with pytest.raises(GateError, match="location"):
        prepare(spec, folder)
    assert feature_bank_folder(folder, spec).is_dir()


def test_a_worker_without_opengl_gives_a_readable_error(monkeypatch):
    """The error crosses the process border as text and comes back as itself."""
    actor = _RenderActor(StimulusSpec.parse(SMALL).model_dump(mode="json"))

    def no_gl(self):
        raise MissingPartError("install the package")

    monkeypatch.setattr(PyVistaSpec, "build", no_gl)
    row = actor({"object": np.array([3])})
    error = _error_from(row["error"][0])
    assert isinstance(error, MissingPartError)
    assert str(error) == "install the package"


@pytest.mark.parametrize(
    "error",
    [
        InputError("a", "must be b", value="c", remedy="Write b."),
        InputError("a", "is b"),
        MissingPartError("x"),
        GateError("y"),
    ],
)
def test_an_error_keeps_its_paragraph_and_exit_code(error):
    again = _error_from(_error_text(error))
    assert (str(again), again.exit_code) == (str(error), error.exit_code)


def test_weights_that_are_none_end_in_bad_input(bank, folder, tmp_path):
    """Through the workers: the images are there, and the file that is named exists."""
    (tmp_path / "weights.pth").write_bytes(b"no weights")
    weights = {"kind": "resnet50", "weights": str(tmp_path / "weights.pth")}
    with pytest.raises(InputError, match=r"backbone\.weights must name a state dict .*weights\.pth holds") as caught:
        prepare(StimulusSpec.parse({**SMALL, "backbone": weights}), folder)
    assert caught.value.exit_code == 2


def test_a_worker_that_lacks_a_file_says_so(tmp_path):
    (tmp_path / "weights.pth").write_bytes(b"")
    spec = StimulusSpec.parse({**SMALL, "backbone": {"kind": "resnet50", "weights": str(tmp_path / "weights.pth")}})
    actor = _FeatureActor(spec.model_dump(mode="json"))
    (tmp_path / "weights.pth").unlink()
    row = actor({"object": np.array([0]), "renders": [np.zeros((1, 112, 112, 3), dtype=np.uint8)]})
    with pytest.raises(InputError, match=r"must be an existing file.*on every machine"):
        raise _error_from(row["error"][0])


def test_a_deleted_image_bank_is_made_again(bank, folder, tmp_path, monkeypatch):
    shutil.copytree(folder, tmp_path / "copy")
    spec = StimulusSpec.parse(SMALL)
    shutil.rmtree(image_bank_folder(tmp_path / "copy", spec))
    monkeypatch.setattr("analysis_jobs.render._FeatureActor", None)
    assert torch.equal(prepare(spec, tmp_path / "copy").features, bank.features)
    pd.testing.assert_frame_equal(ImageBank.load(tmp_path / "copy", spec).manifest, bank.manifest)


def test_image_bank_alone_is_not_made_twice(bank, folder):
    assert make_image_bank(StimulusSpec.parse(SMALL), folder).manifest.equals(bank.manifest)
