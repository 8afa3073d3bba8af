"""Within-time decoding: what a network holds of the item shown at step s when it is read at step t >= s.

Source: Lei, Ito & Bashivan 2024 (arXiv:2411.02685), figures 2b and A5. Each task cell (n and feature, say) is decoded
on its own; folds are groups of trials, the same in every context; each estimate stands beside a permutation null and
the ceiling of what can be read out, on the same trials and folds, at the step at which the item is shown.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
import xarray as xr
from matplotlib.figure import Figure
from pydantic import Field

from wmcore.analyses import decoding_figures
from wmcore.analyses.base import (
    PER_STEP,
    PER_TRIAL,
    AnalysisResult,
    AnalysisSpec,
    check_condition,
    check_state,
    first_state,
    require,
)
from wmcore.analyses.decoding_contexts import Decoder, Item, decode_cell
from wmcore.analyses.decoding_inputs import Inputs
from wmcore.analyses.decoding_table import tabulate
from wmcore.errors import InputError
from wmcore.recording import condition_labels

if TYPE_CHECKING:
    from collections.abc import Sequence

    from wmcore.analyses.base import Conditions
    from wmcore.models.base import SequenceModel

ITEM_PROPERTIES = ("location", "category", "identity")
TASK_CELL = ("n", "feature")


class DecodingSpec(AnalysisSpec):
    """Cross-validated linear decoding of each shown item from the state at every later step, with permutation nulls."""

    kind: Literal["decoding"] = "decoding"
    properties: tuple[str, ...] | None = None
    """Integer conditions (trial, time) to decode; null: location, category and identity, as far as they exist."""
    within: tuple[str, ...] | None = None
    """Conditions (trial) whose combinations are decoded apart; null: n and feature, as far as they exist."""
    state: str | None = None
    """The state to read; null: the first one recorded (the hidden state of an LSTM)."""
    group: str | None = None
    """Condition (trial) whose equal values stay in one fold, e.g. a sequence id; null: each trial is a group.

    At the first step, where the states are as few as the images, images are the groups (condition ``image``)."""
    folds: Annotated[int, Field(ge=2, le=20)] = 5
    """Folds of the cross-validation."""
    permutations: Annotated[int, Field(ge=20)] = 200
    """Shuffled labellings of the null."""
    bootstraps: Annotated[int, Field(ge=100)] = 500
    """Resamplings of the groups for the 95 % interval; held-out decisions are resampled, decoders are not refitted."""
    penalties: Annotated[tuple[Annotated[float, Field(gt=0)], ...], Field(min_length=1)] = (
        0.001,
        0.01,
        0.1,
        1.0,
        10.0,
        100.0,
    )
    """Ridge penalties per training trial, of which each training fold picks one."""

    def check(self, conditions: Conditions, states: Sequence[str], steps: int | None, where: str) -> None:
        check_state(self.state, states, f"{where}.state")
        for i, name in enumerate(self.properties or ()):
            check_condition(name, conditions, f"{where}.properties.{i}", (PER_STEP,))
        if not (self.properties if self.properties is not None else set(ITEM_PROPERTIES) & set(conditions)):
            allowed = ", ".join(name for name, dims in conditions.items() if dims == PER_STEP)
            raise InputError(f"{where}.properties", f"must name at least one of {allowed}", value=self.properties)
        for i, name in enumerate(self.within or ()):
            check_condition(name, conditions, f"{where}.within.{i}", (PER_TRIAL,))
        if self.group is not None:
            check_condition(self.group, conditions, f"{where}.group", (PER_TRIAL,))

    def compute(
        self, recording: xr.Dataset, model: SequenceModel | None, generator: np.random.Generator
    ) -> AnalysisResult:
        """Decodes every context (s, t) of every cell and property.

        Measures of the table; ``identity_within_category`` is the choice among identities of the true category:

        - ``balanced_accuracy`` of one context (columns source_step s, read_step t, age t - s).
        - ``balanced_accuracy_by_age``: its mean over source steps s >= 1; the first item (s = 0, shown to an empty
          state) has rows of its own (column first_item), and the greatest age has no other.
        - ``relevance_margin`` by age: the property asked for less the best one not asked for (column compared_with),
          each as (accuracy - chance) / (ceiling - chance), so that properties of unlike difficulty compare; with 1 as
          the ceiling where the recording has no inputs; without contexts whose ceiling is below chance + 0.1. Its
          interval resamples both on the same trials, ceilings and the choice of the best one held fixed; its null is
          0, its p_value two-sided from those resamples. Choosing the best biases the margin down.

        ``ceiling`` is the larger of the readouts of the input and of the state at step s, by the same decoder on the
        same trials and folds as the estimate. Both are needed: a trained network can make more of an image than a
        linear decoder of the input (column input_readout) does; the state of (s, s) is then its own ceiling. Where
        folds are trials (t >= 1), an image is in training and test folds alike, for estimate and ceiling: both then
        say how well known images are told apart. Column input_new_images is the readout of the input with images as
        groups: what carries over to other images.

        Raises:
            InputError: a property, cell condition, group or state is not in the recording.
        """
        properties = self._properties(recording)
        within = self._within(recording)
        if self.group is not None:
            require(recording, [self.group], "decoding.group", [("trial",)])
        states = recording[first_state(recording, self.state, "decoding.state")].values
        states = states.reshape(*states.shape[:2], -1)
        size, steps = states.shape[:2]
        lengths = recording["lengths"].values if "lengths" in recording else np.full(size, steps)
        groups = recording[self.group].values if self.group else recording["trial"].values
        decoder = Decoder(self.folds, self.permutations, self.bootstraps, self.penalties)
        items = _items(recording, properties)
        by_image = "image" in recording and recording["image"].dims == ("trial", "time")
        images = recording["image"].values if by_image else None
        inputs = Inputs.of(recording)
        cells, labels = _cells(recording, within), condition_labels(recording)
        found = []
        for cell, rows in cells:
            shown = {name: labels[name][value] if name in labels else value for name, value in cell.items()}
            contexts = decode_cell(
                states[rows],
                [item.take(rows) for item in items],
                groups[rows],
                None if images is None else images[rows],
                lengths[rows],
                None if inputs is None else inputs.take(rows),
                decoder,
                generator,
            )
            found += [(shown, context) for context in contexts]
        table = tabulate(found)
        arrays = {
            "null": np.stack([context.null for _, context in found]).astype(np.float32),
            "row": np.arange(len(found)),
        }
        return AnalysisResult(table, arrays)

    def figures(self, result: AnalysisResult) -> dict[str, Figure]:
        """``decoding_by_age`` (curves of every cell) and ``decoding_map_<property>`` (source step x read step)."""
        return decoding_figures.draw(result)

    def _properties(self, recording: xr.Dataset) -> tuple[str, ...]:
        names = self.properties
        if names is None:
            names = tuple(name for name in ITEM_PROPERTIES if name in recording)
            if not names:
                raise InputError(
                    "decoding.properties",
                    f"must be given: the recording has none of {', '.join(ITEM_PROPERTIES)}",
                    remedy="Name the conditions (trial, time) to decode.",
                )
        if not names:
            raise InputError("decoding.properties", "must name at least one condition", value=names)
        require(recording, names, "decoding.properties", [("trial", "time")])
        for name in names:
            if not np.issubdtype(recording[name].dtype, np.integer) and recording[name].dtype != bool:
                raise InputError("decoding.properties", "must be a condition of whole numbers (classes)", value=name)
        return tuple(names)

    def _within(self, recording: xr.Dataset) -> tuple[str, ...]:
        if self.within is None:
            return tuple(n for n in TASK_CELL if n in recording and recording[n].dims == ("trial",))
        require(recording, self.within, "decoding.within", [("trial",)])
        return self.within


def _cells(recording: xr.Dataset, within: tuple[str, ...]) -> list[tuple[dict[str, int], np.ndarray]]:
    """Each combination of cell conditions that occurs, sorted, with the rows of its trials."""
    if not within:
        return [({}, np.arange(recording.sizes["trial"]))]
    values = np.stack([recording[name].values.astype(np.int64) for name in within], axis=1)
    unique, member = np.unique(values, axis=0, return_inverse=True)
    return [
        (dict(zip(within, map(int, row), strict=True)), np.flatnonzero(member.reshape(-1) == i))
        for i, row in enumerate(unique)
    ]


def _items(recording: xr.Dataset, properties: tuple[str, ...]) -> list[Item]:
    """The properties' labels; identity also within its category, where a category is the same for each identity."""
    items = []
    for name in properties:
        labels = recording[name].values.astype(np.int64)
        parent = None
        if name == "identity" and "category" in recording and recording["category"].dims == ("trial", "time"):
            category = recording["category"].values.astype(np.int64)
            pairs = np.unique(np.stack([labels.ravel(), category.ravel()]), axis=1)
            if len(np.unique(pairs[0])) == pairs.shape[1]:  # nested: no identity has two categories
                parent = category
        items.append(Item(name, labels, parent, "category"))
    return items
