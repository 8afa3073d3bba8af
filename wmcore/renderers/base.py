"""The contract of a renderer. S is the side of the square render in pixels."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import numpy as np

from wmcore.spec import Spec
from wmcore.stimuli.object_sets.base import ObjectMesh
from wmcore.stimuli.views import View


class RendererSpec(Spec, ABC):
    """What a user writes under ``stimuli.renderer``; every kind has ``size_px``, the side of a render."""

    version: ClassVar[int] = 1
    """Raised whenever the same spec gives other pixels, so that banks made before are not taken for new ones."""

    size_px: int

    @abstractmethod
    def build(self) -> Renderer:
        """Starts the back end.

        Raises:
            MissingPartError: this machine lacks something that it needs.
        """


class Renderer(ABC):
    """A started back end with one scene that is used again for every render. Close it when done."""

    @abstractmethod
    def render(self, mesh: ObjectMesh, view: View) -> np.ndarray:
        """(S, S, 3) uint8 RGB on a black background; row 0 is the top. A pure function of its arguments."""

    @abstractmethod
    def close(self) -> None:
        """Frees the scene; closing twice is allowed."""

    def __enter__(self) -> Renderer:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
