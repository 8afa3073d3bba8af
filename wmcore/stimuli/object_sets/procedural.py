"""Procedural objects: category = family of parametric shapes, identity = parameter vector and colour pair."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal, TypeVar

import numpy as np
from pydantic import Field

from wmcore.seeding import numpy_generator
from wmcore.stimuli.object_sets.base import ObjectMesh, ObjectSetSpec, Split, normalised
from wmcore.stimuli.object_sets.shapes import SHAPES
from wmcore.stimuli.object_sets.solids import joined

T = TypeVar("T")

PALETTE = np.array(
    [
        (0.80, 0.22, 0.20),
        (0.84, 0.68, 0.20),
        (0.26, 0.62, 0.30),
        (0.24, 0.42, 0.80),
        (0.62, 0.34, 0.72),
        (0.82, 0.82, 0.80),
        (0.20, 0.66, 0.68),
    ]
)
"""(7, 3) RGB materials, all below white, shared by all categories."""
GREY = np.array([0.72, 0.72, 0.72])
"""The one material of the variant without colour."""


class ProceduralSpec(ObjectSetSpec):
    """Airplanes, cars, chairs and tables made from simple solids; needs no data.

    Identity i of every category has the same pair of colours, so that colour says nothing about the category.
    """

    kind: Literal["procedural"] = "procedural"
    train_identities: Annotated[int, Field(ge=2, le=200)] = 6
    """Identities per category for training; at least two, because a non-match shows another one."""
    select_identities: Annotated[int, Field(ge=2, le=200)] = 2
    """Identities per category for model selection, never seen in training."""
    test_identities: Annotated[int, Field(ge=2, le=200)] = 2
    """Identities per category for the final test, never seen before it."""
    color: bool = True
    """False paints every object in one grey, so that identity must be told from shape alone."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Seed of shapes and colours."""

    @property
    def identities_per_category(self) -> int:
        """Training, selection and test identities together."""
        return self.train_identities + self.select_identities + self.test_identities

    def categories(self) -> tuple[str, ...]:
        return tuple(sorted(SHAPES))

    def meshes(self) -> list[ObjectMesh]:
        return [
            self._mesh(category, index)
            for category in self.categories()
            for index in range(self.identities_per_category)
        ]

    def split_of(self, index: int) -> Split:
        """The group of the identity with this number in its category."""
        if index < self.train_identities:
            return "train"
        return "select" if index < self.train_identities + self.select_identities else "test"

    def color_pair(self, index: int) -> tuple[int, int]:
        """Rows of ``PALETTE`` for the two parts of the identity with this number, in every category.

        The first ``len(PALETTE)`` numbers have different main colours; within all ordered pairs no pair repeats.
        """
        count = len(PALETTE)
        order = numpy_generator(self.seed, "palette").permutation(count)
        cycle, position = divmod(index % (count * (count - 1)), count)
        partner = position + 1 + (cycle + 1) % (count - 1)
        return int(order[position]), int(order[partner % count])

    def _mesh(self, category: str, index: int) -> ObjectMesh:
        parts = SHAPES[category](_Draw(self.seed, category, index, self.identities_per_category))
        colors = [PALETTE[row] for row in self.color_pair(index)] if self.color else [GREY, GREY]
        main, second = (joined(part) for part in parts)
        vertices, faces = joined([main, second])
        face_colors = np.concatenate([np.tile(colors[0], (len(main[1]), 1)), np.tile(colors[1], (len(second[1]), 1))])
        return ObjectMesh(
            category=category,
            identity=f"{category}_{index:03d}",
            split=self.split_of(index),
            vertices=normalised(vertices),
            faces=faces,
            face_colors=face_colors,
        )


class _Draw:
    """Parameters of one identity by Latin hypercube: over the identities of a category, every parameter is spread
    evenly over its range, so that no two identities come out alike by chance (McKay et al. 1979, doi 10.2307/1268522).
    """

    def __init__(self, seed: int, category: str, index: int, count: int) -> None:
        self.seed, self.category, self.index, self.count = seed, category, index, count

    def _rank(self, name: str) -> int:
        return int(numpy_generator(self.seed, self.category, name).permutation(self.count)[self.index])

    def between(self, name: str, low: float, high: float) -> float:
        return low + (high - low) * (self._rank(name) + 0.5) / self.count

    def among(self, name: str, options: Sequence[T]) -> T:
        return options[self._rank(name) % len(options)]
