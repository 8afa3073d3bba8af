"""Decoders fitted to the states of one step and tested at any other, on held-out groups of trials.

Shapes: N trials sorted by fold, S steps, H units, F folds, K classes, P variables, D labellings, B resamplings.
A decoder is a ridge classifier (``wmcore.analyses.ridge``); with centred test states it sees deviations from the mean
of the training trials at the step of the test, not at its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from wmcore.analyses.additive import Additive
from wmcore.analyses.resampling import bootstrap_weights, group_permutations, stable_fold
from wmcore.analyses.ridge import FoldedStates, Labellings


@dataclass(frozen=True)
class Trials:
    """Trials sorted by fold, with what all decoders of them share.

    Attributes:
        order: (N,) their rows in the cell.
        groups: (N,) group ids; all trials of a group are in one fold.
        fold: (N,) fold of each, ascending.
        shuffled: (N, D) for each of D nulls, the trial whose label each one gets: of another group of the same fold.
        weights: (B, N) how often each is drawn when groups are drawn with replacement.
    """

    order: np.ndarray
    groups: np.ndarray
    fold: np.ndarray
    shuffled: np.ndarray
    weights: np.ndarray

    @classmethod
    def of(
        cls, groups: np.ndarray, folds: int, permutations: int, bootstraps: int, generator: np.random.Generator
    ) -> Trials:
        """Sorts (N,) trials into stable folds and draws the nulls and resamplings."""
        fold = stable_fold(groups, folds)
        order = np.argsort(fold, kind="stable")
        groups, fold = groups[order], fold[order]
        starts = np.searchsorted(fold, np.unique(fold))
        parts = np.split(np.arange(len(fold)), starts[1:])
        shuffled = [part[group_permutations(groups[part], permutations, generator)] for part in parts]
        weights = bootstrap_weights(groups, bootstraps, generator)
        return cls(order, groups, fold, np.concatenate(shuffled), weights)

    @property
    def n_groups(self) -> int:
        return len(np.unique(self.groups))


class States:
    """The states of some trials as decoders see them: as they are, or without what other variables add to them.

    Args:
        states: (N, S, H) of trials sorted by fold.
        trials: their folds.
        labels: (N, P) and ``but``: the variable that is decoded; what the others add (M_q of the additive model, fitted
            to all variables together on the training trials of each fold) is removed. None: nothing is.
        effects: (F, P, K, S, H) of ``effects_of``.
    """

    def __init__(
        self,
        states: np.ndarray,
        trials: Trials,
        labels: np.ndarray | None = None,
        but: int = 0,
        effects: np.ndarray | None = None,
    ) -> None:
        self._states, self._labels, self._effects = states, labels, effects
        self._others = [] if labels is None else [q for q in range(labels.shape[1]) if q != but]
        self._position = np.unique(trials.fold, return_inverse=True)[1]

    def training(self, s: int) -> np.ndarray:
        """(N, H), or (F, N, H) where a fold's own effects were removed, at one step."""
        if self._effects is None or self._labels is None:
            return self._states[:, s]
        removed = sum(self._effects[:, q, self._labels[:, q], s] for q in self._others)
        return self._states[:, s] - removed

    def held_out(self) -> np.ndarray:
        """(N, S, H): each trial without the effects that its own fold's training trials gave."""
        if self._effects is None or self._labels is None:
            return self._states
        return self._states - sum(self._effects[self._position, q, self._labels[:, q]] for q in self._others)


def effects_of(states: np.ndarray, labels: np.ndarray, values: int, trials: Trials) -> tuple[np.ndarray, bool]:
    """(F, P, K, S, H) float32: the additive model of each fold's training trials, and whether these determine it."""
    _, steps, units = states.shape
    found, determined = [], True
    for number in np.unique(trials.fold):
        train = trials.fold != number
        model = Additive.fit(states[train].reshape(-1, steps * units), labels[train], values)
        found.append(model.effects.reshape(labels.shape[1], values, steps, units).astype(np.float32))
        determined &= model.determined
    return np.stack(found), determined


@dataclass(frozen=True)
class Readouts:
    """Decoders of one labelling, of every step and fold.

    Attributes:
        weights: (S, F, H, K) float32.
        mean: (S, F, H) mean of the training states.
        absent: (F, K) whether a class does not occur in the training trials.
        bounds: first and one past the last row of each fold.
    """

    weights: np.ndarray
    mean: np.ndarray
    absent: np.ndarray
    bounds: Sequence[tuple[int, int]]

    def part(self, steps: np.ndarray) -> Readouts:
        """The decoders of some of the steps."""
        return replace(self, weights=self.weights[steps], mean=self.mean[steps])

    def same_time(self, held_out: np.ndarray) -> np.ndarray:
        """(S, N) decided classes of (N, S, H) states, each by the decoder of its own step."""
        decided = np.empty(held_out.shape[:2][::-1], dtype=np.int16)
        for f, (start, stop) in enumerate(self.bounds):
            states = held_out[start:stop].transpose(1, 0, 2) - self.mean[:, f, None].astype(np.float32)
            decided[:, start:stop] = _largest((states @ self.weights[:, f]).transpose(2, 0, 1), self.absent[f])
        return decided

    def across_time(self, held_out: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(S, S, N) decided classes by step of decoder and of test: of the states as they are, and of centred ones."""
        steps, _, units, classes = self.weights.shape
        raw = np.empty((steps, steps, len(held_out)), dtype=np.int16)
        centred = np.empty_like(raw)
        for f, (start, stop) in enumerate(self.bounds):
            weights, mean = self.weights[:, f], self.mean[:, f].astype(np.float32)
            flat = weights.transpose(1, 2, 0).reshape(units, classes * steps)
            tested = held_out[start:stop].transpose(1, 0, 2) - mean[:, None]
            scores = (tested.reshape(-1, units) @ flat).reshape(steps, stop - start, classes, steps)
            scores = scores.transpose(2, 3, 0, 1)  # class, decoder, test, trial
            centred[..., start:stop] = _largest(scores, self.absent[f])
            shift = np.einsum("uh,shk->ksu", mean, weights) - np.einsum("sh,shk->ks", mean, weights)[:, :, None]
            raw[..., start:stop] = _largest(scores + shift[..., None], self.absent[f])
        return raw, centred


def fit(
    states: States,
    labels: Sequence[np.ndarray],
    classes: Sequence[int],
    steps: int,
    trials: Trials,
    grid: Sequence[float],
) -> list[Readouts]:
    """The decoders of several labellings (N,), with one factorisation for each step and fold."""
    data = [Labellings.of(own[:, None], k, trials.fold) for own, k in zip(labels, classes, strict=True)]
    weights: list[list[np.ndarray]] = [[] for _ in labels]
    mean, bounds = [], []
    for s in range(steps):
        folded = FoldedStates.factorise(states.training(s), trials.fold)
        penalties = folded.penalties(labels, trials.groups, classes, grid)
        for found, own, chosen in zip(weights, data, penalties, strict=True):
            found.append(folded.readout(chosen, own))
        mean.append(folded.mean)
        bounds = folded.bounds
    means = np.stack(mean)
    pairs = zip(weights, data, strict=True)
    return [Readouts(np.stack(found), means, own.absent[..., 0], bounds) for found, own in pairs]


def _largest(scores: np.ndarray, absent: np.ndarray) -> np.ndarray:
    """int16 number of the largest of K scores on the first axis, among classes that are not ``absent``."""
    best = np.full(scores.shape[1:], -np.inf, dtype=np.float32)
    winner = np.zeros(scores.shape[1:], dtype=np.int16)
    for k in np.flatnonzero(~absent):
        larger = scores[k] > best
        winner[larger] = k
        np.maximum(best, scores[k], out=best)
    return winner


@dataclass(frozen=True)
class Scores:
    """Balanced accuracies of some contexts (the leading axes).

    Attributes:
        estimate: (...,).
        null: (..., D) of held-out labels that were handed to other groups; the decisions stay.
        draws: (..., B) of resampled groups.
        classes: how many of them were scored.
        n: trials that were scored.
    """

    estimate: np.ndarray
    null: np.ndarray
    draws: np.ndarray
    classes: int
    n: int

    @classmethod
    def of(cls, decided: np.ndarray, labels: np.ndarray, absent: np.ndarray, trials: Trials) -> Scores:
        """Scores (..., N) decided classes against (N,) labels; a trial whose class is ``absent`` does not count."""
        position = np.unique(trials.fold, return_inverse=True)[1]
        known = np.where((labels >= 0) & ~absent[position, np.maximum(labels, 0)], labels, -1)
        lead = decided.shape[:-1]
        flat = decided.reshape(-1, decided.shape[-1])
        present = np.unique(known[known >= 0])
        estimate = np.zeros(len(flat))
        null = np.zeros((len(flat), trials.shuffled.shape[1]))
        draws, defined = np.zeros((len(flat), len(trials.weights))), np.zeros(len(trials.weights))
        shuffled = known[trials.shuffled]
        for k in present:
            hit = (flat == k).astype(np.float32)
            own = known == k
            estimate += hit[:, own].mean(axis=1)
            given = (shuffled == k).astype(np.float32)
            null += hit @ given / np.maximum(given.sum(axis=0), 1)
            weight = trials.weights[:, own].T
            total = weight.sum(axis=0)
            draws += hit[:, own] @ weight / np.maximum(total, 1)
            defined += total > 0
        shape = max(len(present), 1)
        return cls(
            (estimate / shape).reshape(lead),
            (null / shape).reshape(*lead, -1),
            (draws / np.maximum(defined, 1)).reshape(*lead, -1),
            len(present),
            int((known >= 0).sum()),
        )

    @classmethod
    def mean(cls, scores: Sequence[Scores]) -> Scores:
        """The mean of several labellings of the same trials, which share their resamplings."""
        parts = (np.mean([getattr(one, name) for one in scores], axis=0) for name in ("estimate", "null", "draws"))
        return cls(*parts, classes=max(one.classes for one in scores), n=min(one.n for one in scores))

    @property
    def chance(self) -> float:
        """Of a guess: 1 / classes."""
        return 1 / max(self.classes, 1)
