"""Cutting a network after one of its modules, and folding its batch normalisation."""

from __future__ import annotations

import warnings
from itertools import pairwise

from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval


class Cut(nn.Module):
    """A network that ends after a named module; what comes later is neither kept nor computed.

    Args:
        network: any network that torch.fx can trace, with batch normalisation registered right after its convolution;
            it is set to evaluation mode and changed.
        layer: name of a submodule, as ``get_submodule`` takes it.
    """

    def __init__(self, network: nn.Module, layer: str) -> None:
        # Here, because the import takes seconds that specs and trials can do without.
        from torchvision.models.feature_extraction import create_feature_extractor

        super().__init__()
        network.get_submodule(layer)
        fold_batch_norm(network.eval())
        with warnings.catch_warnings():
            # The graph is used in evaluation mode only, so it need not equal the one of training mode.
            warnings.filterwarnings("ignore", message="NOTE: The nodes obtained by tracing the model in eval mode")
            self.graph = create_feature_extractor(network, {layer: "out"})

    def forward(self, images):
        """(B, 3, H, W) -> (B, C, h, w)."""
        return self.graph(images)["out"]


def fold_batch_norm(network: nn.Module) -> None:
    """Folds every batch normalisation into the convolution registered just before it, in place.

    In evaluation mode both are affine, so outputs agree to rounding; a CPU saves a third of the time.
    """
    for module in network.modules():
        children = list(module.named_children())
        for (conv_name, conv), (norm_name, norm) in pairwise(children):
            if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                setattr(module, conv_name, fuse_conv_bn_eval(conv, norm))
                setattr(module, norm_name, nn.Identity())
