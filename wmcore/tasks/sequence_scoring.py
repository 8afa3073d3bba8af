"""How well lists are recalled, and how well they would be by policies that do not do the task.

Shapes: B trials, W ranks (of the longest list), R steps of a response, K items.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

RATES = ("transposition", "intrusion", "repetition")


@dataclass(frozen=True)
class Recall:
    """What became of each response: shares of its steps, or probabilities.

    ``right``, ``transposition`` and ``intrusion`` add up to 1.

    Attributes:
        right: (B, W) the item of the cued rank. Values behind the end of a list mean nothing, here and below.
        transposition: (B, W) another item of the list.
        intrusion: (B, W) an item that is not in the list.
        repetition: (B, W) wrong, and the answer to an earlier cue of the trial as well.
        sequence: (B,) all responses of the trial right at all steps.
    """

    right: Tensor
    transposition: Tensor
    intrusion: Tensor
    repetition: Tensor
    sequence: Tensor

    @classmethod
    def of_answers(cls, answers: Tensor, items: Tensor) -> Recall:
        """Args: (B, W, R) items answered; (B, W) items shown, -1 behind the end of a list."""
        right = answers == items[..., None]
        listed = (answers[:, :, None] == items[:, None, :, None]).any(2)
        same = answers[:, :, None] == answers[:, None, :]
        earlier = torch.ones(items.shape[1], items.shape[1], dtype=torch.bool, device=items.device).tril(-1)
        repeated = (same & earlier[..., None]).any(2) & ~right
        return cls(
            right=right.double().mean(-1),
            transposition=(listed & ~right).double().mean(-1),
            intrusion=(~listed).double().mean(-1),
            repetition=repeated.double().mean(-1),
            sequence=(right.all(-1) | (items < 0)).all(-1).double(),
        )

    def summary(self, length: Tensor, lengths: Sequence[int]) -> dict[str, float]:
        """The task's metrics: means over responses within a length, then over the lengths that the batch holds.

        Args:
            length: (B,) L.
            lengths: those whose own figures are reported; NaN where the batch holds no such trial.
        """
        present = length.unique().tolist()
        means = {size: self._of_length(length == size, size) for size in (*lengths, *present)}
        found = {
            "accuracy": _mean([means[size]["right"].mean() for size in present]),
            "sequence_accuracy": _mean([means[size]["sequence"] for size in present]),
        }
        found |= {f"accuracy_L{size}": float(means[size]["right"].mean()) for size in lengths}
        found |= {f"sequence_accuracy_L{size}": float(means[size]["sequence"]) for size in lengths}
        for p in range(lengths[-1]):
            found[f"accuracy_rank{p}"] = _mean([means[size]["right"][p] for size in present if size > p])
        return found | {f"{name}_rate": _mean([means[size][name].mean() for size in present]) for name in RATES}

    def _of_length(self, chosen: Tensor, length: int) -> dict[str, Tensor]:
        """Means over the chosen trials: (L,) by rank; a scalar for whole sequences."""
        found = {name: getattr(self, name)[chosen, :length].mean(0) for name in ("right", *RATES)}
        return found | {"sequence": self.sequence[chosen].mean()}


def metric_names(lengths: Sequence[int]) -> tuple[str, ...]:
    """The names of ``Recall.summary``."""
    return (
        "accuracy",
        "sequence_accuracy",
        *(f"accuracy_L{length}" for length in lengths),
        *(f"sequence_accuracy_L{length}" for length in lengths),
        *(f"accuracy_rank{p}" for p in range(lengths[-1])),
        *(f"{name}_rate" for name in RATES),
    )


def guessing(items: Tensor, length: Tensor, size: int, replacement: bool, last_known: bool = False) -> Recall:
    """Expected recall of a policy that answers with any list that can occur, each as likely.

    Chance for a whole list is (K - L)! / K! without replacement and K^-L with it (sequence_recall.md section 2).

    Args:
        items: (B, W) items shown, -1 behind the end of a list.
        length: (B,) L.
        size: K.
        replacement: whether an item can occur twice in a list.
        last_known: it remembers the last item, and guesses only the others.
    """
    rank = torch.arange(items.shape[1], device=items.device)[None].double()
    known = int(last_known)
    distinct = _count_distinct(items)[:, None].double()
    guessed = length - known
    if replacement:
        right = torch.full_like(items, 1 / size, dtype=torch.float64)
        listed = (distinct / size).expand_as(right)
        repetition = ((1 - 1 / size) * (1 - (1 - 1 / size) ** rank)).expand_as(right)
        sequence = float(size) ** -guessed.double()
    else:
        # The item that is known is not guessed again: K - 1 others, of which L - 1 are in the list.
        right = torch.full_like(items, 1 / (size - known), dtype=torch.float64)
        listed = ((distinct - known) / (size - known)).expand_as(right)
        repetition = torch.zeros_like(right)
        chances = [1 / math.perm(size - known, n) for n in range(int(guessed.max()) + 1)]
        sequence = torch.tensor(chances, dtype=torch.float64, device=items.device)[guessed]
    is_known = (rank == length[:, None] - 1) & last_known
    return Recall(
        right=right.masked_fill(is_known, 1.0),
        transposition=(listed - right).masked_fill(is_known, 0.0),
        intrusion=(1 - listed).masked_fill(is_known, 0.0),
        repetition=repetition.masked_fill(is_known, 0.0),
        sequence=sequence,
    )


def shuffling(items: Tensor, length: Tensor) -> Recall:
    """Expected recall of a policy that knows which items were shown and how often, and answers in a random order.

    Args: as of ``guessing``.
    """
    width = items.shape[1]
    listed = items >= 0
    same = (items[:, :, None] == items[:, None, :]) & listed[:, :, None]
    times = same.sum(2)  # m_q, how often a list holds the item that stands at rank q
    right = times / length[:, None].double()
    # An answer is the item of rank q with probability m_q / L, and none of the p answers before it is the same item
    # with probability C(L - m_q, p) / C(L - 1, p). The sum over ranks counts each item m_q times.
    choose = [[math.comb(n, p) for p in range(width)] for n in range(width + 1)]
    choose = torch.tensor(choose, dtype=torch.float64, device=items.device)
    is_first = choose[length[:, None] - times] / choose[length - 1][:, None].clamp(min=1)  # (B, q, p)
    other = (~same & listed[:, None]).double()  # (B, p, q)
    repetition = (other * (1 - is_first).transpose(1, 2)).sum(2) / length[:, None]
    # Orders that give the same list: the product of m! over its items; all orders: L!.
    so_far = (same & torch.ones_like(same).tril()).sum(2)
    factorial = torch.tensor([math.factorial(n) for n in range(width + 1)], dtype=torch.float64, device=items.device)
    sequence = torch.where(listed, so_far, 1).prod(1) / factorial[length]
    return Recall(right, 1 - right, torch.zeros_like(right), repetition, sequence)


def _count_distinct(items: Tensor) -> Tensor:
    """(B,) number of different items of each list."""
    earlier = torch.ones(items.shape[1], items.shape[1], dtype=torch.bool, device=items.device).tril(-1)
    again = ((items[:, :, None] == items[:, None, :]) & earlier).any(2)
    return ((items >= 0) & ~again).sum(1)


def _mean(values: Sequence[Tensor]) -> float:
    return float(torch.stack(list(values)).mean()) if values else float("nan")
