"""The tests of abstraction on the trials of one cell, and between two cells, as rows of the table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

from wmcore.analyses.abstraction_measures import (
    additive_errors,
    balanced_contexts,
    decoded,
    foldable,
    paired_at_random,
    parallelism,
    repeat_errors,
    rotated,
    transferred,
    within_contexts,
)
from wmcore.analyses.additive import Additive
from wmcore.analyses.cells import Cell
from wmcore.analyses.moments import Moment
from wmcore.analyses.resampling import bootstrap_weights, group_permutations, interval, jackknife_interval, stable_fold
from wmcore.analyses.ridge import bootstrap_balanced_accuracy
from wmcore.analyses.rows import row
from wmcore.analyses.split_halves import SplitHalves

_CEILINGS = 5  # halvings over which the accuracy within contexts is averaged
_SHUFFLES = 20  # nulls of the additivity
_FOLDS = 60  # of the stable hash of a sequence, of which a context uses the remainder


@dataclass(frozen=True)
class Abstraction:
    """One cell, its (N, H) states at some moments, and random halves of its sequences.

    Attributes:
        cell: the trials.
        at: moment -> (N, H) states.
        moment: the one of memory.
        shown: variable -> when it was shown, as far as that is known.
        halves: of the sequences.
        first: (S, N) whether a trial is in the first half of a split.
    """

    cell: Cell
    at: Mapping[Moment, np.ndarray]
    moment: Moment
    shown: Mapping[str, Moment]
    halves: SplitHalves
    first: np.ndarray

    @classmethod
    def of(
        cls,
        cell: Cell,
        at: Mapping[Moment, np.ndarray],
        moment: Moment,
        shown: Mapping[str, Moment],
        splits: int,
        generator: np.random.Generator,
    ) -> Abstraction:
        """Draws the halves."""
        halves = SplitHalves.draw(cell.labels, len(cell.values), cell.groups, splits, 0, generator)
        member = np.unique(cell.groups, return_inverse=True)[1].reshape(-1)
        return cls(cell, at, moment, shown, halves, halves.first[:, member])

    @property
    def n(self) -> int:
        """Sequences."""
        return len(self.halves.design)

    def generalisation(
        self, contexts: int, rotations: int, bootstraps: int, generator: np.random.Generator
    ) -> list[dict[str, Any]]:
        """Rows of the CCGP of every variable, for contexts made of every other one, if there are enough sequences."""
        cell, states, values = self.cell, self.at[self.moment], len(self.cell.values)
        weights = bootstrap_weights(cell.groups, bootstraps, generator)
        fold = stable_fold(cell.groups, _FOLDS)
        rows = []
        for q, other in enumerate(cell.variables):
            kept = [p for p in range(len(cell.variables)) if p != q]
            labels = cell.labels[:, kept]
            halvings = balanced_contexts(values, contexts, generator)[:, cell.labels[:, q]]  # (C, N)
            whole = np.array([foldable(fold, own) for own in halvings])
            if not whole.any():
                continue
            few = f"without {(~whole).sum()} of {len(whole)} pairs of contexts, in which too few sequences are left"
            warning = "" if whole.all() else few
            halvings = halvings[whole]
            hits = np.mean([decoded(states, labels, cell.groups, own.astype(int), values) for own in halvings], axis=0)
            within = np.mean(
                [within_contexts(states, labels, cell.groups, fold, own, values) for own in halvings[:_CEILINGS]],
                axis=0,
            )
            turned = []
            for own in halvings[generator.integers(0, len(halvings), rotations)]:
                elsewhere = rotated(states, own, generator)
                turned.append(decoded(elsewhere, labels, cell.groups, own.astype(int), values))
            for i, p in enumerate(kept):
                accuracy = [_accuracy(hit[:, i], labels[:, i], values) for hit in (hits, within, *turned)]
                bounds = _bounds(hits[:, i], labels[:, i], values, weights)
                named: dict[str, Any] = {"variable": cell.variables[p], "other": other, "chance": 1 / values}
                rows.append(
                    row("ccgp", accuracy[0], bounds, self.n, np.array(accuracy[2:]), accuracy[1], warning, **named)
                )
        return rows

    def parallel(self, contexts: int, blocks: int, draws: int, generator: np.random.Generator) -> list[dict[str, Any]]:
        """Rows of the parallelism of every variable's code between contexts made of every other one."""
        cell, states, values = self.cell, self.at[self.moment], len(self.cell.values)
        orders = generator.permuted(np.tile(np.arange(values), (draws, 1)), axis=1)
        halves = self.halves.effects(states)[0]  # (S, 2, P, K, H)
        highest = parallelism(halves[:, 0], halves[:, 1]).mean(axis=0)
        _, one_trial = np.unique(cell.groups, return_index=True)
        left_out = tuple(np.array_split(generator.permutation(self.n), min(blocks, self.n)))
        rows = []
        for q, other in enumerate(cell.variables):
            first = balanced_contexts(values, contexts, generator)[:, cell.labels[one_trial, q]]
            fits = SplitHalves.of(cell.labels, values, cell.groups, first, left_out)
            kept = [p for p in range(len(cell.variables)) if p != q]
            effects = fits.effects(states)[..., kept, :, :]  # (R, C, 2, P - 1, K, H)
            found = parallelism(effects[:, :, 0], effects[:, :, 1]).mean(axis=1)  # (R, P - 1)
            null = parallelism(effects[0, :, 0], effects[0, :, 1], orders).mean(axis=0)  # (P - 1, D)
            for i, p in enumerate(kept):
                bounds = jackknife_interval(found[:, i])
                named: dict[str, Any] = {"variable": cell.variables[p], "other": other}
                rows.append(row("parallelism", found[0, i], bounds, self.n, null[i], highest[p], **named))
        return rows

    def across_ranks(self, draws: int, bootstraps: int, generator: np.random.Generator) -> list[dict[str, Any]]:
        """Rows of the transfer of every code to every other variable, when shown and in memory."""
        names = self.cell.variables
        phases = {"memory": dict.fromkeys(names, self.moment)}
        if all(self.shown.get(name) in self.at for name in names):
            phases["encoding"] = {name: self.shown[name] for name in names}
        rows = []
        for phase, moments in phases.items():
            effects = {moment: self.halves.effects(self.at[moment])[0] for moment in dict.fromkeys(moments.values())}
            codes = np.stack([effects[moments[name]][:, :, p] for p, name in enumerate(names)], axis=2)
            removed = [effects[moments[name]] for name in names]
            states = [self.at[moments[name]] for name in names]
            found = transferred(codes, removed, states, self.cell.labels, self.first)
            pairs = [(p, q) for p in range(len(names)) for q in range(len(names)) if p != q]
            for (p, q), one in zip(pairs, self._transfers(found, pairs, draws, bootstraps, generator), strict=True):
                named: dict[str, Any] = {"variable": names[p], "other": names[q], "phase": phase}
                rows.append(row("transfer_across_ranks", n=self.n, **one, **named))
        return rows

    def across_lengths(
        self, source: Abstraction, draws: int, bootstraps: int, generator: np.random.Generator
    ) -> list[dict[str, Any]]:
        """Rows of the transfer of the codes of another cell, by rank from the start and from the end."""
        code = Additive.fit(source.at[source.moment], source.cell.labels, len(source.cell.values)).effects
        effects = self.halves.effects(self.at[self.moment])[0]
        many = np.broadcast_to(code, (*effects.shape[:2], *code.shape))
        names, count = self.cell.variables, len(self.cell.variables)
        codes = np.concatenate([effects, many], axis=2)
        found = transferred(codes, [effects] * count, [self.at[self.moment]] * count, self.cell.labels, self.first)
        aligned = {"start": [(p, p) for p in range(len(code))]}
        aligned["end"] = [(p, p + count - len(code)) for p in range(len(code))]
        rows = []
        for alignment, pairs in aligned.items():
            shifted = [(count + p, q) for p, q in pairs]
            made = self._transfers(found, shifted, draws, bootstraps, generator)
            for (p, q), one in zip(pairs, made, strict=True):
                named: dict[str, Any] = {
                    "variable": source.cell.variables[p],
                    "other": names[q],
                    "alignment": alignment,
                }
                text = ", ".join(f"{key} {value}" for key, value in source.cell.name.items())
                rows.append(row("transfer_across_cells", n=self.n, **one, **named, source=text))
        return rows

    def additive(self, bootstraps: int, generator: np.random.Generator) -> list[dict[str, Any]]:
        """The row of the additivity."""
        cell, states = self.cell, self.at[self.moment]
        errors, totals = additive_errors(states, self.halves.effects(states)[0], cell.labels, self.first)
        if not totals.sum() > 0:
            return []  # a state that never changes
        weights = bootstrap_weights(cell.groups, bootstraps, generator)
        null = []
        for order in group_permutations(cell.groups, _SHUFFLES, generator).T:
            labels = cell.labels[order]
            halves = SplitHalves.draw(labels, len(cell.values), cell.groups, 1, 0, generator)
            first = halves.first[:, np.unique(cell.groups, return_inverse=True)[1].reshape(-1)]
            wrong, of = additive_errors(states, halves.effects(states)[0], labels, first)
            null.append(1 - wrong.sum() / of.sum())
        repeats = repeat_errors(states, cell.groups)
        known = np.isfinite(repeats)
        ceiling = 1 - repeats[known].sum() / totals[known].sum() if known.any() else np.nan
        warning = "" if known.any() else "no sequence occurs twice: there is no ceiling"
        bounds = interval(1 - (weights @ errors) / (weights @ totals))
        estimate = 1 - errors.sum() / totals.sum()
        return [row("additivity", estimate, bounds, self.n, np.array(null), ceiling, warning)]

    def _transfers(
        self,
        found: np.ndarray,
        pairs: Sequence[tuple[int, int]],
        draws: int,
        bootstraps: int,
        generator: np.random.Generator,
    ) -> list[dict[str, Any]]:
        """Estimate, bounds, null and ceiling of code p finding label q, for some (p, q) of (S, N, P, Q) found values.

        Of the codes, the one at place q is label q's own.
        """
        values, labels = len(self.cell.values), self.cell.labels
        weights = bootstrap_weights(self.cell.groups, bootstraps, generator)
        orders = generator.permuted(np.tile(np.arange(values), (draws, 1)), axis=1)
        made = []
        for p, q in pairs:
            own, best = ((found[:, :, source, q] == labels[:, q]).mean(axis=0) for source in (p, q))
            made.append(
                {
                    "estimate": _accuracy(own, labels[:, q], values),
                    "bounds": _bounds(own, labels[:, q], values, weights),
                    "null": paired_at_random(found[:, :, p, q], labels[:, q], values, orders),
                    "ceiling": _accuracy(best, labels[:, q], values),
                    "chance": 1 / values,
                }
            )
        return made


def across_cells(
    found: Sequence[Abstraction], draws: int, bootstraps: int, generator: np.random.Generator
) -> list[dict[str, Any]]:
    """Rows of the transfer from every cell to every cell with more variables (a longer list)."""
    rows = []
    for source, target in combinations(sorted(found, key=lambda one: len(one.cell.variables)), 2):
        if len(source.cell.variables) < len(target.cell.variables):
            made = target.across_lengths(source, draws, bootstraps, generator)
            rows += [target.cell.columns() | one for one in made]
    return rows


def _accuracy(hits: np.ndarray, labels: np.ndarray, values: int) -> float:
    """Balanced accuracy of (N,) rates of being right."""
    return float(_resampled(hits, labels, values, np.ones((1, len(labels)), dtype=np.float32))[0])


def _bounds(hits: np.ndarray, labels: np.ndarray, values: int, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return interval(_resampled(hits, labels, values, weights))


def _resampled(hits: np.ndarray, labels: np.ndarray, values: int, weights: np.ndarray) -> np.ndarray:
    return bootstrap_balanced_accuracy(hits, labels, np.ones(len(labels), dtype=bool), values, weights)
