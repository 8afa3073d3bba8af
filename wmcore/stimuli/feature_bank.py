"""Feature bank: the frozen features of every image of an image bank, computed once. Shapes: N images, V views."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from wmcore.spec import content_hash
from wmcore.stimuli.backbones.base import Backbone
from wmcore.stimuli.bank_folder import damaged, new_bank, read_description, write_description, write_json
from wmcore.stimuli.gate import PROPERTIES, enforce, judged, probe
from wmcore.stimuli.image_bank import ImageBank, Progress, image_bank_key, make_image_bank, paste
from wmcore.stimuli.object_sets.base import Split
from wmcore.stimuli.spec import LOCATION_CENTERS_PX, StimulusSpec

FORMAT_VERSION = 2
FEATURES = "features.safetensors"
GATE = "gate.json"


def feature_bank_key(spec: StimulusSpec) -> dict[str, Any]:
    """Everything that decides the features, as plain data; the weights by their checksum."""
    backbone = spec.backbone.model_dump(mode="json")
    # Where the weights lie does not matter, what they are does.
    backbone.pop("weights", None)
    return {
        "features_format": FORMAT_VERSION,
        "images": image_bank_key(spec),
        "backbone": backbone,
        "backbone_version": spec.backbone.version,
        "weights": spec.backbone.weights_id(),
    }


def feature_bank_folder(folder: Path, spec: StimulusSpec) -> Path:
    """Where the feature bank of a spec lies."""
    return folder / "features" / content_hash(feature_bank_key(spec))


@dataclass(frozen=True)
class FeatureBank:
    """Frozen features with their labels.

    Attributes:
        manifest: one row per image, as in ``ImageBank``.
        features: (N, C, h, w) float32, row i for image i.
        content_hash: names everything that decided the features.
        labels: property -> its labels over ALL splits, sorted; a class index is a position in this tuple.
        gate: property -> figures of the linear probe, as ``gate.judged`` gives them.
        views: split -> names of the views that it uses.
    """

    manifest: pd.DataFrame
    features: Tensor
    content_hash: str
    labels: dict[str, tuple[str, ...]]
    gate: dict[str, dict[str, Any]]
    views: dict[str, tuple[str, ...]]

    @classmethod
    def load(cls, folder: Path, spec: StimulusSpec) -> FeatureBank:
        """Opens the bank of a spec.

        Raises:
            InputError: there is none, or it is damaged.
        """
        path = feature_bank_folder(folder, spec)
        manifest, _ = read_description(path, "feature", path.name)
        try:
            features = load_file(path / FEATURES)["features"]
            figures = json.loads((path / GATE).read_text())["figures"]
        except (OSError, KeyError, ValueError, SafetensorError) as error:
            raise damaged(path, "feature", str(error)) from error
        if tuple(features.shape) != (len(manifest), *spec.backbone.feature_shape()):
            raise damaged(path, "feature", f"features of shape {tuple(features.shape)}")
        return cls(
            manifest=manifest,
            features=features,
            content_hash=path.name,
            labels={name: tuple(sorted({str(v) for v in manifest[name]})) for name in (*PROPERTIES, "view")},
            gate=judged(figures, spec.gate if spec.views.gated else None),
            views={split: spec.views.names(split) for split in ("train", "select", "test")},
        )

    def rows(self, views: Split, identities: Split) -> np.ndarray:
        """Image numbers of a split of the views crossed with a split of the identities, ascending."""
        chosen = self.manifest["view"].isin(self.views[views]) & (self.manifest["identity_split"] == identities)
        return np.flatnonzero(chosen.to_numpy())

    def class_index(self, name: str) -> np.ndarray:
        """(N,) int64: index of every image's label in ``labels[name]``."""
        number = {label: index for index, label in enumerate(self.labels[name])}
        return np.array([number[str(value)] for value in self.manifest[name]], dtype=np.int64)


def object_features(backbone: Backbone, renders: np.ndarray) -> Tensor:
    """(V * 4, C, h, w) features of (V, S, S, 3) renders, pasted into the four locations (location fastest)."""
    places = range(len(LOCATION_CENTERS_PX))
    return backbone(np.stack([paste(render, location) for render in renders for location in places]))


def write_feature_bank(folder: Path, spec: StimulusSpec, images: ImageBank, features: Tensor) -> FeatureBank:
    """Writes a bank, with the figures of its gate. The gate is not enforced here.

    Args:
        features: (N, C, h, w) float32 in the order of the manifest of ``images``.

    Raises:
        ValueError: not one feature map per image, or values that are not finite.
        InputError: the folder cannot be written.
    """
    if len(features) != len(images.manifest) or not torch.isfinite(features).all():
        raise ValueError(f"{len(features)} feature maps, all finite, are needed for {len(images.manifest)} images")
    target = feature_bank_folder(folder, spec)
    with new_bank(target) as temporary:
        save_file({"features": features.contiguous()}, temporary / FEATURES)
        scored = "select" if spec.views.gated else "test"
        write_json(temporary / GATE, {"figures": probe(features.numpy(), images.manifest, scored)})
        write_description(
            temporary,
            images.manifest,
            {"content_hash": target.name, **feature_bank_key(spec), "backbone_spec": spec.backbone.model_dump()},
        )
    return FeatureBank.load(folder, spec)


def cached_feature_bank(folder: Path, spec: StimulusSpec) -> FeatureBank | None:
    """The finished bank of a spec, with its gate enforced; None if there is none yet.

    Raises:
        GateError: the features do not carry the labels.
        InputError: the bank is damaged.
    """
    if not feature_bank_folder(folder, spec).exists():
        return None
    bank = FeatureBank.load(folder, spec)
    enforce(bank.gate, spec.gate)
    return bank


def make_feature_bank(spec: StimulusSpec, folder: Path, progress: Progress | None = None) -> FeatureBank:
    """The bank of a spec, computed in this process unless it is there already; renders what is missing.

    ``progress`` counts the renders whose features are done.

    Raises:
        GateError: the features do not carry the labels (the bank is kept, so that ``gate: warn`` costs nothing).
        MissingPartError: the renderer or the weights are not there.
        InputError: the folder cannot be written, or holds a damaged bank.
    """
    cached = cached_feature_bank(folder, spec)
    if cached is not None:
        return cached
    images = make_image_bank(spec, folder)
    backbone = spec.backbone.build()
    total = len(images.manifest) // len(LOCATION_CENTERS_PX)

    def all_features() -> Iterable[Tensor]:
        done = 0
        for renders in images.object_renders():
            yield object_features(backbone, renders)
            done += len(renders)
            if progress is not None:
                progress(done, total)

    bank = write_feature_bank(folder, spec, images, torch.cat(list(all_features())))
    enforce(bank.gate, spec.gate)
    return bank
