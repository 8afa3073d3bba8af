"""What the value of one searched path is drawn from.

Written as in ``{choice: [vanilla, gru]}``; a distribution is recognised by its first known key. Beside that key stands
an optional ``when``, which says at which values of other paths this one is searched at all.
"""

from __future__ import annotations

import builtins
import copy
import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import numpy as np
from pydantic import AfterValidator, Discriminator, Field, JsonValue, Tag

from sweeps.steps import Steps, whole_steps
from wmcore.spec import Spec, canonical_json

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

Encoded = None | bool | int | float | str
"""What Optuna can hold as a choice."""

LARGEST_INTEGER = 2**53
"""Up to it every integer is a float of its own, which Optuna computes with."""

Bound = Annotated[int, Field(ge=-LARGEST_INTEGER, le=LARGEST_INTEGER)]
PositiveBound = Annotated[int, Field(ge=1, le=LARGEST_INTEGER)]
Step = Annotated[int, Field(gt=0)] | Annotated[float, Field(gt=0)]


def encode(choice: JsonValue) -> Encoded:
    """A choice as Optuna can hold it: lists and mappings become their canonical JSON.

    Raises:
        ValueError: NaN or infinity.
    """
    if isinstance(choice, float) and not math.isfinite(choice):
        raise ValueError(f"must hold finite numbers, and {choice} is not")
    return canonical_json(choice) if isinstance(choice, list | dict) else choice


def alike(one: Any, other: Any) -> bool:
    """Whether two plain values are the same; 1 and 1.0 are, 1 and true are not."""
    return encode(one) == encode(other) and isinstance(one, bool) == isinstance(other, bool)


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


class _Distribution(Spec):
    """The interface of all distributions, and the condition that each may have."""

    key: ClassVar[str]
    """What it is recognised by in YAML."""
    log: ClassVar[bool] = False
    """Whether its values are spread evenly over their logarithm."""

    when: Annotated[dict[str, JsonValue], Field(min_length=1)] | None = None
    """Searched only where each of these paths of the space has this value, or one of these values; elsewhere the path
    keeps the trial's own value."""

    @abstractmethod
    def optuna(self) -> BaseDistribution:
        """The same as a distribution of Optuna."""

    @abstractmethod
    def decode(self, value: Any) -> Any:
        """The plain value behind what Optuna holds. Raises ``KeyError`` if it is none of the choices."""

    @abstractmethod
    def holds(self, value: Any) -> bool:
        """Whether a plain value is possible."""

    @abstractmethod
    def values(self) -> Sequence[Any] | None:
        """All values in order; None: continuous."""

    @abstractmethod
    def ends(self) -> list[Any]:
        """Both bounds; of a choice, every value."""

    @abstractmethod
    def at(self, u: float) -> Any:
        """The value at a share u of the way through the distribution, 0 <= u < 1 (its quantile function)."""

    def written(self) -> list[Any]:
        """What stands under its key in YAML."""
        return self.model_dump(mode="json")[self.key]

    def draw(self, generator: np.random.Generator) -> Any:
        """One value."""
        return self.at(generator.random())

    def size(self) -> int | None:
        """Number of values; None: continuous."""
        values = self.values()
        return None if values is None else len(values)


class Choice(_Distribution):
    """One of the listed values, which may be lists or mappings."""

    key: ClassVar[str] = "choice"

    choice: Annotated[tuple[JsonValue, ...], Field(min_length=1), AfterValidator(_distinct)]
    """The values; no two alike."""

    def optuna(self) -> BaseDistribution:
        from optuna.distributions import CategoricalDistribution

        return CategoricalDistribution([encode(choice) for choice in self.choice])

    def decode(self, value: Any) -> Any:
        for choice in self.choice:
            if encode(choice) == value:
                return copy.deepcopy(choice)
        raise KeyError(f"{value!r} is none of the choices {self.choice}")

    def holds(self, value: Any) -> bool:
        return any(alike(choice, value) for choice in self.choice)

    def values(self) -> Sequence[Any]:
        return self.ends()

    def ends(self) -> list[Any]:
        return copy.deepcopy(list(self.choice))

    def at(self, u: float) -> Any:
        return copy.deepcopy(self.choice[int(u * len(self.choice))])


class Uniform(_Distribution):
    """A number between two bounds, each equally likely."""

    key: ClassVar[str] = "uniform"

    uniform: Annotated[tuple[float, float], AfterValidator(_ordered)]
    """[low, high]."""

    def optuna(self) -> BaseDistribution:
        from optuna.distributions import FloatDistribution

        return FloatDistribution(*self.uniform)

    def decode(self, value: Any) -> float:
        return float(value)

    def holds(self, value: Any) -> bool:
        return _is_number(value) and self.uniform[0] <= value <= self.uniform[1]

    def values(self) -> None:
        return None

    def ends(self) -> list[float]:
        return list(self.uniform)

    def at(self, u: float) -> float:
        low, high = self.uniform
        return min(max((1 - u) * low + u * high, low), high)


class LogUniform(_Distribution):
    """A positive number between two bounds, its logarithm equally likely everywhere."""

    key: ClassVar[str] = "loguniform"
    log: ClassVar[bool] = True

    loguniform: Annotated[tuple[float, float], AfterValidator(_positive), AfterValidator(_ordered)]
    """[low, high], low above 0."""

    def optuna(self) -> BaseDistribution:
        from optuna.distributions import FloatDistribution

        return FloatDistribution(*self.loguniform, log=True)

    def decode(self, value: Any) -> float:
        return float(value)

    def holds(self, value: Any) -> bool:
        return _is_number(value) and self.loguniform[0] <= value <= self.loguniform[1]

    def values(self) -> None:
        return None

    def ends(self) -> list[float]:
        return list(self.loguniform)

    def at(self, u: float) -> float:
        low, high = self.loguniform
        return min(max(math.exp((1 - u) * math.log(low) + u * math.log(high)), low), high)


class IntRange(_Distribution):
    """An integer between two bounds, both included."""

    key: ClassVar[str] = "int"

    int: Annotated[tuple[Bound, Bound], AfterValidator(_ordered)]
    """[low, high]."""

    def optuna(self) -> BaseDistribution:
        from optuna.distributions import IntDistribution

        return IntDistribution(*self.int)

    def decode(self, value: Any) -> builtins.int:
        return builtins.int(value)

    def holds(self, value: Any) -> bool:
        return _is_integer(value) and self.int[0] <= value <= self.int[1]

    def values(self) -> Sequence[builtins.int]:
        return range(self.int[0], self.int[1] + 1)

    def ends(self) -> list[builtins.int]:
        return list(self.int)

    def at(self, u: float) -> builtins.int:
        values = self.values()
        return values[builtins.int(u * len(values))]


class LogIntRange(_Distribution):
    """A positive integer between two bounds, both included, its logarithm equally likely everywhere.

    A number is drawn log-uniformly from half a step below the low bound to half a step above the high one and rounded,
    so that k has the probability log((k + 1/2) / (k - 1/2)) / log((high + 1/2) / (low - 1/2)).
    """

    key: ClassVar[str] = "logint"
    log: ClassVar[bool] = True

    logint: Annotated[tuple[PositiveBound, PositiveBound], AfterValidator(_ordered)]
    """[low, high], low at least 1."""

    def optuna(self) -> BaseDistribution:
        from optuna.distributions import IntDistribution

        return IntDistribution(*self.logint, log=True)

    def decode(self, value: Any) -> int:
        return int(value)

    def holds(self, value: Any) -> bool:
        return _is_integer(value) and self.logint[0] <= value <= self.logint[1]

    def values(self) -> Sequence[int]:
        return range(self.logint[0], self.logint[1] + 1)

    def ends(self) -> list[int]:
        return list(self.logint)

    def at(self, u: float) -> int:
        low, high = self.logint
        drawn = math.exp((1 - u) * math.log(low - 0.5) + u * math.log(high + 0.5))
        return min(max(round(drawn), low), high)


class Quantised(_Distribution):
    """One of evenly spaced numbers between two bounds, both included; integers if bounds and step are."""

    key: ClassVar[str] = "quantised"

    quantised: Annotated[tuple[int | float, int | float, Step], AfterValidator(whole_steps)]
    """[low, high, step], high a whole number of steps above low."""

    def optuna(self) -> BaseDistribution:
        from optuna.distributions import FloatDistribution, IntDistribution

        low, high, step = self.quantised
        if all(isinstance(number, int) for number in self.quantised):
            return IntDistribution(int(low), int(high), step=int(step))
        return FloatDistribution(low, high, step=step)

    def decode(self, value: Any) -> float:
        return Steps(self.quantised).nearest(value)

    def holds(self, value: Any) -> bool:
        whole = isinstance(self.ends()[0], int)
        fits = _is_integer(value) if whole else _is_number(value)
        return fits and math.isfinite(value) and self.decode(value) == value

    def values(self) -> Sequence[float]:
        return Steps(self.quantised)

    def ends(self) -> list[float]:
        values = self.values()
        return [values[0], values[-1]]

    def at(self, u: float) -> float:
        values = self.values()
        return values[int(u * len(values))]


Distribution = Choice | Uniform | LogUniform | IntRange | LogIntRange | Quantised
DISTRIBUTIONS: dict[str, type[Distribution]] = {
    kind.key: kind for kind in (Choice, Uniform, LogUniform, IntRange, LogIntRange, Quantised)
}


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _tag(value: Any) -> str | None:
    if isinstance(value, Mapping):
        return next((key for key in value if key in DISTRIBUTIONS), None)
    return next((key for key, kind in DISTRIBUTIONS.items() if isinstance(value, kind)), None)


AnyDistribution = Annotated[
    Annotated[Choice, Tag("choice")]
    | Annotated[Uniform, Tag("uniform")]
    | Annotated[LogUniform, Tag("loguniform")]
    | Annotated[IntRange, Tag("int")]
    | Annotated[LogIntRange, Tag("logint")]
    | Annotated[Quantised, Tag("quantised")],
    Discriminator(_tag),
]
