from __future__ import annotations

import numpy as np
import pytest

from tests.fixtures.planted_sequences import ITEMS, orthogonal, sequences
from wmcore.analyses.additive import Additive, coding
from wmcore.analyses.angles import basis, principal_angles
from wmcore.analyses.split_halves import SplitHalves


def states_of(codes: np.ndarray, shown: np.ndarray) -> np.ndarray:
    return np.asarray(sum(code[shown[:, p]] for p, code in enumerate(codes)))


def item_means(states: np.ndarray, shown: np.ndarray) -> np.ndarray:
    means = [[states[shown[:, p] == k].mean(axis=0) for k in range(ITEMS)] for p in range(shown.shape[1])]
    return np.array(means) - states.mean(axis=0)


@pytest.mark.parametrize("length", [2, 3, 4])
def test_joint_fit_recovers_what_was_planted_without_replacement(length: int) -> None:
    rng = np.random.default_rng(length)
    shown = sequences(length)
    codes = orthogonal(length, rng)
    fitted = Additive.fit(1.5 + states_of(codes, shown), shown, ITEMS)
    assert fitted.determined
    np.testing.assert_allclose(fitted.effects, codes, atol=1e-12)
    np.testing.assert_allclose(fitted.mean, 1.5, atol=1e-12)
    np.testing.assert_allclose(fitted.predict(shown), 1.5 + states_of(codes, shown), atol=1e-12)


@pytest.mark.parametrize(("length", "expected"), [(2, 73.7), (3, 75.2), (4, 76.7)])
def test_item_means_mix_orthogonal_ranks_and_the_joint_fit_does_not(length: int, expected: float) -> None:
    rng = np.random.default_rng(0)
    shown = sequences(length)
    states = states_of(orthogonal(length, rng), shown)
    means = basis(item_means(states, shown)[:2], ITEMS - 1)
    assert np.degrees(principal_angles(means, means)[0, 1].mean()) == pytest.approx(expected, abs=0.05)
    joint = basis(Additive.fit(states, shown, ITEMS).effects[:2], ITEMS - 1)
    assert np.degrees(principal_angles(joint, joint)[0, 1].mean()) == pytest.approx(90, abs=1e-4)


def test_effects_of_too_few_trials_are_called_undetermined() -> None:
    shown = sequences(2)[:10]
    fitted = Additive.fit(np.random.default_rng(0).normal(size=(10, 3)), shown, ITEMS)
    assert not fitted.determined
    np.testing.assert_allclose(fitted.effects.sum(axis=1), 0, atol=1e-12)


def test_halves_and_left_out_blocks_equal_a_fit_of_their_trials_alone() -> None:
    rng = np.random.default_rng(3)
    shown = sequences(2)[rng.integers(0, 56, 400)]  # unequal repeats, in no order
    groups = shown @ [10, 1]
    states = rng.normal(size=(400, 5))
    halves = SplitHalves.draw(shown, ITEMS, groups, splits=3, blocks=4, generator=rng)
    assert halves.determined
    member = np.unique(groups, return_inverse=True)[1]
    found = halves.effects(states)
    assert found.shape == (5, 3, 2, 2, ITEMS, 5)
    for r in range(5):
        out = np.isin(member, halves.blocks[r - 1]) if r else np.zeros(400, dtype=bool)
        for s in range(3):
            for half, inside in enumerate((halves.first[s][member], ~halves.first[s][member])):
                kept = inside & ~out
                design = coding(shown[kept], ITEMS)
                if np.linalg.matrix_rank(design) == design.shape[1]:
                    alone = Additive.fit(states[kept], shown[kept], ITEMS)
                    np.testing.assert_allclose(found[r, s, half], alone.effects, atol=1e-8)
                else:
                    assert r > 0


def test_halves_part_sequences_and_blocks_hold_each_once() -> None:
    shown = np.repeat(sequences(2), 3, axis=0)
    halves = SplitHalves.draw(shown, ITEMS, shown @ [10, 1], 20, 5, np.random.default_rng(0))
    assert (halves.first.sum(axis=1) == 28).all()
    assert sorted(np.concatenate(halves.blocks)) == list(range(56))


def test_halves_of_few_lists_determine_their_models_where_some_halves_do() -> None:
    """All 20 pairs of 5 items: 10 for 9 coefficients in each half, and 2 in 7 halvings determine both."""
    shown = sequences(2, items=5)
    for seed in range(10):
        assert SplitHalves.draw(shown, 5, np.arange(20), 20, 0, np.random.default_rng(seed)).determined
