"""The search space: dotted paths of a trial, each with the distribution that its value is drawn from.

Written as in ``model.cell: {choice: [vanilla, gru]}``. A distribution with a condition, as in
``model.dropout: {uniform: [0, 0.5], when: {model.cell: gru}}``, is searched only where the condition holds.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from pydantic import ConfigDict, Field, RootModel, model_validator

from sweeps.conditions import Conditions
from sweeps.distributions import AnyDistribution, Distribution, Encoded, encode
from wmcore.spec import canonical_json

if TYPE_CHECKING:
    from optuna import Trial
    from optuna.distributions import BaseDistribution


class Space(RootModel[Annotated[dict[str, AnyDistribution], Field(min_length=1)]]):
    """Ordered mapping from dotted paths of the trial to distributions; at least one.

    A point of the space is a mapping from each ACTIVE path to a plain value, in the order of the file. A path without
    a condition is active everywhere.
    """

    model_config = ConfigDict(frozen=True)

    @model_validator(mode="after")
    def _conditions_make_sense(self) -> Space:
        assert self.conditions is not None
        return self

    @cached_property
    def conditions(self) -> Conditions:
        """What the paths' conditions say."""
        return Conditions(self.root)

    @property
    def paths(self) -> tuple[str, ...]:
        """The dotted paths, in the order of the file."""
        return tuple(self.root)

    @property
    def order(self) -> tuple[str, ...]:
        """The dotted paths, each after those that its condition names."""
        return self.conditions.order

    def items(self) -> Iterator[tuple[str, Distribution]]:
        """Paths with their distributions."""
        return iter(self.root.items())

    def active(self, point: Mapping[str, Any], path: str) -> bool:
        """Whether a path is searched, given the values of the active paths before it in ``order``."""
        return self.conditions.active(point, path)

    def distributions_of(self, point: Mapping[str, Any]) -> dict[str, BaseDistribution]:
        """Active path -> distribution of Optuna, at a point."""
        return {path: distribution.optuna() for path, distribution in self.items() if path in point}

    def suggest(self, trial: Trial) -> dict[str, Any]:
        """The point that Optuna suggests: its sampler is asked for the active paths, one after the other."""
        point: dict[str, Any] = {}
        for path in self.order:
            if self.active(point, path):
                point[path] = self.root[path].decode(_suggested(trial, path, self.root[path].optuna()))
        return self._in_order(point)

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

    def contains(self, point: Mapping[str, Any]) -> bool:
        """Whether this is a point of the space: its active paths and no others, each with a possible value."""
        active = {path for path in self.paths if self.active(point, path)}
        return active == set(point) and all(self.root[path].holds(value) for path, value in point.items())

    def size(self) -> int | None:
        """Number of cells; None when a distribution is continuous."""
        return self.conditions.count()

    def cells(self) -> Iterator[dict[str, Any]]:
        """Every point of a discrete space, the last path fastest.

        Raises:
            TypeError: a distribution is continuous.
        """
        values = {path: distribution.values() for path, distribution in self.items()}
        discrete = {path: listed for path, listed in values.items() if listed is not None}
        if len(discrete) < len(values):
            raise TypeError(f"{next(p for p in values if p not in discrete)} is continuous")
        return self.conditions.points(discrete)

    def points_at(self, path: str) -> list[dict[str, Any]]:
        """Points at which a path is active, one for each of its ends; every other path is at its first end that
        allows it."""
        values = {other: distribution.ends()[:1] for other, distribution in self.items()}
        values |= {other: needed[:1] for other, needed in self.conditions.needs[path].items()}
        return list(self.conditions.points({**values, path: self.root[path].ends()}))

    def combinations(self, paths: Iterable[str]) -> Iterator[dict[str, Any]]:
        """Points that combine all ends of these paths, wherever they are active; of the paths that they depend on, all
        ends and all values that a condition names. Every other path is at its first end."""
        wanted = {path: self.root[path].ends() for path in paths}
        values = {path: distribution.ends()[:1] for path, distribution in self.items()}
        for path in list(wanted):
            for parent in self.conditions.needs[path]:
                ends = [end for end in self.root[parent].ends() if end not in self.conditions.named(parent)]
                wanted[parent] = self.conditions.named(parent) + ends
        return self.conditions.points(values | wanted)

    def corner_points(self) -> list[dict[str, Any]]:
        """Every choice and every bound at least once: each path through its ends, the others at their first ones;
        and the point at which every active path is at its last end."""
        last = {path: distribution.ends()[-1:] for path, distribution in self.items()}
        points = [point for path in self.paths for point in self.points_at(path)]
        points.extend(self.conditions.points(last))
        return list({canonical_json(point): point for point in points}.values())

    def point(self, generator: np.random.Generator) -> dict[str, Any]:
        """A random point: a pure function of the generator's state."""
        return self.completed({}, generator)

    def completed(self, given: Mapping[str, Any], generator: np.random.Generator) -> dict[str, Any]:
        """A random point with some values given; those of paths that are not active there count for nothing."""
        shares = generator.random(len(self.paths)).tolist()
        return self.point_at(dict(zip(self.paths, shares, strict=True)), given)

    def point_at(self, shares: Mapping[str, float], given: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """The point at which each active path has its given value, or else lies a share (0 to 1, below 1) of the way
        through its distribution."""
        values = self.decode(self.encode(given or {}))
        point: dict[str, Any] = {}
        for path in self.order:
            if self.active(point, path):
                point[path] = values[path] if path in values else self.root[path].at(shares[path])
        return self._in_order(point)

    def _in_order(self, point: Mapping[str, Any]) -> dict[str, Any]:
        return {path: point[path] for path in self.paths if path in point}


def _suggested(trial: Trial, path: str, distribution: BaseDistribution) -> Any:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    match distribution:
        case CategoricalDistribution():
            return trial.suggest_categorical(path, distribution.choices)
        case IntDistribution():
            return trial.suggest_int(
                path, distribution.low, distribution.high, step=distribution.step, log=distribution.log
            )
        case FloatDistribution():
            return trial.suggest_float(
                path, distribution.low, distribution.high, step=distribution.step, log=distribution.log
            )
    raise TypeError(f"{distribution} is none that a space holds")
