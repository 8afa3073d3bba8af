from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from scipy.stats import kstest
from sklearn.linear_model import RidgeClassifier

from tests.contracts.analysis import AnalysisContract, synthetic_recording
from wmcore.analyses.decoding import DecodingSpec
from wmcore.analyses.resampling import group_permutations, stable_fold
from wmcore.analyses.ridge import FoldedStates, Labellings, balanced_accuracy, correct

FEATURES = ["location", "identity", "category"]
QUICK = {"permutations": 100, "bootstraps": 100}


def one_hot(labels: np.ndarray, classes: int) -> np.ndarray:
    return np.eye(classes)[labels]


def planted(seed: int, ages: tuple[int, ...], size: int = 240, steps: int = 4, noise: float = 0.05) -> xr.Dataset:
    """Locations (4) of these ages in units of their own, among noise; categories and identities are nowhere."""
    rng = np.random.default_rng(seed)
    location = rng.integers(0, 4, (size, steps))
    identity = rng.integers(0, 12, (size, steps))
    states = np.zeros((size, steps, 4 * steps + 8))
    states += noise * rng.normal(size=states.shape)
    for t in range(steps):
        for age in ages:
            if t >= age:
                states[:, t, 4 * age : 4 * age + 4] += one_hot(location[:, t - age], 4)
    conditions = {"location": location, "identity": identity, "category": identity // 3}
    return synthetic_recording(states, conditions)


def rows(table: pd.DataFrame, **values: object) -> pd.DataFrame:
    for name, value in values.items():
        table = table[table[name] == value]
    return table


def decode(recording: xr.Dataset, seed: int = 0, **fields: object) -> pd.DataFrame:
    spec = DecodingSpec.parse({**QUICK, **fields})
    table = spec.compute(recording, None, np.random.default_rng(seed)).table
    return rows(table, measure="balanced_accuracy")


class TestContract(AnalysisContract):
    condition = "location"

    @pytest.fixture(scope="class")
    @classmethod
    def spec(cls) -> DecodingSpec:
        return DecodingSpec(properties=("location", "category"), within=("n", "feature"), **QUICK)

    @pytest.fixture(scope="class")
    @classmethod
    def recording(cls) -> xr.Dataset:
        data = planted(0, (0, 1), size=120, steps=3)
        trial = np.arange(120)
        data["n"] = ("trial", trial % 2 + 1)
        data["feature"] = ("trial", trial // 2 % 2 * 2)
        return data.assign_attrs(condition_labels='{"feature": ["location", "identity", "category"]}')

    def test_one_row_for_each_cell_property_and_context(self, result) -> None:
        contexts = rows(result.table, measure="balanced_accuracy")
        assert len(contexts) == 4 * 2 * 6
        assert set(contexts["cell_n"]) == {1, 2}
        assert set(contexts["cell_feature"]) == {"location", "category"}
        assert (contexts["relevant"] == (contexts["property"] == contexts["cell_feature"])).all()
        assert contexts["n"].between(20, 30).all()  # never pooled over cells

    def test_margin_compares_the_property_asked_for_with_the_best_other(self, result) -> None:
        margins = rows(result.table, measure="relevance_margin", age=0)
        by_task = margins.groupby("cell_feature")["estimate"].mean()
        assert by_task["location"] > 0.6
        assert by_task["category"] < -0.6


def test_a_location_that_is_always_there_is_always_found() -> None:
    table = decode(planted(1, (0, 1, 2, 3)), properties=["location"])
    assert (table["estimate"] == 1).all()
    assert (table["p_value"] == 1 / 101).all()
    assert (table["chance"] == 0.25).all()


def test_a_location_that_is_dropped_is_found_at_age_0_alone() -> None:
    table = decode(planted(2, (0,)), properties=["location"])
    assert (rows(table, age=0)["estimate"] == 1).all()
    late = table[table["age"] > 0]
    assert (late["estimate"] < 0.4).all()
    assert (late["p_value"] > 0.005).all()
    assert np.abs(late["null"] - 0.25).max() < 0.03


def test_the_label_tracked_is_that_of_the_source_step_and_not_of_the_screen() -> None:
    table = decode(planted(3, (2,)), properties=["location"])
    assert (rows(table, age=2)["estimate"] == 1).all()
    assert (table[table["age"] != 2]["estimate"] < 0.45).all()


def test_p_values_of_empty_states_are_uniform() -> None:
    p = np.concatenate(
        [decode(planted(10 + seed, (), size=100, steps=2), seed=seed)["p_value"].to_numpy() for seed in range(12)]
    )
    # Contexts share their trials, so the test is coarse; a leak or a bias of the null would fail it by far.
    assert kstest(p, "uniform").statistic < 0.2
    assert 0.35 < p.mean() < 0.65


def test_states_without_any_variance_give_chance() -> None:
    data = planted(4, ())
    data["state_h"][:] = 0.1
    table = decode(data, properties=["location"])
    np.testing.assert_allclose(table["estimate"], 0.25)
    assert (table["p_value"] == 1).all()


def test_category_memory_is_no_identity_memory() -> None:
    rng = np.random.default_rng(5)
    identity = rng.integers(0, 12, (300, 2))
    states = np.concatenate([one_hot(identity // 3, 4), rng.normal(size=(300, 2, 4)) * 0.05], axis=2)
    data = synthetic_recording(states, {"identity": identity, "category": identity // 3})
    table = rows(decode(data), age=0)
    assert (rows(table, property="category")["estimate"] == 1).all()
    plain = rows(table, property="identity")
    assert (plain["p_value"] < 0.02).all()  # above the null although no identity is held
    assert (plain["estimate"].between(0.22, 0.45)).all()
    nested = rows(table, property="identity_within_category")
    np.testing.assert_allclose(nested["chance"], 1 / 3)
    np.testing.assert_allclose(nested["null"], 1 / 3, atol=0.03)
    assert (nested["p_value"] > 0.02).all()


def test_copies_of_a_trial_leak_unless_they_are_one_group() -> None:
    rng = np.random.default_rng(6)
    sequence = np.arange(240) % 40
    states = rng.normal(size=(40, 2, 60))[sequence]
    location = rng.integers(0, 4, (40, 2))[sequence]
    data = synthetic_recording(states, {"location": location, "sequence": sequence})
    assert (decode(data)["estimate"] > 0.9).all()
    grouped = decode(data, group="sequence")
    assert (grouped["p_value"] > 0.01).all()
    assert (grouped["estimate"] < 0.5).all()
    assert (grouped["n_groups"] == 40).all()


def test_the_first_step_is_grouped_by_image() -> None:
    rng = np.random.default_rng(7)
    image = rng.integers(0, 30, (240, 2))
    location = np.random.default_rng(8).integers(0, 4, 30)[image]
    states = rng.normal(size=(30, 40))[image]  # one state for each image, which says nothing about location
    table = decode(synthetic_recording(states, {"location": location, "image": image}))
    first = rows(table, read_step=0).iloc[0]
    assert first["p_value"] > 0.02
    assert first["n_groups"] <= 30
    assert rows(table, source_step=1, read_step=1).iloc[0]["estimate"] > 0.9  # where trials are the groups


def with_input(data: xr.Dataset, values: np.ndarray) -> xr.Dataset:
    data["input_x"] = (("trial", "time", "input_x_axis0"), values.astype(np.float32))
    return data.assign_attrs(inputs='{"x": "dense"}')


def test_labels_known_by_image_alone_do_not_carry_over_to_other_images() -> None:
    rng = np.random.default_rng(13)
    image = rng.integers(0, 40, (240, 3))
    location = (rng.permutation(40) % 4)[image]
    values = rng.normal(size=(40, 60))[image]  # random values of each image: nothing about location but by heart
    states = rng.normal(size=(240, 3, 10))
    table = decode(with_input(synthetic_recording(states, {"location": location, "image": image}), values))
    assert (table["input_new_images"] < 0.45).all()
    first = rows(table, read_step=0).iloc[0]  # images are the groups of estimate and ceiling alike
    assert first["ceiling"] < 0.45
    assert first["input_readout"] == first["input_new_images"]
    assert (table[table["read_step"] > 0]["ceiling"] > 0.9).all()  # trials are: the very same images are told apart


def test_the_ceiling_is_what_the_estimate_would_be_on_the_inputs() -> None:
    data = planted(14, (0, 1), size=120, noise=1.0)
    data["n"] = ("trial", np.arange(120) % 2)
    table = decode(with_input(data, data["state_h"].values), within=("n",))
    own = table[table["age"] == 0]
    np.testing.assert_allclose(own["ceiling"], own["estimate"], atol=1e-6)  # same values, trials and folds
    np.testing.assert_allclose(own["input_readout"], own["estimate"], atol=1e-6)
    assert (own["estimate"] < 1).any()


def test_a_network_that_makes_more_of_an_input_than_a_linear_readout_is_its_own_ceiling() -> None:
    data = planted(15, (0,))
    blind = np.random.default_rng(0).normal(size=(240, 4, 8))
    table = rows(decode(with_input(data, blind), properties=["location"]), age=0)
    assert (table["input_readout"] < 0.45).all()
    assert (table["ceiling"] == 1).all()
    assert (table["estimate"] <= table["ceiling"]).all()


def test_the_first_item_is_never_pooled_with_later_ones() -> None:
    data = planted(16, (0,))
    data["state_h"][:, 0] = 0.0  # nothing of the first item
    spec = DecodingSpec(properties=("location",), **QUICK)
    by_age = rows(spec.compute(data, None, np.random.default_rng(0)).table, measure="balanced_accuracy_by_age")
    assert rows(by_age, age=0, first_item=False)["estimate"].item() == 1
    assert rows(by_age, age=0, first_item=True)["estimate"].item() == pytest.approx(0.25)
    assert list(rows(by_age, first_item=False)["age"]) == [0, 1, 2]
    assert list(rows(by_age, first_item=True)["age"]) == [0, 1, 2, 3]


def margins_of(held: tuple[str, ...], seed: int) -> pd.DataFrame:
    """Margins by age of a location task whose states hold some properties, equally noisily."""
    rng = np.random.default_rng(seed)
    labels = {name: rng.integers(0, 4, (200, 2)) for name in ("location", "category")}
    parts = [one_hot(labels[name], 4) + 0.6 * rng.normal(size=(200, 2, 4)) for name in held]
    states = np.concatenate([*parts, rng.normal(size=(200, 2, 4))], axis=2)
    data = synthetic_recording(states, labels | {"feature": np.zeros(200, int)}, {"feature": FEATURES})
    table = DecodingSpec(**QUICK).compute(data, None, np.random.default_rng(seed)).table
    return rows(table, measure="relevance_margin", age=0)


def test_margins_of_equally_held_properties_are_not_significant() -> None:
    both = pd.concat([margins_of(("location", "category"), seed) for seed in range(10)])
    assert (both["null"] == 0).all()
    assert (both["p_value"] < 0.05).mean() <= 0.2  # a permutation null would call every estimate of 1 or 0 odd
    assert ((both["ci_low"] <= 0) & (both["ci_high"] >= 0)).mean() >= 0.8
    one = pd.concat([margins_of(("location",), seed) for seed in range(3)])
    assert (one["p_value"] < 0.05).all()
    assert (one["ci_low"] > 0.2).all()
    assert (one["compared_with"] == "category").all()
    other = pd.concat([margins_of(("category",), seed) for seed in range(3)])
    assert (other["p_value"] < 0.05).all()  # two-sided
    assert (other["ci_high"] < -0.2).all()


def test_a_rare_class_is_named_in_table_and_figure() -> None:
    spec = DecodingSpec(**QUICK)
    result = spec.compute(planted(17, (0,), size=160, steps=2), None, np.random.default_rng(0))
    few = result.table["rarest"] < 20
    assert set(result.table[few]["property"]) == {"identity", "identity_within_category"}
    assert result.table["warning"].str.contains("under-powered").equals(few)
    figures = spec.figures(result)
    titles = {name: figure.get_suptitle() for name, figure in figures.items()}
    assert "under-powered" in titles["by_age"]
    assert "identity (" in titles["by_age"]
    assert "under-powered" in titles["map_identity"]
    assert "under-powered" not in titles["map_location"]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"properties": ["shape"]}, r"analyses\.0\.properties\.0 is 'shape'.*location"),
        ({"properties": ["n"]}, r"properties\.0 is 'n'.*at every step: location"),
        ({"within": ["location"]}, r"within\.0 is 'location'.*per trial: n"),
        ({"group": "m"}, r"group is 'm'.*per trial: n"),
        ({"state": "c"}, r"state is 'c'.*recorded.*: h"),
    ],
)
def test_options_that_no_recording_could_satisfy_are_refused(fields, message) -> None:
    conditions = {"n": ("trial",), "location": ("trial", "time")}
    DecodingSpec().check(conditions, ("h",), 6, "analyses.0")
    with pytest.raises(ValueError, match=message):
        DecodingSpec.parse(fields).check(conditions, ("h",), 6, "analyses.0")


def test_padding_is_left_out() -> None:
    data = planted(9, (0,), size=200, steps=3)
    lengths = np.where(np.arange(200) < 120, 3, 1)
    data["lengths"] = ("trial", lengths)
    data["state_h"][120:, 1:] = 1e6
    table = decode(data, properties=["location"])
    assert set(rows(table, read_step=0)["n"]) == {200}
    assert set(table[table["read_step"] > 0]["n"]) == {120}
    assert (rows(table, age=0)["estimate"] == 1).all()


def test_a_class_that_no_training_fold_holds_is_left_out_and_reported() -> None:
    data = planted(11, (0,), size=100, steps=1)
    location = data["location"].values
    location[0] = 9  # a class with a single trial
    row = decode(data, properties=["location"]).iloc[0]
    assert row["n"] == 99
    assert row["n_classes"] == 4
    assert "1 trials left out" in row["warning"]


def test_asking_for_labels_that_are_not_classes_is_refused() -> None:
    data = planted(12, (0,))
    data["angle"] = data["location"] * 0.5
    with pytest.raises(ValueError, match=r"decoding\.properties.*angle.*whole numbers"):
        decode(data, properties=["angle"])


@pytest.mark.parametrize(("size", "units"), [(90, 20), (60, 120)])
def test_fast_ridge_equals_normal_equations_in_float64(size: int, units: int) -> None:
    rng = np.random.default_rng(size)
    labels = rng.integers(0, 5, size)
    states = rng.normal(size=(size, units)) + 0.8 * rng.normal(size=(5, units))[labels]
    fold = np.sort(stable_fold(np.arange(size), 5))
    penalties = np.array([0.01, 0.1, 1.0, 10.0, 100.0])
    folded = FoldedStates.factorise(states.astype(np.float32), fold)
    data = Labellings.of(labels[:, None], 5, fold)
    smoother = folded.smoother(penalties)
    for f, penalty in enumerate(penalties):
        train, test = fold != f, fold == f
        mean, sd = states[train].mean(0), states[train].std(0)
        x, z = (states[train] - mean) / sd, (states[test] - mean) / sd
        y = one_hot(labels[train], 5)
        share = y.mean(0)
        coefficients = np.linalg.solve(x.T @ x + penalty * len(x) * np.eye(units), x.T @ (y / share - 1))
        scores = smoother[test] @ data.indicators[:, :, 0] / share
        np.testing.assert_allclose(scores, z @ coefficients, atol=2e-4)
        hit, _ = correct(smoother, data)
        np.testing.assert_array_equal(hit[test, 0], (z @ coefficients).argmax(1) == labels[test])


def test_fast_ridge_equals_scikit_learn_on_equally_frequent_classes() -> None:
    rng = np.random.default_rng(1)
    labels = np.tile(np.arange(4), 25)
    states = rng.normal(size=(100, 30)) + 0.5 * rng.normal(size=(4, 30))[labels]
    fold = np.repeat(np.arange(5), 20)
    folded = FoldedStates.factorise(states.astype(np.float32), fold)
    hit, _ = correct(folded.smoother([0.5] * 5), Labellings.of(labels[:, None], 4, fold))
    expected = []
    for f in range(5):
        train = fold != f
        mean, sd = states[train].mean(0), states[train].std(0)
        slow = RidgeClassifier(alpha=0.5 * 80).fit((states[train] - mean) / sd, labels[train])
        expected.append(slow.predict((states[~train] - mean) / sd) == labels[~train])
    np.testing.assert_array_equal(hit[:, 0], np.concatenate(expected))


@pytest.mark.parametrize("grouped", [False, True])
def test_penalty_is_that_of_an_explicit_leave_one_group_out(grouped: bool) -> None:
    rng = np.random.default_rng(2)
    size, units, grid = 50, 12, (0.01, 0.1, 1.0, 10.0)
    labels = rng.integers(0, 3, size)
    groups = np.arange(size) // 3 if grouped else np.arange(size)
    states = rng.normal(size=(size, units)) + 0.7 * rng.normal(size=(3, units))[labels]
    fold = (np.arange(size) >= 35).astype(int)
    chosen = FoldedStates.factorise(states.astype(np.float32), fold).penalties([labels], groups, [3], grid)[0]
    for f in range(2):
        train = fold != f
        x = (states[train] - states[train].mean(0)) / states[train].std(0)
        y = one_hot(labels[train], 3)
        y = y / y.mean(0) - 1
        errors = []
        for value in grid:
            error = 0.0
            for g in np.unique(groups[train]):
                out = groups[train] == g
                kept, target = np.column_stack([np.ones((~out).sum()), x[~out]]), y[~out]
                ridge = value * len(x) * np.diag([0.0] + [1.0] * units)
                weights = np.linalg.solve(kept.T @ kept + ridge, kept.T @ target)
                error += ((y[out] - np.column_stack([np.ones(out.sum()), x[out]]) @ weights) ** 2).sum()
            errors.append(error)
        assert chosen[f] == grid[int(np.argmin(errors))]


def test_balanced_accuracy_weighs_classes_equally() -> None:
    labels = np.array([0] * 8 + [1] * 2)[:, None]
    hit = np.array([1] * 8 + [0] * 2)[:, None]
    assert balanced_accuracy(hit, labels, np.ones_like(labels, dtype=bool), 2)[0] == 0.5


def test_folds_depend_on_the_group_alone() -> None:
    groups = np.array([5, 9, 5, 123456789])
    fold = stable_fold(groups, 5)
    assert fold[0] == fold[2]
    np.testing.assert_array_equal(stable_fold(groups[::-1], 5), fold[::-1])
    np.testing.assert_array_equal(fold, [3, 3, 3, 2])  # pinned: a changed hash would change every result
    counts = np.bincount(stable_fold(np.arange(5000), 5))
    assert (np.abs(counts - 1000) < 120).all()


def test_permutations_move_whole_groups() -> None:
    groups = np.array([4, 4, 7, 7, 7, 9])
    permuted = groups[group_permutations(groups, 50, np.random.default_rng(0))]
    for column in permuted.T:
        assert column[0] == column[1]
        assert column[2] == column[3] == column[4]
        assert len({column[0], column[2], column[5]}) == 3
