"""The search space: dotted paths of a trial, each with the distribution that its value is drawn from.

Written as in ``model.cell: {choice: [vanilla, gru]}``; a distribution is recognised by its first known key.
"""

from __future__ import annotations

import builtins
import copy
import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from pydantic import AfterValidator, ConfigDict, Discriminator, Field, JsonValue, RootModel, Tag

from wmcore.spec import Spec, canonical_json

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

Encoded = None | bool | int | float | str
"""What Optuna can hold as a choice."""


def _ordered(bounds: tuple[float, float]) -> tuple[float, float]:
    if bounds[0] >= bounds[1]:
        raise ValueError(f"must be [low, high] with low below high, and {bounds[0]} is not below {bounds[1]}")
    return bounds


def _positive(bounds: tuple[float, float]) -> tuple[float, float]:
    if bounds[0] <= 0:
        raise ValueError(f"must start above 0, where a logarithm exists, and {bounds[0]} does not")
    return bounds


def _distinct(choices: tuple[JsonValue, ...]) -> tuple[JsonValue, ...]:
    seen: list[Encoded] = []
    for choice in choices:
        encoded = encode(choice)
        # Optuna finds a choice by ==, and for it 1, 1.0 and True are the same.
        if encoded in seen:
            raise ValueError(f"must not hold the same choice twice, and {choice!r} equals an earlier one")
        seen.append(encoded)
    return choices


def encode(choice: JsonValue) -> Encoded:
    """A choice as Optuna can hold it: lists and mappings become their canonical JSON.

    Raises:
        ValueError: NaN or infinity.
    """
    if isinstance(choice, float) and not math.isfinite(choice):
        raise ValueError(f"must hold finite numbers, and {choice} is not")
    return canonical_json(choice) if isinstance(choice, list | dict) else choice


class Choice(Spec):
    """One of the listed values, which may be lists or mappings."""

    choice: Annotated[tuple[JsonValue, ...], Field(min_length=1), AfterValidator(_distinct)]
    """The values; no two alike."""

    def optuna(self) -> BaseDistribution:
        """The same as a distribution of Optuna."""
        from optuna.distributions import CategoricalDistribution

        return CategoricalDistribution([encode(choice) for choice in self.choice])

    def decode(self, value: Any) -> Any:
        """The listed value behind what Optuna holds. Raises ``KeyError`` if it is not one of them."""
        for choice in self.choice:
            if encode(choice) == value:
                return copy.deepcopy(choice)
        raise KeyError(f"{value!r} is none of the choices {self.choice}")

    def size(self) -> int | None:
        """Number of values."""
        return len(self.choice)

    def ends(self) -> list[Any]:
        """Every value."""
        return [copy.deepcopy(choice) for choice in self.choice]

    def draw(self, generator: np.random.Generator) -> Any:
        """One value, each as likely as the others."""
        return copy.deepcopy(self.choice[int(generator.integers(len(self.choice)))])


class Uniform(Spec):
    """A number between two bounds, each equally likely."""

    uniform: Annotated[tuple[float, float], AfterValidator(_ordered)]
    """[low, high]."""

    def optuna(self) -> BaseDistribution:
        """The same as a distribution of Optuna."""
        from optuna.distributions import FloatDistribution

        return FloatDistribution(*self.uniform)

    def decode(self, value: Any) -> float:
        """The value behind what Optuna holds."""
        return float(value)

    def size(self) -> int | None:
        """None: continuous."""
        return None

    def ends(self) -> list[float]:
        """Both bounds."""
        return list(self.uniform)

    def draw(self, generator: np.random.Generator) -> float:
        """One value."""
        return float(generator.uniform(*self.uniform))


class LogUniform(Spec):
    """A positive number between two bounds, its logarithm equally likely everywhere."""

    loguniform: Annotated[tuple[float, float], AfterValidator(_positive), AfterValidator(_ordered)]
    """[low, high], low above 0."""

    def optuna(self) -> BaseDistribution:
        """The same as a distribution of Optuna."""
        from optuna.distributions import FloatDistribution

        return FloatDistribution(*self.loguniform, log=True)

    def decode(self, value: Any) -> float:
        """The value behind what Optuna holds."""
        return float(value)

    def size(self) -> int | None:
        """None: continuous."""
        return None

    def ends(self) -> list[float]:
        """Both bounds."""
        return list(self.loguniform)

    def draw(self, generator: np.random.Generator) -> float:
        """One value; rounding never leaves the bounds."""
        low, high = self.loguniform
        return min(max(math.exp(generator.uniform(math.log(low), math.log(high))), low), high)


class IntRange(Spec):
    """An integer between two bounds, both included."""

    int: Annotated[tuple[builtins.int, builtins.int], AfterValidator(_ordered)]
    """[low, high]."""

    def optuna(self) -> BaseDistribution:
        """The same as a distribution of Optuna."""
        from optuna.distributions import IntDistribution

        return IntDistribution(*self.int)

    def decode(self, value: Any) -> builtins.int:
        """The value behind what Optuna holds."""
        return builtins.int(value)

    def size(self) -> builtins.int | None:
        """Number of integers."""
        return self.int[1] - self.int[0] + 1

    def ends(self) -> list[builtins.int]:
        """Both bounds."""
        return list(self.int)

    def draw(self, generator: np.random.Generator) -> builtins.int:
        """One value, each as likely as the others."""
        return builtins.int(generator.integers(self.int[0], self.int[1], endpoint=True))


Distribution = Choice | Uniform | LogUniform | IntRange
DISTRIBUTIONS: dict[str, type[Distribution]] = {
    "choice": Choice,
    "uniform": Uniform,
    "loguniform": LogUniform,
    "int": IntRange,
}


def _tag(value: Any) -> str | None:
    if isinstance(value, Mapping):
        return next((key for key in value if key in DISTRIBUTIONS), None)
    return next((key for key, kind in DISTRIBUTIONS.items() if isinstance(value, kind)), None)


AnyDistribution = Annotated[
    Annotated[Choice, Tag("choice")]
    | Annotated[Uniform, Tag("uniform")]
    | Annotated[LogUniform, Tag("loguniform")]
    | Annotated[IntRange, Tag("int")],
    Discriminator(_tag),
]


class Space(RootModel[Annotated[dict[str, AnyDistribution], Field(min_length=1)]]):
    """Ordered mapping from dotted paths of the trial to distributions; at least one.

    A point of the space is a mapping from each path to a plain value.
    """

    model_config = ConfigDict(frozen=True)

    @property
    def paths(self) -> tuple[str, ...]:
        """The dotted paths, in the order of the file."""
        return tuple(self.root)

    def items(self) -> Iterator[tuple[str, Distribution]]:
        """Paths with their distributions."""
        return iter(self.root.items())

    def distributions(self) -> dict[str, BaseDistribution]:
        """Path -> distribution of Optuna."""
        return {path: distribution.optuna() for path, distribution in self.items()}

    def decode(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """The point behind Optuna's params, in the order of the space.

        Raises:
            KeyError: a path that is not of this space, or a value that is none of the choices.
        """
        for path in params:
            if path not in self.root:
                raise KeyError(f"{path!r} is not a path of this space")
        return {path: dist.decode(params[path]) for path, dist in self.items() if path in params}

    def encode(self, point: Mapping[str, Any]) -> dict[str, Encoded]:
        """Optuna's params of a point: the inverse of ``decode``."""
        return {path: encode(value) for path, value in point.items()}

    def size(self) -> int | None:
        """Number of cells; None when a distribution is continuous."""
        total = 1
        for distribution in self.root.values():
            size = distribution.size()
            if size is None:
                return None
            total *= size
        return total

    def corner_points(self) -> list[dict[str, Any]]:
        """Every choice and every bound at least once: each path through its ends, the others at their first one;
        and the point at which every path is at its last end."""
        ends = {path: distribution.ends() for path, distribution in self.items()}
        first = {path: values[0] for path, values in ends.items()}
        points = [first]
        for path, values in ends.items():
            points.extend({**first, path: value} for value in values[1:])
        points.append({path: values[-1] for path, values in ends.items()})
        return copy.deepcopy(points)

    def point(self, generator: np.random.Generator) -> dict[str, Any]:
        """A random point: a pure function of the generator's state."""
        return {path: distribution.draw(generator) for path, distribution in self.items()}
