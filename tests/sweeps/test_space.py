"""The space that distributions and their conditions span."""

from __future__ import annotations

import json
from collections import Counter
from itertools import islice

import numpy as np
import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from tests.fixtures.spaces import MIXED, NESTED, NESTED_SIZE, space, spaces
from wmcore.spec import canonical_json


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_order_is_that_of_the_file():
    assert MIXED.paths == MIXED.order == ("cell", "lr", "dropout", "size", "units", "noise")
    assert list(MIXED.decode({"size": 3, "cell": "gru"})) == ["cell", "size"]
    assert list(MIXED.point(generator())) == list(MIXED.paths)


def test_a_path_comes_after_those_that_it_depends_on():
    assert NESTED.paths == ("forget", "cell", "gates", "lr", "peephole")
    assert NESTED.order == ("cell", "gates", "forget", "lr", "peephole")
    # A point is written as the file is.
    point = NESTED.decode({"cell": "gru", "gates": 2, "lr": 0.1, "forget": 0.5})
    assert list(point) == ["forget", "cell", "gates", "lr"]


def test_decode_knows_its_paths_and_choices():
    with pytest.raises(KeyError, match="none of the choices"):
        MIXED.decode({"cell": "lstm"})
    with pytest.raises(KeyError, match="not a path"):
        MIXED.decode({"cel": "gru"})


def test_decoded_values_cannot_change_the_space():
    for changed in (MIXED.decode({"cell": "[1,2]"}), MIXED.corner_points()[4]):
        assert changed["cell"] == [1, 2]
        changed["cell"].append(3)
    cells = space(x={"choice": [[1, 2]]})
    next(cells.cells())["x"].append(3)
    assert MIXED.decode({"cell": "[1,2]"}) == {"cell": [1, 2]}
    assert list(cells.cells()) == [{"x": [1, 2]}]


def test_size():
    assert MIXED.size() is None
    assert space(a={"choice": [1, 2, 3]}, b={"int": [-2, 2]}).size() == 15
    assert NESTED.size() == NESTED_SIZE


def test_large_spaces_are_counted_and_not_enumerated():
    wide = {f"p{i}": {"logint": [1, 10**9]} for i in range(20)}
    assert space(**wide).size() == 10**180
    # Twenty pairs, each of a parent and a child that is searched at one of its values.
    for i in range(20):
        wide[f"q{i}"] = {"choice": [1, 2, 3], "when": {f"p{i}": 7}}
    assert space(**wide).size() == (10**9 - 1 + 3) ** 20
    # One parent with thirty children, each with a child of its own.
    tree = {"root": {"choice": ["on", "off"]}}
    for i in range(30):
        tree[f"c{i}"] = {"choice": [1, 2], "when": {"root": "on"}}
    for i in range(30):
        tree[f"d{i}"] = {"choice": [1, 2, 3], "when": {f"c{i}": 1}}
    assert space(**tree).size() == 1 + (3 + 1) ** 30


def test_cells_run_through_the_last_path_first():
    assert list(space(a={"choice": ["x", "y"]}, b={"int": [1, 2]}).cells()) == [
        {"a": "x", "b": 1},
        {"a": "x", "b": 2},
        {"a": "y", "b": 1},
        {"a": "y", "b": 2},
    ]


def test_nested_cells_are_those_of_the_conditions():
    cells = list(NESTED.cells())
    assert cells[:4] == [
        {"cell": "vanilla", "lr": 0.1},
        {"cell": "vanilla", "lr": 0.01},
        {"cell": "gru", "gates": 1, "lr": 0.1},
        {"cell": "gru", "gates": 1, "lr": 0.01},
    ]
    assert cells[-1] == {"cell": "lstm", "gates": 3, "lr": 0.01, "peephole": False}
    assert Counter(tuple(cell) for cell in cells) == {
        ("cell", "lr"): 2,
        ("cell", "gates", "lr"): 2 * 2 + 2,  # gru with 1 or 3 gates, lstm with 1
        ("forget", "cell", "gates", "lr"): 3 * 2,  # gru with 2 gates
        ("cell", "gates", "lr", "peephole"): 2 * 2,  # lstm with 3 gates
        ("forget", "cell", "gates", "lr", "peephole"): 3 * 2 * 2,
    }


def test_a_continuous_space_has_no_cells():
    with pytest.raises(TypeError, match="lr is continuous"):
        MIXED.cells()


def test_activity_follows_the_values_of_other_paths():
    assert NESTED.active({"cell": "gru"}, "gates")
    assert not NESTED.active({"cell": "vanilla"}, "gates")
    # Its parent is not searched, whatever value the trial has there.
    assert not NESTED.active({"cell": "vanilla"}, "forget")
    assert NESTED.active({"cell": "gru", "gates": 2}, "forget")
    assert not NESTED.active({"cell": "gru", "gates": 2}, "peephole")
    assert NESTED.active({"cell": "lstm", "gates": 2}, "peephole")


def test_a_condition_names_a_value_or_a_list_of_them():
    """A choice may itself be a list."""
    lists = space(n={"choice": [[1], [1, 2], 3]}, x={"int": [0, 1], "when": {"n": [1, 2]}})
    assert [cell for cell in lists.cells() if "x" in cell] == [{"n": [1, 2], "x": 0}, {"n": [1, 2], "x": 1}]
    several = space(n={"choice": [[1], [1, 2], 3]}, x={"int": [0, 1], "when": {"n": [[1], 3]}})
    assert [cell["n"] for cell in several.cells() if "x" in cell] == [[1], [1], 3, 3]
    fraction = space(n={"quantised": [0, 1, 0.5]}, x={"int": [0, 1], "when": {"n": 1}})
    assert [cell["n"] for cell in fraction.cells() if "x" in cell] == [1.0, 1.0]
    # A point holds the path's own kind of number, however the condition writes it.
    assert [canonical_json(point["n"]) for point in fraction.points_at("x")] == ["1.0", "1.0"]
    truth = space(n={"choice": [1, "on"]}, x={"int": [0, 1], "when": {"n": 1}})
    assert not truth.active({"n": True}, "x")


@pytest.mark.parametrize(
    ("point", "inside"),
    [
        ({"cell": "vanilla", "lr": 0.1}, True),
        ({"lr": 0.1, "cell": "vanilla"}, True),
        ({"cell": "vanilla"}, False),
        ({"cell": "vanilla", "lr": 0.5}, False),
        ({"cell": "vanilla", "lr": 0.1, "gates": 1}, False),
        ({"cell": "gru", "lr": 0.1}, False),
        ({"cell": "gru", "lr": 0.1, "gates": 1}, True),
        ({"cell": "gru", "lr": 0.1, "gates": 2}, False),
        ({"cell": "gru", "lr": 0.1, "gates": 2, "forget": 0.5}, True),
        ({"cell": "gru", "lr": 0.1, "gates": 2, "forget": 0.4}, False),
        ({"cell": "gru", "lr": 0.1, "gates": 1, "speed": 1}, False),
        ({}, False),
    ],
)
def test_contains(point, inside):
    assert NESTED.contains(point) is inside


def test_corner_points_hold_every_choice_and_bound():
    points = MIXED.corner_points()
    assert {json.dumps(point["cell"]) for point in points} == {
        json.dumps(choice) for choice in ("gru", None, True, 2.5, [1, 2], {"kind": "x", "a": [1]})
    }
    assert {point["lr"] for point in points} == {1e-4, 1e-2}
    assert {point["dropout"] for point in points} == {0.0, 0.5}
    assert {point["size"] for point in points} == {3, 6}
    assert {point["units"] for point in points} == {1, 300}
    assert {point["noise"] for point in points} == {0.0, 0.3}
    assert len(points) == 1 + 5 + 1 + 1 + 1 + 1 + 1 + 1


@settings(deadline=None)
@given(spaces(continuous=True))
def test_corner_points_hold_every_end_of_every_path(some):
    points = some.corner_points()
    assert all(some.contains(point) for point in points)
    for path, distribution in some.items():
        held = {canonical_json(point[path]) for point in points if path in point}
        assert held >= {canonical_json(end) for end in distribution.ends()}
        assert all(path in point for point in some.points_at(path))


@settings(deadline=None)
@given(spaces())
def test_cells_are_all_points_once(some):
    cells = [canonical_json(cell) for cell in some.cells()]
    assert len(set(cells)) == len(cells) == some.size()
    assert all(some.contains(cell) for cell in some.cells())
    drawn = {canonical_json(some.point(generator(seed))) for seed in range(20)}
    assert drawn <= set(cells)


@settings(deadline=None)
@given(spaces(continuous=True), st.integers(0, 2**32 - 1))
def test_points_lie_inside_and_are_pure(some, seed):
    point = some.point(generator(seed))
    assert some.contains(point)
    assert point == some.point(generator(seed))
    assert list(point) == [path for path in some.paths if path in point]
    assert some.decode(some.encode(point)) == point
    held = some.distributions_of(point)
    assert list(held) == list(point)
    # Optuna refuses a param that its distribution does not contain.
    trial = optuna.trial.create_trial(params=some.encode(point), distributions=held, value=0.0)
    assert some.decode(trial.params) == point


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_points_that_optuna_is_given_come_back(seed):
    for some in (MIXED, NESTED):
        study = optuna.create_study()
        point = some.point(generator(seed))
        study.enqueue_trial(some.encode(point))
        assert some.suggest(study.ask()) == point


def test_random_points_reach_both_ends_of_int_and_the_middle_of_log():
    points = [MIXED.point(generator(seed)) for seed in range(300)]
    assert {point["size"] for point in points} == {3, 4, 5, 6}
    assert np.median([np.log10(point["lr"]) for point in points]) == pytest.approx(-3, abs=0.15)
    assert {tuple(NESTED.point(generator(seed))) for seed in range(100)} == {tuple(cell) for cell in NESTED.cells()}


def test_given_values_are_kept_and_the_rest_is_drawn():
    points = [NESTED.completed({"cell": "gru", "gates": 2}, generator(seed)) for seed in range(40)]
    assert all(NESTED.contains(point) for point in points)
    assert {(point["cell"], point["gates"]) for point in points} == {("gru", 2)}
    assert {point["forget"] for point in points} == {0.0, 0.5, 1.0}
    # Whole numbers become what the sampler itself would give.
    assert canonical_json(MIXED.completed({"dropout": 0}, generator())["dropout"]) == "0.0"


def test_optuna_is_asked_for_active_paths_alone():
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    seen = set()
    for _ in range(500):
        trial = study.ask()
        point = NESTED.suggest(trial)
        assert NESTED.contains(point)
        assert set(trial.params) == set(point)
        assert NESTED.decode(trial.params) == point
        seen.add(canonical_json(point))
    assert len(seen) == NESTED_SIZE


def test_combinations_of_some_paths_leave_the_others_at_their_first_end():
    found = list(NESTED.combinations(["peephole"]))
    # cell and gates run through what peephole depends on; forget and lr stand still.
    assert {(p["cell"], p.get("gates"), p.get("peephole")) for p in found} == {
        ("vanilla", None, None),
        *(("gru", gates, None) for gates in (1, 2, 3)),
        ("lstm", 1, None),
        *(("lstm", gates, value) for gates in (2, 3) for value in (True, False)),
    }
    assert {p["lr"] for p in found} == {0.1}
    assert {p["forget"] for p in found if "forget" in p} == {0.0}
    assert list(islice(NESTED.combinations([]), 2)) == [{"cell": "vanilla", "lr": 0.1}]


def test_an_empty_space_is_an_error():
    with pytest.raises(ValidationError, match="at least 1"):
        space()


CELL = {"choice": ["gru", "lstm", "rnn"]}


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ({"x": {"int": [0, 1], "when": {"y": 1}}}, "x.when.y is not a path of this space"),
        ({"x": {"int": [0, 1], "when": {"x": 1}}}, "x.when.x makes the path depend on itself"),
        (
            {"x": {"int": [0, 1], "when": {"y": 1}}, "y": {"uniform": [0, 1]}},
            "x.when.y is 1, but it is a condition on a continuous path (uniform)",
        ),
        (
            {"cell": CELL, "x": {"int": [0, 1], "when": {"cell": ["gru", "lsmt"]}}},
            "x.when.cell.1 is 'lsmt', but it must be one of the choices 'gru', 'lstm', 'rnn'. Did you mean lstm?",
        ),
        (
            {"n": {"int": [1, 4]}, "x": {"int": [0, 1], "when": {"n": True}}},
            "x.when.n is True, but it must be a value of int: [1, 4]. For example 1 or 4.",
        ),
        ({"n": {"quantised": [0, 4, 2]}, "x": {"int": [0, 1], "when": {"n": 3}}}, "quantised: [0, 4, 2]"),
        ({"cell": CELL, "x": {"int": [0, 1], "when": {"cell": []}}}, "x.when.cell is [], but it must be a value"),
        ({"cell": CELL, "x": {"int": [0, 1], "when": {"cell": ["gru", "gru"]}}}, "x.when.cell.1 is 'gru'"),
        ({"cell": CELL, "x": {"int": [0, 1], "when": {"cell": ["gru", "rnn", "lstm"]}}}, "names every value of cell"),
        (
            {
                "a": {"int": [0, 1], "when": {"c": 1}},
                "b": {"int": [0, 1], "when": {"a": 1}},
                "c": {"int": [0, 1], "when": {"b": 1}},
            },
            "a.when.c closes a circle of conditions: a, which depends on c, which depends on b, which depends on a.",
        ),
        (
            {
                "cell": CELL,
                "a": {"int": [0, 1], "when": {"cell": ["gru", "rnn"]}},
                "b": {"int": [0, 1], "when": {"cell": "lstm", "a": 1}},
            },
            "b.when never holds: together with the conditions of the paths that it names, cell would have to have "
            "different values at once ('lstm', and 'gru', 'rnn')",
        ),
    ],
)
def test_bad_conditions(entries, words):
    with pytest.raises(ValidationError) as caught:
        space(**entries)
    assert words in str(caught.value)
