"""Decoding of all contexts (source step s, read step t) of one task cell. Shapes: N trials, T steps, H units."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from wmcore.analyses.decoding_inputs import Inputs
from wmcore.analyses.resampling import bootstrap_weights, group_permutations, stable_fold
from wmcore.analyses.ridge import (
    FoldedStates,
    Labellings,
    balanced_accuracy,
    bootstrap_balanced_accuracy,
    correct,
)

_CHUNK_BYTES = 64 * 2**20  # of one indicator matrix: permutations are taken in portions of this size


@dataclass(frozen=True)
class Decoder:
    """How contexts are decoded (the fields of ``DecodingSpec``)."""

    folds: int
    permutations: int
    bootstraps: int
    penalties: tuple[float, ...]


@dataclass(frozen=True)
class Item:
    """A property of the items shown.

    Attributes:
        name: of the property.
        labels: (N, T) class of the item shown at each step; negative where there is none.
        parent: (N, T) the class's super-class (the category of an identity), or None.
        parent_name: the property that the super-class is.
    """

    name: str
    labels: np.ndarray
    parent: np.ndarray | None = None
    parent_name: str = ""

    def take(self, rows: np.ndarray) -> Item:
        """The same property of some trials."""
        return replace(self, labels=self.labels[rows], parent=None if self.parent is None else self.parent[rows])


@dataclass(frozen=True)
class Context:
    """One decoded context.

    Attributes:
        name: property, or ``<property>_within_<parent>``.
        source: step s at which the item was shown.
        read: step t at which the state was read.
        estimate: balanced accuracy.
        null: (P,) balanced accuracies of shuffled labels.
        draws: (B,) bootstrap of the estimate, with weights that all contexts of a grouping share.
        chance: expected balanced accuracy of a guess.
        n: trials scored; n_groups: independent groups; n_classes: classes scored.
        left_out: trials left out because their class is absent from the training fold.
        rarest: trials of the rarest class.
        ceiling: the larger of ``input_readout`` and the readout of the state at step s, under the folds and trials of
            this context; NaN where the recording has no inputs.
        input_readout: balanced accuracy of the same decoder on the inputs at step s, same folds and trials.
        input_new_images: the same with folds of images instead, so that no image is in training and test folds.
    """

    name: str
    source: int
    read: int
    estimate: float
    null: np.ndarray
    draws: np.ndarray
    chance: float
    n: int
    n_groups: int
    n_classes: int
    left_out: int
    rarest: int
    ceiling: float = np.nan
    input_readout: float = np.nan
    input_new_images: float = np.nan


@dataclass(frozen=True)
class _Block:
    """Read steps that share their trials and groups, hence folds, permutations and resampling weights."""

    rows: np.ndarray  # sorted by fold
    groups: np.ndarray
    fold: np.ndarray
    reads: list[int]


@dataclass(frozen=True)
class _Shown:
    """A property of the item shown at one step; classes are numbered 0..K-1 in the order of the global ones."""

    item: Item
    step: int
    labels: np.ndarray  # (N,); -1: none
    classes: int
    parent: np.ndarray | None  # (K,)

    @classmethod
    def of(cls, item: Item, step: int) -> _Shown:
        present, number = np.unique(item.labels[:, step], return_inverse=True)
        skip = int((present < 0).sum())
        number = np.maximum(number.reshape(-1) - skip, -1)
        parent = None
        if item.parent is not None:
            first = np.array([np.flatnonzero(number == k)[0] for k in range(len(present) - skip)], dtype=int)
            parent = np.unique(item.parent[first, step], return_inverse=True)[1].reshape(-1)
        return cls(item, step, number, len(present) - skip, parent)


def decode_cell(
    states: np.ndarray,
    items: list[Item],
    groups: np.ndarray,
    images: np.ndarray | None,
    lengths: np.ndarray,
    inputs: Inputs | None,
    decoder: Decoder,
    generator: np.random.Generator,
) -> list[Context]:
    """Every context of one cell, by property, source step and read step.

    Args:
        states: (N, T, H).
        items: the properties to decode.
        groups: (N,) ids of the trials' groups.
        images: (N, T) image shown at each step; those of step 0 are the groups of context (0, 0), where states are as
            few as images; None: trial groups there too.
        lengths: (N,) steps of each trial; later ones are padding.
        inputs: of the same trials, for the ceilings; None: no ceilings.
    """
    contexts: list[Context] = []
    for block in _blocks(states.shape[1], groups, images, lengths, decoder.folds):
        if len(np.unique(block.fold)) < 2:
            continue
        permuted = group_permutations(block.groups, decoder.permutations, generator)
        order = np.concatenate([np.arange(block.rows.size)[:, None], permuted], axis=1)
        weights = bootstrap_weights(block.groups, decoder.bootstraps, generator)
        shown = [_Shown.of(item.take(block.rows), s) for item in items for s in range(max(block.reads) + 1)]
        folded = {t: FoldedStates.factorise(states[block.rows, t], block.fold) for t in block.reads}
        penalties = {t: _penalties(folded[t], [x for x in shown if x.step <= t], block, decoder) for t in folded}
        found: list[Context] = []
        for x in shown:
            reads = {t: folded[t].smoother(penalties[t][x.item.name, x.step]) for t in folded if t >= x.step}
            found += _decode_item(reads, x, block, order, weights, decoder)
        contexts += _with_references(found, states, inputs, items, images, block, decoder)
    return sorted(contexts, key=lambda c: ([i.name for i in items].index(c.name.split("_within_")[0]), c.name))


def _with_references(
    contexts: list[Context],
    states: np.ndarray,
    inputs: Inputs | None,
    items: list[Item],
    images: np.ndarray | None,
    block: _Block,
    decoder: Decoder,
) -> list[Context]:
    """The contexts of a block with their ceilings: same trials, folds and groups, values read at the item's own step.

    A linear readout of the inputs is no bound on its own: a trained network may make more of an image than a linear
    decoder does. So the ceiling is the larger of the readouts of input and state at the step of showing.
    """
    if inputs is None:
        return contexts
    own = {(c.name, c.source): c.estimate for c in contexts if c.read == c.source}
    as_input: dict[tuple[str, int], float] = {}
    as_new: dict[tuple[str, int], float] = {}
    for s in sorted({c.source for c in contexts}):
        as_input |= _readout(inputs.at(block.rows, s), items, s, block, decoder)
        if s not in block.reads:
            own |= _readout(states[block.rows, s], items, s, block, decoder)
        if images is not None:
            other = _block(block.rows, images[block.rows, s], [s], decoder.folds)
            as_new |= _readout(inputs.at(other.rows, s), items, s, other, decoder)
    return [
        replace(
            c,
            ceiling=max(as_input[c.name, c.source], own[c.name, c.source]),
            input_readout=as_input[c.name, c.source],
            input_new_images=as_new.get((c.name, c.source), np.nan),
        )
        for c in contexts
    ]


def _readout(
    values: np.ndarray, items: list[Item], step: int, block: _Block, decoder: Decoder
) -> dict[tuple[str, int], float]:
    """(name, step) -> balanced accuracy of decoding the items of one step from (M, D) values of the block's rows.

    Nested properties are there too, by the names that ``Context`` gives them.
    """
    if len(np.unique(block.fold)) < 2:
        return {}
    order = np.arange(block.rows.size)[:, None]
    weights = np.ones((1, block.rows.size), dtype=np.float32)
    folded = FoldedStates.factorise(values, block.fold)
    shown = [_Shown.of(item.take(block.rows), step) for item in items]
    penalties = _penalties(folded, shown, block, decoder)
    found = {}
    for x in shown:
        smoothers = {step: folded.smoother(penalties[x.item.name, step])}
        for context in _decode_item(smoothers, x, block, order, weights, decoder):
            found[context.name, step] = context.estimate
    return found


def _penalties(
    folded: FoldedStates, shown: list[_Shown], block: _Block, decoder: Decoder
) -> dict[tuple[str, int], np.ndarray]:
    """(property, source step) -> (F,) penalties."""
    chosen = folded.penalties([x.labels for x in shown], block.groups, [x.classes for x in shown], decoder.penalties)
    return {(x.item.name, x.step): row for x, row in zip(shown, chosen, strict=True)}


def _decode_item(
    smoothers: dict[int, np.ndarray],
    shown: _Shown,
    block: _Block,
    order: np.ndarray,
    weights: np.ndarray,
    decoder: Decoder,
) -> Iterator[Context]:
    """The contexts of one property of the item shown at one step, for each read step of ``smoothers``."""
    own, classes, parent = shown.labels, shown.classes, shown.parent
    if classes == 0:
        return
    draws = order.shape[1]
    portion = max(1, _CHUNK_BYTES // (4 * own.size * classes))
    accuracy = {t: np.empty((2, draws)) for t in smoothers}
    truth: dict[int, tuple[np.ndarray, np.ndarray]] = {}
    scored: np.ndarray = np.zeros(own.size, dtype=bool)
    for start in range(0, draws, portion):
        part = slice(start, min(start + portion, draws))
        data = Labellings.of(own[order[:, part]], classes, block.fold)
        allowed = data.scored()
        for t, smoother in smoothers.items():
            hit, nested = correct(smoother, data, parent)
            accuracy[t][0, part] = balanced_accuracy(hit, data.labels, allowed, classes)
            if parent is not None:
                accuracy[t][1, part] = balanced_accuracy(nested, data.labels, allowed, classes)
            if start == 0:
                truth[t] = hit[:, 0], nested[:, 0] if parent is not None else hit[:, 0]
        if start == 0:
            scored = allowed[:, 0]
    used = np.unique(own[scored])
    left_out = int(((own >= 0) & ~scored).sum())
    rarest = int(np.bincount(own[own >= 0], minlength=classes).min())
    kinds = [(shown.item.name, np.full(classes, 1 / max(len(used), 1)))]
    if parent is not None:
        kinds.append((f"{shown.item.name}_within_{shown.item.parent_name}", 1 / np.bincount(parent)[parent]))
    for t in smoothers:
        for which, (name, chance) in enumerate(kinds):
            boot = bootstrap_balanced_accuracy(truth[t][which], own, scored, classes, weights)
            yield Context(
                name=name,
                source=shown.step,
                read=t,
                estimate=float(accuracy[t][which, 0]),
                null=accuracy[t][which, 1:],
                draws=boot,
                chance=float(chance[used].mean()) if used.size else np.nan,
                n=int(scored.sum()),
                n_groups=len(np.unique(block.groups[scored])),
                n_classes=len(used),
                left_out=left_out,
                rarest=rarest,
            )


def _blocks(
    steps: int, groups: np.ndarray, images: np.ndarray | None, lengths: np.ndarray, folds: int
) -> Iterator[_Block]:
    by_rows: dict[bytes, tuple[np.ndarray, np.ndarray, list[int]]] = {}
    for t in range(steps):
        rows = np.flatnonzero(lengths > t)
        by_image = t == 0 and images is not None
        own = images[rows, 0] if t == 0 and images is not None else groups[rows]
        key = rows.tobytes() + (b"image" if by_image else b"trial")
        by_rows.setdefault(key, (rows, own, []))[2].append(t)
    for rows, own, reads in by_rows.values():
        if rows.size:
            yield _block(rows, own, reads, folds)


def _block(rows: np.ndarray, groups: np.ndarray, reads: list[int], folds: int) -> _Block:
    fold = stable_fold(groups, folds)
    order = np.argsort(fold, kind="stable")
    return _Block(rows[order], groups[order], fold[order], reads)
