from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from tests.contracts.analysis import AnalysisContract
from tests.fixtures.planted_sequences import RESPONSE, recall, sequences
from wmcore.analyses.base import select
from wmcore.analyses.behaviour import BehaviourSpec
from wmcore.errors import InputError
from wmcore.recording import periods

QUICK = {"simulations": 50, "bootstraps": 100}
K = 6


def answering(shown: np.ndarray, answers: np.ndarray) -> xr.Dataset:
    """(N, L) lists and (N, L) or (N, L, RESPONSE) answers; outputs favour the answer in its response period."""
    length = shown.shape[1]
    data = recall({length: np.zeros((length, K, 2))}, 0.1, np.random.default_rng(0), chosen={length: shown})
    steps = np.broadcast_to(answers.reshape(*shown.shape, -1), (*shown.shape, RESPONSE))
    outputs = np.zeros((len(shown), data.sizes["time"], K), dtype=np.float32)
    for p in range(length):
        start = periods(data)[f"response_{p}"][0, 0]
        for r in range(RESPONSE):
            outputs[np.arange(len(shown)), start + r, steps[:, p, r]] = 1
    return data.assign(outputs=(("trial", "time", "channel"), outputs))


def analyse(recording: xr.Dataset, **fields: object) -> pd.DataFrame:
    return BehaviourSpec.parse({**QUICK, **fields}).compute(recording, None, np.random.default_rng(1)).table


def value(table: pd.DataFrame, column: str = "estimate", **where: object) -> list[float]:
    rows = select(table, where)
    if "rank" not in where and where["measure"] in ("transposition", "intrusion", "repetition"):
        rows = rows[rows["rank"].isna()]
    return rows[column].to_list()


class TestContract(AnalysisContract):
    condition = "length"

    @pytest.fixture(scope="class")
    @classmethod
    def spec(cls) -> BehaviourSpec:
        return BehaviourSpec(within=("length",), simulations=20, bootstraps=100)

    @pytest.fixture(scope="class")
    @classmethod
    def recording(cls) -> xr.Dataset:
        shown = sequences(3, K)
        return answering(shown, np.random.default_rng(0).integers(0, K, shown.shape))


def test_perfect_recall_has_no_errors_and_an_interval_with_width() -> None:
    shown = sequences(2, K)
    table = analyse(answering(shown, shown))
    assert value(table, measure="item_accuracy") == [1, 1, 1, 1]
    assert value(table, measure="sequence_accuracy") == [1, 1]
    assert value(table, "null", measure="sequence_accuracy") == [pytest.approx(1 / 30)] * 2
    for kind in ("transposition", "intrusion", "repetition"):
        assert value(table, measure=kind) == [0]
        assert value(table, "null", measure=kind) == [0]
    # Clopper & Pearson of 30 of 30: 0.025^(1/30).
    assert value(table, "ci_low", measure="sequence_accuracy", steps="last") == [pytest.approx(0.025 ** (1 / 30))]


def test_repeats_of_a_list_add_nothing_to_what_is_known_of_lists() -> None:
    shown = np.repeat(sequences(2, K), 12, axis=0)
    data = answering(shown, shown)
    data["list"] = "trial", shown @ [K, 1]
    table = analyse(data, group="list")
    assert (table["n"] == 30).all()
    assert value(table, "ci_low", measure="sequence_accuracy", steps="last") == [pytest.approx(0.025 ** (1 / 30))]
    assert value(analyse(data), "n", measure="sequence_accuracy", steps="last") == [360]


def test_errors_are_told_apart_as_planted() -> None:
    shown = sequences(3, K)
    answers = shown.copy()
    answers[:12, [0, 1]] = shown[:12][:, [1, 0]]  # 12 lists with neighbours swapped: 24 transpositions
    absent = np.array([next(k for k in range(K) if k not in row) for row in shown])
    answers[12:30, 2] = absent[12:30]  # 18 intrusions
    answers[30:36, 2] = shown[30:36, 0]  # 6 repetitions of the first response: transpositions over 2 ranks
    table = analyse(answering(shown, answers))
    assert value(table, measure="transposition") == [pytest.approx(30 / 360)]
    assert value(table, measure="intrusion") == [pytest.approx(18 / 360)]
    assert value(table, measure="repetition") == [pytest.approx(6 / 360)]
    assert value(table, measure="transposition_by_distance") == [
        pytest.approx(24 / (4 * 120)),  # pairs of ranks 1 apart: 0-1, 1-0, 1-2, 2-1
        pytest.approx(6 / (2 * 120)),
    ]
    assert value(table, measure="sequence_accuracy", steps="last") == [pytest.approx(1 - 36 / 120)]
    ranks = value(table, measure="item_accuracy", steps="last")
    assert ranks == [pytest.approx(1 - n / 120) for n in (12, 12, 24)]
    assert value(table, measure="intrusion", rank=2) == [pytest.approx(18 / 120)]
    # Neighbours are confused more than even errors would have it, and distances are not.
    near = select(table, {"measure": "transposition_by_distance", "distance": 1})
    assert (near["estimate"] > near["null_high"]).all()


def test_all_steps_and_the_last_one_are_counted_apart() -> None:
    shown = sequences(2, K)
    answers = np.repeat(shown[:, :, None], RESPONSE, axis=2)
    answers[:, 0, 0] = (shown[:, 0] + 1) % K  # wrong at the first of two steps
    table = analyse(answering(shown, answers))
    assert value(table, measure="item_accuracy", rank=0, steps="all") == [0.5]
    assert value(table, measure="item_accuracy", rank=0, steps="last") == [1]
    assert value(table, measure="sequence_accuracy") == [0, 1]


def test_even_errors_agree_with_their_null() -> None:
    generator = np.random.default_rng(0)
    shown = np.repeat(sequences(3, K), 20, axis=0)
    wrong = (shown + generator.integers(1, K, shown.shape)) % K
    table = analyse(answering(shown, np.where(generator.random(shown.shape) < 0.4, wrong, shown)))
    errors = table[table["measure"].isin(["transposition", "intrusion", "repetition", "transposition_by_distance"])]
    np.testing.assert_allclose(errors["estimate"], errors["null"], atol=0.015)
    # An even error hits one of the 2 other items of the list with 2 / 5.
    assert value(table, "null", measure="transposition") == [pytest.approx(0.4 * 2 / 5, abs=0.01)]


def test_lists_that_repeat_items_have_more_lists_to_guess_from() -> None:
    shown = np.stack(np.meshgrid(range(K), range(K)), -1).reshape(-1, 2)
    table = analyse(answering(shown, shown))
    assert value(table, "null", measure="sequence_accuracy") == [pytest.approx(1 / 36)] * 2
    # The item of both ranks is no transposition of itself.
    assert value(table, measure="transposition_by_distance") == [0]


def test_a_rank_that_no_trial_has_needs_no_response() -> None:
    shown = sequences(2, K)
    data = answering(shown, shown)
    longer = data.assign(item_2=("trial", np.full(len(shown), -1)))
    pd.testing.assert_frame_equal(analyse(longer), analyse(data))


def test_a_recording_without_lists_or_responses_is_refused() -> None:
    data = answering(sequences(2, K), sequences(2, K))
    with pytest.raises(InputError, match=r"behaviour needs the items.*no items"):
        analyse(data.drop_vars(["item_0", "item_1"]))
    with pytest.raises(InputError, match=r"behaviour needs.*period_response_1 is not in the recording"):
        analyse(data.drop_vars("period_response_1"))
    with pytest.raises(InputError, match="outputs"):
        analyse(data.drop_vars("outputs"))
    with pytest.raises(InputError, match=r"item 5 and 3 outputs"):
        analyse(data.isel(channel=slice(3)))
    with pytest.raises(InputError, match=r"analyses\.2 needs"):
        BehaviourSpec().check({"feature": ("trial",)}, ("h",), None, "analyses.2")
