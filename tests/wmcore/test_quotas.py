from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from wmcore.tasks.quotas import exact_quota, pick

SEEDS = st.integers(0, 2**31)


def source(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@settings(max_examples=150, deadline=None)
@given(
    groups=st.lists(st.integers(-1, 17), min_size=1, max_size=120),
    fraction=st.one_of(st.sampled_from([0.0, 0.25, 0.5, 1.0]), st.floats(0, 1)),
    seed=SEEDS,
)
def test_every_group_gets_its_share_to_within_one(groups: list[int], fraction: float, seed: int) -> None:
    marked = exact_quota(torch.tensor(groups), fraction, source(seed)).tolist()
    for group in set(groups):
        size = groups.count(group)
        count = sum(mark for mark, member in zip(marked, groups, strict=True) if member == group)
        if group == -1:
            assert count == 0
        else:
            assert math.floor(fraction * size - 1e-9) <= count <= math.ceil(fraction * size + 1e-9)


@settings(max_examples=150, deadline=None)
@given(
    members=st.lists(st.tuples(st.integers(-1, 4), st.booleans()), min_size=1, max_size=80),
    fraction=st.floats(0, 1),
    seed=SEEDS,
)
def test_only_eligible_members_are_marked_and_all_if_too_few(
    members: list[tuple[int, bool]], fraction: float, seed: int
) -> None:
    groups = torch.tensor([group for group, _ in members])
    eligible = torch.tensor([able for _, able in members])
    marked = exact_quota(groups, fraction, source(seed), eligible)
    assert not (marked & ~eligible).any()
    for group in range(5):
        inside = groups == group
        size, able, count = int(inside.sum()), int((inside & eligible).sum()), int((marked & inside).sum())
        low, high = math.floor(fraction * size - 1e-9), math.ceil(fraction * size + 1e-9)
        assert min(able, low) <= count <= min(able, high)


def test_the_remainder_keeps_the_expectation() -> None:
    """7 members at .25 are 1.75: one or two of them, two in three quarters of the draws."""
    group = torch.zeros(7, dtype=torch.long)
    counts = torch.tensor([int(exact_quota(group, 0.25, source(seed)).sum()) for seed in range(2000)])
    assert set(counts.tolist()) == {1, 2}
    assert float((counts == 2).float().mean()) == pytest.approx(0.75, abs=5 * math.sqrt(0.75 * 0.25 / 2000))


def test_every_member_is_as_likely() -> None:
    group = torch.tensor([0, 1, 0, -1, 0, 1, 0, 0])
    draws = torch.stack([exact_quota(group, 0.4, source(seed)) for seed in range(3000)]).float().mean(0)
    expected = torch.where(group >= 0, 0.4, 0.0)
    assert (draws - expected).abs().max() < 5 * math.sqrt(0.4 * 0.6 / 3000)


def test_nobody_is_marked_where_there_is_no_group() -> None:
    assert not exact_quota(torch.full((5,), -1), 1.0, source()).any()
    assert exact_quota(torch.zeros(0, dtype=torch.long), 0.5, source()).shape == (0,)


@settings(max_examples=100, deadline=None)
@given(
    allowed=st.lists(st.lists(st.booleans(), min_size=6, max_size=6).filter(any), min_size=1, max_size=30),
    data=st.data(),
)
def test_pick_draws_the_preferred_among_the_allowed(allowed: list[list[bool]], data: st.DataObject) -> None:
    row = st.lists(st.booleans(), min_size=6, max_size=6)
    preferred = data.draw(st.lists(row, min_size=len(allowed), max_size=len(allowed)))
    drawn = pick(torch.tensor(allowed), source(data.draw(SEEDS)), torch.tensor(preferred)).tolist()
    for option, may, wants in zip(drawn, allowed, preferred, strict=True):
        assert may[option]
        both = [a and b for a, b in zip(may, wants, strict=True)]
        assert both[option] or not any(both)


@pytest.mark.parametrize("with_preference", [False, True])
def test_pick_is_uniform(with_preference: bool) -> None:
    rows = 12000
    allowed = torch.tensor([[True, False, True, True]]).expand(rows, -1)
    preferred = torch.tensor([[True, True, False, True]]).expand(rows, -1) if with_preference else None
    share = torch.bincount(pick(allowed, source(), preferred), minlength=4) / rows
    expected = torch.tensor([1 / 2, 0, 0, 1 / 2] if with_preference else [1 / 3, 0, 1 / 3, 1 / 3])
    assert (share - expected).abs().max() < 5 * math.sqrt(0.25 / rows)


def test_pick_refuses_a_trial_without_options() -> None:
    with pytest.raises(ValueError, match="no allowed option"):
        pick(torch.tensor([[True, False], [False, False]]), source())
