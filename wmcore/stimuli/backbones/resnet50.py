"""ResNet50 (He et al. 2016, doi 10.1109/CVPR.2016.90), the backbone of the published N-back networks."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import torch
from pydantic import Field, model_validator

from wmcore.errors import InputError, MissingPartError
from wmcore.stimuli.backbones.base import Backbone, BackboneSpec, check_pool, file_checksum

MAPS: dict[str, tuple[int, int]] = {"layer1": (256, 56), "layer2": (512, 28), "layer3": (1024, 14), "layer4": (2048, 7)}
"""Layer -> (channels, side of its map) for a 224 px image."""
NAMES = ("IMAGENET1K_V1", "IMAGENET1K_V2")


class ResNet50Spec(BackboneSpec):
    """Torchvision's ResNet50; 3-5 images per second and core, so a bank takes minutes on a CPU."""

    kind: Literal["resnet50"] = "resnet50"
    layer: Literal["layer1", "layer2", "layer3", "layer4"] = "layer4"
    """Stage whose output is taken; layer4 is the published one."""
    pool_size: Annotated[int, Field(ge=1, le=56)] | None = 4
    """Side of the map after adaptive average pooling; null keeps the layer's own."""
    weights: str = "IMAGENET1K_V2"
    """IMAGENET1K_V1, IMAGENET1K_V2 (downloaded once by ``wmsweep render``), or the path of a state-dict file (.pth)."""

    @model_validator(mode="after")
    def _pool_fits(self) -> ResNet50Spec:
        check_pool(self.pool_size, MAPS[self.layer][1], self.layer)
        return self

    def feature_shape(self) -> tuple[int, int, int]:
        channels, side = MAPS[self.layer]
        side = side if self.pool_size is None else self.pool_size
        return channels, side, side

    def weights_id(self) -> str:
        if self.weights in NAMES:
            # Official names end in the first digits of the file's checksum: known before anything is downloaded.
            return self._official().url.rsplit("/", 1)[-1]
        return file_checksum(self._local_file())

    def build(self) -> Backbone:
        from torchvision.models import resnet50

        from wmcore.stimuli.backbones.cut import Cut

        network = resnet50(weights=None)
        if self.weights in NAMES:
            try:
                state = self._official().get_state_dict(progress=False, check_hash=True)
            except (OSError, RuntimeError) as error:
                raise MissingPartError(
                    f"ResNet50's weights {self.weights} are not on this machine and could not be downloaded ({error}). "
                    f"Download {self._official().url} elsewhere and give its path as backbone.weights."
                ) from error
        else:
            state = torch.load(self._local_file(), weights_only=True, map_location="cpu")
        try:
            network.load_state_dict(state)
        except (RuntimeError, TypeError) as error:
            raise InputError(
                "backbone.weights", "must be a state dict of torchvision's resnet50", value=self.weights
            ) from error
        return Backbone(Cut(network, self.layer), self.pool_size)

    def _official(self):
        from torchvision.models import ResNet50_Weights

        return ResNet50_Weights[self.weights]

    def _local_file(self) -> Path:
        path = Path(self.weights).expanduser()
        if not path.is_file():
            raise InputError(
                "backbone.weights", f"must be one of {', '.join(NAMES)} or an existing file", value=self.weights
            )
        return path.resolve()
