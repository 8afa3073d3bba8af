"""The contract of a frozen backbone. Shapes: B images, C channels, h x w map."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from functools import cache
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from wmcore.spec import Spec

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_SD = (0.229, 0.224, 0.225)


class BackboneSpec(Spec, ABC):
    """What a user writes under ``stimuli.backbone``."""

    version: ClassVar[int] = 1
    """Raised whenever the same spec and weights give other features."""

    @abstractmethod
    def feature_shape(self) -> tuple[int, int, int]:
        """(C, h, w) of one image's features."""

    @abstractmethod
    def weights_id(self) -> str:
        """What identifies the weights: a checksum of the file (of its whole content, or the one in its official name).

        Raises:
            MissingPartError: the package or file that holds the weights is not there.
        """

    @abstractmethod
    def build(self) -> Backbone:
        """Loads the weights.

        Raises:
            MissingPartError: the package or file that holds the weights is not there, or is not what it should be.
        """


class Backbone:
    """A frozen network cut after one layer, with pooling; always in evaluation mode, never with gradients.

    Args:
        network: (B, 3, 224, 224) float32, normalised -> (B, C, H, W).
        pool_size: side of the adaptive average pool of the map; None keeps it.
        batch_size: images per pass. Small passes stay in a CPU's cache: 2 images run 3 times as fast as 32.
    """

    def __init__(self, network: nn.Module, pool_size: int | None, batch_size: int = 2) -> None:
        self.network = network.eval().requires_grad_(False).to(memory_format=torch.channels_last)
        self.pool = nn.Identity() if pool_size is None else nn.AdaptiveAvgPool2d(pool_size)
        self.batch_size = batch_size

    def __call__(self, images: np.ndarray) -> Tensor:
        """(B, 224, 224, 3) uint8 RGB images -> (B, C, h, w) float32 features."""
        if images.ndim != 4 or images.shape[1:] != (224, 224, 3) or images.dtype != np.uint8:
            raise ValueError(f"images must be (B, 224, 224, 3) uint8, not {images.shape} {images.dtype}")
        found = []
        # One thread: passes this small gain nothing from more, and features then do not depend on the machine's cores.
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            with torch.inference_mode():
                for start in range(0, len(images), self.batch_size):
                    batch = preprocessed(images[start : start + self.batch_size])
                    found.append(self.pool(self.network(batch)).contiguous())
        finally:
            torch.set_num_threads(threads)
        # Copied outside of inference mode, so that the result is an ordinary tensor.
        return torch.cat(found).clone()


def preprocessed(images: np.ndarray) -> Tensor:
    """(B, H, W, 3) uint8 -> (B, 3, H, W) float32, channels last in memory, with ImageNet's mean and sd."""
    values = torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2).float() / 255
    return (values - torch.tensor(IMAGENET_MEAN)[:, None, None]) / torch.tensor(IMAGENET_SD)[:, None, None]


@cache
def file_checksum(path: Path) -> str:
    """SHA-256 of a file, remembered for the life of the process."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_pool(pool_size: int | None, side: int, layer: str) -> None:
    """Raises ``ValueError`` if a map is too small for the pool that is asked for."""
    if pool_size is not None and pool_size > side:
        raise ValueError(f"pool_size is {pool_size}, but the map of layer {layer!r} is only {side} x {side}")
