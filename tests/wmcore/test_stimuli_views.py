"""View presets: splits, interpolation, and the meaning of the angles."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from wmcore.stimuli.views import InterpolatedViews, PublishedViews, View


def test_default_views():
    views = InterpolatedViews().views()
    assert Counter(view.split for view in views) == {"train": 8, "select": 2, "test": 2}
    assert len({view.name for view in views}) == 12


@given(held=st.tuples(st.integers(2, 6), st.integers(2, 6)), spare=st.integers(1, 10))
def test_every_held_out_view_lies_between_two_training_views(held, spare):
    spec = InterpolatedViews(train_views=sum(held) + spare, select_views=held[0], test_views=held[1])
    views = spec.views()
    assert Counter(view.split for view in views) == {"train": sum(held) + spare, "select": held[0], "test": held[1]}
    assert [view.yaw for view in views] == sorted(view.yaw for view in views)
    for before, view, after in zip(views, views[1:], views[2:], strict=False):
        if view.split != "train":
            assert before.split == after.split == "train"
            assert view.yaw == pytest.approx((before.yaw + after.yaw) / 2, abs=1e-5)
            assert view.pitch == pytest.approx((before.pitch + after.pitch) / 2, abs=1e-5)
    assert views[0].split == views[-1].split == "train"
    assert views[-1].yaw - views[0].yaw == pytest.approx(spec.yaw_span_rad, abs=1e-5)


def test_too_few_gaps_are_refused():
    with pytest.raises(ValidationError, match="raise train_views to at least 5"):
        InterpolatedViews(train_views=4)


def test_published_views():
    spec = PublishedViews()
    assert [(v.name, v.pitch, v.yaw, v.roll) for v in spec.views()] == [
        ("a0", -0.23, 3.141593, 0.0),
        ("a1", -0.23, 3.927, 0.0),
        ("a2", -0.23, 2.356, 0.0),
        ("a3", -0.524, 3.141593, 0.0),
    ]
    assert spec.names("train") == spec.names("select") == ("a0", "a1", "a2")
    assert spec.names("test") == ("a3",)
    assert not spec.gated


def test_rotations():
    up, front, right = np.eye(3)[1], -np.eye(3)[2], np.eye(3)[0]

    def turned(vector, **angles):
        return View("v", **{"pitch": 0.0, "yaw": 0.0, "roll": 0.0, **angles}, split="train").rotation() @ vector

    # Yaw pi shows the front to the camera on +Z; positive pitch tips the top towards it; roll turns counter-clockwise.
    assert turned(front, yaw=np.pi) == pytest.approx([0, 0, 1], abs=1e-12)
    assert turned(up, pitch=0.3)[2] == pytest.approx(np.sin(0.3))
    assert turned(right, roll=np.pi / 2) == pytest.approx(up, abs=1e-12)


def test_order_of_turns():
    """A turntable keeps the object's up axis in one plane; the published order tips it sideways with yaw."""
    up = np.array([0.0, 1.0, 0.0])
    turntable = View("v", 0.4, 2.0, 0.0, "train").rotation()
    published = View("v", 0.4, 2.0, 0.0, "train", order="xyz").rotation()
    assert (turntable @ up)[0] == pytest.approx(0)
    assert abs((published @ up)[0]) > 0.3
    assert np.linalg.det(turntable) == pytest.approx(1)
    assert published @ published.T == pytest.approx(np.eye(3))
    # The published preset shows objects from above: with yaw pi a negative pitch tips the top towards the camera.
    assert (PublishedViews().views()[0].rotation() @ up)[2] > 0.2
