"""Image bank: one render per object and view on disk, and a manifest with one row per image.

An image is a 224 x 224 black square with one render pasted into one of four cells, without resampling. Pastes are made
on the fly, so that an object's pixels are the same bits in all four places. Labels come from the manifest, never from
file names. Shapes: V views, S side of a render in pixels.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from wmcore.renderers.base import Renderer
from wmcore.spec import content_hash
from wmcore.stimuli.bank_folder import damaged, new_bank, read_description, write_description
from wmcore.stimuli.object_sets.base import ObjectMesh
from wmcore.stimuli.spec import IMAGE_PX, LOCATION_CENTERS_PX, StimulusSpec
from wmcore.stimuli.views import View

FORMAT_VERSION = 2
"""Raised whenever the layout of a bank changes."""

Progress = Callable[[int, int], None]
"""Called with the number of renders that are done and the total."""


def image_bank_key(spec: StimulusSpec) -> dict[str, Any]:
    """Everything that decides the pixels and the manifest, as plain data."""
    return {
        "format": FORMAT_VERSION,
        "objects": spec.objects.model_dump(mode="json"),
        "objects_version": spec.objects.version,
        "views": spec.views.model_dump(mode="json"),
        "renderer": spec.renderer.model_dump(mode="json"),
        "renderer_version": spec.renderer.version,
    }


def image_bank_folder(folder: Path, spec: StimulusSpec) -> Path:
    """Where the image bank of a spec lies."""
    return folder / "images" / content_hash(image_bank_key(spec))


@dataclass(frozen=True)
class ImageBank:
    """A finished bank.

    Attributes:
        path: its folder.
        manifest: one row per image (object x view x location, location fastest): image (row number), category,
            identity, location (0-3), view, view_split, identity_split, pitch, yaw, roll (radians), mesh_sha256,
            render (file, relative to ``path``), render_sha256 (of the render's pixels).
        description: ``bank.json``.
        content_hash: name of the folder.
    """

    path: Path
    manifest: pd.DataFrame
    description: dict[str, Any]
    content_hash: str

    @classmethod
    def load(cls, folder: Path, spec: StimulusSpec) -> ImageBank:
        """Opens the bank of a spec.

        Raises:
            InputError: there is none, or it is damaged.
        """
        path = image_bank_folder(folder, spec)
        manifest, description = read_description(path, "image", path.name)
        return cls(path, manifest, description, path.name)

    def render(self, row: int) -> np.ndarray:
        """(S, S, 3) uint8: the render that image ``row`` shows.

        Raises:
            InputError: the file is missing, or its pixels are not those that were written.
        """
        # Single cells: a whole row of a data frame would turn every value into an object.
        name, checksum = self.manifest["render"].iloc[row], self.manifest["render_sha256"].iloc[row]
        try:
            with Image.open(self.path / name) as file:
                pixels = np.asarray(file.convert("RGB"))
        except (OSError, SyntaxError) as error:
            raise damaged(self.path, "image", f"{name} cannot be read: {error}") from error
        if pixel_checksum(pixels) != checksum:
            raise damaged(self.path, "image", f"the pixels of {name} are not those that were written")
        return pixels

    def image(self, row: int) -> np.ndarray:
        """(224, 224, 3) uint8: image ``row`` of the manifest."""
        return paste(self.render(row), int(self.manifest["location"].iloc[row]))

    def object_renders(self) -> Iterable[np.ndarray]:
        """(V, S, S, 3) per object, in the order of the manifest."""
        places = len(LOCATION_CENTERS_PX)
        for rows in self.manifest.groupby("identity", sort=False)["image"]:
            yield np.stack([self.render(int(row)) for row in rows[1].iloc[::places]])


def paste(render: np.ndarray, location: int) -> np.ndarray:
    """(224, 224, 3) uint8 image: black, with an (S, S, 3) render in the middle of the cell with index ``location``."""
    side = render.shape[0]
    center_x, center_y = LOCATION_CENTERS_PX[location]
    left, top = center_x - side // 2, center_y - side // 2
    image = np.zeros((IMAGE_PX, IMAGE_PX, 3), dtype=np.uint8)
    image[top : top + side, left : left + side] = render
    return image


def pixel_checksum(pixels: np.ndarray) -> str:
    """SHA-256 of an (H, W, 3) uint8 image's values."""
    return hashlib.sha256(np.ascontiguousarray(pixels).tobytes()).hexdigest()


def render_object(renderer: Renderer, mesh: ObjectMesh, views: Sequence[View]) -> np.ndarray:
    """(V, S, S, 3) uint8: one object in every view."""
    return np.stack([renderer.render(mesh, view) for view in views])


def write_image_bank(folder: Path, spec: StimulusSpec, renders: Iterable[np.ndarray]) -> ImageBank:
    """Writes a bank from (V, S, S, 3) renders, one array per object in the order of ``spec.objects.meshes()``.

    Raises:
        InputError: the folder cannot be written.
    """
    target = image_bank_folder(folder, spec)
    views = spec.views.views()
    rows: list[dict[str, Any]] = []
    with new_bank(target) as temporary:
        (temporary / "renders").mkdir()
        for mesh, pixels in zip(spec.objects.meshes(), renders, strict=True):
            for view, picture in zip(views, pixels, strict=True):
                name = f"renders/{len(rows) // len(LOCATION_CENTERS_PX):05d}.png"
                Image.fromarray(picture).save(temporary / name, compress_level=4)
                rows += _rows(mesh, view, name, picture, first=len(rows))
        write_description(
            temporary,
            pd.DataFrame(rows),
            {"content_hash": target.name, **image_bank_key(spec), "location_centers_px": LOCATION_CENTERS_PX},
        )
    return ImageBank.load(folder, spec)


def _rows(mesh: ObjectMesh, view: View, name: str, picture: np.ndarray, first: int) -> list[dict[str, Any]]:
    checksum = pixel_checksum(picture)
    return [
        {
            "image": first + location,
            "category": mesh.category,
            "identity": mesh.identity,
            "location": location,
            "view": view.name,
            "view_split": view.split,
            "identity_split": mesh.split,
            "pitch": view.pitch,
            "yaw": view.yaw,
            "roll": view.roll,
            "mesh_sha256": mesh.checksum,
            "render": name,
            "render_sha256": checksum,
        }
        for location in range(len(LOCATION_CENTERS_PX))
    ]


def make_image_bank(spec: StimulusSpec, folder: Path, progress: Progress | None = None) -> ImageBank:
    """The bank of a spec, rendered in this process unless it is there already.

    Raises:
        MissingPartError: the renderer cannot start on this machine.
        InputError: the folder cannot be written, or holds a damaged bank.
    """
    if image_bank_folder(folder, spec).exists():
        return ImageBank.load(folder, spec)
    meshes, views = spec.objects.meshes(), spec.views.views()

    def renders() -> Iterable[np.ndarray]:
        with spec.renderer.build() as renderer:
            for done, mesh in enumerate(meshes, start=1):
                yield render_object(renderer, mesh, views)
                if progress is not None:
                    progress(done * len(views), len(meshes) * len(views))

    return write_image_bank(folder, spec, renders())
