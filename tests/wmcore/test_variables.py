from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from tests.contracts.analysis import synthetic_recording
from wmcore.analyses.base import PER_STEP, PER_TRIAL
from wmcore.analyses.variables import check_variable, items_of, variable
from wmcore.errors import InputError

CONDITIONS = {"item_0": PER_TRIAL, "location": PER_STEP}


@pytest.fixture
def recording() -> xr.Dataset:
    location = np.array([[3, 1, 2], [0, 2, 1]])
    conditions = {"item_0": np.array([1, -1]), "location": location, "angle": np.array([0.5, 1.5])}
    return synthetic_recording(np.zeros((2, 3, 1)), conditions, {"location": ["a", "b", "c", "d"]})


def test_a_variable_is_a_condition_or_its_value_at_a_step(recording) -> None:
    item, place = variable(recording, "item_0", "x"), variable(recording, "location@2", "x")
    assert (item.name, list(item.values), item.labels) == ("item_0", [1, -1], ())
    assert (place.name, list(place.values), place.labels) == ("location@2", [2, 1], ("a", "b", "c", "d"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("colour", r"spec\.v is 'colour'.*holds.*item_0"),
        ("location", r"spec\.v is 'location'.*dims \(trial\)"),
        ("item_0@1", r"spec\.v is 'item_0'.*dims \(trial, time\)"),
        ("location@3", r"spec\.v is 'location@3'.*below 3"),
        ("location@-1", r"spec\.v is 'location@-1'.*as in location@2"),
        ("angle", r"spec\.v is 'angle'.*whole numbers"),
    ],
)
def test_what_a_recording_does_not_hold_is_refused(recording, text, message) -> None:
    with pytest.raises(InputError, match=message):
        variable(recording, text, "spec.v")


def test_items_are_in_the_order_of_their_ranks() -> None:
    assert items_of(["item_10", "length", "item_2", "item", "item_0", "item_x"]) == ("item_0", "item_2", "item_10")


@pytest.mark.parametrize("text", ["item_0", "location@0", "location@4"])
def test_variables_that_will_be_there_pass(text) -> None:
    check_variable(text, CONDITIONS, 5, "x")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("item", r"x is 'item'.*Did you mean item_0"),
        ("location", r"x is 'location'.*every step.*location@0"),
        ("item_0@1", r"x is 'item_0'.*every step: location"),
        ("location@5", r"x is 'location@5'.*below 5.*location@4"),
    ],
)
def test_variables_that_will_not_be_there_are_refused_before_anything_runs(text, message) -> None:
    with pytest.raises(InputError, match=message):
        check_variable(text, CONDITIONS, 5, "x")
