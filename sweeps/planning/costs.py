"""What one trial costs, and costs between those that were measured."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from sweeps.planning.variants import Family, Variant
from wmcore.training.trial_spec import TrialSpec

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

T = TypeVar("T", bound="DataclassInstance")


@dataclass(frozen=True)
class Cost:
    """What a trial's parts take, in seconds.

    Attributes:
        start: from the spec to the first optimiser step, with the trials of its evaluations.
        step: one optimiser step of all replicates.
        evaluation: one.
        save: one checkpoint.
        finish: the final splits with the best weights.
        checkpoint_bytes: size of one checkpoint.
    """

    start: float
    step: float
    evaluation: float
    save: float
    finish: float
    checkpoint_bytes: float

    def until(self, trial: TrialSpec, step: int) -> float:
        """Seconds from the start to the report at an evaluation's step; at the last one with the final splits."""
        evaluations = -(-step // trial.evaluation.every_steps)
        seconds = self.start + step * self.step + evaluations * (self.evaluation + self.save)
        return seconds + (self.finish if step >= trial.training.steps else 0.0)


def mean_of(kind: type[T], costs: Sequence[T]) -> T:
    """The mean of each field of a data class of numbers."""
    return kind(**{f.name: float(np.mean([getattr(cost, f.name) for cost in costs])) for f in fields(kind)})


def _loads(variant: Variant) -> Cost:
    """What each part is taken to grow with, in units of its own."""
    shown, rule = variant.networks * variant.length, variant.trial.evaluation
    return Cost(
        start=variant.networks,
        step=variant.work,
        evaluation=shown * rule.trials,
        save=variant.networks,
        finish=shown * rule.test_trials,
        checkpoint_bytes=variant.networks,
    )


class Costs:
    """Costs of any variant: a line between those of its family that were measured, and level beyond them."""

    def __init__(self, measured: Sequence[tuple[Variant, Cost]]) -> None:
        """Args: ``measured`` holds at least one variant."""
        self._families: dict[Family, list[tuple[Variant, Cost]]] = defaultdict(list)
        for variant, cost in measured:
            self._families[variant.family].append((variant, cost))

    def of(self, variant: Variant) -> Cost:
        """The cost of a variant; one of a family that was not measured costs what the others would on average."""
        if variant.family in self._families:
            return _between(self._families[variant.family], variant)
        return mean_of(Cost, [_between(family, variant) for family in self._families.values()])


def _between(measured: Sequence[tuple[Variant, Cost]], variant: Variant) -> Cost:
    found = {}
    for name, load in asdict(_loads(variant)).items():
        pairs = sorted((getattr(_loads(known), name), getattr(cost, name)) for known, cost in measured)
        loads, values = zip(*pairs, strict=True)
        found[name] = float(np.interp(load, loads, values))
    return Cost(**found)
