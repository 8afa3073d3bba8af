"""Whether the code of a variable stays the same in other contexts: other items, ranks and lengths.

Shapes: N trials, P and Q variables, K values, S splits, H units.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np

from wmcore.analyses.ridge import FoldedStates, Labellings, correct

_PENALTIES = (0.001, 0.01, 0.1, 1.0)  # per training trial, of which each context picks one
_WITHIN = 5  # folds inside a context


def balanced_contexts(values: int, most: int, generator: np.random.Generator) -> np.ndarray:
    """(C, K) whether a value is in the first context: all ways to halve K values, or ``most`` of them at random."""
    half = values // 2
    found = [chosen for chosen in combinations(range(values), half) if values % 2 or 0 in chosen]
    kept = np.sort(generator.permutation(len(found))[:most])
    contexts = np.zeros((len(kept), values), dtype=bool)
    for row, number in zip(contexts, kept, strict=True):
        row[list(found[number])] = True
    return contexts


def decoded(states: np.ndarray, labels: np.ndarray, groups: np.ndarray, fold: np.ndarray, values: int) -> np.ndarray:
    """(N, P) whether the label of a held-out trial is decoded from its (H,) state, for (N, P) labels.

    A ridge decoder is fitted on all folds but the trial's own; its penalty is chosen in there, groups held out.
    """
    order = np.argsort(fold, kind="stable")
    folded = FoldedStates.factorise(states[order].astype(np.float32), fold[order])
    columns = list(labels[order].T)
    penalties = folded.penalties(columns, groups[order], [values] * len(columns), _PENALTIES)
    hits = np.empty(labels.shape, dtype=bool)
    for p, (own, penalty) in enumerate(zip(columns, penalties, strict=True)):
        hit, _ = correct(folded.smoother(penalty), Labellings.of(own[:, None], values, fold[order]))
        hits[order, p] = hit[:, 0]
    return hits


def within_contexts(
    states: np.ndarray, labels: np.ndarray, groups: np.ndarray, fold: np.ndarray, context: np.ndarray, values: int
) -> np.ndarray:
    """(N, P) the same with training and test in one context: the ceiling of what carries over to the other.

    Args:
        fold: (N,) of which each context uses the remainder; see ``foldable``.
    """
    hits = np.empty(labels.shape, dtype=bool)
    for rows in (np.flatnonzero(context), np.flatnonzero(~context)):
        hits[rows] = decoded(states[rows], labels[rows], groups[rows], fold[rows] % _WITHIN, values)
    return hits


def foldable(fold: np.ndarray, context: np.ndarray) -> bool:
    """Whether both contexts hold trials of two folds or more, without which ``within_contexts`` has no training."""
    return all(len(np.unique(fold[rows] % _WITHIN)) > 1 for rows in (context, ~context))


def rotated(states: np.ndarray, context: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """(N, H) states with those of one context turned at random about its mean, within the space that the states use.

    Each context can be decoded as well as before, but its codes point elsewhere (Bernardi et al. 2020).
    """
    axes = np.linalg.svd(states - states.mean(axis=0), full_matrices=False)
    used = axes[2][: max(2, int((np.cumsum(axes[1] ** 2) < 0.99 * (axes[1] ** 2).sum()).sum()) + 1)]
    turn = np.linalg.qr(generator.normal(size=(len(used), len(used))))[0]
    turned = states.copy()
    centred = states[context] - states[context].mean(axis=0)
    turned[context] += (centred @ used.T) @ (turn - np.eye(len(used))) @ used
    return turned


def parallelism(first: np.ndarray, second: np.ndarray, orders: np.ndarray | None = None) -> np.ndarray:
    """(...) mean cosine between the vectors M[i] - M[j] of two (..., K, H) codes over all pairs of values.

    Args:
        orders: (D, K) of the values of the second code, for the null: the result is then (..., D).
    """
    inner = first @ second.swapaxes(-1, -2)
    i, j = np.array(list(combinations(range(first.shape[-2]), 2))).T
    square = [_squares(code, i, j) for code in (first, second)]
    if orders is None:
        product = inner[..., i, i] + inner[..., j, j] - inner[..., i, j] - inner[..., j, i]
        return _cosines(product, square[0] * square[1]).mean(axis=-1)
    a, b = orders[:, i], orders[:, j]
    product = inner[..., i, a] + inner[..., j, b] - inner[..., i, b] - inner[..., j, a]  # (..., D, pairs)
    matrix = np.zeros((*first.shape[:-1], first.shape[-2]))
    matrix[..., i, j] = matrix[..., j, i] = square[1]
    return _cosines(product, square[0][..., None, :] * matrix[..., a, b]).mean(axis=-1)


def _cosines(product: np.ndarray, squares: np.ndarray) -> np.ndarray:
    """Of vectors with these inner products and products of squared norms; 0 for a vector without length."""
    return np.divide(product, np.sqrt(squares), out=np.zeros_like(product), where=squares > 0)


def _squares(code: np.ndarray, i: np.ndarray, j: np.ndarray) -> np.ndarray:
    return ((code[..., i, :] - code[..., j, :]) ** 2).sum(axis=-1)


def residual(states: np.ndarray, effects: np.ndarray, labels: np.ndarray, but: int) -> np.ndarray:
    """(N, H) states less what the other variables add by (Q, K, H) effects, centred."""
    rest = states.copy()
    for q in range(labels.shape[1]):
        if q != but:
            rest -= effects[q, labels[:, q]]
    return rest - rest.mean(axis=0)


def transferred(
    codes: np.ndarray,
    removed: Sequence[np.ndarray],
    states: Sequence[np.ndarray],
    labels: np.ndarray,
    first: np.ndarray,
) -> np.ndarray:
    """(S, N, P, Q) the value of each label q that code p finds in what is left of a state without the other variables.

    The value is the one whose code points most nearly the same way. Codes and what is removed come from one half of
    the sequences, the states from the other.

    Args:
        codes: (S, 2, P, K, H) of each half.
        removed: for each q, the (S, 2, Q, K, H) effects of each half at the moment of its states.
        states: for each q, (N, H).
        labels: (N, Q).
        first: (S, N) whether a trial is in the first half.
    """
    splits, _, sources, values, _ = codes.shape
    norm = np.linalg.norm(codes, axis=-1, keepdims=True)
    unit = np.divide(codes, norm, out=np.zeros_like(codes), where=norm > 0)
    found = np.empty((splits, len(labels), sources, labels.shape[1]), dtype=np.int64)
    for s in range(splits):
        for half, rows in enumerate((np.flatnonzero(~first[s]), np.flatnonzero(first[s]))):
            flat = unit[s, half].reshape(sources * values, -1).T
            for q in range(labels.shape[1]):
                rest = residual(states[q][rows], removed[q][s, half], labels[rows], q)
                found[s, rows, :, q] = (rest @ flat).reshape(len(rows), sources, values).argmax(axis=2)
    return found


def paired_at_random(found: np.ndarray, labels: np.ndarray, values: int, orders: np.ndarray) -> np.ndarray:
    """(D,) balanced accuracies of (S, N) found values when the codes are handed to other values, by (D, K) orders."""
    pairs = np.broadcast_to(labels, found.shape).ravel() * values + found.ravel()
    confusion = np.bincount(pairs, minlength=values**2).reshape(values, values).astype(float)
    count = confusion.sum(axis=1, keepdims=True)
    confusion = np.divide(confusion, count, out=np.zeros_like(confusion), where=count > 0)
    return confusion[np.arange(values), orders].sum(axis=1) / max(int((count > 0).sum()), 1)


def additive_errors(
    states: np.ndarray, effects: np.ndarray, labels: np.ndarray, first: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Two (N,) squared distances of held-out states, averaged over splits: from the additive model of (S, 2, P, K, H)
    effects, and from the mean state, both of the other half."""
    errors, totals = np.zeros(len(states)), np.zeros(len(states))
    for own, in_first in zip(effects, first, strict=True):
        for half, rows in enumerate((~in_first, in_first)):
            added = sum(code[labels[:, p]] for p, code in enumerate(own[half]))
            centre = (states - added)[~rows].mean(axis=0)
            errors[rows] += ((states - added - centre)[rows] ** 2).sum(axis=1)
            totals[rows] += ((states[rows] - states[~rows].mean(axis=0)) ** 2).sum(axis=1)
    return errors / len(effects), totals / len(effects)


def repeat_errors(states: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """(N,) squared distance of a state from the exact mean of its group, estimated from the other trials of the group
    (n / (n - 1) of that from the mean of all n); NaN where there are none."""
    _, member, count = np.unique(groups, return_inverse=True, return_counts=True)
    means = np.stack([np.bincount(member, column) for column in states.T], axis=1) / count[:, None]
    own = count[member]
    stretch = np.divide(own, own - 1, out=np.full(len(own), np.nan), where=own > 1)
    return ((states - means[member]) ** 2).sum(axis=1) * stretch
