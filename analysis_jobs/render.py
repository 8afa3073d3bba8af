"""Rendering and frozen features through Ray Data. Shapes: V views, S side of a render in pixels.

One pass over the objects: a pool of renderers feeds a pool of backbones, and this process writes the two banks when
everything is there. A bank is made whole or not at all, so an interrupted job is simply run again.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import ray
import torch
from pydantic import ValidationError
from ray.data import ActorPoolStrategy, Dataset, from_items

from analysis_jobs.quiet import quiet
from wmcore.errors import InputError, MissingPartError, WmsweepError
from wmcore.stimuli.feature_bank import (
    FeatureBank,
    cached_feature_bank,
    object_features,
    write_feature_bank,
)
from wmcore.stimuli.gate import enforce
from wmcore.stimuli.image_bank import (
    ImageBank,
    Progress,
    image_bank_folder,
    render_object,
    write_image_bank,
)
from wmcore.stimuli.spec import StimulusSpec

ACTOR_CPUS = 0.5
"""What an actor asks for: two pools share the CPUs, and Ray Data hangs without some left over."""


def prepare(
    spec: StimulusSpec,
    folder: Path,
    progress: Progress | None = None,
    workers: int | None = None,
) -> FeatureBank:
    """The feature bank of a spec, with its image bank: those on disk, or rendered and computed on an initialised Ray.

    Args:
        spec: the stimuli.
        folder: holds the banks; only this process writes to it.
        progress: called with the number of renders whose features are done and the total.
        workers: backbones that run side by side; by default one per CPU of the cluster.

    Raises:
        GateError: the features do not carry the labels (the bank is kept, so that ``gate: warn`` costs nothing).
        MissingPartError: the renderer or the weights are not there.
        InputError: the folder cannot be written, or holds a damaged bank.
        RuntimeError: Ray is not initialised.
    """
    cached = cached_feature_bank(folder, spec)
    has_images = image_bank_folder(folder, spec).exists()
    # Contact sheets and reports show the images, so a bank of them that was deleted is made again.
    if cached is not None and has_images:
        return cached
    if not ray.is_initialized():
        raise RuntimeError("ray must be initialised before stimuli are prepared")
    images = ImageBank.load(folder, spec) if has_images else None
    objects = len(spec.objects.meshes())
    views = len(spec.views.views())
    cpus = int(ray.cluster_resources().get("CPU", 1))
    workers = max(1, min(workers or cpus, objects))

    items: list[dict[str, Any]] = [{"object": index} for index in range(objects)]
    if images is not None:
        # The pixels travel with the items: workers on other machines need not see the folder.
        for item, pixels in zip(items, images.object_renders(), strict=True):
            item["renders"] = pixels
    renders: dict[int, np.ndarray] = {}
    features: dict[int, np.ndarray] = {}
    with quiet():
        # At most one block per object: progress then moves in steps of one object.
        data = from_items(items, override_num_blocks=objects)
        if images is None:
            # A renderer feeds several backbones: it is the faster by far.
            data = rendered(data, spec, max(1, workers // 4))
        if cached is None:
            data = _through(data, _FeatureActor, spec, workers)
        for row in data.iter_rows():
            if row["error"]:
                raise _error_from(row["error"])
            renders[row["object"]] = row["renders"]
            if cached is None:
                features[row["object"]] = row["features"]
            if progress is not None:
                progress(len(renders) * views, objects * views)
    if images is None:
        images = write_image_bank(folder, spec, (renders[index] for index in range(objects)))
    if cached is not None:
        return cached
    table = torch.from_numpy(np.concatenate([features[index] for index in range(objects)]))
    bank = write_feature_bank(folder, spec, images, table)
    enforce(bank.gate, spec.gate)
    return bank


def rendered(data: Dataset, spec: StimulusSpec, workers: int) -> Dataset:
    """Rows with an ``object`` number -> rows with its ``renders`` (V, S, S, 3) uint8 and an ``error`` text."""
    return _through(data, _RenderActor, spec, workers)


def _through(data: Dataset, actor: type, spec: StimulusSpec, workers: int) -> Dataset:
    """Each row through one of a pool of actors."""
    cpus = ACTOR_CPUS if ray.cluster_resources().get("CPU", 1) > 1 else ACTOR_CPUS / 2
    return data.map_batches(
        actor,
        fn_constructor_args=(spec.model_dump(mode="json"),),
        batch_size=1,
        compute=ActorPoolStrategy(size=workers),
        num_cpus=cpus,
    )


class _RenderActor:
    """Object numbers -> renders; one scene for the life of the actor."""

    def __init__(self, spec: dict[str, Any]) -> None:
        self.data = spec
        self.renderer = None

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, Any]:
        (index,) = batch["object"]
        try:
            # Started here and not in the constructor, where an error would only show as a dead actor.
            if self.renderer is None:
                spec = _parsed(self.data)
                self.meshes, self.views = spec.objects.meshes(), spec.views.views()
                self.renderer = spec.renderer.build()
            pixels = render_object(self.renderer, self.meshes[index], self.views)
        except WmsweepError as error:
            return {"object": [index], "renders": np.zeros((1, 1), dtype=np.uint8), "error": [_error_text(error)]}
        return {"object": [index], "renders": pixels[None], "error": [""]}


class _FeatureActor:
    """Renders -> features; the backbone is loaded once."""

    def __init__(self, spec: dict[str, Any]) -> None:
        self.data = spec
        self.backbone = None

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        text = str(batch["error"][0]) if "error" in batch else ""
        found = np.zeros((1, 1), dtype=np.float32)
        if not text:
            try:
                if self.backbone is None:
                    self.backbone = _parsed(self.data).backbone.build()
                found = object_features(self.backbone, np.asarray(batch["renders"][0])).numpy()[None]
            except WmsweepError as error:
                text = _error_text(error)
        return {"object": batch["object"], "renders": batch["renders"], "features": found, "error": [text]}


def _parsed(data: dict[str, Any]) -> StimulusSpec:
    """The stimuli as the driver checked them; a worker elsewhere may lack a file that they name."""
    try:
        return StimulusSpec.parse(data)
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in fault["loc"])
        remedy = "Make it available on every machine of the cluster."
        raise InputError(where, f"is refused by a worker ({fault['msg']})", remedy=remedy) from error


def _error_text(error: WmsweepError) -> str:
    """An error as text that crosses the border of a process."""
    fields = {}
    if isinstance(error, InputError):
        names = ["where", "rule", "remedy", "source", *(["value"] if error.has_value else [])]
        fields = {name: getattr(error, name) for name in names}
    return json.dumps({"kind": type(error).__name__, "text": str(error), "fields": fields}, default=str)


def _error_from(text: str) -> WmsweepError:
    """The error of a worker as one that the command line shows as a paragraph, with its exit code."""
    found = json.loads(text)
    if found["kind"] == "InputError":
        return InputError(**found["fields"])
    return (MissingPartError if found["kind"] == "MissingPartError" else WmsweepError)(found["text"])
