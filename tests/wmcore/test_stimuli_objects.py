"""Procedural objects: closed and normalised meshes, distinct identities, colours that do not give the category."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter

import numpy as np
import pytest

from wmcore.stimuli.object_sets.base import normalised
from wmcore.stimuli.object_sets.procedural import GREY, PALETTE, ProceduralSpec
from wmcore.stimuli.object_sets.solids import bar, box, joined, tapered_box, volume


@pytest.fixture(scope="module")
def meshes():
    return ProceduralSpec().meshes()


def test_default_set(meshes):
    assert Counter((mesh.category, mesh.split) for mesh in meshes) == {
        (category, split): count
        for category in ("airplane", "car", "chair", "table")
        for split, count in (("train", 6), ("select", 2), ("test", 2))
    }
    assert [mesh.identity for mesh in meshes] == sorted(mesh.identity for mesh in meshes)
    assert meshes[13].identity == "car_003"


def test_meshes_are_sound(meshes):
    for mesh in meshes:
        assert np.isfinite(mesh.vertices).all()
        assert mesh.faces.min() == 0
        assert mesh.faces.max() < len(mesh.vertices)
        assert len(mesh.face_colors) == len(mesh.faces)
        assert np.linalg.norm(mesh.vertices, axis=1).max() == pytest.approx(1.0)
        assert mesh.vertices.max(axis=0) == pytest.approx(-mesh.vertices.min(axis=0))
        assert volume((mesh.vertices, mesh.faces)) > 0
        # Closed and consistently turned: every directed edge has its opposite, and none occurs twice.
        edges = np.concatenate([mesh.faces[:, [0, 1]], mesh.faces[:, [1, 2]], mesh.faces[:, [2, 0]]])
        directed = {tuple(edge) for edge in edges}
        assert len(directed) == len(edges)
        assert directed == {(b, a) for a, b in directed}


def test_volumes_of_solids():
    assert volume(box((1, 2, 3), (2, 3, 4))) == pytest.approx(24)
    # A frustum of a pyramid: h/3 (A + sqrt(A B) + B).
    assert volume(tapered_box((0, 0, 0), (2, 3, 2), (0.5, 0.5))) == pytest.approx(4 + 2 + 1)
    assert volume(bar((0, 0, 0), (0, 0, 2), 0.5, sides=400)) == pytest.approx(np.pi / 2, rel=1e-3)
    assert volume(joined([box((0, 0, 0), (1, 1, 1)), box((5, 0, 0), (1, 1, 2))])) == pytest.approx(3)


def test_normalised_refuses_what_has_no_extent():
    for bad in (np.zeros((0, 3)), np.ones((4, 3)), np.full((4, 3), np.nan)):
        with pytest.raises(ValueError, match="vertices"):
            normalised(bad)


def test_normalised_undoes_size_and_place(meshes):
    vertices = meshes[0].vertices
    assert normalised(vertices * 7 + 3) == pytest.approx(vertices)


def test_colour_says_nothing_about_category(meshes):
    """The pairs of main and second colour are the same in every category and split."""

    def pairs(category, split):
        chosen = [mesh for mesh in meshes if (mesh.category, mesh.split) == (category, split)]
        return Counter((tuple(mesh.face_colors[0]), tuple(mesh.face_colors[-1])) for mesh in chosen)

    for split in ("train", "select", "test"):
        distributions = [pairs(category, split) for category in ("airplane", "car", "chair", "table")]
        assert all(distribution == distributions[0] for distribution in distributions)


def test_colour_pairs():
    """Two different colours each; no pair repeats before all are used; the first seven main colours differ."""
    spec = ProceduralSpec()
    count = len(PALETTE)
    pairs = [spec.color_pair(index) for index in range(count * (count - 1))]
    assert len(set(pairs)) == len(pairs)
    assert all(first != second for first, second in pairs)
    assert len({first for first, _ in pairs[:count]}) == count
    assert spec.color_pair(count * (count - 1)) == pairs[0]


def test_no_colour_changes_colour_alone(meshes):
    grey = ProceduralSpec(color=False).meshes()
    for with_color, without in zip(meshes, grey, strict=True):
        assert np.array_equal(with_color.vertices, without.vertices)
        assert np.array_equal(with_color.faces, without.faces)
        assert (without.face_colors == GREY).all()
        assert with_color.checksum != without.checksum


def test_identities_differ_in_shape():
    """Also without colour: no two objects have the same silhouette from two sides."""
    grey = ProceduralSpec(color=False, train_identities=10, select_identities=5, test_identities=5).meshes()
    assert len({mesh.checksum for mesh in grey}) == 80
    extents = np.array([np.concatenate([np.ptp(m.vertices, axis=0), [len(m.faces)]]) for m in grey])
    distance = np.abs(extents[:, None] - extents[None]).max(axis=-1) + np.eye(len(grey))
    assert distance.min() > 1e-3


def test_seed_decides_shapes_and_colours(meshes):
    other = ProceduralSpec(seed=1).meshes()
    assert not {mesh.checksum for mesh in meshes} & {mesh.checksum for mesh in other}


def test_same_checksums_in_another_process(meshes):
    code = (
        "from wmcore.stimuli.object_sets.procedural import ProceduralSpec\n"
        "print(*[mesh.checksum for mesh in ProceduralSpec().meshes()])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.split() == [mesh.checksum for mesh in meshes]
