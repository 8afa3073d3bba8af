"""The PyVista renderer against the contract, its lights, and a machine without OpenGL."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
from pydantic import ValidationError

from tests.contracts.renderer import FRONT, RendererContract, mesh_of
from wmcore.renderers.pyvista import LightSpec, PyVistaSpec
from wmcore.stimuli.object_sets.solids import box


class TestPyVista(RendererContract):
    spec = PyVistaSpec()


def test_lights_that_would_saturate_are_refused():
    with pytest.raises(ValidationError, match="without saturation"):
        PyVistaSpec(key=LightSpec(direction=(0, 0, 1), intensity=1.0))


def test_brightest_is_the_largest_sum_over_directions():
    """Against a search over many directions of a face."""
    spec = PyVistaSpec()
    normals = np.random.default_rng(0).normal(size=(200_000, 3))
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    lights = np.stack([light.vector() for light in (spec.key, spec.fill_light, spec.rim)])
    found = spec.ambient + np.maximum(normals @ lights.T, 0).sum(axis=1).max()
    assert spec.brightest() == pytest.approx(found, abs=2e-3)
    assert spec.brightest() >= found


def test_a_face_turned_to_the_camera_has_the_computed_brightness():
    """Lambert's law, checked on a white face seen head-on."""
    spec = PyVistaSpec()
    with spec.build() as renderer:
        picture = renderer.render(mesh_of(box((0, 0, 0), (0.9, 0.9, 0.2))), FRONT)
    lights = (spec.key, spec.fill_light, spec.rim)
    expected = spec.ambient + sum(max(0.0, light.vector()[2]) for light in lights)
    assert picture[56, 56] == pytest.approx(expected * 255, abs=2)


def test_bounding_sphere_projects_to_the_fill():
    """The angle of the sphere's outline against the half field of view."""
    spec = PyVistaSpec(fill=0.8, fov_rad=0.7)
    outline = np.tan(np.arcsin(1 / spec.distance()))
    assert outline / np.tan(spec.fov_rad / 2) == pytest.approx(0.8)


def test_without_opengl_one_package_is_named():
    """In a process of its own whose EGL finds no driver."""
    code = (
        "from wmcore.errors import MissingPartError\n"
        "from wmcore.renderers.pyvista import PyVistaSpec\n"
        "try:\n    PyVistaSpec().build()\n"
        "except MissingPartError as error:\n    print(error)\n"
    )
    environment = {**os.environ, "__EGL_VENDOR_LIBRARY_DIRS": "/nonexistent"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "apt-get install mesa-utils-bin" in done.stdout
    assert done.stderr == ""


def test_importing_the_spec_does_not_import_vtk():
    code = "import sys, wmcore.stimuli.spec; print([m for m in sys.modules if m.startswith(('vtk', 'pyvista'))])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.strip() == "[]"


def test_a_process_that_has_rendered_can_train():
    """A crash here is a clash of the LLVM of Mesa's driver with the one of Triton, which torch.optim loads."""
    code = (
        "import sys, torch\n"
        "from wmcore.renderers.pyvista import PyVistaSpec\n"
        "from wmcore.stimuli.object_sets.procedural import ProceduralSpec\n"
        "from wmcore.stimuli.views import InterpolatedViews\n"
        "assert 'torch._dynamo' not in sys.modules\n"
        "with PyVistaSpec().build() as renderer:\n"
        "    renderer.render(ProceduralSpec().meshes()[0], InterpolatedViews().views()[0])\n"
        "weight = torch.nn.Parameter(torch.ones(2))\n"
        "optimizer = torch.optim.AdamW([weight])\n"
        "weight.sum().backward()\n"
        "optimizer.step()\n"
        "print('trained')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, "trained"), done.stderr[-2000:]
