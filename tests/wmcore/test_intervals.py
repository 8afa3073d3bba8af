"""Intervals of final figures: known answers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import t as student
from torch import Tensor

from wmcore.training.intervals import over_replicates, over_trials
from wmcore.trials import TrialBatch


class Scored:
    """A task whose accuracy is the mean of its outputs."""

    def metrics(self, outputs: Tensor, batch: TrialBatch) -> dict[str, float]:
        return {"accuracy": float(outputs.mean()), "score": 10 * float(outputs.mean())}


def batch_of(size: int) -> TrialBatch:
    zeros = torch.zeros(size, 1)
    return TrialBatch({"x": zeros}, zeros, zeros, torch.ones(size))


def intervals(outputs: Tensor, n: int = 100) -> dict[str, tuple[float, float]]:
    batch = batch_of(len(outputs))
    estimates = Scored().metrics(outputs, batch)
    return over_trials(Scored(), outputs, batch, estimates, {"accuracy"}, n)  # type: ignore[arg-type]


def test_replicates_give_students_interval_inside_the_range_of_a_proportion() -> None:
    values = [0.9, 0.95, 0.99]
    found = over_replicates({"accuracy": values, "score": values}, {"accuracy"})
    half = student.ppf(0.975, 2) * np.std(values, ddof=1) / np.sqrt(3)
    assert found["score"] == pytest.approx((np.mean(values) - half, np.mean(values) + half))
    assert found["accuracy"] == pytest.approx((np.mean(values) - half, 1.0))


def test_one_replicate_has_no_interval() -> None:
    assert np.isnan(over_replicates({"accuracy": [0.9]}, {"accuracy"})["accuracy"]).all()


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_a_perfect_score_has_an_interval_with_width(value: float) -> None:
    low, high = intervals(torch.full((200, 1), value))["accuracy"]
    assert 0 <= low < high <= 1
    assert high - low == pytest.approx(0.042, abs=0.003)  # Wilson, n = 100, Student's quantile at 19 degrees


def test_wider_with_fewer_trials_behind_it() -> None:
    few, many = (intervals(torch.ones(200, 1), n)["accuracy"] for n in (20, 2000))
    assert few[0] < many[0] < 1


def test_intervals_over_trials_hold_the_truth_at_their_level() -> None:
    source = torch.Generator().manual_seed(0)
    held = {"accuracy": 0, "score": 0}
    for _ in range(400):
        found = intervals((torch.rand(400, 1, generator=source) < 0.97).float())
        held["accuracy"] += found["accuracy"][0] <= 0.97 <= found["accuracy"][1]
        held["score"] += found["score"][0] <= 9.7 <= found["score"][1]
    assert 0.92 <= held["accuracy"] / 400 <= 0.995
    assert 0.88 <= held["score"] / 400 <= 0.99
