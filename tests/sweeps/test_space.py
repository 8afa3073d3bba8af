"""Distributions and the space that they span."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from sweeps.space import Space


def space(**distributions: Any) -> Space:
    return Space.model_validate_json(json.dumps(distributions), strict=True)


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


MIXED = space(
    cell={"choice": ["gru", None, True, 2.5, [1, 2], {"kind": "x", "a": [1]}]},
    lr={"loguniform": [1e-4, 1e-2]},
    dropout={"uniform": [0, 0.5]},
    size={"int": [3, 6]},
)


def test_distributions_are_those_of_optuna():
    assert MIXED.distributions() == {
        "cell": optuna.distributions.CategoricalDistribution(("gru", None, True, 2.5, "[1,2]", '{"a":[1],"kind":"x"}')),
        "lr": optuna.distributions.FloatDistribution(1e-4, 1e-2, log=True),
        "dropout": optuna.distributions.FloatDistribution(0.0, 0.5),
        "size": optuna.distributions.IntDistribution(3, 6),
    }


def test_order_is_that_of_the_file():
    assert MIXED.paths == ("cell", "lr", "dropout", "size")
    assert list(MIXED.distributions()) == ["cell", "lr", "dropout", "size"]
    assert list(MIXED.decode({"size": 3, "cell": "gru"})) == ["cell", "size"]


def test_decode_gives_back_lists_and_mappings():
    assert MIXED.decode({"cell": "[1,2]", "size": 4}) == {"cell": [1, 2], "size": 4}
    assert MIXED.decode({"cell": '{"a":[1],"kind":"x"}'}) == {"cell": {"kind": "x", "a": [1]}}
    with pytest.raises(KeyError, match="none of the choices"):
        MIXED.decode({"cell": "lstm"})
    with pytest.raises(KeyError, match="not a path"):
        MIXED.decode({"cel": "gru"})


def test_decoded_values_cannot_change_the_space():
    MIXED.decode({"cell": "[1,2]"})["cell"].append(3)
    MIXED.corner_points()[4]["cell"].append(3)
    assert MIXED.decode({"cell": "[1,2]"}) == {"cell": [1, 2]}


def test_optuna_suggests_what_decode_understands():
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    seen = []
    for _ in range(60):
        point = MIXED.decode(study.ask(MIXED.distributions()).params)
        assert list(point) == list(MIXED.paths)
        assert isinstance(point["size"], int)
        seen.append(json.dumps(point["cell"]))
    assert len(set(seen)) == 6


def test_size():
    assert MIXED.size() is None
    assert space(a={"choice": [1, 2, 3]}, b={"int": [-2, 2]}).size() == 15


def test_corner_points_hold_every_choice_and_bound():
    points = MIXED.corner_points()
    assert {json.dumps(point["cell"]) for point in points} == {
        json.dumps(choice) for choice in ("gru", None, True, 2.5, [1, 2], {"kind": "x", "a": [1]})
    }
    assert {point["lr"] for point in points} == {1e-4, 1e-2}
    assert {point["dropout"] for point in points} == {0.0, 0.5}
    assert {point["size"] for point in points} == {3, 6}
    assert len(points) == 1 + 5 + 1 + 1 + 1 + 1


@given(st.integers(0, 2**32 - 1))
def test_points_lie_inside_and_are_pure(seed):
    point = MIXED.point(generator(seed))
    assert point == MIXED.point(generator(seed))
    assert 1e-4 <= point["lr"] <= 1e-2
    assert 0 <= point["dropout"] <= 0.5
    assert 3 <= point["size"] <= 6
    assert MIXED.decode(MIXED.encode(point)) == point
    for path, distribution in MIXED.distributions().items():
        assert distribution._contains(distribution.to_internal_repr(MIXED.encode(point)[path]))


def test_random_points_reach_both_ends_of_int_and_the_middle_of_log():
    points = [MIXED.point(generator(seed)) for seed in range(300)]
    assert {point["size"] for point in points} == {3, 4, 5, 6}
    assert np.median([np.log10(point["lr"]) for point in points]) == pytest.approx(-3, abs=0.15)


finite = st.floats(-1e9, 1e9)


@given(finite, finite)
def test_uniform_bounds_are_ordered(low, high):
    if low < high:
        assert space(x={"uniform": [low, high]}).root["x"].ends() == [low, high]
    else:
        with pytest.raises(ValidationError, match="low below high"):
            space(x={"uniform": [low, high]})


@given(
    st.lists(st.integers() | st.text() | st.booleans() | st.lists(st.integers(), max_size=2), min_size=1, max_size=6)
)
def test_choices_are_distinct(choices):
    alike = any(a == b for i, a in enumerate(choices) for b in choices[:i])
    encoded = [json.dumps(c, separators=(",", ":")) if isinstance(c, list) else c for c in choices]
    alike = alike or any(a == b for i, a in enumerate(encoded) for b in encoded[:i])
    if alike:
        with pytest.raises(ValidationError, match="twice"):
            space(x={"choice": choices})
    else:
        assert space(x={"choice": choices}).root["x"].ends() == choices


@pytest.mark.parametrize(
    ("distribution", "words"),
    [
        ({"choice": []}, "at least 1"),
        ({"choice": ["a", "a"]}, "twice"),
        ({"choice": [1, 1.0]}, "twice"),
        ({"choice": [1, True]}, "twice"),
        ({"choice": [[1, 2], [1, 2]]}, "twice"),
        ({"choice": [{"a": 1, "b": 2}, {"b": 2, "a": 1}]}, "twice"),
        ({"choice": "gru"}, "array"),
        ({"uniform": [1, 1]}, "low below high"),
        ({"uniform": [1, 0]}, "low below high"),
        ({"uniform": [0]}, "required"),
        ({"uniform": [0, 1, 2]}, "at most 2"),
        ({"uniform": ["0", 1]}, "valid number"),
        ({"loguniform": [0, 1]}, "above 0"),
        ({"loguniform": [-1, 1]}, "above 0"),
        ({"loguniform": [2, 1]}, "low below high"),
        ({"int": [1, 1]}, "low below high"),
        ({"int": [1.5, 3]}, "valid integer"),
        ({"int": [1, 3], "step": 2}, "Extra inputs"),
        ({"int": [1, 3], "uniform": [0, 1]}, "Extra inputs"),
        ({"normal": [0, 1]}, "Unable to extract tag"),
        ([1, 2], "Unable to extract tag"),
    ],
)
def test_bad_distributions(distribution, words):
    with pytest.raises(ValidationError, match=words):
        space(x=distribution)


def test_an_empty_space_is_an_error():
    with pytest.raises(ValidationError, match="at least 1"):
        space()
