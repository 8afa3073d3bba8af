from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from scipy.stats import rankdata

from tests.contracts.analysis import AnalysisContract, synthetic_recording
from tests.fixtures.planted_sequences import ITEMS, orthogonal, partly_shared, recall, sequences
from wmcore.analyses.geometry import GeometrySpec, participation_ratio
from wmcore.analyses.rdm_regression import (
    informative,
    model_distances,
    regress,
    reliability,
    sequence_distances,
)

QUICK = {"shuffles": 30}


def analyse(recording: xr.Dataset, **fields: object) -> pd.DataFrame:
    spec = GeometrySpec.parse({**QUICK, **fields})
    return spec.compute(recording, None, np.random.default_rng(1)).table


def rows(table: pd.DataFrame, measure: str) -> pd.DataFrame:
    return table[table["measure"] == measure].reset_index(drop=True)


class TestContract(AnalysisContract):
    condition = "item_1"

    @pytest.fixture(scope="class")
    @classmethod
    def spec(cls) -> GeometrySpec:
        return GeometrySpec(variables=("item_0", "item_1"), sequences=40, shuffles=20)

    @pytest.fixture(scope="class")
    @classmethod
    def recording(cls) -> xr.Dataset:
        rng = np.random.default_rng(0)
        codes = {length: partly_shared(length, 0.5, rng, units=40) for length in (2, 3)}
        return recall(codes, 0.05, rng, repeats=2, chosen={3: sequences(3)[::3]})


@pytest.mark.parametrize("dimensions", [1, 3, 12])
def test_participation_ratio_is_the_planted_number_of_dimensions(dimensions: int) -> None:
    rng = np.random.default_rng(dimensions)
    axes = np.linalg.qr(rng.normal(size=(50, dimensions)))[0].T
    assert participation_ratio(rng.normal(size=(20000, dimensions)) @ axes) == pytest.approx(dimensions, rel=0.01)
    scores = rng.normal(size=(400, dimensions))
    scores = np.linalg.qr(scores - scores.mean(axis=0))[0]  # of exactly equal variances
    assert participation_ratio(scores @ axes + 7) == pytest.approx(dimensions)
    assert participation_ratio((scores @ axes)[:30]) <= min(dimensions, 29) + 1e-9
    assert participation_ratio(np.ones((10, 4))) == 0


def test_codes_of_seven_dimensions_each_fill_seven_per_rank() -> None:
    rng = np.random.default_rng(1)
    data = recall(
        {L: orthogonal(L, rng) for L in (2, 3)}, 0.0, rng, repeats=2, chosen={2: np.tile(sequences(2), (6, 1))}
    )
    ratio = rows(analyse(data), "participation_ratio")
    assert list(ratio["n"]) == [672, 672]  # of 672 trials each
    # Without replacement the ranks are correlated by -1/7, so that a pair of directions has variances 1 +- 1/7 (L = 2).
    expected = [2 * 7 / (1 + 1 / 49), 3 * 7 / (1 + 2 / 49)]
    np.testing.assert_allclose(ratio["estimate"], expected, rtol=1e-4)
    assert (ratio["estimate"] < ratio["null"]).all()
    assert (ratio["null"] < ratio["ceiling"]).all()


def test_every_length_has_as_many_trials() -> None:
    rng = np.random.default_rng(2)
    data = recall({L: orthogonal(L, rng) for L in (2, 3)}, 0.01, rng)
    assert list(rows(analyse(data), "participation_ratio")["n"]) == [56, 56]


def test_separate_codes_are_explained_by_position_and_shared_ones_by_items() -> None:
    rng = np.random.default_rng(3)
    separate = analyse(recall({3: orthogonal(3, rng)}, 0.01, rng, repeats=2))
    shared = analyse(recall({3: partly_shared(3, 1.0, rng)}, 0.01, rng, repeats=2))
    for table, mine, other in ((separate, "position", "item"), (shared, "item", "position")):
        unique = rows(table, f"unique_variance_{mine}")
        assert unique["estimate"][0] > 0.5
        assert unique["ci_low"][0] > unique["null_high"][0]
        assert rows(table, f"unique_variance_{other}")["estimate"][0] < 0.02
        assert rows(table, "explained_variance")["estimate"][0] > 0.95
        assert rows(table, "explained_variance")["estimate"][0] == pytest.approx(unique["ceiling"][0], abs=0.03)
        assert rows(table, f"partial_correlation_{mine}")["estimate"][0] > 0.6
        assert abs(rows(table, f"partial_correlation_{other}")["estimate"][0]) < 0.15
    assert (separate["warning"] == "").all()


def test_noise_lowers_the_ceiling_and_adds_no_distance() -> None:
    rng = np.random.default_rng(4)
    codes = orthogonal(2, rng)
    spec = GeometrySpec.parse(QUICK)
    exact = spec.compute(recall({2: codes}, 0.0, rng, repeats=4), None, np.random.default_rng(0))
    noisy = spec.compute(recall({2: codes}, 0.3, rng, repeats=4), None, np.random.default_rng(0))
    assert rows(exact.table, "explained_variance")["ceiling"][0] == 1
    assert 0 <= rows(noisy.table, "explained_variance")["ceiling"][0] < 0.9
    above = np.triu_indices(56, 1)
    # A plain distance would be larger by 2 * 0.3^2 / 4 = 0.045 per unit, more than the codes' own 0.016 to 0.031.
    assert noisy.arrays["rdm_0"][above].mean() == pytest.approx(exact.arrays["rdm_0"][above].mean(), abs=0.003)


def test_single_trials_are_called_so() -> None:
    rng = np.random.default_rng(5)
    table = analyse(recall({2: orthogonal(2, rng)}, 0.1, rng))
    distances = table[table["measure"] != "participation_ratio"]
    assert distances["warning"].str.contains("not cross-validated").all()
    assert distances["ceiling"].isna().all()


def test_a_recording_whose_repeats_agree_needs_none_in_other_cells() -> None:
    rng = np.random.default_rng(9)
    codes = {L: orthogonal(L, rng) for L in (2, 3)}
    shown = {2: np.tile(sequences(2), (2, 1))}  # every list of two twice, every list of three once
    for noise, ceiling, warning in ((0.0, 1, ""), (0.1, np.nan, "no sequence occurs twice")):
        table = analyse(recall(codes, noise, rng, chosen=shown))
        once = table[(table["cell_length"] == 3) & (table["measure"] != "participation_ratio")]
        assert len(once) == 5
        np.testing.assert_array_equal(once["ceiling"], ceiling)
        assert once["warning"].str.startswith(warning).all()
        assert (once["warning"] == "").all() == (noise == 0)


def test_distances_and_models_by_hand() -> None:
    rng = np.random.default_rng(6)
    halves = rng.normal(size=(2, 5, 9))
    apart = halves[:, :, None] - halves[:, None]
    np.testing.assert_allclose(sequence_distances(halves), (apart[0] * apart[1]).mean(axis=-1), atol=1e-12)
    np.testing.assert_allclose(sequence_distances(halves[:1]), (apart[0] ** 2).mean(axis=-1), atol=1e-12)
    item, position = model_distances(np.array([[0, 1, 2], [2, 1, 0], [3, 1, 4], [1, 1, 5]]), 6)
    np.testing.assert_array_equal(item[0], [0, 0, 2, 2])  # an item that comes twice is shared once with one
    np.testing.assert_array_equal(position[0], [0, 2, 2, 2])
    assert item[2, 3] == 2
    assert not informative(model_distances(np.array([[0, 1], [2, 3], [4, 5]]), ITEMS))
    assert informative(model_distances(sequences(2), ITEMS))


def test_regression_equals_residuals_of_ranks_and_of_ordinary_least_squares() -> None:
    rng = np.random.default_rng(7)
    models = model_distances(sequences(2)[:30], ITEMS)
    above = np.triu_indices(30, 1)
    item, position = models[:, *above]
    observed = 0.5 * item + 0.8 * position + 0.3 * rng.normal(size=len(item))
    neural = np.zeros((30, 30))
    neural[above] = observed
    found = regress(neural + neural.T, models)

    def left(y: np.ndarray, *x: np.ndarray) -> np.ndarray:
        design = np.column_stack([np.ones(len(y)), *x])
        return y - design @ np.linalg.lstsq(design, y, rcond=None)[0]

    ranks = [rankdata(values) for values in (observed, item, position)]
    for i, (own, given) in enumerate(((1, 2), (2, 1))):
        residuals = [left(ranks[j], ranks[given]) for j in (0, own)]
        assert found[i] == pytest.approx(np.corrcoef(*residuals)[0, 1])
    total = ((observed - observed.mean()) ** 2).sum()
    both, *single = (1 - (left(observed, *x) ** 2).sum() / total for x in ((item, position), (position,), (item,)))
    np.testing.assert_allclose(found[2:], [both - single[0], both - single[1], both])
    opposed = regress(-(neural + neural.T), models)
    np.testing.assert_allclose(opposed[2:], 0, atol=1e-9)  # weights are not negative


def test_reliability_is_stepped_up_to_both_halves() -> None:
    square = np.zeros((2, 4, 4))
    square[0][np.triu_indices(4, 1)] = [1, 2, 3, 4, 5, 6]
    square[1][np.triu_indices(4, 1)] = [1, 3, 2, 5, 4, 6]
    r = np.corrcoef([1, 2, 3, 4, 5, 6], [1, 3, 2, 5, 4, 6])[0, 1]
    assert reliability(*square) == pytest.approx(2 * r / (1 + r))
    assert reliability(square[0], -square[0]) == 0


def test_any_sequence_task() -> None:
    rng = np.random.default_rng(8)
    location = rng.integers(0, 4, (200, 2))
    codes = orthogonal(2, rng, items=4, units=20)
    states = 0.02 * rng.normal(size=(200, 2, 20))
    states[:, 1] += codes[0][location[:, 0]] + codes[1][location[:, 1]]
    data = synthetic_recording(states, {"location": location})
    table = analyse(data, variables=["location@0", "location@1"], moment=1)
    assert rows(table, "participation_ratio")["estimate"][0] == pytest.approx(6, abs=0.5)
    assert rows(table, "unique_variance_position")["estimate"][0] > 0.5
    with pytest.raises(ValueError, match=r"geometry\.moment is 7"):
        analyse(data, variables=["location@0", "location@1"], moment=7)
