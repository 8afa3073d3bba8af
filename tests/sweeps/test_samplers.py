"""The samplers that learn from outcomes, asked path by path."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import optuna
import pytest

from sweeps.samplers import (
    AnySampler,
    CmaEsSpec,
    GridSpec,
    Nsga2Spec,
    RandomSpec,
    SobolSpec,
    TpeSpec,
    is_sequence,
    optuna_sampler,
    replays,
)
from sweeps.space import Space
from tests.fixtures.spaces import MIXED, NESTED, space
from wmcore.seeding import derive_seed
from wmcore.spec import canonical_json

NUMERIC = space(
    a={"uniform": [-1, 1]}, b={"loguniform": [1e-3, 1]}, c={"int": [1, 9]}, d={"logint": [1, 64]},
    e={"quantised": [0, 1, 0.1]},
)  # fmt: skip
LEARNING = {
    "tpe": (TpeSpec(startup_trials=5), (MIXED, NESTED, NUMERIC)),
    "cmaes": (CmaEsSpec(population=4), (NUMERIC,)),
    "nsga2": (Nsga2Spec(population=5), (MIXED, NESTED, NUMERIC)),
}


def asked(
    spec: AnySampler, some: Space, count: int, value: Callable[[dict[str, Any]], Any], seed: int = 0
) -> list[dict[str, Any]]:
    """Points that a study suggests when it is told the value of each at once."""
    values = value(some.corner_points()[0])
    study = optuna.create_study(directions=["minimize"] * (len(values) if isinstance(values, tuple) else 1))
    points = []
    for number in range(count):
        study.sampler = optuna_sampler(spec, derive_seed(seed, number) % 2**32)
        trial = study.ask()
        points.append(some.suggest(trial))
        study.tell(trial, value(points[-1]))
    return points


def number(point: dict[str, Any]) -> float:
    """Some value of a point."""
    return float(derive_seed(0, canonical_json(point)) % 1000)


@pytest.mark.parametrize("kind", LEARNING)
def test_suggestions_lie_inside_every_space_and_are_pure(kind, caplog, recwarn):
    spec, some_spaces = LEARNING[kind]
    optuna.logging.enable_propagation()
    with caplog.at_level(logging.WARNING, logger="optuna"):
        for some in some_spaces:
            points = asked(spec, some, 30, number)
            assert all(some.contains(point) for point in points)
            assert points == asked(spec, some, 30, number)
    assert caplog.records == []
    assert list(recwarn) == []


def test_several_objectives():
    for kind in ("tpe", "nsga2"):
        points = asked(LEARNING[kind][0], NESTED, 30, lambda point: (number(point), -number(point)))
        assert all(NESTED.contains(point) for point in points)


@pytest.mark.parametrize(("kind", "count"), [("tpe", 40), ("cmaes", 80), ("nsga2", 80)])
def test_it_learns_where_the_best_values_are(kind, count):
    """The last suggestions lie nearer to the bottom of a bowl than random points do; those lie 1.19 high on average."""
    bowl = space(x={"uniform": [-1, 1]}, y={"uniform": [-1, 1]})

    def depth(point: dict[str, Any]) -> float:
        return (point["x"] - 0.6) ** 2 + (point["y"] + 0.4) ** 2

    last = [depth(point) for seed in range(4) for point in asked(LEARNING[kind][0], bowl, count, depth, seed)[-15:]]
    assert sum(last) / len(last) < 0.6


def test_which_are_sequences_and_which_are_replayed():
    kinds = (TpeSpec(), RandomSpec(), GridSpec(), SobolSpec(), CmaEsSpec(), Nsga2Spec())
    assert {spec.kind for spec in kinds if is_sequence(spec)} == {"random", "grid", "sobol"}
    assert {spec.kind for spec in kinds if replays(spec)} == {"cmaes", "nsga2"}
    for spec in kinds:
        if is_sequence(spec):
            with pytest.raises(TypeError, match="sequence of points"):
                optuna_sampler(spec, 0)
