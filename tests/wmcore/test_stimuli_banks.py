"""Image and feature banks: pixels, manifest, identity of content, damage, and the gate in front of training."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from pydantic import ValidationError
from safetensors.torch import save_file

from wmcore.errors import GateError, InputError
from wmcore.stimuli.contact_sheet import contact_sheet
from wmcore.stimuli.feature_bank import (
    FeatureBank,
    feature_bank_folder,
    feature_bank_key,
    make_feature_bank,
    write_feature_bank,
)
from wmcore.stimuli.image_bank import ImageBank, image_bank_folder, make_image_bank, paste, pixel_checksum
from wmcore.stimuli.spec import LOCATION_CENTERS_PX, GateSpec, StimulusSpec

SMALL = {
    "objects": {"kind": "procedural", "train_identities": 2, "select_identities": 2, "test_identities": 2},
    "views": {"kind": "interpolated", "train_views": 5},
    "backbone": {"kind": "efficientnet_lite0", "layer": "block4"},
    "gate": "warn",
}
OBJECTS, VIEWS = 24, 9


def small(**changes) -> StimulusSpec:
    return StimulusSpec.parse({**SMALL, **changes})


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("stimuli")


@pytest.fixture(scope="module")
def images(folder):
    return make_image_bank(small(), folder)


@pytest.fixture(scope="module")
def features(folder, images):
    return make_feature_bank(small(), folder)


def test_paste_puts_the_same_pixels_into_four_places():
    render = np.random.default_rng(0).integers(1, 255, size=(112, 112, 3), dtype=np.uint8)
    for location, (x, y) in enumerate(LOCATION_CENTERS_PX):
        image = paste(render, location)
        assert np.array_equal(image[y - 56 : y + 56, x - 56 : x + 56], render)
        assert image.sum() == render.sum()
    assert LOCATION_CENTERS_PX == ((56, 56), (168, 56), (56, 168), (168, 168))


def test_a_smaller_render_sits_in_the_middle_of_its_cell():
    image = paste(np.full((40, 40, 3), 9, dtype=np.uint8), 1)
    rows, columns = np.nonzero(image[:, :, 0])
    assert (rows.min(), rows.max() + 1, columns.min(), columns.max() + 1) == (36, 76, 148, 188)


def test_manifest(images):
    table = images.manifest
    assert len(table) == OBJECTS * VIEWS * 4
    assert table["image"].tolist() == list(range(len(table)))
    assert not table.duplicated(["identity", "view", "location"]).any()
    assert table.groupby("identity_split")["identity"].nunique().to_dict() == {"train": 8, "select": 8, "test": 8}
    assert table.groupby("view_split")["view"].nunique().to_dict() == {"train": 5, "select": 2, "test": 2}
    assert (table["identity"].str[:-4] == table["category"]).all()
    meshes = {mesh.identity: mesh for mesh in small().objects.meshes()}
    assert all(
        meshes[name].checksum == found for name, found in zip(table["identity"], table["mesh_sha256"], strict=True)
    )


def test_renders_are_those_of_the_renderer(images):
    spec = small()
    mesh, view = spec.objects.meshes()[5], spec.views.views()[4]
    row = images.manifest.query("identity == @mesh.identity and view == @view.name and location == 2")["image"].item()
    with spec.renderer.build() as renderer:
        expected = renderer.render(mesh, view)
    assert np.array_equal(images.render(row), expected)
    assert np.array_equal(images.image(row)[112:, :112], expected)
    assert images.manifest["render_sha256"].iloc[row] == pixel_checksum(expected)


def test_four_crops_of_every_object_are_equal(images):
    for first in range(0, len(images.manifest), 4 * 17):
        first -= first % 4
        crops = [
            images.image(first + k)[y - 56 : y + 56, x - 56 : x + 56] for k, (x, y) in enumerate(LOCATION_CENTERS_PX)
        ]
        assert all(np.array_equal(crop, crops[0]) for crop in crops)
        assert crops[0].max() > 50


def test_same_spec_same_bank_elsewhere(images, tmp_path):
    """Rendered again from nothing: the same name, labels and pixels."""
    again = make_image_bank(small(), tmp_path)
    assert again.content_hash == images.content_hash
    pd.testing.assert_frame_equal(again.manifest, images.manifest)


def test_a_finished_bank_is_not_made_again(folder, images, features, monkeypatch):
    monkeypatch.setattr(type(small().renderer), "build", lambda self: pytest.fail("rendered again"))
    monkeypatch.setattr(type(small().backbone), "build", lambda self: pytest.fail("computed again"))
    assert make_image_bank(small(), folder).content_hash == images.content_hash
    assert make_feature_bank(small(), folder).content_hash == features.content_hash


def test_what_decides_the_names():
    base = small()

    def names(spec):
        return image_bank_folder(spec_folder, spec).name, feature_bank_folder(spec_folder, spec).name

    spec_folder = Path("x")
    images, features = names(base)
    # The gate decides nothing; the backbone the features alone; objects, views and renderer both.
    assert names(small(gate={"identity": 0.5})) == (images, features)
    other = names(small(backbone={"kind": "efficientnet_lite0", "layer": "block7"}))
    assert other[0] == images
    assert other[1] != features
    for change in (
        {"objects": {"kind": "procedural", "seed": 1}},
        {"views": {"kind": "interpolated", "yaw_span_rad": 1.0}},
        {"renderer": {"kind": "pyvista", "ambient": 0.1}},
    ):
        other = names(small(**change))
        assert other[0] != images
        assert other[1] != features


def test_name_follows_the_weights_and_not_their_place(tmp_path):
    for name, content in (("a.pth", b"1"), ("b.pth", b"1"), ("c.pth", b"2")):
        (tmp_path / name).write_bytes(content)
    keys = [
        feature_bank_key(small(backbone={"kind": "resnet50", "weights": str(tmp_path / name)}))
        for name in ("a.pth", "b.pth", "c.pth")
    ]
    assert keys[0] == keys[1] != keys[2]


def test_missing_bank_says_what_to_run(tmp_path):
    for bank in (ImageBank, FeatureBank):
        with pytest.raises(InputError, match="wmsweep render"):
            bank.load(tmp_path, small())


def test_damaged_image_bank(folder, images, tmp_path):
    shutil.copytree(folder, tmp_path / "copy")
    path = image_bank_folder(tmp_path / "copy", small())
    bank = ImageBank.load(tmp_path / "copy", small())
    picture = bank.render(0).copy()
    picture[50, 50] ^= 1
    Image.fromarray(picture).save(path / bank.manifest["render"].iloc[0])
    with pytest.raises(InputError, match="not those that were written"):
        bank.render(0)
    (path / bank.manifest["render"].iloc[4]).write_bytes(b"no picture")
    with pytest.raises(InputError, match="cannot be read"):
        bank.render(4)
    (path / bank.manifest["render"].iloc[8]).unlink()
    with pytest.raises(InputError, match="cannot be read"):
        bank.render(8)
    bank.manifest.assign(category="car").to_parquet(path / "manifest.parquet")
    with pytest.raises(InputError, match="damaged image bank"):
        ImageBank.load(tmp_path / "copy", small())


@pytest.mark.parametrize("name", ["features.safetensors", "gate.json", "bank.json", "manifest.parquet"])
def test_damaged_feature_bank(name, folder, features, tmp_path):
    shutil.copytree(folder, tmp_path / "copy")
    file = feature_bank_folder(tmp_path / "copy", small()) / name
    file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(InputError, match="damaged feature bank"):
        FeatureBank.load(tmp_path / "copy", small())


@pytest.mark.parametrize("name", ["features.safetensors", "gate.json"])
def test_a_feature_bank_that_was_overwritten(name, folder, features, tmp_path):
    """With content that could be read: zeros of the right shape, figures that pass every gate."""
    shutil.copytree(folder, tmp_path / "copy")
    path = feature_bank_folder(tmp_path / "copy", small())
    if name == "gate.json":
        figures = json.loads((path / name).read_text())
        figures["figures"]["identity"]["accuracy"] = 0.999
        (path / name).write_text(json.dumps(figures))
    else:
        save_file({"features": torch.zeros_like(features.features)}, path / name)
    with pytest.raises(InputError, match=f"{path.name} holds a damaged feature bank .{name} is not the one"):
        FeatureBank.load(tmp_path / "copy", small())


def test_a_bank_without_its_description_is_damaged_and_deleting_it_helps(folder, images, features, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    for path, make, loader in (
        (feature_bank_folder(copy, small()), lambda: make_feature_bank(small(), copy), FeatureBank),
        (image_bank_folder(copy, small()), lambda: make_image_bank(small(), copy), ImageBank),
    ):
        (path / "bank.json").unlink()
        for call in (make, lambda loader=loader: loader.load(copy, small())):
            with pytest.raises(InputError, match=rf"{path} holds a damaged .* \(bank\.json is missing\).*Delete this"):
                call()
        shutil.rmtree(path)
        make()
        assert loader.load(copy, small()).content_hash == path.name


def test_an_interrupted_bank_leaves_nothing_behind(tmp_path, monkeypatch):
    def interrupted(done, total):
        if done > VIEWS:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_image_bank(small(), tmp_path, interrupted)
    assert list((tmp_path / "images").iterdir()) == []


def test_storage_that_cannot_be_written(tmp_path):
    (tmp_path / "images").write_text("in the way")
    with pytest.raises(InputError, match="cannot be written"):
        make_image_bank(small(), tmp_path)


def test_feature_bank(features, images):
    assert features.features.shape == (OBJECTS * VIEWS * 4, 40, 4, 4)
    assert features.features.dtype == torch.float32
    assert features.labels["location"] == ("0", "1", "2", "3")
    assert features.labels["category"] == ("airplane", "car", "chair", "table")
    assert len(features.labels["identity"]) == OBJECTS
    pd.testing.assert_frame_equal(features.manifest, images.manifest)
    index = features.class_index("identity")
    assert all(
        features.labels["identity"][i] == name for i, name in zip(index, features.manifest["identity"], strict=True)
    )


def test_features_belong_to_their_images(features, images):
    backbone = small().backbone.build()
    for row in (0, 5, 301, len(images.manifest) - 1):
        torch.testing.assert_close(features.features[row], backbone(images.image(row)[None])[0], atol=1e-4, rtol=1e-4)


def test_rows_cross_views_and_identities(features):
    rows = features.rows(views="select", identities="test")
    chosen = features.manifest.iloc[rows]
    assert len(rows) == 8 * 2 * 4
    assert set(chosen["view_split"]) == {"select"}
    assert set(chosen["identity_split"]) == {"test"}


def test_progress_counts_renders(tmp_path):
    seen = []
    make_feature_bank(small(objects={**SMALL["objects"], "train_identities": 3}), tmp_path, lambda *at: seen.append(at))
    assert seen == [(VIEWS * k, VIEWS * 28) for k in range(1, 29)]


def test_gate_stops_and_warns(images, features, folder, tmp_path):
    """Noise as features: the bank is kept, loading judges it, and making it stops unless the gate only warns."""
    shutil.copytree(folder / "images", tmp_path / "images")
    noise = torch.randn(features.features.shape, generator=torch.Generator().manual_seed(0))
    write_feature_bank(tmp_path, small(), ImageBank.load(tmp_path, small()), noise)
    with pytest.raises(GateError, match="do not carry"):
        make_feature_bank(small(gate="stop"), tmp_path)
    bank = make_feature_bank(small(), tmp_path)
    assert not bank.gate["identity"]["passed"]
    assert bank.gate["identity"]["warning"]
    assert FeatureBank.load(tmp_path, small(gate={"identity": 0.0})).gate["identity"]["passed"]


def test_features_that_are_not_finite_are_refused(images, folder):
    with pytest.raises(ValueError, match="all finite"):
        write_feature_bank(folder, small(), images, torch.full((1, 1), torch.nan))


def test_published_views_are_reported_without_a_gate(tmp_path):
    data = {name: value for name, value in SMALL.items() if name != "gate"}
    spec = StimulusSpec.parse({**data, "views": {"kind": "published"}})
    bank = make_feature_bank(spec, tmp_path)
    assert all(row["passed"] is None and row["scored"] == "test views" for row in bank.gate.values())
    assert 0 < bank.gate["location"]["accuracy"] <= 1
    assert set(bank.manifest.iloc[bank.rows("select", "train")]["view"]) == {"a0", "a1", "a2"}
    assert set(bank.manifest.iloc[bank.rows("test", "train")]["view"]) == {"a3"}


def test_gate_in_the_spec():
    """One word or thresholds, and one canonical form."""
    assert small(gate="warn") == small(gate={"on_failure": "warn"})
    assert small(gate="warn").content_hash() == small(gate={"on_failure": "warn"}).content_hash()
    assert small(gate={"identity": 0.8}).gate == GateSpec(identity=0.8)
    for bad in ("maybe", 3, {"identiy": 0.5}, {"identity": 1.5}):
        with pytest.raises(ValidationError):
            small(gate=bad)
    with pytest.raises(ValidationError, match="no effect"):
        small(views={"kind": "published"}, gate="warn")
    assert "warn" in json.dumps(StimulusSpec.model_json_schema()["properties"]["gate"])


def test_contact_sheet(images, tmp_path):
    with Image.open(contact_sheet(images, tmp_path / "sheet.png", views=2, identities=3)) as sheet:
        assert sheet.size == (3 * 112, 4 * 2 * 112)
        pixels = np.asarray(sheet)
    table = images.manifest
    view = table["view"].unique()[int(1.5 * VIEWS / 2)]  # noqa: F841 (used in the query)
    row = table.query("identity == 'car_001' and location == 0").query("view == @view")["image"].item()
    assert np.array_equal(pixels[3 * 112 : 4 * 112, 112:224], images.render(row))
