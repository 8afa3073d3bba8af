from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from tests.contracts.analysis import AnalysisContract, synthetic_recording
from tests.fixtures.planted_sequences import orthogonal, recall
from wmcore.analyses.base import select
from wmcore.analyses.speed import SpeedSpec
from wmcore.errors import InputError

QUICK = {"shuffles": 100, "bootstraps": 100}


def analyse(recording: xr.Dataset, **fields: object) -> pd.DataFrame:
    return SpeedSpec.parse({**QUICK, **fields}).compute(recording, None, np.random.default_rng(1)).table


class TestContract(AnalysisContract):
    condition = "length"

    @pytest.fixture(scope="class")
    @classmethod
    def spec(cls) -> SpeedSpec:
        return SpeedSpec(within=("length",), shuffles=20, bootstraps=100)

    @pytest.fixture(scope="class")
    @classmethod
    def recording(cls) -> xr.Dataset:
        generator = np.random.default_rng(0)
        codes = {length: orthogonal(length, generator, items=4, units=16) for length in (2, 3)}
        return recall(codes, 0.1, generator)


def test_planted_speeds_and_the_null_of_a_random_order() -> None:
    """States that walk along a line at 1, 1, 3, 0 per step: positions 0, 1, 2, 5, 5."""
    position = np.array([0.0, 1, 2, 5, 5])
    states = np.zeros((400, 5, 3))
    states[:, :, 1] = 100 + position
    data = synthetic_recording(states, {}).assign(period_walk=(("trial", "bound"), np.tile([1, 4], (400, 1))))
    table = analyse(data)
    steps = select(table, {"measure": "speed"})
    np.testing.assert_allclose(steps["estimate"], [1, 1, 3, 0], atol=1e-3)
    apart = np.abs(position[:, None] - position)
    np.testing.assert_allclose(steps["null"], apart.sum() / 20, atol=0.03)  # mean over pairs of different steps
    (walk,) = select(table, {"period": "walk"})["estimate"]
    assert walk == pytest.approx(2, abs=1e-3)  # the moves 1 -> 2 and 2 -> 3


def test_speed_is_the_norm_of_the_difference_and_the_interval_that_of_its_mean() -> None:
    states = np.random.default_rng(0).normal(size=(500, 4, 6))
    table = analyse(synthetic_recording(states, {}))
    moved = np.linalg.norm(np.diff(states, axis=1), axis=2)
    np.testing.assert_allclose(table["estimate"], moved.mean(axis=0), rtol=1e-5)
    half = 1.96 * moved.std(axis=0) / np.sqrt(500)
    np.testing.assert_allclose((table["ci_high"] - table["ci_low"]) / 2, half, rtol=0.35)
    # States without order move as fast as shuffled ones.
    np.testing.assert_allclose(table["null"], table["estimate"], rtol=0.03)


def test_a_held_state_is_slower_than_its_null_while_items_are_taken_up_faster() -> None:
    generator = np.random.default_rng(0)
    table = analyse(recall({2: orthogonal(2, generator, items=5, units=16)}, 0.01, generator))
    delay = select(table, {"period": "delay"})
    assert (delay["estimate"] < 0.2 * delay["null_low"]).all()
    taken_up = select(table, {"measure": "speed", "step": 1})
    assert (taken_up["estimate"] > taken_up["null_high"]).all()


def test_trials_of_different_length_are_refused_and_conditions_are_told_apart() -> None:
    generator = np.random.default_rng(0)
    data = recall({n: orthogonal(n, generator, items=4, units=16) for n in (2, 3)}, 0.1, generator)
    assert dict(analyse(data).groupby("cell_length")["n"].max()) == {2: 12, 3: 24}
    with pytest.raises(InputError, match=r"speed\.within.*differ in.*such as length"):
        analyse(data, within=[])


def test_resampling_of_groups_widens_the_interval_of_copies() -> None:
    states = np.repeat(np.random.default_rng(0).normal(size=(30, 3, 4)), 20, axis=0)
    data = synthetic_recording(states, {"sequence": np.repeat(np.arange(30), 20)})
    width = [(t["ci_high"] - t["ci_low"]).mean() for t in (analyse(data), analyse(data, group="sequence"))]
    assert width[1] / width[0] == pytest.approx(np.sqrt(20), rel=0.3)
