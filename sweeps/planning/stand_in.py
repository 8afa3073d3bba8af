"""Feature banks that stand in for those that are not rendered yet: the right shape, random values."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from wmcore.errors import WmsweepError
from wmcore.seeding import generator
from wmcore.stimuli.feature_bank import feature_bank_folder, write_feature_bank
from wmcore.stimuli.image_bank import image_bank_folder, write_image_bank
from wmcore.stimuli.spec import LOCATION_CENTERS_PX, StimulusSpec

MOST_IMAGES = 8000
"""Beyond this the gate's linear probe alone takes minutes."""


@dataclass(frozen=True)
class Missing:
    """Stimuli that a sweep would have to make.

    Attributes:
        spec: the stimuli.
        renders: how many.
        write_seconds: of writing both banks, with the gate's figures.
        feature_bytes: size of the feature bank; 0 if that one is there, and only the images are not.
    """

    spec: StimulusSpec
    renders: int
    write_seconds: float
    feature_bytes: int

    @property
    def with_features(self) -> bool:
        """The features must be made, too."""
        return self.feature_bytes > 0


def provide_banks(specs: Sequence[StimulusSpec], stimuli: Path, folder: Path) -> list[Missing]:
    """Fills ``folder`` with a feature bank for every spec: a link to the one in ``stimuli``, or a stand-in.

    Args:
        specs: what the sweep's space can name.
        stimuli: the banks of the storage, which is only read.
        folder: a temporary one.

    Returns:
        Those that had to be stood in for.

    Raises:
        WmsweepError: a stand-in would take minutes.
    """
    missing = []
    for spec in specs:
        real, link = feature_bank_folder(stimuli, spec), feature_bank_folder(folder, spec)
        if real.exists():
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(real.resolve(), target_is_directory=True)
        if not real.exists() or not image_bank_folder(stimuli, spec).exists():
            missing.append(_missing(spec, folder, with_features=not real.exists()))
    return missing


def _missing(spec: StimulusSpec, folder: Path, *, with_features: bool) -> Missing:
    meshes, views = spec.objects.meshes(), spec.views.views()
    images = len(meshes) * len(views) * len(LOCATION_CENTERS_PX)
    if images > MOST_IMAGES:
        raise WmsweepError(
            f"The sweep cannot be timed before its stimuli are made: {images:,} images are too many to stand in for. "
            "Run `wmsweep render` with the same spec and storage first, or leave the timing out with --no-probe."
        )
    began = time.perf_counter()
    blank = np.zeros((len(views), spec.renderer.size_px, spec.renderer.size_px, 3), dtype=np.uint8)
    bank = write_image_bank(folder, spec, (blank for _ in meshes))
    if not with_features:
        return Missing(spec, len(meshes) * len(views), time.perf_counter() - began, 0)
    features = torch.randn((images, *spec.backbone.feature_shape()), generator=generator(0, "plan", "features"))
    write_feature_bank(folder, spec, bank, features)
    return Missing(spec, len(meshes) * len(views), time.perf_counter() - began, features.nbytes)
