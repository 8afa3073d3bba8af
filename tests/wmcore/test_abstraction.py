from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from tests.contracts.analysis import AnalysisContract, synthetic_recording
from tests.fixtures.planted_sequences import ITEMS, orthogonal, partly_shared, recall, sequences
from wmcore.analyses.abstraction import AbstractionSpec
from wmcore.analyses.abstraction_cell import Abstraction
from wmcore.analyses.abstraction_measures import (
    additive_errors,
    balanced_contexts,
    paired_at_random,
    parallelism,
    repeat_errors,
    rotated,
)
from wmcore.analyses.cells import Cell
from wmcore.analyses.resampling import stable_fold

QUICK = {"contexts": 4, "splits": 10, "rotations": 5, "draws": 50, "bootstraps": 100}


def analyse(recording: xr.Dataset, **fields: object) -> pd.DataFrame:
    spec = AbstractionSpec.parse({**QUICK, **fields})
    return spec.compute(recording, None, np.random.default_rng(1)).table


def rows(table: pd.DataFrame, measure: str, **values: object) -> pd.DataFrame:
    table = table[table["measure"] == measure]
    for name, value in values.items():
        table = table[table[name] == value]
    return table.reset_index(drop=True)


class TestContract(AnalysisContract):
    condition = "item_1"

    @pytest.fixture(scope="class")
    @classmethod
    def spec(cls) -> AbstractionSpec:
        return AbstractionSpec(variables=("item_0", "item_1", "item_2"), **{**QUICK, "contexts": 2})

    @pytest.fixture(scope="class")
    @classmethod
    def recording(cls) -> xr.Dataset:
        rng = np.random.default_rng(0)
        codes = partly_shared(3, 0.5, rng, units=40)
        return recall({2: codes[:2], 3: codes}, 0.05, rng, chosen={3: sequences(3)[::3]})


def test_additive_codes_carry_over_to_every_context() -> None:
    rng = np.random.default_rng(1)
    codes = orthogonal(3, rng, units=60)
    table = analyse(recall({2: codes[:2], 3: codes}, 0.01, rng, repeats=2))
    for measure in ("ccgp", "parallelism"):
        found = rows(table, measure)
        assert (found["estimate"] > 0.97).all()
        assert (found["estimate"] > found["ceiling"] - 0.02).all()
        assert (found["null_high"] < 0.6).all()
    assert len(rows(table, "ccgp")) == 2 + 6
    additive = rows(table, "additivity")
    np.testing.assert_allclose(additive["estimate"], additive["ceiling"], atol=0.01)
    assert (additive["null"] < 0.05).all()
    # Ranks that share nothing: no code finds the item of another rank, and each finds its own in longer lists.
    ranks = rows(table, "transfer_across_ranks", phase="memory")
    assert (ranks["ceiling"] == 1).all()
    assert (ranks["estimate"] < 0.2).all()
    assert len(ranks) == 2 + 6
    np.testing.assert_allclose(ranks["null"], 1 / ITEMS, atol=0.05)
    cells = rows(table, "transfer_across_cells", alignment="start")
    assert list(cells["source"]) == ["length 2", "length 2"]
    assert (cells["estimate"] == 1).all()
    assert (rows(table, "transfer_across_cells", alignment="end")["estimate"] < 0.2).all()


def test_a_shared_code_carries_over_to_every_rank() -> None:
    rng = np.random.default_rng(2)
    common = orthogonal(1, rng, units=60)[0]
    codes = np.stack([common, 0.6 * common, 0.4 * common])
    table = analyse(recall({2: codes[:2], 3: codes}, 0.005, rng))
    ranks = rows(table, "transfer_across_ranks")
    assert set(ranks["phase"]) == {"memory", "encoding"}
    # With the other ranks left in, the code of one rank would find the item of another less often than by chance.
    assert (ranks["estimate"] > 0.97).all()
    assert (rows(table, "transfer_across_cells")["estimate"] > 0.97).all()


def test_codes_that_turn_with_the_context_are_told_from_those_that_do_not() -> None:
    rng = np.random.default_rng(3)
    shown = np.repeat(sequences(2), 2, axis=0)
    codes = np.stack([orthogonal(1, rng, units=60)[0] for _ in range(ITEMS)])  # item 0's, one for each item 1
    states = codes[shown[:, 1], shown[:, 0]] + 2 * orthogonal(1, rng, units=60)[0][shown[:, 1]]
    states = states + 0.01 * rng.normal(size=states.shape)
    data = synthetic_recording(states[:, None], {"item_0": shown[:, 0], "item_1": shown[:, 1]})
    table = analyse(data, moment=0)
    ccgp = rows(table, "ccgp", variable="item_0")
    assert ccgp["estimate"][0] < 0.35
    assert rows(table, "ccgp", variable="item_1")["estimate"][0] > 0.9
    turned = rows(table, "parallelism", variable="item_0")
    assert turned["estimate"][0] < 0.2
    additive = rows(table, "additivity")
    assert additive["estimate"][0] < additive["ceiling"][0] - 0.1  # what is conjunctive


def test_conjunctive_states_have_no_code_that_carries_over() -> None:
    rng = np.random.default_rng(4)
    table = analyse(recall({2: np.zeros((2, ITEMS, 60))}, 0.001, rng, repeats=2, conjunctive=1.0))
    assert (rows(table, "ccgp")["estimate"] < 0.2).all()
    assert (rows(table, "parallelism")["estimate"] < 0.2).all()
    additive = rows(table, "additivity")
    assert additive["estimate"][0] < 0.05
    assert additive["ceiling"][0] > 0.99


def test_few_sequences_are_left_out_with_a_warning_or_refused() -> None:
    rng = np.random.default_rng(10)
    codes = orthogonal(3, rng, units=60)
    few = rng.permutation(sequences(2))[:6]
    table = analyse(
        recall({2: codes[:2], 3: codes}, 0.01, rng, chosen={2: few, 3: rng.permutation(sequences(3))[:120]})
    )
    assert len(table)
    assert set(table["cell_length"]) == {3}
    assert table["warning"].str.contains("without length 2: halves of so few sequences").all()
    with pytest.raises(ValueError, match=r"abstraction\.variables is .*; length 2 has 6\. Record"):
        analyse(recall({2: codes[:2]}, 0.01, rng, chosen={2: few}))


def test_contexts_without_enough_sequences_are_left_out_with_a_warning() -> None:
    rng = np.random.default_rng(11)
    labels = np.array([(a, b) for a in range(4) for b in range(4)])
    ids = np.arange(200)
    one_fold = stable_fold(ids, 60) % 5 == 0
    groups = ids[~one_fold][:16]
    groups[labels[:, 1] < 2] = ids[one_fold][:8]  # within the context {0, 1} of b there is nothing to train on
    cell = Cell({}, np.arange(16), ("a", "b"), labels, np.arange(4), groups)
    codes = orthogonal(2, rng, items=4, units=20)
    states = codes[0][labels[:, 0]] + codes[1][labels[:, 1]] + 0.01 * rng.normal(size=(16, 20))
    one = Abstraction.of(cell, {0: states}, 0, {}, 10, rng)
    assert one.halves.determined
    table = pd.DataFrame(one.generalisation(10, 5, 100, rng)).set_index("variable")
    assert table["warning"]["a"] == "without 1 of 3 pairs of contexts, in which too few sequences are left"
    assert table["warning"]["b"] == ""
    assert (table["estimate"] > 0.97).all()


def test_contexts_are_all_halvings_once() -> None:
    rng = np.random.default_rng(5)
    contexts = balanced_contexts(8, 100, rng)
    assert contexts.shape == (35, 8)
    assert (contexts.sum(axis=1) == 4).all()
    both = np.concatenate([contexts, ~contexts])
    assert len(np.unique(both, axis=0)) == 70
    assert balanced_contexts(8, 6, rng).shape == (6, 8)
    assert balanced_contexts(3, 100, rng).shape == (3, 3)


def test_a_rotation_keeps_each_context_and_loses_their_alignment() -> None:
    rng = np.random.default_rng(6)
    states = rng.normal(size=(80, 30))
    context = np.arange(80) < 40
    turned = rotated(states, context, rng)
    np.testing.assert_array_equal(turned[~context], states[~context])
    np.testing.assert_allclose(turned[context].mean(axis=0), states[context].mean(axis=0), atol=1e-12)
    distances = [np.linalg.norm(own[:40, None] - own[None, :40], axis=-1) for own in (states, turned)]
    np.testing.assert_allclose(*distances, atol=1e-9)
    assert np.abs(turned[context] - states[context]).max() > 0.5


def test_parallelism_is_the_mean_cosine_of_difference_vectors() -> None:
    rng = np.random.default_rng(7)
    first, second = rng.normal(size=(2, 5, 9))
    orders = np.array([[0, 1, 2, 3, 4], [3, 1, 4, 0, 2]])

    def by_hand(order: np.ndarray) -> float:
        other, found = second[order], []
        for i in range(5):
            for j in range(i + 1, 5):
                a, b = first[i] - first[j], other[i] - other[j]
                found.append(a @ b / np.linalg.norm(a) / np.linalg.norm(b))
        return float(np.mean(found))

    assert parallelism(first, second) == pytest.approx(by_hand(orders[0]))
    np.testing.assert_allclose(parallelism(first, second, orders), [by_hand(order) for order in orders])


def test_errors_of_models_by_hand() -> None:
    rng = np.random.default_rng(8)
    states, groups = rng.normal(size=(5, 3)), np.array([4, 7, 4, 7, 9])
    found = repeat_errors(states, groups)
    expected = 2 * ((states[0] - states[[0, 2]].mean(axis=0)) ** 2).sum()
    assert found[0] == found[2] == pytest.approx(expected)
    assert np.isnan(found[4])
    labels = np.array([[0], [1], [0], [1], [0], [1]])
    effects = np.array([[[1.0], [-1.0]]])  # (P, K, H)
    states = 3 + effects[0][labels[:, 0]]
    first = np.array([[True, True, False, False, True, False]])
    errors, totals = additive_errors(states, np.broadcast_to(effects, (1, 2, 1, 2, 1)), labels, first)
    np.testing.assert_allclose(errors, 0, atol=1e-12)
    # The mean of the first half is 10 / 3, that of the second 8 / 3.
    np.testing.assert_allclose(totals, (states[:, 0] - np.where(first[0], 8 / 3, 10 / 3)) ** 2)


def test_codes_handed_to_other_values_are_right_by_chance() -> None:
    labels = np.arange(4).repeat(5)
    found = np.tile(labels, (3, 1))
    orders = np.array([[0, 1, 2, 3], [1, 0, 3, 2], [0, 1, 3, 2]])
    np.testing.assert_allclose(paired_at_random(found, labels, 4, orders), [1, 0, 0.5])


def test_any_sequence_task_and_what_is_missing() -> None:
    rng = np.random.default_rng(9)
    location = rng.integers(0, 4, (240, 2))
    codes = orthogonal(2, rng, items=4, units=20)
    states = 0.02 * rng.normal(size=(240, 2, 20))
    states[:, 1] += codes[0][location[:, 0]] + codes[1][location[:, 1]]
    data = synthetic_recording(states, {"location": location})
    table = analyse(data, variables=["location@0", "location@1"], moment=1)
    assert (rows(table, "ccgp")["estimate"] > 0.97).all()
    assert not len(rows(table, "transfer_across_cells"))
    with pytest.raises(ValueError, match=r"abstraction\.moment is 'delay\.mid'"):
        analyse(data, variables=["location@0", "location@1"])
