"""Which object, location and view each frame of an N-back trial shows. Shapes: B trials, T steps, O objects."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from wmcore.errors import InputError
from wmcore.stimuli.feature_bank import FeatureBank
from wmcore.stimuli.object_sets.base import Split
from wmcore.tasks.quotas import exact_quota, pick

if TYPE_CHECKING:
    from wmcore.tasks.nback import NBackSpec

LOCATION, IDENTITY, CATEGORY = 0, 1, 2
SAME_IDENTITY, SAME_CATEGORY, OTHER_CATEGORY = 0, 1, 2
"""How the object of an executive frame relates to the one n steps before."""


@dataclass(frozen=True)
class SplitImages:
    """The images of one split as a dense table.

    Attributes:
        table: (O, L, V) row of the feature bank of each object, location and view.
        identity, category: (O,) global label of each object.
        location: (L,), view: (V,) global labels.
    """

    table: Tensor
    identity: Tensor
    category: Tensor
    location: Tensor
    view: Tensor

    @classmethod
    def of(cls, bank: FeatureBank, views: Split, identities: Split) -> SplitImages:
        """The images of a split of the views crossed with a split of the identities.

        Raises:
            InputError: there are none, or the table of object x location x view has holes.
        """
        rows = bank.rows(views, identities)
        if not len(rows):
            raise InputError(
                "task.stimuli",
                f"must hold at least one {identities} identity per category and one {views} view",
            )
        code = {name: bank.class_index(name)[rows] for name in ("identity", "category", "location", "view")}
        axes, places = zip(
            *(np.unique(code[name], return_inverse=True) for name in ("identity", "location", "view")), strict=True
        )
        table = np.full([len(axis) for axis in axes], -1)
        table[places] = rows
        if (table < 0).any():
            raise InputError(
                "task.stimuli",
                f"must hold an image of every object at every location and view ({views} views, {identities} "
                "identities)",
                remedy="Delete the damaged bank and render again.",
            )
        category = np.zeros(len(axes[0]), dtype=np.int64)
        category[places[0]] = code["category"]
        return cls(*(torch.from_numpy(array) for array in (table, axes[0], category, axes[1], axes[2])))


@dataclass(frozen=True)
class TrialFrames:
    """(B, T) indices into the axes of a ``SplitImages.table``."""

    objects: Tensor
    location: Tensor
    view: Tensor


class FrameSampler:
    """Draws frames under the corrected rule of the N-back reference (nback.md section 2).

    Within each (n, feature) and step: p of the executive frames match; irrelevant features agree with the frame n
    steps before in a fixed share of match and of non-match frames; a fixed share of identity non-matches comes from
    the same category and of category matches from the same identity; a fixed share of non-matches are lures.

    Raises:
        InputError: the split holds too few locations, categories or identities for the rule.
    """

    def __init__(self, spec: NBackSpec, images: SplitImages) -> None:
        self.spec, self.images = spec, images
        self.n_objects, self.n_locations, self.n_views = images.table.shape
        self._same_category = images.category[:, None] == images.category[None, :]
        self._same_object = torch.eye(self.n_objects, dtype=torch.bool)
        self._relations = torch.stack(
            [self._same_object, self._same_category & ~self._same_object, ~self._same_category]
        )
        self._check()

    def _check(self) -> None:
        if not bool(self._relations[SAME_CATEGORY].any(1).all()):
            raise InputError("task.stimuli.objects", "must have at least 2 identities per category in every split")
        if not bool(self._relations[OTHER_CATEGORY].any(1).all()) or self.n_locations < 2:
            raise InputError("task.stimuli.objects", "must have at least 2 categories and 2 locations")

    def neutral(self, batch_size: int, generator: torch.Generator) -> TrialFrames:
        """Every frame uniform and independent in object, location and view: labels of different steps are
        independent and chance is exactly 1/K."""
        shape = (batch_size, self.spec.steps)
        return TrialFrames(*(torch.randint(size, shape, generator=generator) for size in self.images.table.shape))

    def task(self, cell: Tensor, n: Tensor, feature: Tensor, generator: torch.Generator) -> TrialFrames:
        """Frames of the corrected rule.

        Args:
            cell: (B,) index of each trial's (n, feature), the groups within which quotas are exact.
            n: (B,) lags.
            feature: (B,) LOCATION, IDENTITY or CATEGORY.
            generator: source of randomness.
        """
        frames = self.neutral(cell.shape[0], generator)
        for t in range(int(n.min()), self.spec.steps):
            self._respond(t, frames, cell, n, feature, generator)
        return frames

    def _respond(
        self, t: int, frames: TrialFrames, cell: Tensor, n: Tensor, feature: Tensor, generator: torch.Generator
    ) -> None:
        """Overwrites frame t of the trials in which a response is due."""
        spec, batch = self.spec, torch.arange(cell.shape[0])
        executive = t >= n
        back = (t - n).clamp(min=0)
        ref_object, ref_location = frames.objects[batch, back], frames.location[batch, back]
        match = exact_quota(torch.where(executive, cell, -1), spec.match_probability, generator)
        stratum = torch.where(executive, cell * 2 + match, -1)

        # Three yes-or-no decisions, each an exact quota inside (n, feature, match).
        relation = self._object_relation(stratum, match, feature, generator)
        same_location = torch.where(feature == LOCATION, match, exact_quota(stratum, spec.congruence, generator))
        allowed_object = self._relations[relation, ref_object]
        all_locations = torch.arange(self.n_locations)[None]
        allowed_location = (all_locations == ref_location[:, None]) == same_location[:, None]

        lure_object, lure_location = self._neighbours(t, frames, n, feature, allowed_object, allowed_location)
        wants_lure = exact_quota(
            torch.where(executive & ~match, cell, -1),
            spec.lure_rate,
            generator,
            eligible=torch.where(feature == LOCATION, lure_location.any(1), lure_object.any(1)),
        )[:, None]
        prefer_object = torch.where(wants_lure, lure_object, ~lure_object)
        prefer_location = torch.where(wants_lure, lure_location, ~lure_location)

        ref_view = frames.view[batch, back]
        other_view = torch.arange(self.n_views)[None] != ref_view[:, None]
        allowed_view = other_view if spec.different_view else torch.ones_like(other_view)
        for drawn, values in (
            (pick(allowed_object, generator, prefer_object), frames.objects),
            (pick(allowed_location, generator, prefer_location), frames.location),
            (pick(allowed_view, generator), frames.view),
        ):
            values[:, t] = torch.where(executive, drawn, values[:, t])

    def _object_relation(self, stratum: Tensor, match: Tensor, feature: Tensor, generator: torch.Generator) -> Tensor:
        """(B,) SAME_IDENTITY, SAME_CATEGORY or OTHER_CATEGORY."""
        spec = self.spec
        is_identity = feature == IDENTITY
        share_of_category = {LOCATION: spec.congruence, IDENTITY: spec.same_category_foils, CATEGORY: 0.0}
        in_category = torch.zeros_like(match)
        for name, share in share_of_category.items():
            in_category |= exact_quota(torch.where(feature == name, stratum, -1), share, generator)
        in_category = torch.where(feature == LOCATION, in_category, in_category | match)
        # Identity follows from the answer on identity tasks; elsewhere it is irrelevant and balanced.
        same_identity = exact_quota(torch.where(in_category, stratum, -1), spec.congruence, generator)
        same_identity = torch.where(is_identity, match, same_identity & in_category)
        return torch.where(same_identity, SAME_IDENTITY, torch.where(in_category, SAME_CATEGORY, OTHER_CATEGORY))

    def _neighbours(
        self,
        t: int,
        frames: TrialFrames,
        n: Tensor,
        feature: Tensor,
        allowed_object: Tensor,
        allowed_location: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """(B, O) and (B, L) bool: allowed options that agree on the task's feature with lag n-1 or n+1."""
        batch = torch.arange(n.shape[0])
        objects = torch.zeros_like(allowed_object)
        locations = torch.zeros_like(allowed_location)
        for lag in (n - 1, n + 1):
            valid = ((lag >= 1) & (t - lag >= 0))[:, None]
            source = (t - lag).clamp(min=0)
            item = frames.objects[batch, source]
            agrees = torch.where((feature == IDENTITY)[:, None], self._same_object[item], self._same_category[item])
            objects |= valid & agrees & allowed_object
            places = torch.arange(self.n_locations)[None] == frames.location[batch, source][:, None]
            locations |= valid & places & allowed_location
        return objects & (feature != LOCATION)[:, None], locations & (feature == LOCATION)[:, None]
