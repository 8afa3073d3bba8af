from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from torch import nn

from tests.contracts.analysis import AnalysisContract, synthetic_recording
from tests.fixtures.planted_sequences import ITEMS, UNITS, orthogonal, partly_shared, recall, sequences
from wmcore.analyses.subspaces import SubspacesSpec

QUICK = {"draws": 100, "shuffles": 10}


def analyse(recording: xr.Dataset, model: nn.Module | None = None, **fields: object):
    spec = SubspacesSpec.parse({**QUICK, "course": [], **fields})
    return spec.compute(recording, model, np.random.default_rng(1))  # pyright: ignore[reportArgumentType]


def rows(table: pd.DataFrame, **values: object) -> pd.DataFrame:
    for name, value in values.items():
        table = table[table[name] == value]
    return table


def crossed(table: pd.DataFrame, measure: str, **values: object) -> pd.DataFrame:
    """Rows of two different variables, over all dimensions."""
    found = rows(table, measure=measure, subspace="full", **values)
    return found[found["variable"] != found["other"]]


def degrees(table: pd.DataFrame, name: str = "estimate") -> np.ndarray:
    return np.degrees(table[name].to_numpy())


class TestContract(AnalysisContract):
    condition = "item_1"

    @pytest.fixture(scope="class")
    @classmethod
    def spec(cls) -> SubspacesSpec:
        return SubspacesSpec(variables=("item_0", "item_1"), moments=("delay.mid", "stimulus_1.end"), **QUICK)

    @pytest.fixture(scope="class")
    @classmethod
    def recording(cls) -> xr.Dataset:
        rng = np.random.default_rng(0)
        codes = {length: partly_shared(length, 0.7, rng, units=40) for length in (2, 3)}
        return recall(codes, 0.05, rng, chosen={3: sequences(3)[::2]})

    def test_there_is_a_figure_for_every_question(self, spec, result) -> None:
        assert set(spec.figures(result)) == {"maps_delay_mid", "maps_stimulus_1_end", "distance", "course"}


def test_orthogonal_ranks() -> None:
    rng = np.random.default_rng(1)
    table = analyse(recall({L: orthogonal(L, rng) for L in (2, 3)}, 0.02, rng, repeats=2)).table
    # The estimate is that of item means no longer: 73.7 and 75.2 degrees by those.
    assert degrees(crossed(table, "mean_angle")).min() > 86
    assert crossed(table, "variance_ratio")["estimate"].max() < 0.01
    assert (crossed(table, "variance_ratio")["ceiling"] > 0.97).all()
    # Orthogonal ranks overlap less than subspaces drawn anywhere, and than those of the covariance that they make up.
    found = crossed(table, "normalised_overlap")
    assert len(found) == 3 * (2 + 6)  # references and ordered pairs of two and of three items
    assert (found["relation"] == "more_orthogonal").all()
    assert (found["ci_high"] < 0).all()
    np.testing.assert_allclose(found[found["reference"] == "random"]["estimate"], -(7 / 128) / (1 - 7 / 128), atol=0.01)
    gain = rows(table, measure="gain")
    assert len(gain) == 1 + 2
    assert ((gain["ci_low"] <= 1) & (gain["ci_high"] >= 1)).all()
    shape = rows(table, measure="shape_correlation")
    assert len(shape) == 1 + 3
    assert shape["warning"].str.contains("simplex").all()


def test_partly_shared_ranks() -> None:
    rng = np.random.default_rng(2)
    table = analyse(recall({L: partly_shared(L, 0.7, rng) for L in (2, 3)}, 0.01, rng, repeats=2)).table
    np.testing.assert_allclose(degrees(crossed(table, "mean_angle")), 60.7, atol=1)
    np.testing.assert_allclose(crossed(table, "variance_ratio")["estimate"], 0.24, atol=0.01)
    np.testing.assert_allclose(crossed(table, "overlap")["estimate"], 0.24, atol=0.01)
    ceiling = degrees(crossed(table, "mean_angle"), "ceiling")
    assert (ceiling < 10).all()
    # One share of variance, three yardsticks: more than anywhere in H = 128, less than within two codes' own space.
    two = crossed(rows(table, cell_length=2), "normalised_overlap").groupby("reference")["relation"].unique()
    assert {name: list(found) for name, found in two.items()} == {
        "covariance": ["more_orthogonal"],
        "random": ["shared"],
        "shuffled": ["more_orthogonal"],
    }
    np.testing.assert_allclose(rows(table, measure="variance_ratio")["null_random"], 7 / UNITS)


@pytest.mark.parametrize("turn", [25.0, 50.0])
def test_turned_subspaces(turn: float) -> None:
    rng = np.random.default_rng(3)
    one, two = orthogonal(2, rng)
    theta = np.radians(turn)
    codes = np.stack([one, np.cos(theta) * one + np.sin(theta) * two])
    table = analyse(recall({2: codes}, 0.005, rng)).table
    np.testing.assert_allclose(degrees(crossed(table, "mean_angle")), turn, atol=1.5)
    np.testing.assert_allclose(degrees(crossed(table, "least_angle")), turn, atol=1.5)
    np.testing.assert_allclose(crossed(table, "variance_ratio")["estimate"], np.cos(theta) ** 2, atol=0.02)


def test_subspaces_drawn_at_random_overlap_as_by_chance() -> None:
    rng = np.random.default_rng(11)
    codes = np.concatenate([orthogonal(1, rng) for _ in range(3)])
    found = crossed(analyse(recall({3: codes}, 0.02, rng)).table, "normalised_overlap", reference="random")
    assert len(found) == 6
    assert (found["relation"] == "as_by_chance").sum() >= 5  # one pair in twenty lies outside the range of the null
    np.testing.assert_allclose(found["estimate"], 0, atol=0.05)
    # V of 7 x 7 squared cosines of variance 1 / H has an sd of sqrt(2) / H; it is divided by 1 - d / H.
    np.testing.assert_allclose(
        found["null_high"] - found["null_low"], 3.92 * np.sqrt(2) / 128 / (1 - 7 / 128), rtol=0.4
    )


def test_shared_ranks_with_gains() -> None:
    rng = np.random.default_rng(4)
    common = orthogonal(1, rng)[0] * rng.uniform(0.4, 1.6, (ITEMS, 1))
    common -= common.mean(axis=0)
    codes = np.stack([common, 0.6 * common, 0.3 * common])
    table = analyse(recall({3: codes}, 0.005, rng)).table
    np.testing.assert_allclose(rows(table, measure="gain")["estimate"], [0.6, 0.3], atol=0.01)
    found = crossed(table, "normalised_overlap")
    assert set(found["reference"]) == {"covariance", "random", "shuffled"}
    assert len(found) == 3 * 6
    np.testing.assert_allclose(found["estimate"], 1, atol=0.05)
    assert (found["relation"] == "shared").all()
    shape = rows(table, measure="shape_correlation")
    np.testing.assert_allclose(shape["estimate"], 1, atol=0.05)
    assert (shape["null_high"] < np.minimum(shape["ci_low"], 0.95)).all()
    assert (shape["warning"] == "").all()


def test_conjunctive_states_hold_no_code_that_could_overlap() -> None:
    rng = np.random.default_rng(5)
    nothing = np.zeros((2, ITEMS, UNITS))
    table = analyse(recall({2: nothing}, 0.001, rng, repeats=2, conjunctive=1.0)).table
    own = rows(table, measure="variance_ratio", subspace="full")
    assert (own["estimate"] <= own["null_high"]).all()  # also of a variable with itself
    assert not len(rows(table, measure="normalised_overlap"))


def test_reliable_dimensions_of_rings() -> None:
    rng = np.random.default_rng(6)
    plane = np.linalg.qr(rng.normal(size=(UNITS, 4)))[0].T.reshape(2, 2, UNITS)
    angle = 2 * np.pi * np.arange(ITEMS) / ITEMS
    codes = np.stack([np.cos(angle), np.sin(angle)], axis=1) @ plane
    table = analyse(recall({2: codes}, 0.01, rng)).table
    two = rows(table, subspace="reliable", measure="mean_angle")
    assert (two["dimensions"] == 2).all()
    assert degrees(two[two["variable"] != two["other"]])[0] > 85
    assert degrees(two[two["variable"] == two["other"]]).max() < 10
    shape = rows(table, measure="shape_correlation")
    assert shape["estimate"].iloc[0] == pytest.approx(1, abs=0.02)
    assert shape["warning"].iloc[0] == ""


def test_codes_that_few_sequences_do_not_determine_have_no_rows() -> None:
    rng = np.random.default_rng(12)
    codes = orthogonal(3, rng, units=60)
    few = sequences(2)[::9]
    data = recall({2: codes[:2], 3: codes}, 0.02, rng, chosen={2: few, 3: rng.permutation(sequences(3))[:150]})
    table = analyse(data, course=["delay.mid"]).table
    assert len(table)
    assert set(table["cell_length"]) == {3}
    assert table["warning"].str.contains("without length 2: halves of so few sequences").all()
    with pytest.raises(ValueError, match=r"subspaces\.variables is .*26 sequences or more.*; length 2 has 7\. Record"):
        analyse(recall({2: codes[:2]}, 0.02, rng, chosen={2: few}))


def test_a_variable_that_is_not_shown_yet_has_no_rows() -> None:
    rng = np.random.default_rng(7)
    data = recall({3: orthogonal(3, rng, units=60)}, 0.02, rng)
    table = analyse(data, moments=["stimulus_1.end", "delay.mid"]).table
    early = rows(table, moment="stimulus_1.end")
    assert set(early["variable"]) | set(early["other"]) == {"item_0", "item_1"}
    assert set(rows(table, moment="delay.mid")["variable"]) == {"item_0", "item_1", "item_2"}
    with pytest.raises(ValueError, match=r"subspaces\.moments.*two of the variables"):
        analyse(data, moments=["stimulus_0.end"])


def test_a_code_that_turns_between_encoding_and_delay_towards_the_readout() -> None:
    rng = np.random.default_rng(8)
    codes = orthogonal(4, rng, units=60)
    data = recall({2: codes[:2]}, 0.01, rng)
    shown = np.stack([data["item_0"].values, data["item_1"].values], axis=1)
    off = int(data["period_delay"].values[0, 0])
    late = sum(codes[2 + p][shown[:, p]] for p in range(2)) - sum(codes[p][shown[:, p]] for p in range(2))
    data["state_h"][:, off:] += late[:, None].astype(np.float32)

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.readout = nn.Linear(60, ITEMS)
            self.readout.weight.data = nn.Parameter(self.readout.weight.new_tensor(codes[2] + 5.0)).data

    course = ["stimulus_0.end", "stimulus_1.end", "delay.mid"]
    table = rows(analyse(data, Network(), course=course).table, variable="item_0")
    kept = rows(table, measure="share_of_encoding").set_index("moment")
    assert (kept["estimate"][:2] > 0.9).all()
    assert kept["estimate"]["delay.mid"] < 0.01
    read = rows(table, measure="share_in_readout").set_index("moment")
    assert (read["dimensions"] == ITEMS - 1).all()  # not the offset, which no softmax sees
    assert read["estimate"]["delay.mid"] > 0.9
    assert read["estimate"]["stimulus_0.end"] < 0.05
    without = analyse(data, course=course).table
    assert not len(rows(without, measure="share_in_readout"))


def test_any_sequence_task_by_conditions_of_a_step() -> None:
    rng = np.random.default_rng(9)
    location = rng.integers(0, 4, (300, 3))
    codes = orthogonal(2, rng, items=4, units=30)
    states = 0.02 * rng.normal(size=(300, 3, 30))
    states[:, 2] += codes[0][location[:, 0]] + codes[1][location[:, 1]]
    data = synthetic_recording(states, {"location": location, "n": 1 + np.arange(300) % 2})
    table = analyse(data, variables=["location@0", "location@1"], moments=[2], within=["n"]).table
    assert set(table["cell_n"]) == {1, 2}
    assert degrees(crossed(table, "mean_angle")).min() > 85
    with pytest.raises(ValueError, match=r"subspaces\.variables must be given.*location@0"):
        analyse(data, moments=[2])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"variables": ["item_0"]}, r"variables .*at least 2"),
        ({"variables": ["item_0", "item_0"]}, r"variables .*once"),
        ({"variables": ["item_0", "item_7"]}, r"variables\.1 is 'item_7'.*Did you mean item_"),
        ({"variables": ["item_0", "phase"]}, r"variables\.1.*Name one, as in phase@0"),
        ({"within": ["size"]}, r"within\.0 is 'size'.*length"),
        ({"moments": ["delay.middle"]}, r"moments\.0 is 'delay\.middle'.*As in delay\.mid"),
        ({"moments": [99]}, r"moments\.0 is 99.*0 to 19"),
        ({"state": "c"}, r"state is 'c'"),
    ],
)
def test_options_that_no_recording_could_satisfy_are_refused(fields, message) -> None:
    trial, step = ("trial",), ("trial", "time")
    conditions = {"item_0": trial, "item_1": trial, "length": trial, "phase": step}
    SubspacesSpec().check(conditions, ("h",), 20, "analyses.0")
    with pytest.raises(ValueError, match=r"analyses\.0\." + message):
        SubspacesSpec.parse(fields).check(conditions, ("h",), 20, "analyses.0")


def test_a_period_that_the_recording_lacks_is_named() -> None:
    rng = np.random.default_rng(10)
    data = recall({2: orthogonal(2, rng, units=40)}, 0.02, rng)
    with pytest.raises(ValueError, match=r"subspaces\.moments is 'probe\.mid'.*delay"):
        analyse(data, moments=["probe.mid"])
