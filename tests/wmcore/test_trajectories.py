from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from tests.contracts.analysis import AnalysisContract, synthetic_recording
from wmcore.analyses.phases import from_arrays
from wmcore.analyses.trajectories import TrajectoriesSpec

QUICK = {"permutations": 50, "bootstraps": 60}


def planar(seed: int = 0, size: int = 200, steps: int = 5, units: int = 30, noise: float = 0.05) -> xr.Dataset:
    """Two conditions that run along one direction, apart on a second one; variances 2 (time) and 1 (condition)."""
    rng = np.random.default_rng(seed)
    axes = np.linalg.qr(rng.normal(size=(units, 2)))[0].T
    feature = np.arange(size) % 2
    time = np.sqrt(2) * (np.arange(steps) - (steps - 1) / 2) / np.arange(steps).std()
    states = time[None, :, None] * axes[0] + (2 * feature[:, None, None] - 1) * axes[1]
    states = states + noise * rng.normal(size=(size, steps, units))
    item = rng.integers(0, 3, (size, steps))
    data = synthetic_recording(states, {"feature": feature, "item": item}, {"feature": ["left", "right"]})
    return data.assign(axes=(("axis", "unit"), axes))


def analyse(recording: xr.Dataset, **fields: object):
    return TrajectoriesSpec.parse({**QUICK, **fields}).compute(recording, None, np.random.default_rng(1))


def rows(table: pd.DataFrame, measure: str) -> pd.DataFrame:
    return table[table["measure"] == measure].reset_index(drop=True)


class TestContract(AnalysisContract):
    condition = "feature"

    @pytest.fixture(scope="class")
    @classmethod
    def spec(cls) -> TrajectoriesSpec:
        return TrajectoriesSpec(components=4, **QUICK)

    @pytest.fixture(scope="class")
    @classmethod
    def recording(cls) -> xr.Dataset:
        return planar(size=60)


def test_planted_plane_is_recovered() -> None:
    data = planar()
    result = analyse(data)
    share = rows(result.table, "explained_variance")
    np.testing.assert_allclose(share["estimate"][:2], [2 / 3, 1 / 3], atol=0.02)
    assert (share["estimate"][:2] > share["null_high"][:2]).all()
    assert (share["estimate"][2:] < share["null_low"][2:]).all()
    overlap = np.abs(result.arrays["loadings"][:2] @ data["axes"].values.T)
    np.testing.assert_allclose(overlap, np.eye(2), atol=0.02)
    # Eigenvalues 2 and 1: (2 + 1)^2 / (2^2 + 1^2) dimensions.
    assert rows(result.table, "participation_ratio")["estimate"][0] == pytest.approx(9 / 5, abs=0.1)
    # Shuffled, every unit is on its own: as many dimensions as units of equal variance would be.
    variance = data["state_h"].values.reshape(-1, 30).var(axis=0)
    expected = variance.sum() ** 2 / (variance**2).sum()
    assert rows(result.table, "participation_ratio")["null"][0] == pytest.approx(expected, rel=0.1)


def test_components_agree_with_a_singular_value_decomposition() -> None:
    data = planar(noise=1.0)
    flat = data["state_h"].values.reshape(-1, 30).astype(np.float64)
    _, singular, right = np.linalg.svd(flat - flat.mean(axis=0), full_matrices=False)
    result = analyse(data)
    np.testing.assert_allclose(
        rows(result.table, "explained_variance")["estimate"], (singular**2 / (singular**2).sum())[:10], rtol=1e-4
    )
    np.testing.assert_allclose(np.abs((result.arrays["loadings"][:2] * right[:2]).sum(axis=1)), 1, atol=1e-3)


def test_mean_paths_are_means_of_projected_states() -> None:
    data = planar()
    result = analyse(data)
    for k in range(2):
        mean = data["state_h"].values[data["feature"].values == k].mean(axis=0)
        expected = (mean - result.arrays["centre"]) @ result.arrays["loadings"].T
        np.testing.assert_allclose(result.arrays["mean"][k], expected, atol=1e-4)
    assert list(result.arrays["labels"]) == ["left", "right"]
    assert (result.arrays["mean_ci_low"] <= result.arrays["mean_ci_high"]).all()


def test_condition_variance_of_separate_and_of_equal_conditions() -> None:
    data = planar(noise=1 / np.sqrt(30))  # noise variance 1 in all, condition variance 1: a share of one half
    separate = rows(analyse(data).table, "condition_variance")
    np.testing.assert_allclose(separate["estimate"], 0.5, atol=0.05)
    assert (separate["null_high"] < 0.05).all()
    assert ((separate["ci_low"] < 0.52) & (separate["ci_high"] > 0.48)).all()
    equal = rows(analyse(data, color_by="item", at_step=0).table, "condition_variance")
    assert (equal["estimate"] < 0.06).all()
    assert (equal["null"] > 0.001).all()


def test_the_mean_of_all_trials_has_the_phases_that_they_share() -> None:
    data = planar()
    data["lengths"] = ("trial", np.where(np.arange(200) < 100, 5, 3))
    data["length"] = ("trial", np.where(np.arange(200) < 100, 2, 1))
    delay = np.where(np.arange(200)[:, None] < 100, [2, 4], [1, 2])
    data["period_delay"] = ("trial", "bound"), delay
    data["period_cue"] = ("trial", "bound"), np.tile([0, 1], (200, 1))
    whole = analyse(data, within=[])
    assert list(whole.arrays["overall_labels"]) == ["all trials"]
    assert [(own.steps, own.spans) for own in from_arrays(whole.arrays)] == [(5, {"cue": (0, 1)})]
    apart = analyse(data)
    assert list(apart.arrays["overall_labels"]) == ["length 1", "length 2"]
    assert [own.spans["delay"] for own in from_arrays(apart.arrays)] == [(1, 2), (2, 4)]
    np.testing.assert_array_equal(apart.arrays["loadings"], whole.arrays["loadings"])  # one basis for all lengths
    expected = (data["state_h"].values[:100].mean(axis=0) - apart.arrays["centre"]) @ apart.arrays["loadings"].T
    np.testing.assert_allclose(apart.arrays["overall"][1], expected, atol=1e-4)
    assert np.isnan(apart.arrays["overall"][0, 3:]).all()
    figures = TrajectoriesSpec().figures(apart)
    shown = {text.get_text() for text in figures["mean_trajectory"].axes[0].texts}
    assert shown == {"cue", "delay"}


def test_a_condition_of_every_step_needs_a_step_and_another_none() -> None:
    data = planar()
    with pytest.raises(ValueError, match="at_step"):
        analyse(data, color_by="item")
    with pytest.raises(ValueError, match="at_step"):
        analyse(data, at_step=1)
    with pytest.raises(ValueError, match=r"at_step is 9.*below 5"):
        analyse(data, color_by="item", at_step=9)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"color_by": "colour"}, r"analyses\.1\.color_by is 'colour'.*feature, item"),
        ({"color_by": "item"}, r"at_step must be given"),
        ({"at_step": 1}, r"at_step is 1.*no effect"),
        ({"color_by": "item", "at_step": 9}, r"at_step is 9.*below 5"),
        ({"state": "c"}, r"state is 'c'.*recorded"),
        ({"within": ["lenght"]}, r"within\.0 is 'lenght'.*value per trial"),
    ],
)
def test_options_that_no_recording_could_satisfy_are_refused(fields, message) -> None:
    conditions = {"feature": ("trial",), "item": ("trial", "time")}
    TrajectoriesSpec().check(conditions, ("h",), 5, "analyses.1")
    TrajectoriesSpec(color_by="item", at_step=4).check(conditions, ("h",), 5, "analyses.1")
    with pytest.raises(ValueError, match=message):
        TrajectoriesSpec.parse(fields).check(conditions, ("h",), 5, "analyses.1")


def test_padding_is_left_out() -> None:
    data = planar()
    data["lengths"] = ("trial", np.where(np.arange(200) < 100, 5, 2))
    data["state_h"][100:, 2:] = 1e6
    result = analyse(data)
    assert np.abs(result.arrays["mean"]).max() < 10
    separation = rows(result.table, "condition_variance")
    assert list(separation["n"]) == [200, 200, 100, 100, 100]
    assert (separation["estimate"] > 0.8).all()
