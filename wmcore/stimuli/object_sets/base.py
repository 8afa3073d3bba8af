"""The contract of an object set. Shapes: V vertices, F triangles.

Axes: +Y is up, -Z is the front (as in ShapeNetCore v2), X is to the side. Units: the bounding sphere has radius 1.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, Literal

import numpy as np

from wmcore.spec import Spec

Split = Literal["train", "select", "test"]
SPLITS: tuple[Split, ...] = ("train", "select", "test")


@dataclass(frozen=True, eq=False)
class ObjectMesh:
    """One object: a coloured triangle mesh, centred, with a bounding sphere of radius 1.

    Attributes:
        category: e.g. ``chair``.
        identity: ``<category>_<iii>``, unique in the set.
        split: group of identities that it belongs to.
        vertices: (V, 3) float64.
        faces: (F, 3) int64, counter-clockwise seen from outside.
        face_colors: (F, 3) float64 RGB in [0, 1].
    """

    category: str
    identity: str
    split: Split
    vertices: np.ndarray
    faces: np.ndarray
    face_colors: np.ndarray

    @cached_property
    def checksum(self) -> str:
        """SHA-256 of shape and colour. Values are rounded to 1e-6, so that it does not hang on the last bit."""
        digest = hashlib.sha256()
        for values in (np.round(self.vertices * 1e6), self.faces, np.round(self.face_colors * 1e6)):
            digest.update(np.ascontiguousarray(values, dtype="<i8").tobytes())
            digest.update(b"|")
        return digest.hexdigest()


class ObjectSetSpec(Spec, ABC):
    """What a user writes under ``stimuli.objects``."""

    version: ClassVar[int] = 1
    """Raised whenever the same spec gives other meshes, so that banks made before are not taken for new ones."""

    @abstractmethod
    def categories(self) -> tuple[str, ...]:
        """Names of the categories, sorted."""

    @abstractmethod
    def meshes(self) -> list[ObjectMesh]:
        """Every object, sorted by identity; a pure function of the spec.

        Raises:
            InputError: an object is missing or unusable (named in the message).
        """


def normalised(vertices: np.ndarray) -> np.ndarray:
    """(V, 3) vertices moved to the centre of their bounding box and scaled to a bounding sphere of radius 1.

    Raises:
        ValueError: the vertices are empty, not finite or all in one place.
    """
    if vertices.ndim != 2 or vertices.shape[1] != 3 or not len(vertices) or not np.isfinite(vertices).all():
        raise ValueError("vertices must be a non-empty, finite array of shape (V, 3)")
    centred = vertices - (vertices.min(axis=0) + vertices.max(axis=0)) / 2
    radius = np.linalg.norm(centred, axis=1).max()
    if radius <= 0:
        raise ValueError("vertices have no extent")
    return centred / radius
