"""Linear subspaces of the state space: bases, principal angles, overlaps, and random subspaces to judge them by.

Sources: Björck & Golub 1973 (doi:10.1090/S0025-5718-1973-0348991-3) for the angles; Elsayed et al. 2016
(doi:10.1038/ncomms13239) for the variance ratio. A basis is (..., d, H): d orthonormal rows of H units. Angles are in
radians.
"""

from __future__ import annotations

import numpy as np


def basis(effects: np.ndarray, dimensions: int) -> np.ndarray:
    """(..., d, H) leading right singular vectors of (..., K, H) effects: the subspace in which a code varies most."""
    left = np.linalg.svd(effects.swapaxes(-1, -2), full_matrices=False)[0]  # tall matrices take half the time
    return left[..., :dimensions].swapaxes(-1, -2)


def span(effects: np.ndarray) -> np.ndarray:
    """(..., K - 1, H) a basis, in no order, of all that (..., K, H) effects which sum to zero span."""
    return np.linalg.qr(effects[..., :-1, :].swapaxes(-1, -2))[0].swapaxes(-1, -2)


def products(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """(..., P, Q, a, b) inner products of the rows of each of P (a, H) matrices with those of each of Q (b, H)."""
    *_, p, a, units = first.shape
    *lead, q, b, _ = second.shape
    flat = first.reshape(*first.shape[:-3], p * a, units) @ second.reshape(*lead, q * b, units).swapaxes(-1, -2)
    return np.moveaxis(flat.reshape(*flat.shape[:-2], p, a, q, b), -3, -2)


def principal_angles(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """(..., P, Q, d) principal angles between each of (..., P, d, H) and each of (..., Q, d, H) bases, ascending.

    theta_k = arccos of the k-th singular value of U_p U_q^T.
    """
    cosines = np.linalg.svd(products(first, second), compute_uv=False)
    return np.arccos(np.clip(cosines, 0, 1))


def variance_ratio(effects: np.ndarray, bases: np.ndarray) -> np.ndarray:
    """(..., P, Q) V_{p->q} = ||M_p P_q||_F^2 / ||M_p||_F^2: the share of code p's variance within subspace q.

    Args:
        effects: (..., P, K, H) M_p, not all zero.
        bases: (..., Q, d, H) of the subspaces onto which P_q projects.
    """
    inside = (products(effects, bases) ** 2).sum(axis=(-1, -2))
    return inside / (effects**2).sum(axis=(-1, -2))[..., None]


def random_bases(dimensions: int, root: np.ndarray, draws: int, generator: np.random.Generator) -> np.ndarray:
    """(D, d, H) orthonormalised Gaussian directions with covariance root^T root.

    Args:
        root: (H, H): the identity gives uniformly random subspaces (whose expected V is d / H); a root of the states'
            covariance gives subspaces of the space that the states use.
    """
    directions = generator.normal(size=(draws, dimensions, len(root))) @ root
    return np.linalg.qr(directions.swapaxes(-1, -2))[0].swapaxes(-1, -2)


def covariance_root(states: np.ndarray) -> np.ndarray:
    """(H, H) symmetric C^{1/2} of the covariance C of (N, H) states."""
    power, axes = np.linalg.eigh(np.cov(states, rowvar=False, bias=True))
    return (axes * np.sqrt(np.maximum(power, 0))) @ axes.T


def reliable_dimensions(effects: np.ndarray, others: np.ndarray, bases: np.ndarray, share: float) -> int:
    """The fewest leading directions that hold a share of each code's reliable variance, of the code that needs most.

    The reliable variance along a direction of one half is the product of the two halves' codes along it.

    Args:
        effects, others: (..., P, K, H) M_p of a half of the data and of the other half.
        bases: (..., P, d, H) of ``effects``.
        share: in 0..1.

    Returns:
        From 1 to d.
    """
    along = (effects @ bases.swapaxes(-1, -2)) * (others @ bases.swapaxes(-1, -2))
    variance = np.maximum(along.sum(axis=-2).reshape(-1, *bases.shape[-3:-1]).mean(axis=0), 0)
    held = np.cumsum(variance, axis=1) >= share * variance.sum(axis=1, keepdims=True) * (1 - 1e-12)
    return int(held.argmax(axis=1).max()) + 1
