"""Exact quotas: which trials of a group have a property, balanced at every step rather than only on average."""

from __future__ import annotations

import torch
from torch import Tensor


def exact_quota(group: Tensor, fraction: float, generator: torch.Generator, eligible: Tensor | None = None) -> Tensor:
    """Marks ``fraction`` of each group, chosen at random.

    A fractional remainder is rounded up with the probability that keeps the expectation exact. Groups with fewer
    eligible members than their quota mark all of those.

    Args:
        group: (B,) group of each trial, non-negative integers; -1 belongs to no group and is never marked.
        fraction: share of each group's members, in [0, 1].
        generator: source of randomness.
        eligible: (B,) bool, members that may be marked; None means all.

    Returns:
        (B,) bool.
    """
    size = group.shape[0]
    member = group >= 0
    allowed = member if eligible is None else member & eligible
    n_groups = int(group.max().item()) + 1 if size else 0
    key = torch.rand(size, generator=generator)
    remainder = torch.rand(max(n_groups, 1), generator=generator)
    if n_groups <= 0:
        return torch.zeros(size, dtype=torch.bool)
    index = group.clamp(min=0)
    counts = torch.zeros(n_groups, dtype=torch.float64).index_add_(0, index, member.to(torch.float64))
    quota = torch.floor(counts * fraction + remainder[:n_groups].to(torch.float64))
    # Sorting by (group, eligible first, random key) makes a member's rank within its group a position difference.
    order = torch.argsort(index * 4.0 + (~member) * 2.0 + (~allowed) * 1.0 + key.clamp(max=0.999))
    starts = torch.zeros(n_groups, dtype=torch.long)
    total = torch.zeros(n_groups, dtype=torch.long).index_add_(0, index, torch.ones_like(index))
    starts[1:] = total.cumsum(0)[:-1]
    rank = torch.empty(size, dtype=torch.long)
    rank[order] = torch.arange(size) - starts[index[order]]
    return allowed & (rank < quota[index])


def pick(allowed: Tensor, generator: torch.Generator, preferred: Tensor | None = None) -> Tensor:
    """Draws one allowed option per trial, uniformly; among the preferred ones where a trial has any.

    Args:
        allowed: (B, K) bool.
        generator: source of randomness.
        preferred: (B, K) bool.

    Returns:
        (B,) option indices.

    Raises:
        ValueError: a trial has no allowed option.
    """
    if not bool(allowed.any(dim=1).all()):
        raise ValueError("a trial has no allowed option: the stimulus set is too small for the sampling rule")
    score = torch.rand(allowed.shape, generator=generator) + allowed * 1.0
    if preferred is not None:
        score = score + (allowed & preferred) * 1.0
    return score.argmax(dim=1)
