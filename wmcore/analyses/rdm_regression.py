"""Representational dissimilarities of sequences, regressed on what two sequences share: items, and items at their rank.

The two models are correlated, so they are judged together: a non-negative regression with the share of variance that
only one of them explains, and the partial rank correlation of each given the other. Distances are squared and
Euclidean, per unit; between independent halves of the trials where there are some (Walther et al. 2016,
doi:10.1016/j.neuroimage.2015.12.012), so that noise adds nothing to them. RDMs are rsatoolbox's
(Kriegeskorte, Mur & Bandettini 2008, doi:10.3389/neuro.06.004.2008). Shapes: M sequences, P ranks, K items, H units.
"""

from __future__ import annotations

import numpy as np
from rsatoolbox.data.dataset import Dataset
from rsatoolbox.rdm.calc import calc_rdm_crossnobis, calc_rdm_euclidean
from scipy.optimize import nnls
from scipy.stats import rankdata

MODELS = ("item", "position")
MEASURES = tuple(f"{kind}_{name}" for kind in ("partial_correlation", "unique_variance") for name in MODELS)
"""What ``regress`` gives, and last the variance explained by both."""


def sequence_distances(means: np.ndarray) -> np.ndarray:
    """(M, M) squared distances between sequences, by (halves, M, H) means of one or two independent halves."""
    halves, size, _ = means.shape
    # Floats: rsatoolbox fills a copy of each descriptor with NaN.
    described = {"sequence": np.tile(np.arange(float(size)), halves), "half": np.repeat(np.arange(float(halves)), size)}
    data = Dataset(means.reshape(halves * size, -1), obs_descriptors=described)
    if halves == 1:
        return calc_rdm_euclidean(data, descriptor="sequence").get_matrices()[0]
    return calc_rdm_crossnobis(data, descriptor="sequence", cv_descriptor="half").get_matrices()[0]


def model_distances(labels: np.ndarray, values: int) -> np.ndarray:
    """(2, M, M) of (M, P) labels: P less the items that two sequences share, and P less those at the same rank."""
    held = (labels[:, :, None] == np.arange(values)).sum(axis=1)  # (M, K)
    shared = np.minimum(held[:, None], held[None]).sum(axis=2)
    matched = (labels[:, None] == labels[None]).sum(axis=2)
    return labels.shape[1] - np.stack([shared, matched]).astype(float)


def informative(models: np.ndarray) -> bool:
    """Whether the two models vary over pairs, and not alike."""
    pairs = models[:, *np.triu_indices(models.shape[1], 1)]
    centred = pairs - pairs.mean(axis=1, keepdims=True)
    gram = centred @ centred.T
    return bool(gram[0, 0] * gram[1, 1] - gram[0, 1] ** 2 > 1e-9 * max(gram[0, 0] * gram[1, 1], 1e-30))


def regress(neural: np.ndarray, models: np.ndarray) -> np.ndarray:
    """(5,) partial correlations, unique variances (both as ``MODELS``) and the variance explained by both.

    Args:
        neural: (M, M) distances.
        models: (2, M, M).
    """
    above = np.triu_indices(len(neural), 1)
    observed, predicted = neural[above], models[:, *above]
    return np.array([*_partial(observed, predicted), *_variances(observed, predicted)])


def reliability(first: np.ndarray, second: np.ndarray) -> float:
    """Correlation of the (M, M) distances of two halves, stepped up to both (Spearman-Brown); 0 if it is negative."""
    above = np.triu_indices(len(first), 1)
    r = max(float(np.corrcoef(first[above], second[above])[0, 1]), 0.0)
    return 2 * r / (1 + r)


def _partial(observed: np.ndarray, predicted: np.ndarray) -> list[float]:
    """Spearman's correlation with each model, the other's ranks partialled out."""
    ranks = rankdata(np.vstack([observed, predicted]), axis=1)
    ranks -= ranks.mean(axis=1, keepdims=True)
    found = []
    for own, other in ((1, 2), (2, 1)):
        given = ranks[other] / np.linalg.norm(ranks[other])
        x, y = (ranks[i] - (ranks[i] @ given) * given for i in (0, own))
        norm = np.linalg.norm(x) * np.linalg.norm(y)
        found.append(float(x @ y / norm) if norm > 0 else 0.0)
    return found


def _variances(observed: np.ndarray, predicted: np.ndarray) -> list[float]:
    both = _explained(observed, predicted)
    without = [_explained(observed, np.delete(predicted, i, axis=0)) for i in range(len(predicted))]
    return [*(both - other for other in without), both]


def _explained(observed: np.ndarray, predicted: np.ndarray) -> float:
    """R^2 of a non-negative regression with an intercept."""
    total = float(((observed - observed.mean()) ** 2).sum())
    if total <= 0:
        return 0.0
    centred = (predicted - predicted.mean(axis=1, keepdims=True)).T
    return 1 - nnls(centred, observed - observed.mean())[1] ** 2 / total
