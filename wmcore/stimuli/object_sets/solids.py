"""Closed triangle meshes of simple solids, from which the procedural objects are put together.

A solid is a pair (vertices (V, 3) float64, faces (F, 3) int64) whose faces look outwards. Axes as in ``base``.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

Solid = tuple[np.ndarray, np.ndarray]
Point = Sequence[float] | np.ndarray


def loft(rings: np.ndarray) -> Solid:
    """A solid through successive cross sections.

    Args:
        rings: (R, P, 3): R cross sections of P points each, in matching order; the two ends are closed with fans.
    """
    n_rings, n_points, _ = rings.shape
    ends = rings[[0, -1]].mean(axis=1)
    vertices = np.concatenate([rings.reshape(-1, 3), ends])
    here = np.arange(n_points)
    after = np.roll(here, -1)
    faces = []
    for ring in range(n_rings - 1):
        low, high = ring * n_points, (ring + 1) * n_points
        faces += [np.stack([low + here, low + after, high + after], axis=1)]
        faces += [np.stack([low + here, high + after, high + here], axis=1)]
    first, last = n_rings * n_points, n_rings * n_points + 1
    top = (n_rings - 1) * n_points
    faces += [np.stack([after, here, np.full(n_points, first)], axis=1)]
    faces += [np.stack([top + here, top + after, np.full(n_points, last)], axis=1)]
    triangles = np.concatenate(faces)
    return vertices, triangles if volume((vertices, triangles)) >= 0 else triangles[:, ::-1]


def volume(solid: Solid) -> float:
    """Signed volume; positive if the faces look outwards."""
    a, b, c = (solid[0][solid[1][:, corner]] for corner in range(3))
    return float(np.einsum("fi,fi->", a, np.cross(b, c)) / 6)


def box(center: Point, size: Point) -> Solid:
    """An upright box; ``size`` is the full extent along x, y, z."""
    return tapered_box(center, size, (1.0, 1.0))


def tapered_box(center: Point, size: Point, top_scale: Point, top_shift: Point = (0.0, 0.0)) -> Solid:
    """A box whose top face is scaled by ``top_scale`` and moved by ``top_shift``, both along (x, z)."""
    half = np.asarray(size, dtype=float) / 2
    corners = np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)], dtype=float)
    rings = np.empty((2, 4, 3))
    for ring, (side, scale, shift) in enumerate(((-1, (1, 1), (0, 0)), (1, top_scale, top_shift))):
        rings[ring, :, 0] = corners[:, 0] * half[0] * scale[0] + shift[0]
        rings[ring, :, 1] = side * half[1]
        rings[ring, :, 2] = corners[:, 1] * half[2] * scale[1] + shift[1]
    return loft(rings + np.asarray(center, dtype=float))


def tube(points: np.ndarray, radii: Point, sides: int = 12) -> Solid:
    """A round solid along a straight axis: circles of the given radii about ``points`` (R, 3).

    Radii may be (R,) or (R, 2), two half axes, of which the second lies closer to the vertical.
    """
    points = np.asarray(points, dtype=float)
    half_axes = np.broadcast_to(np.asarray(radii, dtype=float).reshape(len(points), -1), (len(points), 2))
    axis = points[-1] - points[0]
    axis /= np.linalg.norm(axis)
    helper = np.array([0.0, 1.0, 0.0]) if abs(axis[1]) < 0.9 else np.array([0.0, 0.0, 1.0])
    side = np.cross(helper, axis)
    side /= np.linalg.norm(side)
    up = np.cross(axis, side)
    # Half a side is turned, so that a flat facet and not an edge faces the axes.
    angles = (np.arange(sides) + 0.5) * 2 * np.pi / sides
    circle = np.cos(angles)[None, :, None] * half_axes[:, :1, None] * side
    circle = circle + np.sin(angles)[None, :, None] * half_axes[:, 1:, None] * up
    return loft(points[:, None, :] + circle)


def bar(start: Point, end: Point, radius: float, sides: int = 8) -> Solid:
    """A cylinder between two points."""
    return tube(np.array([start, end], dtype=float), (radius, radius), sides)


def panel(outline: np.ndarray, thickness: float) -> Solid:
    """A flat or folded quadrilateral (4, 3) that is given a thickness along its normal."""
    normal = np.cross(outline[2] - outline[0], outline[3] - outline[1])
    normal = normal / np.linalg.norm(normal) * thickness / 2
    return loft(np.stack([outline - normal, outline + normal]))


def joined(solids: Sequence[Solid]) -> Solid:
    """Several solids as one mesh; they may overlap."""
    offsets = np.cumsum([0, *(len(vertices) for vertices, _ in solids)])
    faces = [faces + offset for (_, faces), offset in zip(solids, offsets, strict=False)]
    return np.concatenate([vertices for vertices, _ in solids]), np.concatenate(faces)
