"""The rules of a curriculum, and what one optimiser step makes of several stages."""

from __future__ import annotations

import math
import re
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from tests.fixtures.hold import HoldSpec
from wmcore.models.base import SequenceModel
from wmcore.models.rnn import RNNSpec
from wmcore.training.batches import Part, weighted_loss
from wmcore.training.curriculum import AdvanceSpec, CurriculumSpec, Progress, StageSpec
from wmcore.trials import concatenated


def curriculum_of(*replays: float, **advance: Any) -> CurriculumSpec:
    return CurriculumSpec(
        stages=tuple(StageSpec(replay=replay) for replay in replays),
        advance=AdvanceSpec(**{"metric": "accuracy", **advance}),
    )


# When a replicate moves on


@pytest.mark.parametrize(
    ("mode", "score", "reached"),
    [
        ("max", 0.7, True),
        ("max", 0.71, True),
        ("max", 0.69, False),
        ("max", math.nan, False),
        ("min", 0.7, True),
        ("min", 0.69, True),
        ("min", 0.71, False),
        ("min", math.nan, False),
    ],
)
def test_the_threshold_counts_as_reached(mode: Any, score: float, reached: bool) -> None:
    assert AdvanceSpec(metric="accuracy", threshold=0.7, mode=mode).reached(score) is reached


def went(curriculum: CurriculumSpec, scores: list[float]) -> list[Progress]:
    """Where a replicate is after each evaluation, at steps 10, 20, ..."""
    places, progress = [], Progress()
    for number, score in enumerate(scores, start=1):
        progress = progress.judged(score, 10 * number, curriculum)
        places.append(progress)
    return places


def test_only_successes_in_a_row_count() -> None:
    curriculum = curriculum_of(0, 0, 0, threshold=0.8, evaluations=3)
    places = went(curriculum, [0.8, 0.9, 0.7, 0.9, math.nan, 0.9, 0.9, 0.9, 0.9, 0.9, 0.1, 0.9, 0.9, 0.9, 0.9])
    assert [place.successes for place in places] == [1, 2, 0, 1, 0, 1, 2, 0, 1, 2, 0, 1, 2, 0, 0]
    assert [place.stage for place in places] == [0] * 7 + [1] * 6 + [2] * 2
    assert places[-1].entered == (80, 140)


@given(
    st.lists(st.booleans(), max_size=40), st.integers(min_value=1, max_value=4), st.integers(min_value=2, max_value=4)
)
def test_a_stage_ends_with_the_first_run_of_successes_that_is_long_enough(
    met: list[bool], evaluations: int, stages: int
) -> None:
    """Against a search for such runs in the text of all evaluations."""
    curriculum = curriculum_of(*[0.0] * stages, threshold=0.5, evaluations=evaluations)
    places = went(curriculum, [float(success) for success in met])
    text = "".join("1" if success else "0" for success in met)
    ends = [run.end() for run in re.finditer(f"1{{{evaluations}}}", text)][: stages - 1]
    last = places[-1] if places else Progress()
    assert last.entered == tuple(10 * end for end in ends)
    assert last.stage == len(ends)


# Who has what of a step


def test_a_batch_of_64_with_three_tenths_of_replay() -> None:
    curriculum = curriculum_of(0, 0.3, 0.3, 0)
    assert curriculum.shares(0, 64) == [(0, 64, 1.0)]
    assert curriculum.shares(1, 64) == [(1, 45, 0.7), (0, 19, 0.3)]
    assert curriculum.shares(2, 64) == [(2, 45, 0.7), (0, 10, 0.15), (1, 9, 0.15)]
    assert curriculum.shares(3, 64) == [(3, 64, 1.0)]


@given(
    st.integers(min_value=1, max_value=5),
    st.integers(min_value=1, max_value=300),
    st.floats(min_value=0, max_value=0.99),
)
def test_shares_fill_the_batch_and_weights_sum_to_one(stage: int, batch_size: int, replay: float) -> None:
    shares = curriculum_of(*[0.0] * stage, replay).shares(stage, batch_size)
    assert sum(share.trials for share in shares) == batch_size
    assert sum(share.weight for share in shares) == pytest.approx(1)
    own, *earlier = shares
    assert (own.stage, own.weight) == (stage, 1 - replay)
    assert abs(own.trials - batch_size * (1 - replay)) <= 0.5 + 1e-9
    if replay > 0:
        assert [share.stage for share in earlier] == list(range(stage))
        assert len({share.weight for share in earlier}) == 1
        trials = [share.trials for share in earlier]
        assert max(trials) - min(trials) <= 1
    else:
        assert not earlier


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"stages": [{}]}, "stages"),
        ({"stages": [{}, {"replay": 1}]}, "replay"),
        ({"stages": [{}, {"replay": -0.1}]}, "replay"),
        ({"stages": [{}, {"st": {}}]}, "st"),
        ({"advance": {}}, "metric"),
        ({"advance": {"metric": "accuracy", "evaluations": 0}}, "evaluations"),
        ({"advance": {"metric": "accuracy", "trials": 1}}, "trials"),
        ({"advance": {"metric": "accuracy", "mode": "most"}}, "mode"),
        ({"advance": {"metric": "accuracy", "threshold": "0.9"}}, "threshold"),
    ],
)
def test_a_curriculum_out_of_bounds_is_refused(wrong: dict, message: str) -> None:
    good = {"stages": [{}, {}], "advance": {"metric": "accuracy"}}
    CurriculumSpec.parse(good)
    with pytest.raises(ValidationError, match=message):
        CurriculumSpec.parse({**good, **wrong})


# One optimiser step

SPEC = HoldSpec(delay=6)


def network() -> SequenceModel:
    spec = RNNSpec(cell="gru", hidden_size=7, trunk_size=6)
    return spec.build(SPEC.input_channels(), SPEC.output_size, torch.Generator().manual_seed(3)).double()


def parts_of(*weights: float) -> list[Part]:
    """Trials of short, longer and long delays, each in a batch of its own width."""
    parts = []
    for number, (weight, size, delay) in enumerate(zip(weights, (5, 11, 4), (6, 1, 3), strict=False)):
        task = HoldSpec(delay=delay).build()
        parts.append(Part(task, task.sample(size, torch.Generator().manual_seed(number), "train"), weight))
    return parts


def gradient(loss: torch.Tensor, model: SequenceModel) -> torch.Tensor:
    return torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(model.parameters()))])


@pytest.mark.parametrize("weights", [(0.7, 0.3), (0.2, 0.5, 0.3), (1.0,)])
def test_the_gradient_of_a_step_is_the_weighted_sum_of_those_of_its_parts(weights: tuple[float, ...]) -> None:
    """One padded pass against a pass of its own for each stage, whatever the numbers of trials are."""
    model, parts = network(), parts_of(*weights)
    loss = weighted_loss(model(concatenated([part.batch.inputs for part in parts])).outputs, parts)
    separate = [part.task.loss(model(part.batch.inputs).outputs, part.batch) for part in parts]
    weighted = [w * own.detach() for w, own in zip(weights, separate, strict=True)]
    torch.testing.assert_close(loss.detach(), torch.stack(weighted).sum(), rtol=0, atol=1e-13)
    expected = sum(w * gradient(own, model) for w, own in zip(weights, separate, strict=True))
    found = gradient(loss, model)
    assert found.abs().max() > 1e-3
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-13)


@settings(deadline=None, max_examples=20)
@given(st.integers(min_value=0, max_value=3))
def test_what_is_padding_has_no_gradient(steps: int) -> None:
    """The loss of a part does not depend on outputs beyond its own steps."""
    parts = parts_of(0.5, 0.5)
    outputs = torch.randn(16, 8 + steps, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    outputs.requires_grad_()
    (found,) = torch.autograd.grad(weighted_loss(outputs, parts), outputs)
    assert found[:5, :8].any()
    assert not found[:5, 8:].any()
    assert not found[5:, 3:].any()
