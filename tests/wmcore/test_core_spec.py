"""wmcore's Spec: strict, frozen, with a canonical form; and the TrialSpec that is made of it."""

from __future__ import annotations

import json
import math
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from wmcore.spec import Spec, canonical_json, content_hash, get_path, with_paths
from wmcore.training.trial_spec import TrialSpec


class Inner(Spec):
    kind: Literal["inner"] = "inner"
    rate: float = 0.5


class Outer(Spec):
    count: int = 3
    rate: float = 1.0
    flag: bool = False
    name: str = "x"
    lags: tuple[int, ...] = (1, 2)
    inner: Inner = Inner()
    maybe: int | None = None


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("count", "3"),
        ("count", 3.0),
        ("count", True),
        ("count", None),
        ("rate", "1.0"),
        ("rate", True),
        ("rate", math.nan),
        ("rate", math.inf),
        ("rate", -math.inf),
        ("flag", 1),
        ("flag", "true"),
        ("name", 3),
        ("lags", 1),
        ("lags", ["1"]),
        ("lags", "12"),
        ("inner", "inner"),
        ("inner", {"kind": "outer"}),
        ("inner", {"speed": 1}),
        ("unknown", 1),
    ],
)
def test_parsing_is_strict(field: str, value: Any) -> None:
    with pytest.raises(ValidationError, match=field):
        Outer.parse({field: value})


def test_parsing_takes_what_yaml_gives() -> None:
    spec = Outer.parse({"count": 4, "rate": 2, "lags": [3], "inner": {"rate": 1e-3}, "maybe": None})
    assert spec == Outer(count=4, rate=2.0, lags=(3,), inner=Inner(rate=0.001))
    assert type(spec.rate) is float


def test_every_fault_is_reported_at_once() -> None:
    with pytest.raises(ValidationError) as caught:
        Outer.parse({"count": "3", "inner": {"rate": "x"}, "unknown": 1})
    assert {error["loc"] for error in caught.value.errors()} == {("count",), ("inner", "rate"), ("unknown",)}


def test_is_frozen_and_hashable() -> None:
    spec = Outer()
    with pytest.raises(ValidationError, match="frozen"):
        spec.count = 4
    assert len({spec, Outer(), Outer(count=4)}) == 2


def test_canonical_json_and_hash_are_golden() -> None:
    """Trial ids and bank folders hang on them: a change loses everything that was ever trained."""
    spec = Outer(rate=1e-7, name="ü")
    assert spec.canonical_json() == (
        '{"count":3,"flag":false,"inner":{"kind":"inner","rate":0.5},"lags":[1,2],"maybe":null,'
        '"name":"\\u00fc","rate":1e-07}'
    )
    assert spec.content_hash() == content_hash(json.loads(spec.canonical_json())) == "1187e209ae8a7c54"
    assert content_hash({"b": [1, 2.5, None], "a": "x"}) == "ce74053d7a9997b7"


def test_equal_content_is_equal_hash() -> None:
    assert Outer.parse({"rate": 2, "count": 5}).content_hash() == Outer.parse({"count": 5, "rate": 2.0}).content_hash()
    assert Outer.parse({"rate": 0.001}).content_hash() == Outer.parse({"rate": 1e-3}).content_hash()
    # Defaults are content: leaving a field out and writing its default are the same.
    assert Outer.parse({}).content_hash() == Outer.parse({"count": 3, "inner": {"kind": "inner"}}).content_hash()
    assert Outer.parse({"count": 4}).content_hash() != Outer.parse({}).content_hash()


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_canonical_json_refuses_what_is_no_number(value: float) -> None:
    with pytest.raises(ValueError, match="JSON"):
        canonical_json({"a": value})


JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.text()),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(), inner, max_size=3)),
    max_leaves=8,
)


@settings(deadline=None)
@given(st.dictionaries(st.text(), JSON, max_size=4))
def test_canonical_json_knows_no_order_and_loses_nothing(data: dict) -> None:
    shuffled = dict(reversed(list(data.items())))
    assert canonical_json(shuffled) == canonical_json(data)
    assert json.loads(canonical_json(data)) == data
    assert canonical_json(json.loads(canonical_json(data))) == canonical_json(data)


def test_get_path_and_with_paths() -> None:
    data = {"a": {"b": [1, {"c": 2}]}, "d": 3}
    assert get_path(data, "a.b") == [1, {"c": 2}]
    for path, missing in (("a.x", "x"), ("d.e", "e"), ("y.z", "y")):
        with pytest.raises(KeyError, match=missing):
            get_path(data, path)
    changed = with_paths(data, {"a.b": 5, "d": 4, "new.deep": 6})
    assert changed == {"a": {"b": 5}, "d": 4, "new": {"deep": 6}}
    assert data == {"a": {"b": [1, {"c": 2}]}, "d": 3}
    copy = with_paths(data, {})
    copy["a"]["b"][1]["c"] = 9
    assert data["a"]["b"][1]["c"] == 2


# TrialSpec

PLAIN = {"task": {"kind": "nback"}, "model": {"kind": "rnn"}}


def test_a_trial_resolves_every_default_and_keeps_its_identity() -> None:
    trial = TrialSpec.parse(PLAIN)
    resolved = json.loads(trial.canonical_json())
    assert resolved["training"]["optimizer"] == {"kind": "adamw", "lr": 0.001, "weight_decay": 0.0001}
    assert resolved["task"]["n"] == [1, 2, 3]
    again = TrialSpec.parse(resolved)
    assert again == trial
    assert again.trial_id == trial.trial_id
    assert len(trial.trial_id) == 16


@pytest.mark.parametrize(
    "changes",
    [
        {"seed": 1},
        {"replicates": 2},
        {"task.lure_rate": 0.3},
        {"task.stimuli.objects.seed": 1},
        {"model.cell": "lstm"},
        {"training.optimizer.lr": 0.002},
        {"evaluation.trials": 100},
    ],
)
def test_every_part_of_a_trial_is_its_identity(changes: dict) -> None:
    data = json.loads(TrialSpec.parse(PLAIN).canonical_json())
    assert TrialSpec.parse(with_paths(data, changes)).trial_id != TrialSpec.parse(PLAIN).trial_id


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"task.kind": "mback"}, "'nback'"),
        ({"model.kind": "rnm"}, "'rnn'"),
        ({"model.width": 3}, "width"),
        ({"training.steps": 0}, "steps"),
        ({"training.optimizer.lr": 0}, "lr"),
        ({"seed": -1}, "seed"),
        ({"replicates": 0}, "replicates"),
        ({"evaluation.trials": 1}, "trials"),
        ({"evaluation.best_metric": "select/acuracy"}, "the task reports select/accuracy"),
        ({"evaluation.best_metric": "test/accuracy"}, "the task reports select/accuracy"),
        ({"evaluation.best_mode": "most"}, "'max' or 'min'"),
    ],
)
def test_a_trial_refuses(changes: dict, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        TrialSpec.parse(with_paths(PLAIN, changes))
