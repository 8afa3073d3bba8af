"""Which lists the trials of a batch show, and what happens at each of their steps. Shapes: B trials, T steps, L ranks
of a trial, W of the longest one, K items."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from wmcore.tasks.sequence_sets import SELECT, TEST, TRAIN, ListTable, list_table

if TYPE_CHECKING:
    from wmcore.tasks.sequence_recall import SequenceRecallSpec

PHASES = ("fixation", "stimulus", "gap", "delay", "response")
FIXATION, STIMULUS, GAP, DELAY, RESPONSE = range(len(PHASES))
PADDING = -1
FLAGS = 3
"""Input channels that say fixation, stimulus and delay."""


@dataclass(frozen=True)
class Durations:
    """Steps of the phases that last equally long in all trials."""

    fixation: int
    stimulus: int
    gap: int
    response: int


@dataclass(frozen=True)
class Timeline:
    """What happens when (sequence_recall.md section 2).

    fixation [0, F); stimulus p [F + p (S + G), + S); a gap of G between two stimuli; delay [E, E + D) from
    E = F + L S + (L - 1) G; response i [E + D + i R, + R).

    Attributes:
        phase: (B, T) index of ``PHASES``, PADDING behind the end of a trial.
        rank: (B, T) of the item that is shown or cued, else -1.
        shown: (B, T) number of items whose stimulus has begun, the present one included.
        delay_start, response_start, lengths: (B,) E, E + D and the step after the last one.
    """

    phase: Tensor
    rank: Tensor
    shown: Tensor
    delay_start: Tensor
    response_start: Tensor
    lengths: Tensor

    @classmethod
    def of(cls, durations: Durations, length: Tensor, delay: Tensor) -> Timeline:
        """Args: (B,) L and (B,) D in steps. T is that of the longest trial."""
        spacing = durations.stimulus + durations.gap
        delay_start = durations.fixation + length * spacing - durations.gap
        response_start = delay_start + delay
        stop = response_start + length * durations.response
        time = torch.arange(int(stop.max()))[None]
        since = time - durations.fixation
        listed = torch.where(since < 0, FIXATION, torch.where(since % spacing < durations.stimulus, STIMULUS, GAP))
        phase = torch.where(time < delay_start[:, None], listed, DELAY)
        phase = torch.where(time < response_start[:, None], phase, RESPONSE)
        phase = torch.where(time < stop[:, None], phase, PADDING)
        position = torch.div(since, spacing, rounding_mode="floor")
        cued = torch.div(time - response_start[:, None], durations.response, rounding_mode="floor")
        rank = torch.where(phase == STIMULUS, position, torch.where(phase == RESPONSE, cued, -1))
        shown = torch.minimum(position.clamp(min=-1) + 1, length[:, None])
        return cls(phase, rank, shown, delay_start, response_start, stop)

    def periods(self, durations: Durations, length: Tensor, width: int) -> dict[str, Tensor]:
        """Name -> (B, 2) first step and step after the last of fixation, stimulus_<p>, delay, response_<p> and trial,
        p = 0..width-1; (-1, -1) in a trial that lacks it."""
        zero = torch.zeros_like(length)
        found = {"fixation": torch.stack([zero, zero + durations.fixation], dim=1)}
        for p in range(width):
            start = zero + durations.fixation + p * (durations.stimulus + durations.gap)
            found[f"stimulus_{p}"] = _span(start, durations.stimulus, length > p)
        found["delay"] = torch.stack([self.delay_start, self.response_start], dim=1)
        for p in range(width):
            start = self.response_start + p * durations.response
            found[f"response_{p}"] = _span(start, durations.response, length > p)
        return found | {"trial": torch.stack([zero, self.lengths], dim=1)}


def _span(start: Tensor, steps: int, is_there: Tensor) -> Tensor:
    return torch.where(is_there[:, None], torch.stack([start, start + steps], dim=1), -1)


def interleaved(weights: Tensor, size: int, generator: torch.Generator) -> Tensor:
    """(B,) which of n options each trial has, spread evenly: any run of trials has each at its share, to within one
    or two, so that blocks of a batch are alike.

    The k-th trial of an option of share w is due at (k + u) / w, with one random u in [0, 1) per option.

    Args:
        weights: (n,) relative shares, each above 0.
        size: B.
    """
    share = weights.double() / weights.sum()
    phase = torch.rand(len(share), generator=generator, dtype=torch.float64)
    counts = torch.ceil(share * size).long() + len(share)
    option = torch.repeat_interleave(torch.arange(len(share)), counts)
    k = torch.arange(len(option)) - (counts.cumsum(0) - counts)[option]
    return option[torch.argsort((k + phase[option]) / share[option])[:size]]


def independent_rows(rows: Sequence[Tensor], option: Tensor, generator: torch.Generator) -> Tensor:
    """(B,) a row for each trial, uniform and independent, out of ``rows[option]``.

    Args:
        rows: n tensors of row numbers, none of them empty.
        option: (B,) in 0..n-1.
    """
    counts = torch.tensor([len(part) for part in rows])
    starts = counts.cumsum(0) - counts
    drawn = torch.rand(len(option), generator=generator, dtype=torch.float64) * counts[option]
    return torch.cat(list(rows))[starts[option] + drawn.long()]


def balanced_rows(rows: Sequence[Tensor], option: Tensor, block: int, generator: torch.Generator) -> Tensor:
    """(B,) a row for each trial out of ``rows[option]``, every row equally often as far as the number of trials allows.

    The trials of an option pass through all of its rows in a random order, block after block; where a pass is cut
    short, the blocks that it has shown are whole but for the last one. So with the blocks of a ``ListTable`` no item is
    at any rank more than once more often than any other.

    Args:
        rows: n tensors of row numbers; each consecutive ``block`` of them is a block.
        option: (B,) in 0..n-1.
    """
    drawn = torch.empty_like(option)
    for i, part in enumerate(rows):
        mine = option == i
        count = int(mine.sum())
        passes = -(-count // len(part))
        blocks = part.view(-1, block)
        order = torch.rand((passes, len(blocks)), generator=generator).argsort(dim=1).flatten()
        inside = torch.rand((passes * len(blocks), block), generator=generator).argsort(dim=1)
        drawn[mine] = blocks[order].gather(1, inside).flatten()[:count]
    return drawn


@dataclass(frozen=True)
class Pool:
    """What a split draws from: rows of a table, by length."""

    lists: ListTable
    lengths: tuple[int, ...]
    rows: tuple[Tensor, ...]

    @classmethod
    def of(cls, spec: SequenceRecallSpec, split: str) -> Pool:
        longer = spec.longer_length()
        if split == "longer_lists" and longer is not None:
            lists = list_table(spec.items, (longer,), spec.replacement, 0, 0, longer)
            return cls(lists, (longer,), (lists.rows(longer),))
        kept_for: int | None = TRAIN
        if split == "select" and spec.select_share:
            kept_for = SELECT
        elif split in ("test", "longer_delays") and spec.test_share:
            kept_for = TEST
        elif split == "neutral":
            kept_for = None
        lists = spec.lists()
        return cls(lists, spec.lengths, tuple(lists.rows(length, kept_for) for length in spec.lengths))


def signals(spec: SequenceRecallSpec) -> Tensor:
    """(K + 2 + cues + 1, C) every input vector that occurs without noise: item k with the stimulus flag, fixation,
    delay, the cue of each rank, and silence."""
    items, width = spec.items, spec.item_channels()
    table = torch.zeros(items + 3 + spec.cue_channels, width + FLAGS + spec.cue_channels)
    angle = 2 * math.pi * torch.arange(items) / items
    circle = torch.stack([angle.cos(), angle.sin()], dim=1)
    code = {"one_hot": torch.eye(items), "circular": circle, "both": torch.cat([torch.eye(items), circle], dim=1)}
    table[:items, :width] = code[spec.item_code]
    table[:items, width + 1] = 1
    table[items, width] = 1
    table[items + 1, width + 2] = 1
    table[items + 2 : -1, width + FLAGS :] = torch.eye(spec.cue_channels)
    return table
