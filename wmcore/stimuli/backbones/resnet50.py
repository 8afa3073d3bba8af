"""ResNet50 (He et al. 2016, doi 10.1109/CVPR.2016.90), the backbone of the published N-back networks."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import AfterValidator, Field, model_validator
from safetensors.torch import load_file

from wmcore.errors import InputError, MissingPartError
from wmcore.stimuli.backbones.base import Backbone, BackboneSpec, check_pool, file_checksum

MAPS: dict[str, tuple[int, int]] = {"layer1": (256, 56), "layer2": (512, 28), "layer3": (1024, 14), "layer4": (2048, 7)}
"""Layer -> (channels, side of its map) for a 224 px image."""
NAMES = ("IMAGENET1K_V1", "IMAGENET1K_V2", "DEFAULT")
"""Torchvision's names of weights; its default is the second."""
SUFFIXES = (".pth", ".pt", ".safetensors")
"""How the name of a file of weights ends."""


def _known_weights(weights: str) -> str:
    """Looks at the file's existence only: what it holds is checked when it is loaded."""
    is_path = "/" in weights or "\\" in weights or weights.endswith(SUFFIXES)
    if is_path and not Path(weights).expanduser().is_file():
        raise ValueError(f"must be an existing file, or one of {', '.join(NAMES)}")
    if not is_path and weights not in NAMES:
        raise ValueError(f"must be one of {', '.join(NAMES)}, or the path of a file that ends in {', '.join(SUFFIXES)}")
    return weights


class ResNet50Spec(BackboneSpec):
    """Torchvision's ResNet50; 3-5 images per second and core, so a bank takes minutes on a CPU."""

    kind: Literal["resnet50"] = "resnet50"
    layer: Literal["layer1", "layer2", "layer3", "layer4"] = "layer4"
    """Stage whose output is taken; layer4 is the published one."""
    pool_size: Annotated[int, Field(ge=1, le=56)] | None = 4
    """Side of the map after adaptive average pooling; null keeps the layer's own."""
    weights: Annotated[str, AfterValidator(_known_weights)] = "IMAGENET1K_V2"
    """IMAGENET1K_V1, IMAGENET1K_V2 or DEFAULT (downloaded once by ``wmsweep render``), or the path of a file that holds
    a state dict (.pth, .pt or .safetensors)."""

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
            state = self._local_state()
        try:
            network.load_state_dict(state)
        except (RuntimeError, TypeError, AttributeError) as error:
            raise self._no_state_dict() from error
        return Backbone(Cut(network, self.layer), self.pool_size)

    def _official(self):
        from torchvision.models import ResNet50_Weights

        return ResNet50_Weights[self.weights]

    def _local_state(self) -> dict[str, Any]:
        path = self._local_file()
        try:
            if path.suffix == ".safetensors":
                return load_file(path)
            return torch.load(path, weights_only=True, map_location="cpu")
        except Exception as error:  # what an unpickler raises for foreign bytes has no end
            raise self._no_state_dict() from error

    def _no_state_dict(self) -> InputError:
        return InputError(
            "backbone.weights",
            f"must name a state dict of torchvision's resnet50, and {self.weights} holds none",
            remedy=f"Name another file, or one of {', '.join(NAMES)}.",
        )

    def _local_file(self) -> Path:
        path = Path(self.weights).expanduser()
        if not path.is_file():
            raise InputError(
                "backbone.weights", f"must be one of {', '.join(NAMES)} or an existing file", value=self.weights
            )
        return path.resolve()
