"""StimulusSpec: objects, views, renderer, frozen features and the gate that they must pass."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

import wmcore.renderers
import wmcore.stimuli.backbones
import wmcore.stimuli.object_sets
from wmcore.registry import discriminated_union
from wmcore.renderers.base import RendererSpec
from wmcore.renderers.pyvista import PyVistaSpec
from wmcore.spec import Spec
from wmcore.stimuli.backbones.base import BackboneSpec
from wmcore.stimuli.backbones.efficientnet_lite0 import EfficientNetLite0Spec
from wmcore.stimuli.object_sets.base import ObjectSetSpec
from wmcore.stimuli.object_sets.procedural import ProceduralSpec
from wmcore.stimuli.views import AnyViews, InterpolatedViews

if TYPE_CHECKING:
    AnyObjects = ObjectSetSpec
    AnyRenderer = RendererSpec
    AnyBackbone = BackboneSpec
else:
    AnyObjects = discriminated_union(wmcore.stimuli.object_sets, ObjectSetSpec)
    AnyRenderer = discriminated_union(wmcore.renderers, RendererSpec)
    AnyBackbone = discriminated_union(wmcore.stimuli.backbones, BackboneSpec)

CELL_PX = 112
"""Side of one of the four cells of an image."""
IMAGE_PX = 224
"""Side of an image."""
LOCATION_CENTERS_PX: tuple[tuple[int, int], ...] = ((56, 56), (168, 56), (56, 168), (168, 168))
"""Location index -> (x, y) of the cell's centre, from the top left corner."""

Share = Annotated[float, Field(ge=0, le=1)]


class GateSpec(Spec):
    """Least balanced accuracy of the linear probes on the selection views, and what a failure does."""

    location: Share = 0.95
    """Screen location, of trained identities."""
    category: Share = 0.95
    """Category, of trained identities."""
    identity: Share = 0.90
    """Identity, of trained identities."""
    on_failure: Literal["stop", "warn"] = "stop"
    """``stop`` ends with an error; ``warn`` goes on, with a warning in the figures."""


def _gate_from_word(value: Any) -> Any:
    return {"on_failure": value} if isinstance(value, str) else value


AnyGate = Annotated[
    GateSpec,
    BeforeValidator(_gate_from_word, json_schema_input_type=GateSpec | Literal["stop", "warn"]),
]
"""``gate: warn`` is short for ``gate: {on_failure: warn}``."""


class StimulusSpec(Spec):
    """Everything that decides the pixels and the features, and the gate in front of training."""

    objects: AnyObjects = ProceduralSpec()
    """What is shown."""
    views: AnyViews = InterpolatedViews()
    """The poses in which it is shown."""
    renderer: AnyRenderer = PyVistaSpec()
    """What makes the pixels."""
    backbone: AnyBackbone = EfficientNetLite0Spec()
    """The frozen network that turns images into features."""
    gate: AnyGate = GateSpec()
    """What the features must carry before anything is trained."""

    @model_validator(mode="after")
    def _gate_has_effect(self) -> StimulusSpec:
        if not self.views.gated and self.gate != GateSpec():
            raise ValueError(
                f"gate has no effect with views of kind {self.views.kind!r}, which are reported without a gate: "
                "leave it out"
            )
        return self
