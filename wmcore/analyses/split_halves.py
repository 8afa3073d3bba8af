"""The additive model fitted to halves of the sequences, many times over, and to each half without a block of them.

All fits share their sums: a block's part of the normal equations is made once for each half and then left out. Shapes:
N trials, G groups (sequences), S splits, R = 1 + blocks left out, P variables, K values, F = 1 + P (K - 1), H units.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from wmcore.analyses.additive import coding, effects_of

_CANDIDATES = 16  # halvings drawn for each that is kept: of all 20 pairs of 5 items, 2 in 7 determine both halves


@dataclass(frozen=True)
class SplitHalves:
    """Made by ``of`` or ``draw``; ``effects`` fits states.

    Attributes:
        order: (N,) trials sorted by group.
        start: (G,) place of each group's first trial among these.
        design: (G, F) of ``coding``.
        first: (S, G) whether a group is in the first half of a split.
        blocks: of groups, left out in turn; one block that holds all where none is left out.
        inverse: (R, S, 2, F, F) of the normal equations' matrix.
        variables: P.
        determined: whether every half determines its model.
    """

    order: np.ndarray
    start: np.ndarray
    design: np.ndarray
    first: np.ndarray
    blocks: tuple[np.ndarray, ...]
    inverse: np.ndarray
    variables: int
    determined: bool

    @classmethod
    def of(
        cls, labels: np.ndarray, values: int, groups: np.ndarray, first: np.ndarray, blocks: tuple[np.ndarray, ...]
    ) -> SplitHalves:
        """Halves that the caller made.

        Args:
            labels: (N, P) in 0..K-1, the same for all trials of a group.
            values: K.
            groups: (N,) ids; G different ones, numbered in sorted order.
            first: (S, G).
            blocks: numbers of groups; () leaves none out.
        """
        _, index, member, count = np.unique(groups, return_index=True, return_inverse=True, return_counts=True)
        design = coding(labels[index], values)
        parts = blocks or (np.arange(len(index)),)
        matrix = _left_out(_sums(design, design * count[:, None], first, parts), leave=bool(blocks))
        power = np.linalg.eigvalsh(matrix[0])
        determined = bool((power[..., 0] > 1e-9 * power[..., -1]).all())
        inverse = np.linalg.pinv(matrix, rcond=1e-9, hermitian=True)
        order = np.argsort(member.reshape(-1), kind="stable")
        start = np.cumsum(count) - count
        return cls(order, start, design, first, parts, inverse, labels.shape[1], determined)

    @classmethod
    def draw(
        cls,
        labels: np.ndarray,
        values: int,
        groups: np.ndarray,
        splits: int,
        blocks: int,
        generator: np.random.Generator,
    ) -> SplitHalves:
        """Random halves of the groups, and as many random blocks of them (0: none is left out).

        Of several times as many halvings, those are kept whose halves determine the model best: few sequences, halved
        at random, leave some value out.
        """
        _, index = np.unique(groups, return_index=True)
        size = len(index)
        order = generator.permuted(np.tile(np.arange(size), (_CANDIDATES * splits, 1)), axis=1)
        first = order < size // 2
        weakest = _weakest(coding(labels[index], values), first)
        best = np.sort(np.argsort(-weakest, kind="stable")[:splits])
        parts = np.array_split(generator.permutation(size), min(blocks, size)) if blocks else ()
        return cls.of(labels, values, groups, first[best], tuple(parts))

    def effects(self, states: np.ndarray) -> np.ndarray:
        """(R, S, 2, P, K, H) M_p of every half, from (N, H) states."""
        sums = np.add.reduceat(states[self.order], self.start, axis=0)
        leave = len(self.inverse) > 1
        found = self.inverse @ _left_out(_sums(self.design, sums, self.first, self.blocks), leave)
        return effects_of(found, self.variables)


def _weakest(design: np.ndarray, first: np.ndarray) -> np.ndarray:
    """(S,) smallest eigenvalue of the normal equations' matrices of both halves, by (G, F) rows and (S, G) halves."""
    outer = (design[:, :, None] * design[:, None, :]).reshape(len(design), -1)
    half = (first @ outer).reshape(len(first), *design.shape[1:] * 2)
    whole = design.T @ design
    return np.minimum(*(np.linalg.eigvalsh(one)[:, 0] for one in (half, whole - half)))


def _sums(left: np.ndarray, right: np.ndarray, first: np.ndarray, blocks: tuple[np.ndarray, ...]) -> np.ndarray:
    """(blocks, S, 2, F, C) sums over the groups of a block and half of the outer products of (G, F) and (G, C) rows."""
    parts = []
    for block in blocks:
        half = (first[:, block, None] * left[block]).swapaxes(1, 2) @ right[block]
        parts.append(np.stack([half, left[block].T @ right[block] - half], axis=1))
    return np.stack(parts)


def _left_out(parts: np.ndarray, leave: bool) -> np.ndarray:
    """(R, ...) the sum of all blocks' parts and, if ``leave``, the sums without one of them."""
    total = parts.sum(axis=0, keepdims=True)
    return np.concatenate([total, total - parts]) if leave else total
