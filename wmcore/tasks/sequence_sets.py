"""Every ordered list of K items, its id, and which lists are held out. Shapes: N lists, L ranks, W longest length."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from wmcore.errors import InputError
from wmcore.hashing import splitmix64

MOST_LISTS = 1_000_000
"""Lists of one length that are enumerated at most: a few hundred megabytes."""
TRAIN, SELECT, TEST = range(3)


@dataclass(frozen=True)
class ListTable:
    """All lists of several lengths, one a row; those of one length lie together.

    Within a length, rows come in blocks of K: a list and its K - 1 cyclic shifts (every item moved on by one), so that
    each block holds every item exactly once at every rank.

    Attributes:
        items: (N, W) item at each rank, in 0..K-1; -1 behind the end of a shorter list.
        prefixes: (N, W + 1) id of the first p items, p = 0..W. Ids are equal exactly if the ordered items are: those
            of a list are unique over all lengths. Behind the end of a shorter list its own id goes on.
        length: (N,) L.
        kept_for: (N,) TRAIN, SELECT or TEST.
    """

    items: Tensor
    prefixes: Tensor
    length: Tensor
    kept_for: Tensor

    def rows(self, length: int, kept_for: int | None = None) -> Tensor:
        """Rows of one length: all of them, or those kept for TRAIN, SELECT or TEST."""
        chosen = self.length == length
        return (chosen if kept_for is None else chosen & (self.kept_for == kept_for)).nonzero()[:, 0]


def number_of_lists(items: int, length: int, replacement: bool) -> int:
    """K^L with replacement, K! / (K - L)! without."""
    return items**length if replacement else math.perm(items, length)


@lru_cache(maxsize=8)
def list_table(
    items: int, lengths: tuple[int, ...], replacement: bool, select_share: float, test_share: float, width: int
) -> ListTable:
    """All lists of K ``items``, with or without repeated ones, and the split that holds some of them out.

    The lists of a length stand in the order of a stable hash of their ordered items; the first ``select_share`` of
    them are kept for selection, the next ``test_share`` for the test and the others for training, whatever the seed.

    Args:
        lengths: L of each length.
        select_share: of the lists of each length, to the nearest whole number of lists.
        test_share: likewise.
        width: W, at least the largest length.

    Raises:
        InputError: a length has more than ``MOST_LISTS`` lists, a share is too small for a single one, or training
            would never show some item at some rank.
    """
    parts = []
    for length in lengths:
        count = number_of_lists(items, length, replacement)
        if count > MOST_LISTS:
            raise InputError(
                "lengths",
                f"must have at most {MOST_LISTS:,} lists each, so that they can be enumerated, and {items} items make "
                f"{count:,} lists of {length}",
                value=length,
                remedy="Take fewer items or shorter lists.",
            )
        listed = _in_blocks(items, length, replacement)
        padded = np.full((count, width), -1)
        padded[:, :length] = listed
        prefixes = _prefixes(padded, items)
        kept_for = _held_out(prefixes[:, -1], select_share, test_share)
        _check(listed[kept_for == TRAIN], items, length)
        parts.append((padded, prefixes, np.full(count, length), kept_for))
    return ListTable(*(torch.from_numpy(np.concatenate(column)) for column in zip(*parts, strict=True)))


def _in_blocks(items: int, length: int, replacement: bool) -> np.ndarray:
    """(N, L) all lists, in the order of ``ListTable``: the lists that begin with item 0, each with its shifts."""
    lists = np.zeros((1, 1), dtype=np.int64)
    for _ in range(1, length):
        longer = np.column_stack([np.repeat(lists, items, axis=0), np.tile(np.arange(items), len(lists))])
        is_new = (longer[:, :-1] != longer[:, -1:]).all(axis=1)
        lists = longer if replacement else longer[is_new]
    shifts = np.arange(items)[None, :, None]
    return ((lists[:, None, :] + shifts) % items).reshape(-1, length)


def _prefixes(listed: np.ndarray, items: int) -> np.ndarray:
    """(N, W + 1) ids: the items plus 1 as the digits of a number in base K + 1, the first one the highest."""
    ids = np.zeros((len(listed), listed.shape[1] + 1), dtype=np.int64)
    for p, item in enumerate(listed.T):
        ids[:, p + 1] = np.where(item >= 0, ids[:, p] * (items + 1) + item + 1, ids[:, p])
    return ids


def _held_out(ids: np.ndarray, select_share: float, test_share: float) -> np.ndarray:
    """(N,) TRAIN, SELECT or TEST of the lists of one length."""
    select, test = (_count(len(ids), share, name) for share, name in ((select_share, "select"), (test_share, "test")))
    order = np.argsort(splitmix64(ids))
    found = np.full(len(ids), TRAIN)
    found[order[:select]] = SELECT
    found[order[select : select + test]] = TEST
    return found


def _count(lists: int, share: float, name: str) -> int:
    count = round(lists * share)
    if share > 0 and count == 0:
        raise InputError(
            f"{name}_share",
            f"must hold out at least one list of every length, and one length has {lists}",
            value=share,
            remedy="Raise it, or set it to 0: the split then draws from the training lists.",
        )
    return count


def _check(training: np.ndarray, items: int, length: int) -> None:
    for p in range(length):
        missing = np.setdiff1d(np.arange(items), training[:, p])
        if len(missing):
            raise InputError(
                "test_share",
                f"must, together with select_share, leave every item at every rank in training, and item {missing[0]} "
                f"would never be shown at rank {p} of a list of {length}",
                remedy="Lower both, set both to 0 (every split then draws from all lists), or leave that length out.",
            )
