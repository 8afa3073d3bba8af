from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import subspace_angles
from scipy.stats import t as student

from wmcore.analyses.angles import (
    basis,
    covariance_root,
    principal_angles,
    products,
    random_bases,
    reliable_dimensions,
    span,
    variance_ratio,
)
from wmcore.analyses.resampling import jackknife_interval


@given(seed=st.integers(0, 2**31), d=st.integers(1, 6), units=st.integers(8, 40))
@settings(max_examples=40, deadline=None)
def test_angles_and_ratios_equal_independent_formulas(seed: int, d: int, units: int) -> None:
    rng = np.random.default_rng(seed)
    first, second = rng.normal(size=(2, d, units))
    bases = basis(np.stack([first, second]), d)
    expected = np.sort(subspace_angles(first.T, second.T))
    np.testing.assert_allclose(principal_angles(bases[:1], bases[1:])[0, 0], expected, atol=1e-6)
    projector = second.T @ np.linalg.solve(second @ second.T, second)
    ratio = np.linalg.norm(first @ projector) ** 2 / np.linalg.norm(first) ** 2
    assert variance_ratio(first[None], bases[1:])[0, 0] == pytest.approx(ratio, abs=1e-9)
    assert variance_ratio(first[None], bases[:1])[0, 0] == pytest.approx(1)


def test_products_are_those_of_each_pair() -> None:
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=(2, 3, 4, 9)), rng.normal(size=(2, 5, 6, 9))
    expected = np.einsum("spah,sqbh->spqab", first, second)
    np.testing.assert_allclose(products(first, second), expected, atol=1e-12)


def test_a_span_is_that_of_all_effects() -> None:
    effects = np.random.default_rng(0).normal(size=(8, 30))
    effects -= effects.mean(axis=0)
    assert variance_ratio(effects[None], span(effects)[None])[0, 0] == pytest.approx(1)
    angles = principal_angles(span(effects)[None], basis(effects, 7)[None])
    np.testing.assert_allclose(angles, 0, atol=1e-6)


@pytest.mark.parametrize(
    ("d", "units", "mean", "least"),
    [(7, 128, 78.5, 66.6), (10, 128, 76.1, 60.9), (2, 128, 84.0, 80.7), (7, 64, 73.5, None), (7, 256, 82.0, None)],
)
def test_random_subspaces_agree_with_their_closed_form_and_published_angles(d, units, mean, least) -> None:
    bases = random_bases(d, np.eye(units), 600, np.random.default_rng(1))
    np.testing.assert_allclose(bases @ bases.swapaxes(1, 2), np.broadcast_to(np.eye(d), (600, d, d)), atol=1e-12)
    angles = principal_angles(bases[:300, None], bases[300:, None])[:, 0, 0]
    assert (np.cos(angles) ** 2).mean() == pytest.approx(d / units, rel=0.05)
    assert np.degrees(angles).mean() == pytest.approx(mean, abs=0.25)
    if least is not None:
        assert np.degrees(angles[:, 0]).mean() == pytest.approx(least, abs=0.6)


def test_subspaces_inside_a_covariance_stay_where_the_states_are() -> None:
    rng = np.random.default_rng(2)
    plane = np.linalg.qr(rng.normal(size=(50, 4)))[0].T
    states = rng.normal(size=(400, 4)) @ plane + 3
    root = covariance_root(states)
    np.testing.assert_allclose(root @ root, np.cov(states, rowvar=False, bias=True), atol=1e-12)
    bases = random_bases(2, root, 20, rng)
    np.testing.assert_allclose(variance_ratio(bases[0][None], plane[None]), 1, atol=1e-6)
    assert variance_ratio(bases, bases)[np.triu_indices(20, 1)].mean() == pytest.approx(0.5, abs=0.1)


def test_reliable_dimensions_are_those_that_the_halves_share() -> None:
    rng = np.random.default_rng(3)
    plane = np.linalg.qr(rng.normal(size=(60, 2)))[0].T
    angle = 2 * np.pi * np.arange(8) / 8
    ring = np.stack([np.cos(angle), np.sin(angle)], axis=1) @ plane
    halves = ring + 0.02 * rng.normal(size=(2, 20, 1, 8, 60))
    assert reliable_dimensions(halves[0], halves[1], basis(halves[0], 7), 0.9) == 2
    simplex = np.linalg.qr(rng.normal(size=(60, 8)))[0].T
    full = np.broadcast_to(simplex - simplex.mean(axis=0), (1, 1, 8, 60))
    assert reliable_dimensions(full, full, basis(full, 7), 0.9) == 7


def test_jackknife_of_a_mean_is_the_t_interval_of_its_blocks() -> None:
    blocks = np.random.default_rng(4).normal(size=12)
    replicates = np.array([blocks.mean(), *((blocks.sum() - one) / 11 for one in blocks)])
    low, high = jackknife_interval(replicates)
    half = student.ppf(0.975, 11) * blocks.std(ddof=1) / np.sqrt(12)
    assert (low, high) == (pytest.approx(blocks.mean() - half), pytest.approx(blocks.mean() + half))
