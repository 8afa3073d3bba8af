"""Rendering with PyVista (VTK), off-screen through EGL or OSMesa: no display and no GPU is needed."""

from __future__ import annotations

import ctypes
import importlib
import importlib.util
import math
import os
from itertools import combinations
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field, model_validator

from wmcore.errors import MissingPartError
from wmcore.renderers.base import Renderer, RendererSpec
from wmcore.spec import Spec
from wmcore.stimuli.object_sets.base import ObjectMesh
from wmcore.stimuli.views import View

Axis = Annotated[float, Field(ge=-1, le=1)]
INSTALL_GL = (
    "On Debian and Ubuntu run `apt-get install mesa-utils-bin`, the one package that brings both Mesa's EGL and its "
    "software driver (libegl-mesa0 and libgl1-mesa-dri)."
)
"""What to do on a machine that cannot render."""
NO_GL = (
    "Off-screen rendering cannot start: Mesa's EGL (libEGL_mesa.so.0 with a software driver) is missing or gives no "
    f"OpenGL context. {INSTALL_GL}"
)


class LightSpec(Spec):
    """A white directional light, fixed to the camera: +X is right, +Y up, +Z from the object to the camera."""

    direction: tuple[Axis, Axis, Axis]
    """Where the light comes from; any length but 0."""
    intensity: Annotated[float, Field(ge=0, le=1)]
    """Share of a white material's brightness that a face turned to the light gets."""

    @model_validator(mode="after")
    def _has_direction(self) -> LightSpec:
        if not any(self.direction):
            raise ValueError("direction must not be (0, 0, 0): a light needs a direction")
        return self

    def vector(self) -> np.ndarray:
        """(3,): unit direction times intensity."""
        direction = np.array(self.direction, dtype=float)
        return self.intensity * direction / np.linalg.norm(direction)


class PyVistaSpec(RendererSpec):
    """Flat shading under key, fill and rim lights on black; the default."""

    kind: Literal["pyvista"] = "pyvista"
    size_px: Annotated[int, Field(ge=16, le=112, multiple_of=2)] = 112
    """Side of a render; 112 fills one of the four cells of a 224 px image, a smaller one sits in its middle."""
    fov_rad: Annotated[float, Field(ge=0.05, le=2.0)] = 0.6
    """Vertical field of view. The camera's distance follows from it and from ``fill``."""
    fill: Annotated[float, Field(gt=0.1, le=0.95)] = 0.92
    """Diameter of the projected bounding sphere as a share of the render's side."""
    key: LightSpec = LightSpec(direction=(-0.5, 0.75, 0.7), intensity=0.74)
    """Main light, from above left."""
    fill_light: LightSpec = LightSpec(direction=(0.9, 0.1, 0.5), intensity=0.32)
    """Weaker light from the right, so that no side is black."""
    rim: LightSpec = LightSpec(direction=(0.1, 0.5, -0.9), intensity=0.25)
    """Light from behind, which parts the outline from the background."""
    ambient: Annotated[float, Field(ge=0, le=1)] = 0.16
    """Share of a material's brightness that every face gets."""
    multi_samples: Literal[0, 4, 8] = 4
    """Samples per pixel against jagged edges; 0 for none."""

    @model_validator(mode="after")
    def _nothing_saturates(self) -> PyVistaSpec:
        if self.brightest() > 1:
            raise ValueError(
                f"the lights give a white face up to {self.brightest():.2f} of full brightness, but at most 1 can be "
                "shown without saturation: lower key, fill_light, rim or ambient"
            )
        return self

    def brightest(self) -> float:
        """The most light that any face can get: the largest norm of a sum over some of the lights, plus ambient."""
        vectors = [light.vector() for light in (self.key, self.fill_light, self.rim)]
        subsets = (subset for count in (1, 2, 3) for subset in combinations(vectors, count))
        return self.ambient + max(float(np.linalg.norm(np.sum(subset, axis=0))) for subset in subsets)

    def distance(self) -> float:
        """From the camera to the middle of the object, in radii of the bounding sphere."""
        return 1 / math.sin(math.atan(self.fill * math.tan(self.fov_rad / 2)))

    def build(self) -> PyVistaRenderer:
        return PyVistaRenderer(self)


class PyVistaRenderer(Renderer):
    """One off-screen window, whose mesh is exchanged and turned. Not safe to share between threads."""

    def __init__(self, spec: PyVistaSpec) -> None:
        # VTK would try an X server first and print a warning where there is none.
        os.environ.setdefault("VTK_DEFAULT_OPENGL_WINDOW", "vtkEGLRenderWindow")
        _load_triton_first()
        # Importing VTK costs seconds, and processes that only train never render.
        import pyvista

        self._pyvista = pyvista
        self._spec = spec
        self._plotter: Any = self._open_window()
        self._mesh: ObjectMesh | None = None
        self._actor: Any = None
        distance = spec.distance()
        camera = self._plotter.camera
        camera.position, camera.focal_point, camera.up = (0.0, 0.0, distance), (0.0, 0.0, 0.0), (0.0, 1.0, 0.0)
        camera.view_angle = math.degrees(spec.fov_rad)
        camera.clipping_range = (distance - 1.01, distance + 1.01)
        for light in (spec.key, spec.fill_light, spec.rim):
            lamp = pyvista.Light(
                position=light.direction, focal_point=(0, 0, 0), intensity=light.intensity, light_type="scene light"
            )
            lamp.positional = False
            self._plotter.add_light(lamp)

    def _open_window(self) -> Any:
        from vtkmodules.vtkCommonCore import vtkLogger

        before = vtkLogger.GetCurrentVerbosityCutoff()
        vtkLogger.SetStderrVerbosity(vtkLogger.VERBOSITY_OFF)
        try:
            plotter: Any = self._pyvista.Plotter(
                off_screen=True, window_size=[self._spec.size_px] * 2, lighting="none", image_scale=1
            )
        finally:
            vtkLogger.SetStderrVerbosity(before)
        window: Any = plotter.render_window
        # VTK ends in OSMesa when nothing else works, even without its library, and then crashes on the first render.
        if window.GetClassName() == "vtkOSOpenGLRenderWindow" and not _osmesa_loads():
            raise MissingPartError(NO_GL)
        window.SetMultiSamples(self._spec.multi_samples)
        plotter.set_background("black")
        return plotter

    def render(self, mesh: ObjectMesh, view: View) -> np.ndarray:
        if self._plotter is None:
            raise ValueError("the renderer is closed")
        if mesh is not self._mesh:
            self._show(mesh)
        pose = np.eye(4)
        pose[:3, :3] = view.rotation()
        self._actor.user_matrix = pose
        self._plotter.render_window.Render()
        return np.ascontiguousarray(self._plotter.screenshot(return_img=True)[:, :, :3])

    def _show(self, mesh: ObjectMesh) -> None:
        shape = self._pyvista.PolyData.from_regular_faces(mesh.vertices, mesh.faces)
        shape.cell_data["rgb"] = np.round(mesh.face_colors * 255).astype(np.uint8)
        if self._actor is not None:
            self._plotter.remove_actor(self._actor, reset_camera=False, render=False)
        self._actor = self._plotter.add_mesh(
            shape,
            scalars="rgb",
            rgb=True,
            ambient=self._spec.ambient,
            diffuse=1.0,
            specular=0.0,
            smooth_shading=False,
            interpolate_before_map=False,
            show_scalar_bar=False,
            reset_camera=False,
            render=False,
        )
        self._mesh = mesh

    def close(self) -> None:
        if self._plotter is not None:
            self._plotter.close()
            self._plotter, self._actor, self._mesh = None, None, None


def _load_triton_first() -> None:
    """Loads Triton, if there is one, before Mesa's software driver.

    Each brings an LLVM, and torch imports Triton when it first optimises. In one process they get along only if
    Triton's came first; the other way round that import crashes the process.
    """
    if importlib.util.find_spec("triton") is not None:
        importlib.import_module("triton")


def _osmesa_loads() -> bool:
    for name in ("libOSMesa.so", "libOSMesa.so.8", "libOSMesa.so.6"):
        try:
            ctypes.CDLL(name)
        except OSError:
            continue
        return True
    return False
