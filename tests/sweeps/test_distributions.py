"""What one path is drawn from: values, bounds, quantiles, and what Optuna holds of it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from sweeps.distributions import DISTRIBUTIONS, Distribution
from tests.fixtures.spaces import MIXED, space

INSIDE = 1 - 2**-53
"""The largest share below 1."""


def distribution(**entry: Any) -> Distribution:
    return space(x=entry).root["x"]


def test_each_is_that_of_optuna():
    found = {path: dist.optuna() for path, dist in MIXED.items()}
    assert found == {
        "cell": optuna.distributions.CategoricalDistribution(("gru", None, True, 2.5, "[1,2]", '{"a":[1],"kind":"x"}')),
        "lr": optuna.distributions.FloatDistribution(1e-4, 1e-2, log=True),
        "dropout": optuna.distributions.FloatDistribution(0.0, 0.5),
        "size": optuna.distributions.IntDistribution(3, 6),
        "units": optuna.distributions.IntDistribution(1, 300, log=True),
        "noise": optuna.distributions.FloatDistribution(0, 0.3, step=0.1),
    }
    assert distribution(quantised=[2, 8, 3]).optuna() == optuna.distributions.IntDistribution(2, 8, step=3)


@pytest.mark.parametrize(
    ("entry", "values"),
    [
        ({"choice": ["b", None, [1, 2]]}, ["b", None, [1, 2]]),
        ({"int": [-1, 2]}, [-1, 0, 1, 2]),
        ({"logint": [3, 6]}, [3, 4, 5, 6]),
        ({"quantised": [2, 8, 3]}, [2, 5, 8]),
        ({"quantised": [0, 1, 0.25]}, [0.0, 0.25, 0.5, 0.75, 1.0]),
        # In binary fractions 3 * 0.1 is 0.30000000000000004 and 0.1 + 0.7 is 0.7999999999999999.
        ({"quantised": [0, 0.7, 0.1]}, [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7]),
        ({"quantised": [0.1, 1.5, 0.7]}, [0.1, 0.8, 1.5]),
        ({"quantised": [-0.3, 0.3, 0.3]}, [-0.3, 0.0, 0.3]),
        ({"quantised": [1.0e-4, 4.0e-4, 1.0e-4]}, [1e-4, 2e-4, 3e-4, 4e-4]),
    ],
)
def test_values_ends_and_size(entry, values):
    found = distribution(**entry)
    listed = found.values()
    assert listed is not None
    assert list(listed) == values
    assert [type(value) for value in listed] == [type(value) for value in values]
    assert found.size() == len(values)
    assert found.ends() == (values if "choice" in entry else [values[0], values[-1]])
    assert (found.at(0.0), found.at(INSIDE)) == (values[0], values[-1])
    assert all(found.holds(value) for value in values)


def test_continuous_ones_have_bounds_and_no_values():
    for entry in ({"uniform": [1, 4]}, {"loguniform": [1, 4]}):
        found = distribution(**entry)
        assert (found.values(), found.size(), found.ends()) == (None, None, [1.0, 4.0])
        assert found.at(0.0) == 1.0
        assert found.at(INSIDE) == pytest.approx(4.0)
    assert distribution(uniform=[1, 4]).at(0.5) == 2.5
    assert distribution(loguniform=[1, 4]).at(0.5) == pytest.approx(2.0)
    # The difference of these bounds is no float.
    assert distribution(uniform=[-1.7e308, 1.7e308]).at(0.5) == 0.0


def test_only_logarithmic_ones_say_so():
    assert {key for key, kind in DISTRIBUTIONS.items() if kind.log} == {"loguniform", "logint"}


@pytest.mark.parametrize(
    "entry", [{"choice": ["a", "b", "c"]}, {"int": [3, 7]}, {"quantised": [0, 1, 0.1]}, {"quantised": [1, 9, 2]}]
)
def test_each_value_is_as_likely_as_the_others(entry):
    found = distribution(**entry)
    size = found.size()
    assert size is not None
    shares = (np.arange(size * 60) + 0.5) / (size * 60)
    values = [found.at(share) for share in shares]
    assert [values.count(value) for value in found.values() or ()] == [60] * size


def test_logint_is_log_uniform_and_reaches_both_bounds():
    found = distribution(logint=[1, 50])
    count = 200_000
    values = np.array([found.at(share) for share in (np.arange(count) + 0.5) / count])
    for k in (1, 2, 7, 49, 50):
        expected = math.log((k + 0.5) / (k - 0.5)) / math.log(50.5 / 0.5)
        assert np.mean(values == k) == pytest.approx(expected, abs=2 / count)
    assert (values.min(), values.max()) == (1, 50)


def test_draws_follow_the_quantiles():
    generator = np.random.default_rng(0)
    for _, found in MIXED.items():
        again = np.random.default_rng(1)
        assert [found.draw(np.random.default_rng(1))] == [found.at(again.random())]
        assert all(found.holds(found.draw(generator)) for _ in range(50))


@settings(deadline=None)
@given(st.integers(-1000, 1000), st.integers(1, 500), st.integers(1, 40), st.sampled_from([1, 10, 1000]))
def test_quantised_values_are_the_decimals_that_they_are_written_as(low, step, steps, divisor):
    """Low and step have at most three decimal places, so that every value has."""
    found = distribution(quantised=[low / divisor, (low + steps * step) / divisor, step / divisor])
    assert list(found.values() or ()) == [(low + k * step) / divisor for k in range(steps + 1)]
    held = found.optuna()
    for value in found.values() or ():
        assert found.decode(value) == value
        # Optuna refuses a param that its distribution does not contain.
        optuna.trial.create_trial(params={"x": value}, distributions={"x": held}, value=0.0)


@settings(deadline=None)
@given(st.floats(0, 1, exclude_max=True))
def test_every_share_gives_a_possible_value(share):
    for _, found in MIXED.items():
        assert found.holds(found.at(share))


def test_optuna_suggestions_are_decoded_without_drift():
    """Optuna computes 0.1 + 2 * 0.7 in binary fractions."""
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    grid = space(x={"quantised": [0.1, 2.9, 0.7]})
    found = {grid.suggest(study.ask())["x"] for _ in range(60)}
    assert found == {0.1, 0.8, 1.5, 2.2, 2.9}


def test_decode_gives_back_lists_and_mappings():
    found = distribution(choice=["gru", [1, 2], {"kind": "x", "a": [1]}])
    assert found.decode("[1,2]") == [1, 2]
    assert found.decode('{"a":[1],"kind":"x"}') == {"kind": "x", "a": [1]}
    with pytest.raises(KeyError, match="none of the choices"):
        found.decode("lstm")


@pytest.mark.parametrize(
    ("entry", "others"),
    [
        ({"choice": [1, "a", [1, 2]]}, [True, "b", [1], [1, 2, 3], None, "[1,2]x"]),
        ({"uniform": [0, 1]}, [-0.1, 1.1, True, "0.5", None, [0.5]]),
        ({"loguniform": [0.1, 1]}, [0.05, 2, False, "0.5"]),
        ({"int": [1, 3]}, [0, 4, 2.0, True, "2"]),
        ({"logint": [1, 3]}, [0, 4, 2.0, True]),
        ({"quantised": [0, 1, 0.25]}, [0.3, 1.25, -0.25, True, "0.25", None]),
        ({"quantised": [0, 4, 2]}, [1, 6, 2.0, False]),
    ],
)
def test_impossible_values_are_not_held(entry, others):
    found = distribution(**entry)
    assert not any(found.holds(value) for value in others)


def test_whole_numbers_stand_for_fractions():
    assert distribution(uniform=[0, 2]).holds(1)
    assert distribution(quantised=[0, 1, 0.5]).holds(1)
    assert distribution(choice=[1.0, 2.0]).holds(1)


finite = st.floats(-1e9, 1e9)


@settings(deadline=None)
@given(finite, finite)
def test_bounds_are_ordered(low, high):
    if low < high:
        assert distribution(uniform=[low, high]).ends() == [low, high]
    else:
        with pytest.raises(ValidationError, match="low below high"):
            distribution(uniform=[low, high])


@settings(deadline=None)
@given(
    st.lists(st.integers() | st.text() | st.booleans() | st.lists(st.integers(), max_size=2), min_size=1, max_size=6)
)
def test_choices_are_distinct(choices):
    alike = any(a == b for i, a in enumerate(choices) for b in choices[:i])
    encoded = [str(c).replace(" ", "") if isinstance(c, list) else c for c in choices]
    alike = alike or any(a == b for i, a in enumerate(encoded) for b in encoded[:i])
    if alike:
        with pytest.raises(ValidationError, match="twice"):
            distribution(choice=choices)
    else:
        assert distribution(choice=choices).ends() == choices


@pytest.mark.parametrize(
    ("entry", "words"),
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
        ({"int": [0, 2**53 + 1]}, "less than or equal to"),
        ({"int": [1, 3], "step": 2}, "Extra inputs"),
        ({"int": [1, 3], "uniform": [0, 1]}, "Extra inputs"),
        ({"logint": [0, 4]}, "greater than or equal to 1"),
        ({"logint": [4, 2]}, "low below high"),
        ({"logint": [1, 2.5]}, "valid integer"),
        ({"quantised": [0, 1]}, "required"),
        ({"quantised": [0, 1, 0]}, "greater than 0"),
        ({"quantised": [0, 1, -0.5]}, "greater than 0"),
        ({"quantised": [1, 0, 0.5]}, "low below high"),
        ({"quantised": [0, 1, 0.3]}, "the steps meet 0.9 and 1.2"),
        ({"quantised": [0, 5, 2]}, "the steps meet 4 and 6"),
        ({"quantised": [0, 1, 1e-16]}, "at most as many steps"),
        ({"quantised": [0, 1e17, 1e17]}, "within 9007199254740992 of 0"),
        ({"normal": [0, 1]}, "Unable to extract tag"),
        ([1, 2], "Unable to extract tag"),
    ],
)
def test_bad_distributions(entry, words):
    with pytest.raises(ValidationError, match=words):
        space(x=entry)
