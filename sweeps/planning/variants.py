"""Variants of a sweep's space, and those of them that a probe times."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sweeps.spec import SweepSpec
from wmcore.seeding import numpy_generator
from wmcore.spec import canonical_json
from wmcore.training.checkpoint import build_model
from wmcore.training.trial_spec import TrialSpec

DRAWS = 64
"""Random points of a space that stand for the trials of a search."""
MOST_FAMILIES = 6
"""Families that are timed; the others are taken to cost what these do on average."""
FAR_APART = 4.0
"""Beyond this ratio of the work at its ends, a family is timed in its middle, too."""

Family = tuple[tuple[str, str], ...]
"""The searched values that are no numbers, by path: variants of one family differ in numbers only."""


@dataclass(frozen=True)
class Variant:
    """One point of a space.

    Attributes:
        trial: what is trained there.
        family: of its point.
        parameters: trainable ones of one network.
        length: product of the searched integers of the task, which are taken to be numbers of steps or items.
    """

    trial: TrialSpec
    family: Family
    parameters: int
    length: int

    @property
    def work(self) -> int:
        """What an optimiser step's time is taken to grow with."""
        return self.networks * self.length * self.trial.training.batch_size

    @property
    def networks(self) -> int:
        """Trainable parameters of all replicates."""
        return self.parameters * self.trial.replicates


@dataclass(frozen=True)
class Variants:
    """Attributes:
    ends: the ends of every path of the space.
    drawn: random points of the space.
    """

    ends: list[Variant]
    drawn: list[Variant]

    def parameters(self) -> tuple[int, int]:
        """Least and most trainable parameters of one network."""
        counts = [variant.parameters for variant in (*self.ends, *self.drawn)]
        return min(counts), max(counts)

    def to_probe(self) -> list[Variant]:
        """Of each family the variants with the least and the most work, and one between them if these are far apart.

        The commonest families come first.
        """
        common = [family for family, _ in Counter(variant.family for variant in self.drawn).most_common(MOST_FAMILIES)]
        chosen = []
        for family in common:
            members = [variant for variant in (*self.ends, *self.drawn) if variant.family == family]
            members.sort(key=lambda variant: variant.work)
            least, most = members[0], members[-1]
            chosen.append(least)
            if most.work > FAR_APART * least.work:
                middle = (least.work * most.work) ** 0.5
                chosen.append(min(members, key=lambda variant: abs(variant.work - middle)))
            if most.work > least.work:
                chosen.append(most)
        return chosen


def variants_of(spec: SweepSpec) -> Variants:
    """The ends of a sweep's space and random points of it, always the same ones.

    Raises:
        InputError: a point that the trial refuses.
    """
    generator, counts = numpy_generator(0, "plan"), dict[str, int]()
    ends = [_variant(spec, point, counts) for point in spec.search.space.corner_points()]
    drawn = [_variant(spec, spec.search.space.point(generator), counts) for _ in range(DRAWS)]
    return Variants(ends, drawn)


def _variant(spec: SweepSpec, point: Mapping[str, Any], counts: dict[str, int]) -> Variant:
    trial = spec.trial_for(point)
    others = {path: value for path, value in point.items() if not _is_number(value)}
    family = tuple(sorted((path, canonical_json(value)) for path, value in others.items()))
    length = 1
    for path, value in point.items():
        if path.startswith("task.") and _is_number(value) and isinstance(value, int):
            length *= max(1, value)
    return Variant(trial, family, _parameters(trial, counts), length)


def _parameters(trial: TrialSpec, known: dict[str, int]) -> int:
    """Trainable parameters; ``known`` spares building the same network twice."""
    channels = sorted((name, channel.kind, channel.shape) for name, channel in trial.task.input_channels().items())
    key = canonical_json([trial.model.content_hash(), channels, trial.task.output_size])
    if key not in known:
        known[key] = sum(p.numel() for p in build_model(trial, 0).parameters() if p.requires_grad)
    return known[key]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def spread_out(variants: Sequence[Variant], count: int) -> list[Variant]:
    """``count`` variants at evenly spaced ranks of work: one is the middle one."""
    ranked = sorted(variants, key=lambda variant: variant.work)
    return [ranked[int((i + 0.5) / count * len(ranked))] for i in range(count)]
