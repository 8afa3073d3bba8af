from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from scipy.stats import norm

from tests.contracts.analysis import AnalysisContract, synthetic_recording
from tests.fixtures.planted_sequences import orthogonal, recall, sequences
from wmcore.analyses.base import AnalysisResult, select
from wmcore.analyses.ridge import FoldedStates, Labellings, correct
from wmcore.analyses.temporal_generalisation import (
    TemporalGeneralisationSpec,
    indirect_chance,
    positions,
    prefixes,
)
from wmcore.errors import InputError

QUICK = {"permutations": 50, "bootstraps": 100, "every": 1}
K = 5


def lists(seed: int, length: int, noise: float = 0.05, repeats: int = 1, silent: tuple[int, ...] = ()) -> xr.Dataset:
    """All lists of one length, whose items are held in orthogonal subspaces; those of ``silent`` ranks are not."""
    generator = np.random.default_rng(seed)
    codes = orthogonal(length, generator, items=K, units=24)
    codes[list(silent)] = 0
    return recall({length: codes}, noise, generator, repeats)


def analyse(recording: xr.Dataset, **fields: object) -> AnalysisResult:
    return TemporalGeneralisationSpec.parse({**QUICK, **fields}).compute(recording, None, np.random.default_rng(1))


def rows(result: AnalysisResult, **values: object) -> pd.DataFrame:
    return select(result.table, values).reset_index(drop=True)


def matrix(result: AnalysisResult, variable: str, mean: str = "kept", information: str = "all") -> np.ndarray:
    arrays = result.arrays
    found = (arrays["matrix_of_variable"] == variable) & (arrays["matrix_of_mean"] == mean)
    (number,) = np.flatnonzero(found & (arrays["matrix_of_information"] == information))
    return arrays["matrix"][number]


class TestContract(AnalysisContract):
    condition = "length"

    @pytest.fixture(scope="class")
    @classmethod
    def spec(cls) -> TemporalGeneralisationSpec:
        return TemporalGeneralisationSpec(within=("length",), permutations=20, bootstraps=100, every=4)

    @pytest.fixture(scope="class")
    @classmethod
    def recording(cls) -> xr.Dataset:
        generator = np.random.default_rng(0)
        codes = {length: orthogonal(length, generator, items=K, units=16) for length in (2, 3)}
        return recall(codes, 0.2, generator)

    def test_each_length_has_its_own_rows_up_to_its_last_step(self, result: AnalysisResult) -> None:
        last = result.table.groupby("cell_length")["step"].max()
        assert dict(last) == {2: 12, 3: 16}


def test_a_code_that_stays_is_read_by_the_decoders_of_all_steps() -> None:
    result = analyse(lists(0, 3))
    delay = slice(7, 11)
    for name in ("item_0", "item_1", "item_2"):
        for information in ("all", "direct"):
            assert matrix(result, name, information=information)[delay, delay].min() > 0.95
        (stable,) = rows(result, measure="stability", variable=name, information="all", mean="kept")["estimate"]
        assert stable == pytest.approx(1, abs=0.03)
    course = rows(result, measure="balanced_accuracy", variable="item_1", information="all").set_index("step")
    assert (course.loc[[3], "estimate"] < 0.45).all()  # item 1 is shown at steps 3 and 4, and held from step 4 on
    assert (course.loc[5:, "estimate"] > 0.95).all()
    assert (course.loc[5:, "p_value"] == 1 / 51).all()
    assert course.index.min() == 3
    position = rows(result, measure="position_accuracy").set_index("step")
    np.testing.assert_allclose(position["chance"], 1 / 4)
    assert position.loc[0, "estimate"] == pytest.approx(1 / 4, abs=0.1)
    assert position.loc[8, "estimate"] > 0.9


def turning(steps: int = 6, units: int = 60, size: int = 400) -> xr.Dataset:
    """Four values, each held in directions of its own at every step, on a mean state that drifts far."""
    generator = np.random.default_rng(3)
    directions = np.linalg.qr(generator.normal(size=(units, 4 * steps)))[0].T.reshape(steps, 4, units)
    value = np.arange(size) % 4
    states = 0.1 * generator.normal(size=(size, steps, units)) + directions[:, value].transpose(1, 0, 2)
    states += 5 * generator.normal(size=(steps, units))
    return synthetic_recording(states, {"value": value})


def test_a_code_that_turns_is_read_by_no_other_step() -> None:
    data = turning().assign(period_delay=(("trial", "bound"), np.tile([0, 6], (400, 1))))
    result = analyse(data, variables=["value"], transfers=[["delay", "delay"]])
    off = ~np.eye(6, dtype=bool)
    for mean in ("kept", "removed"):
        grid = matrix(result, "value", mean)
        assert np.diag(grid).min() > 0.97
        assert abs(grid[off].mean() - 0.25) < 0.08
    (stable,) = rows(result, measure="stability", mean="removed")["estimate"]
    assert abs(stable) < 0.1
    assert (rows(result, measure="stability")["ceiling"] == 1).all()


def test_a_mean_that_drifts_hides_a_code_that_stays_unless_it_is_removed() -> None:
    data = turning()
    generator = np.random.default_rng(0)
    code = generator.normal(size=(4, 60)) / 4
    drift = 8 * (code[1] - code[0]) * np.arange(6)[:, None]
    states = code[data["value"].values][:, None] + drift + 0.1 * generator.normal(size=(400, 6, 60))
    result = analyse(data.assign(state_h=(data["state_h"].dims, states.astype(np.float32))), variables=["value"])
    assert matrix(result, "value", "removed").min() > 0.95
    assert matrix(result, "value", "kept")[0, 5] < 0.5
    assert np.diag(matrix(result, "value", "kept")).min() > 0.95


def test_known_separation_gives_the_known_accuracy() -> None:
    generator = np.random.default_rng(0)
    side = np.arange(3000) % 2
    states = generator.normal(size=(3000, 2, 3))
    states[:, 1, 0] += 1.6 * (side - 0.5)  # two unit Gaussians 1.6 apart: the best share of right answers is Phi(0.8)
    table = rows(analyse(synthetic_recording(states, {"side": side}), variables=["side"]), measure="balanced_accuracy")
    np.testing.assert_allclose(table["estimate"], [0.5, norm.cdf(0.8)], atol=0.025)
    assert (table["ci_low"] < table["estimate"]).all()
    np.testing.assert_allclose(table["ci_high"] - table["ci_low"], 4 * np.sqrt(0.2 / 3000), rtol=0.4)
    np.testing.assert_allclose(table["null"], 0.5, atol=0.01)
    assert table["p_value"][0] > 0.02
    assert table["p_value"][1] == 1 / 51


@pytest.mark.parametrize("every_list_once", [False, True])
def test_a_rank_that_is_not_encoded_is_guessed_from_the_others_and_from_them_alone(every_list_once) -> None:
    generator = np.random.default_rng(1)
    codes = orthogonal(3, generator, items=K, units=24)
    codes[0] = 0
    drawn = sequences(3, K)[generator.integers(0, 60, 1500)]
    result = analyse(recall({3: codes}, 0.02, generator, chosen={} if every_list_once else {3: drawn}), every=4)
    held = rows(result, measure="balanced_accuracy", variable="item_0")
    held = held[held["step"] > 8]
    np.testing.assert_allclose(held["indirect_chance"], 1 / 3)
    np.testing.assert_allclose(held["chance"], 1 / 5)
    by = held.groupby("information")["estimate"].mean()
    assert by["direct"] == pytest.approx(1 / 5, abs=0.07 if every_list_once else 0.04)
    if every_list_once:
        assert by["all"] < 0.15  # a list that is held out is just what the training lists lack
    else:
        assert by["all"] == pytest.approx(1 / 3, abs=0.04)


def test_indirect_chance_counts_what_can_go_together() -> None:
    assert indirect_chance(sequences(3, K), 1) == pytest.approx(1 / 3)
    with_replacement = np.stack(np.meshgrid(*[range(K)] * 3), -1).reshape(-1, 3)
    assert indirect_chance(with_replacement, 2) == pytest.approx(1 / K)
    some = np.random.default_rng(0).permutation(sequences(4, 8))[:300]  # each triple of others occurs once or not
    assert indirect_chance(some, 0) == pytest.approx(1 / 5, abs=0.01)  # but for a pair that never occurs


def test_positions_name_the_rank_of_a_value() -> None:
    labels = np.array([[2, 0, 1], [0, 2, 1], [0, 1, 3], [2, 2, 0]])
    assert list(positions(labels, 2)) == [0, 1, 3, -1]


def test_states_that_only_tell_histories_apart_are_not_decodable() -> None:
    """A random vector for each history says nothing of a list that was held out; copies of training states would."""
    generator = np.random.default_rng(5)
    shown = np.repeat(sequences(2, 8), 4, axis=0)
    whole = np.unique(shown, axis=0, return_inverse=True)[1].reshape(-1) + 100
    history = np.stack([shown[:, 0], shown[:, 0], whole, whole], axis=1)
    vectors = generator.normal(size=(200, 40))
    data = synthetic_recording(vectors[history], {"item_0": shown[:, 0], "item_1": shown[:, 1], "history": history})
    grouped = rows(analyse(data), measure="balanced_accuracy", information="all", variable="item_0")
    assert list(grouped["step"]) == [2, 3]  # before, an item has one history only and cannot be held out
    assert (grouped["estimate"] < grouped["null_high"]).all()
    assert (grouped["estimate"] < 0.3).all()
    assert (grouped["n_groups"] == 56).all()
    data["own"] = "trial", np.arange(len(shown))
    copies = rows(analyse(data, group="own"), measure="balanced_accuracy", information="all", variable="item_0")
    assert (copies["estimate"] > 0.9).all()


def test_states_that_only_tell_images_apart_are_not_decodable() -> None:
    generator = np.random.default_rng(6)
    image = generator.integers(0, 48, (600, 2))
    vectors = generator.normal(size=(48, 40))
    data = synthetic_recording(vectors[image], {"image": image, "location": generator.permutation(48)[image] % 4})
    shown = {"measure": "balanced_accuracy", "step": 0}
    (first,) = rows(analyse(data, variables=["location@0"]), **shown).itertuples()
    assert first.n_groups == 48
    assert first.estimate < first.null_high
    data["own"] = "trial", np.arange(600)
    assert rows(analyse(data, variables=["location@0"], group="own"), **shown)["estimate"][0] > 0.9


def test_prefixes_are_the_same_where_all_before_is() -> None:
    shown = np.array([[3, 1, 2], [3, 1, 4], [3, 2, 2], [5, 1, 2], [3, 1, 2]])
    found = prefixes(shown)
    for t in range(3):
        same = (shown[:, None, : t + 1] == shown[None, :, : t + 1]).all(axis=2)
        np.testing.assert_array_equal(found[:, None, t] == found[None, :, t], same)


def test_few_groups_are_called_under_powered() -> None:
    data = lists(0, 2, repeats=3)
    few = analyse(data.isel(trial=data["sequence"].isin(data["sequence"].values[:27])), group="sequence").table
    assert few["warning"].str.contains("under-powered: 9 groups in 5 folds").any()


def test_variables_of_one_step_serve_a_task_without_lists() -> None:
    generator = np.random.default_rng(2)
    location = generator.integers(0, 3, (300, 4))
    states = 0.1 * generator.normal(size=(300, 4, 12))
    for t in range(4):
        states[:, t, :3] += np.eye(3)[location[:, 0]]
        states[:, t, 3:6] += np.eye(3)[location[:, min(t, 2)]] * (t >= 2)
    data = synthetic_recording(states, {"location": location})
    with pytest.raises(InputError, match="variables must be given"):
        analyse(data)
    result = analyse(data, variables=["location@0", "location@2"])
    for information in ("all", "direct"):
        course = rows(result, measure="balanced_accuracy", information=information)
        assert (course["estimate"] > 0.95).all()
        assert list(course["step"]) == [0, 1, 2, 3, 2, 3]


def test_delays_that_differ_are_refused_until_they_are_told_apart() -> None:
    data = lists(0, 2, repeats=2)
    late = np.arange(data.sizes["trial"]) % 2
    for name in ("delay", "response_0", "response_1"):
        data[f"period_{name}"] = ("trial", "bound"), data[f"period_{name}"].values - late[:, None] * (name != "delay")
    data["delay"] = "trial", 4 - late
    with pytest.raises(InputError, match=r"temporal_generalisation\.within.*response_0.*delay"):
        analyse(data)
    table = analyse(data, within=["length", "delay"], every=4).table
    assert set(table["cell_delay"]) == {3, 4}


def test_padding_is_never_read() -> None:
    data = lists(0, 2)
    padded = data.pad(time=(0, 3), constant_values=np.nan)
    padded["lengths"], padded["state_h"] = data["lengths"], padded["state_h"].astype(np.float32)
    names = ("sequence", "length", "item_0", "item_1")
    padded = padded.assign({name: data[name] for name in names}).assign_coords(time=np.arange(16))
    pd.testing.assert_frame_equal(analyse(data).table, analyse(padded).table)


def test_a_period_that_trials_lack_is_refused() -> None:
    with pytest.raises(InputError, match=r"transfers is 'stimulus_4'.*fixation, trial, stimulus_0"):
        analyse(lists(0, 2), transfers=[["stimulus_4", "delay"]])
    named = analyse(lists(0, 2), transfers=[["stimulus_*", "response_*"]], every=3).table
    assert set(named["tested_in"].dropna()) == {"response_0", "response_1"}


def test_readouts_score_as_the_smoother_does() -> None:
    generator = np.random.default_rng(0)
    states, fold = generator.normal(size=(90, 7)).astype(np.float32), np.sort(np.arange(90) % 3)
    labels = generator.integers(0, 4, 90)
    states[:, :4] += np.eye(4)[labels]
    folded, data = FoldedStates.factorise(states, fold), Labellings.of(labels[:, None], 4, fold)
    weights = folded.readout([0.1, 1.0, 10.0], data)
    scores = np.einsum("nh,nhk->nk", states - folded.mean[fold], weights[fold])
    hit, _ = correct(folded.smoother([0.1, 1.0, 10.0]), data)
    np.testing.assert_array_equal(scores.argmax(axis=1) == labels, hit[:, 0] == 1)
    repeated = FoldedStates.factorise(np.stack([states] * 3), fold)
    np.testing.assert_array_equal(repeated.readout([0.1, 1.0, 10.0], data), weights)
