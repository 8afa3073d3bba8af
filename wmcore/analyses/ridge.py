"""Cross-validated ridge classification of many labellings of the same states, with one factorisation per fold.

Shapes: N trials, H units, F folds, K classes, D labellings (the true one first, then its permutations).

A ridge regression onto class indicators (Hastie, Tibshirani & Friedman 2009, section 4.2) is linear in the labels:
with the training states X (standardised and centred), the scores of a test state x for the indicators Y are
``x' V (S^2 + lambda I)^-1 V' X' Y``, where X = U S V'. The factorisation knows nothing about Y, so all properties,
source steps and permutations share it. A linear fit of an indicator estimates P(class | x); divided by the class's
share of the training trials it ranks classes as if they were equally frequent, which balanced accuracy asks for
(equal class weights would change X and break the sharing).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class FoldedStates:
    """States of one context step, factorised once for each fold; trials are sorted by fold.

    Attributes:
        bounds: per fold, first and one past the last of its rows.
        left: per fold, U (n_train, r).
        right: per fold, X_test V S (n_test, r).
        power: per fold, S^2 (r,).
        scaled: per fold, V S (H, r).
        mean: (F, H) of the training states.
        scale: (F, H) 1 / their standard deviation; 0 for a unit that is constant there.
        size: N.
    """

    bounds: list[tuple[int, int]]
    left: list[np.ndarray]
    right: list[np.ndarray]
    power: list[np.ndarray]
    scaled: list[np.ndarray]
    mean: np.ndarray
    scale: np.ndarray
    size: int

    @classmethod
    def factorise(cls, states: np.ndarray, fold: np.ndarray) -> FoldedStates:
        """Standardises with the statistics of the training fold and factorises it.

        Args:
            states: (N, H); or (F, N, H) where the training trials of a fold change the states, as the removal of an
                effect does that is estimated on them.
            fold: (N,) fold of each row, ascending; at least two different ones.
        """
        bounds, left, right, power, scaled, mean, scale = [], [], [], [], [], [], []
        for f, number in enumerate(np.unique(fold)):
            own = states[f] if states.ndim == 3 else states
            start, stop = (int(i) for i in np.searchsorted(fold, [number, number + 1]))
            train = np.delete(own, slice(start, stop), axis=0)
            mean.append(train.mean(axis=0, dtype=np.float64))
            scale.append(_inverse_deviation(train, mean[f]))
            u, directions, squares = _decompose(_standardise(train, mean[f], scale[f]))
            bounds.append((start, stop))
            left.append(u)
            right.append(_standardise(own[start:stop], mean[f], scale[f]) @ directions)
            power.append(squares)
            scaled.append(directions)
        return cls(bounds, left, right, power, scaled, np.stack(mean), np.stack(scale), len(fold))

    def penalties(
        self, labels: Sequence[np.ndarray], groups: np.ndarray, n_classes: Sequence[int], grid: Sequence[float]
    ) -> np.ndarray:
        """(L, F): for L labellings, each fold's penalty with the least leave-one-group-out squared error.

        It is chosen inside the training fold, in closed form: the residuals of a left-out group g are
        ``(I - H_gg)^-1 e_g`` (e: residuals of the full fit, H: its hat matrix, intercept included).
        Standardisation and class shares are those of the whole training fold.

        Args:
            labels: L arrays (N,) of class numbers; -1 is no class.
            groups: (N,) integer ids.
            n_classes: L numbers of classes.
            grid: penalties per training trial (lambda = value * n_train).
        """
        best = np.empty((len(labels), len(self.bounds)))
        for f, (bound, left, power) in enumerate(zip(self.bounds, self.left, self.power, strict=True)):
            kept = [np.delete(own, slice(*bound)) for own in labels]
            targets = [_centred_target(own, k) for own, k in zip(kept, n_classes, strict=True)]
            owner = np.repeat(np.arange(len(targets)), [target.shape[1] for target in targets])
            target = np.concatenate(targets, axis=1)
            blocks = _group_blocks(np.delete(groups, slice(*bound)))
            errors = np.stack([_left_out_error(target, left, power, value, blocks) for value in grid])
            summed = np.stack([np.bincount(owner, row, minlength=len(targets)) for row in errors])
            best[:, f] = np.asarray(grid)[summed.argmin(axis=0)]
        return best

    def smoother(self, penalties: Sequence[float] | np.ndarray) -> np.ndarray:
        """(N, N) float32: row i holds the weights of all training labels in the scores of held-out trial i."""
        weights = np.zeros((self.size, self.size), dtype=np.float32)
        for (start, stop), left, right, power, penalty in zip(
            self.bounds, self.left, self.right, self.power, penalties, strict=True
        ):
            # right = X_test V S and left = U, so that X_test V (S^2 + l)^-1 V' X_train' = right (S^2 + l)^-1 left'.
            shrink = (1 / (power + penalty * len(left))).astype(np.float32)
            part = (right * shrink) @ left.T
            weights[start:stop, :start] = part[:, :start]
            weights[start:stop, stop:] = part[:, start:]
        return weights

    def readout(self, penalties: Sequence[float] | np.ndarray, data: Labellings) -> np.ndarray:
        """(F, H, K) float32 W_f of the first labelling: the score of a state x for class k is (x - mean_f) W_f[:, k].

        The weights that ``smoother`` and ``correct`` use without ever forming them, class shares included; they can be
        applied to states of another step.
        """
        found = []
        for f, (start, stop) in enumerate(self.bounds):
            target = np.delete(data.indicators[..., 0], slice(start, stop), axis=0) * data.inverse_share[f, :, 0]
            left, power = self.left[f], self.power[f]
            shrink = (1 / (power + penalties[f] * len(left))).astype(np.float32)
            inner = (self.scaled[f] * shrink) @ (left.T @ target)
            found.append(self.scale[f].astype(np.float32)[:, None] * inner)
        return np.stack(found)


@dataclass(frozen=True)
class Labellings:
    """The indicator matrix of D labellings of N trials and, per fold, the inverse class shares of its training trials.

    Attributes:
        labels: (N, D) class numbers in 0..K-1; -1 is no class.
        indicators: (N, K, D) float32.
        inverse_share: (F, K, D) float32; 0 where the class is absent from the training fold.
        absent: (F, K, D) whether it is.
        fold: (N,) position of each trial's fold on the axis F, ascending.
    """

    labels: np.ndarray
    indicators: np.ndarray
    inverse_share: np.ndarray
    absent: np.ndarray
    fold: np.ndarray

    @classmethod
    def of(cls, labels: np.ndarray, n_classes: int, fold: np.ndarray) -> Labellings:
        """Builds the indicators of (N, D) labels for trials that are sorted by their (N,) folds."""
        size, draws = labels.shape
        indicators = np.zeros((size, n_classes, draws), dtype=np.float32)
        rows, columns = np.nonzero(labels >= 0)
        indicators[rows, labels[rows, columns], columns] = 1
        _, position = np.unique(fold, return_inverse=True)
        total = indicators.sum(axis=0)
        held_out = np.stack([indicators[position == f].sum(axis=0) for f in range(position.max() + 1)])
        count = total - held_out
        share = count / np.maximum(count.sum(axis=1, keepdims=True), 1)
        inverse = np.divide(1, share, out=np.zeros_like(share), where=count > 0)
        return cls(labels, indicators, inverse, count == 0, position)

    def scored(self) -> np.ndarray:
        """(N, D): whether a trial's class occurs in the fold that its decoder was trained on."""
        absent = self.absent[self.fold[:, None], np.maximum(self.labels, 0), np.arange(self.labels.shape[1])]
        return (self.labels >= 0) & ~absent


def correct(smoother: np.ndarray, data: Labellings, parent: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Whether each held-out trial's own class has the highest score, among all classes and among its siblings.

    Args:
        smoother: (N, N) of ``FoldedStates.smoother``.
        data: the labellings.
        parent: (K,) the super-class of each class (the category of an identity), or None.

    Returns:
        (N, D) float32 twice: 1 or 0; 1/K where the states carry nothing at all (every score is equal). The second is
        the choice among the classes of the same parent, and empty where there is none.
    """
    size, n_classes, draws = data.indicators.shape
    scores = (smoother @ data.indicators.reshape(size, -1)).reshape(size, n_classes, draws)
    for f in range(data.inverse_share.shape[0]):
        rows = slice(*np.searchsorted(data.fold, [f, f + 1]))
        scores[rows] *= data.inverse_share[f]
        k, d = np.nonzero(data.absent[f])
        scores[rows, k, d] = -np.inf
    own_class = np.maximum(data.labels, 0)
    own = np.take_along_axis(scores, own_class[:, None, :], axis=1)[:, 0]
    empty = ~smoother.any(axis=1)
    hit = (own >= scores.max(axis=1)).astype(np.float32)
    hit[empty] = 1 / n_classes
    if parent is None:
        return hit, np.empty((0, draws), dtype=np.float32)
    best = np.empty_like(own)
    own_parent = parent[own_class]
    for value in np.unique(parent):
        rows, columns = np.nonzero(own_parent == value)
        best[rows, columns] = scores[:, parent == value].max(axis=1)[rows, columns]
    nested = (own >= best).astype(np.float32)
    if empty.any():
        siblings = np.bincount(parent, minlength=int(parent.max()) + 1)
        nested[empty] = 1 / siblings[own_parent[empty]]
    return hit, nested


def balanced_accuracy(hit: np.ndarray, labels: np.ndarray, scored: np.ndarray, n_classes: int) -> np.ndarray:
    """(D,) mean over classes of the share of a class's scored trials that are correct; all arguments are (N, D)."""
    draws = labels.shape[1]
    flat = (np.maximum(labels, 0) * draws + np.arange(draws)).ravel()
    length = n_classes * draws
    count = np.bincount(flat, weights=scored.ravel(), minlength=length).reshape(n_classes, draws)
    hits = np.bincount(flat, weights=(hit * scored).ravel(), minlength=length).reshape(n_classes, draws)
    return _mean_recall(hits, count)


def bootstrap_balanced_accuracy(
    hit: np.ndarray, labels: np.ndarray, scored: np.ndarray, n_classes: int, weights: np.ndarray
) -> np.ndarray:
    """(B,) balanced accuracies of the fixed held-out decisions (N,) under (B, N) resampling weights."""
    one_hot = (labels[:, None] == np.arange(n_classes)) & scored[:, None]
    both = np.concatenate([one_hot, one_hot * hit[:, None]], axis=1).astype(np.float32)
    count, hits = np.split(weights @ both, 2, axis=1)
    return _mean_recall(hits.T, count.T)


def _mean_recall(hits: np.ndarray, count: np.ndarray) -> np.ndarray:
    """(K, D) counts to (D,) means over the classes that were scored; NaN where none was."""
    recall = np.divide(hits, count, out=np.zeros(hits.shape), where=count > 0)
    classes = (count > 0).sum(axis=0)
    return np.divide(recall.sum(axis=0), classes, out=np.full(classes.shape, np.nan), where=classes > 0)


def _inverse_deviation(train: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """(H,) 1 / sd of each unit; 0 for one that is constant."""
    sd = train.astype(np.float64).std(axis=0)
    alive = sd > 1e-6 * (np.abs(mean) + 1e-6)
    return np.where(alive, 1 / np.where(alive, sd, 1), 0)


def _standardise(states: np.ndarray, mean: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """In float32, with the statistics of the training fold."""
    return ((states - mean) * scale).astype(np.float32)


def _decompose(x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(U, V S, S^2) of X = U S V', by the smaller of the two Gram matrices; directions without variance are dropped."""
    exact = x.astype(np.float64)
    wide = x.shape[0] < x.shape[1]
    power, vectors = np.linalg.eigh(exact @ exact.T if wide else exact.T @ exact)
    keep = power > max(power[-1], 1e-30) * 1e-10
    power, vectors = power[keep], vectors[:, keep]
    if wide:
        left, scaled = vectors, exact.T @ vectors  # V S = X' U
    else:
        left, scaled = exact @ (vectors / np.sqrt(power)), vectors * np.sqrt(power)
    return left.astype(np.float32), scaled.astype(np.float32), power


def _centred_target(labels: np.ndarray, n_classes: int) -> np.ndarray:
    """(n, K') float32: indicator / share - 1 of the classes that occur."""
    target = (labels[:, None] == np.arange(n_classes)).astype(np.float32)
    count = target.sum(axis=0)
    target = target[:, count > 0]
    return target / count[count > 0] * count.sum() - (labels >= 0)[:, None].astype(np.float32)


def _group_blocks(groups: np.ndarray) -> np.ndarray | None:
    """(G, m) row numbers of each group, padded with -1; None where every row is a group of its own."""
    _, member, count = np.unique(groups, return_inverse=True, return_counts=True)
    if count.max() == 1:
        return None
    order = np.argsort(member, kind="stable")
    start = np.cumsum(count) - count
    blocks = np.full((count.size, count.max()), -1)
    blocks[member[order], np.arange(member.size) - start[member[order]]] = order
    return blocks


def _left_out_error(
    target: np.ndarray, left: np.ndarray, power: np.ndarray, value: float, blocks: np.ndarray | None
) -> np.ndarray:
    """(columns,) sums of squares of the leave-one-group-out residuals at one penalty."""
    size = len(left)
    shrink = (power / (power + value * size)).astype(np.float32)
    residual = target - (left * shrink) @ (left.T @ target)
    if blocks is None:
        leverage = 1 / size + (left * left) @ shrink
        residual /= np.maximum(1 - leverage, 1e-6)[:, None]
        return np.einsum("ij,ij->j", residual, residual)
    real = (blocks >= 0).astype(np.float64)
    rows = left[blocks] * real[..., None]
    hat = (rows * shrink) @ rows.transpose(0, 2, 1) + real[:, :, None] * real[:, None, :] / size
    system = np.eye(blocks.shape[1]) * (1 + 1e-6) - hat
    solved = np.linalg.solve(system, residual[blocks] * real[..., None])
    return (solved**2).sum(axis=(0, 1))
