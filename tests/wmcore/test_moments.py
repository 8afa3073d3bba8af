from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

from tests.contracts.analysis import synthetic_recording
from wmcore.analyses.moments import check_moment, states_at, steps_at
from wmcore.errors import InputError


def with_periods(**bounds: list[tuple[int, int]]) -> xr.Dataset:
    size = len(next(iter(bounds.values())))
    lengths = np.array([9, 6, 8])[:size]
    states = np.arange(size * 9.0).reshape(size, 9, 1)
    data = synthetic_recording(states, {}, lengths=lengths)
    return data.assign({f"period_{name}": (("trial", "bound"), np.array(own)) for name, own in bounds.items()})


def test_each_trial_has_its_own_step_and_none_where_it_lacks_the_period() -> None:
    data = with_periods(delay=[(2, 7), (2, 4), (-1, -1)])
    found = {point: list(steps_at(data, f"delay.{point}", "x")) for point in ("start", "mid", "end")}
    assert found == {"start": [2, 2, -1], "mid": [4, 3, -1], "end": [6, 3, -1]}
    assert list(steps_at(data, 7, "x")) == [7, -1, 7]
    steps = steps_at(data, "delay.end", "x")[:2]
    assert list(states_at(data["state_h"].values[:2], steps)[:, 0]) == [6, 12]


@given(start=st.integers(0, 8), size=st.integers(1, 9))
def test_moments_lie_inside_their_period_in_order(start: int, size: int) -> None:
    data = with_periods(delay=[(start, start + size)])
    first, middle, last = (int(steps_at(data, f"delay.{point}", "x")[0]) for point in ("start", "mid", "end"))
    assert start == first <= middle <= last == start + size - 1
    assert middle - first == size // 2


@pytest.mark.parametrize(
    ("moment", "message"),
    [
        ("gap.mid", r"spec\.at is 'gap\.mid'.*periods delay.*As in delay\.mid"),
        ("delay.last", r"spec\.at is 'delay\.last'"),
        ("delay", r"spec\.at is 'delay'"),
        (9, r"spec\.at is 9.*from 0 to 8"),
        (-1, r"spec\.at is -1"),
    ],
)
def test_what_is_no_moment_of_the_trials_is_refused(moment, message) -> None:
    with pytest.raises(InputError, match=message):
        steps_at(with_periods(delay=[(2, 7)]), moment, "spec.at")


def test_what_can_be_known_without_a_recording_is_checked_before() -> None:
    for moment in (0, 4, "anything.mid"):
        check_moment(moment, 5, "x")
    check_moment(400, None, "x")
    for moment in (5, -1, "delay.last", "delay"):
        with pytest.raises(InputError, match="x is"):
            check_moment(moment, 5, "x")
