"""What every renderer must do. A new back end is one subclass that names its ``spec``."""

from __future__ import annotations

import numpy as np
import pytest

from wmcore.renderers.base import Renderer, RendererSpec
from wmcore.stimuli.object_sets.base import ObjectMesh
from wmcore.stimuli.object_sets.procedural import ProceduralSpec
from wmcore.stimuli.object_sets.solids import box
from wmcore.stimuli.views import InterpolatedViews, View

FRONT = View("front", pitch=0.0, yaw=0.0, roll=0.0, split="train")


def mesh_of(solid, colors=(1.0, 1.0, 1.0)) -> ObjectMesh:
    """A test object from one solid; colours are one RGB or one per face. It is not centred or scaled."""
    vertices, faces = solid
    return ObjectMesh("box", "box_000", "train", vertices, faces, np.broadcast_to(colors, (len(faces), 3)).copy())


class RendererContract:
    """Subclass it and give ``spec``."""

    spec: RendererSpec

    @pytest.fixture(scope="class")
    @classmethod
    def renderer(cls):
        with cls.spec.build() as renderer:
            yield renderer

    @pytest.fixture(scope="class")
    @classmethod
    def renders(cls, renderer) -> np.ndarray:
        """(objects, views, S, S, 3): every object of the default set in every default view."""
        views = InterpolatedViews().views()
        return np.stack([[renderer.render(mesh, view) for view in views] for mesh in ProceduralSpec().meshes()])

    def test_shape_and_type(self, renders):
        assert renders.shape[2:] == (self.spec.size_px, self.spec.size_px, 3)
        assert renders.dtype == np.uint8

    def test_nothing_touches_the_border(self, renders):
        border = np.concatenate([renders[:, :, 0], renders[:, :, -1], renders[:, :, :, 0], renders[:, :, :, -1]])
        assert border.max() == 0

    def test_objects_fill_the_frame(self, renders):
        lit = renders.max(axis=-1) > 0
        extent = np.maximum(lit.any(axis=2).sum(axis=-1), lit.any(axis=3).sum(axis=-1)) / self.spec.size_px
        # The longest side of an object, over the views: near the diameter of its bounding sphere.
        assert extent.max(axis=1).min() > 0.6

    def test_no_pixel_is_saturated(self, renders):
        assert renders.max() < 255

    def test_white_is_not_saturated_from_any_side(self, renderer):
        """A white cube turned everywhere: the lights alone stay below full brightness."""
        cube = mesh_of(box((0, 0, 0), (0.8, 0.8, 0.8)))
        views = [
            View("v", pitch, yaw, 0.3, "train") for pitch in np.linspace(-3, 3, 9) for yaw in np.linspace(-3, 3, 9)
        ]
        assert 120 < max(renderer.render(cube, view).max() for view in views) < 255

    def test_same_pixels_every_time(self, renderer):
        """Neither the object shown before nor the scene's age shows in a render."""
        first, other = ProceduralSpec().meshes()[0], ProceduralSpec().meshes()[25]
        view = InterpolatedViews().views()[3]
        before = renderer.render(first, view)
        renderer.render(other, FRONT)
        assert np.array_equal(renderer.render(first, view), before)
        with self.spec.build() as fresh:
            assert np.array_equal(fresh.render(first, view), before)
        # Closing one renderer leaves another usable.
        assert np.array_equal(renderer.render(first, view), before)

    def test_every_view_of_every_object_is_another_picture(self, renders):
        flat = renders.reshape(-1, renders[0, 0].size)
        assert len({row.tobytes() for row in flat}) == len(flat)

    def test_axes_and_colours(self, renderer):
        """+X is right, +Y is up (row 0 is the top), and RGB is RGB."""
        size = (0.4, 0.4, 0.4)
        for center, color, rows, columns in (
            ((0.5, 0, 0), (1, 0, 0), slice(None), slice(0, 40)),
            ((0, 0.5, 0), (0, 1, 0), slice(-40, None), slice(None)),
        ):
            picture = renderer.render(mesh_of(box(center, size), color), FRONT)
            assert picture.sum(axis=(0, 1)).argmax() == int(np.argmax(color))
            assert picture.max() > 60
            assert picture[rows, columns].max() == 0

    def test_turns(self, renderer):
        """A quarter turn about y brings +X to -Z (away), positive pitch brings the top nearer: both as documented."""
        bar = mesh_of(box((0.6, 0, 0), (0.3, 0.2, 0.2)))
        turned = renderer.render(bar, View("v", 0.0, np.pi, 0.0, "train"))
        assert turned[:, 60:].max() == 0
        assert turned[:, :50].max() > 60
        top = mesh_of(box((0, 0.7, 0), (0.2, 0.2, 0.2)))
        nearer, further = (renderer.render(top, View("v", pitch, 0.0, 0.0, "train")) for pitch in (0.6, -0.6))
        assert (nearer.max(axis=-1) > 0).sum() > (further.max(axis=-1) > 0).sum()

    def test_close_twice(self):
        renderer: Renderer = self.spec.build()
        renderer.close()
        renderer.close()
