"""Views: the poses in which an object is rendered. All angles are radians.

The camera stands on the +Z axis and looks at the origin with +Y up; the object is turned. Positive pitch tips its top
towards the camera; yaw 0 shows its back and yaw pi its front (objects look along -Z).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from pydantic import Field, model_validator

from wmcore.spec import Spec
from wmcore.stimuli.object_sets.base import Split


@dataclass(frozen=True)
class View:
    """One pose.

    Attributes:
        name: unique among the views of a preset.
        pitch, yaw, roll: turns about the fixed axes x, y and z, in radians.
        split: ``train``, ``select`` or ``test``.
        order: the order of the turns about the FIXED axes. ``yxz`` is a turntable seen from above: yaw, then pitch,
            then roll, R = Rz Rx Ry. ``xyz`` is the published one: pitch, then yaw, then roll, R = Rz Ry Rx.
    """

    name: str
    pitch: float
    yaw: float
    roll: float
    split: Split
    order: Literal["yxz", "xyz"] = "yxz"

    def rotation(self) -> np.ndarray:
        """(3, 3) matrix R; a vertex p (column) is shown at R p."""
        (cp, sp), (cy, sy), (cr, sr) = ((np.cos(a), np.sin(a)) for a in (self.pitch, self.yaw, self.roll))
        turns = {
            "x": np.array([(1, 0, 0), (0, cp, -sp), (0, sp, cp)]),
            "y": np.array([(cy, 0, sy), (0, 1, 0), (-sy, 0, cy)]),
            "z": np.array([(cr, -sr, 0), (sr, cr, 0), (0, 0, 1)]),
        }
        first, second, third = (turns[axis] for axis in self.order)
        return third @ second @ first


class ViewsSpec(Spec, ABC):
    """What a user writes under ``stimuli.views``."""

    @abstractmethod
    def views(self) -> list[View]:
        """Every pose once, in a fixed order, each with the split that it belongs to."""

    def names(self, split: Split) -> tuple[str, ...]:
        """Names of the views that a split uses."""
        return tuple(view.name for view in self.views() if view.split == split)

    @property
    def gated(self) -> bool:
        """Whether the selection views are held out, so that the gate can be scored on them."""
        return True


class InterpolatedViews(ViewsSpec):
    """Views on an arc around the object; every held-out view lies between two training views.

    Training views are evenly spaced in yaw and alternate between two pitches; a held-out view lies halfway, in yaw and
    in pitch, between two neighbouring training views.
    """

    kind: Literal["interpolated"] = "interpolated"
    train_views: Annotated[int, Field(ge=2, le=64)] = 8
    """Views for training."""
    select_views: Annotated[int, Field(ge=2, le=32)] = 2
    """Views for model selection; at least two, because a match always shows another view."""
    test_views: Annotated[int, Field(ge=2, le=32)] = 2
    """Views for the final test."""
    center_yaw_rad: Annotated[float, Field(ge=-6.3, le=6.3)] = 2.45
    """Middle of the arc: pi is the front, 2.45 a three-quarter view."""
    yaw_span_rad: Annotated[float, Field(gt=0, le=6.0)] = 1.4
    """From the first to the last training view."""
    low_pitch_rad: Annotated[float, Field(ge=-1.5, le=1.5)] = 0.30
    """Pitch of every other training view."""
    high_pitch_rad: Annotated[float, Field(ge=-1.5, le=1.5)] = 0.55
    """Pitch of the remaining training views."""
    roll_rad: Annotated[float, Field(ge=-3.2, le=3.2)] = 0.0
    """Roll of every view."""

    @model_validator(mode="after")
    def _gaps_suffice(self) -> InterpolatedViews:
        held_out = self.select_views + self.test_views
        if held_out > self.train_views - 1:
            raise ValueError(
                f"select_views + test_views is {held_out}, but {self.train_views} training views leave only "
                f"{self.train_views - 1} gaps to hold them: raise train_views to at least {held_out + 1}"
            )
        return self

    def views(self) -> list[View]:
        gaps = self.train_views - 1
        step = self.yaw_span_rad / gaps
        first = self.center_yaw_rad - self.yaw_span_rad / 2
        held: dict[int, Split] = dict(zip(self._held_out_gaps(), self._held_out_splits(), strict=True))
        found: list[View] = []
        for index in range(self.train_views):
            pitch = self.high_pitch_rad if index % 2 else self.low_pitch_rad
            found.append(self._view(len(found), pitch, first + index * step, "train"))
            if index in held:
                middle = (self.low_pitch_rad + self.high_pitch_rad) / 2
                found.append(self._view(len(found), middle, first + (index + 0.5) * step, held[index]))
        return found

    def _view(self, number: int, pitch: float, yaw: float, split: Split) -> View:
        # Rounded, so that a manifest shows the very numbers that were used.
        return View(f"v{number:02d}", round(pitch, 6), round(yaw, 6), self.roll_rad, split)

    def _held_out_gaps(self) -> list[int]:
        """Gaps that hold a held-out view, spread evenly over the arc."""
        count, gaps = self.select_views + self.test_views, self.train_views - 1
        return [int((position + 0.5) * gaps / count) for position in range(count)]

    def _held_out_splits(self) -> list[Split]:
        """Selection and test views in mirrored pairs (s t t s ...), so that both cover the arc alike."""
        left: dict[Split, int] = {"select": self.select_views, "test": self.test_views}
        splits: list[Split] = []
        pattern: tuple[Split, ...] = ("select", "test", "test", "select")
        for position in range(self.select_views + self.test_views):
            wanted = pattern[position % 4]
            split = wanted if left[wanted] else ("select" if left["select"] else "test")
            left[split] -= 1
            splits.append(split)
        return splits


class PublishedViews(ViewsSpec):
    """The four views of Lei, Ito and Bashivan (NeurIPS 2024): three yaws to train on, another pitch to test.

    The test view is an extrapolation and far harder than an interpolated one; it is reported and not gated. Model
    selection uses the three training views.
    """

    kind: Literal["published"] = "published"

    @property
    def gated(self) -> bool:
        return False

    def views(self) -> list[View]:
        angles = ((-0.23, 3.141593), (-0.23, 3.927), (-0.23, 2.356), (-0.524, 3.141593))
        splits: tuple[Split, ...] = ("train", "train", "train", "test")
        return [
            View(f"a{index}", pitch, yaw, 0.0, split, order="xyz")
            for index, ((pitch, yaw), split) in enumerate(zip(angles, splits, strict=True))
        ]

    def names(self, split: Split) -> tuple[str, ...]:
        return super().names("train" if split == "select" else split)


AnyViews = Annotated[InterpolatedViews | PublishedViews, Field(discriminator="kind")]
