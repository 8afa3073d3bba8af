"""What trials have in common is run once, and that changes nothing."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from wmcore.models.histories import segments
from wmcore.models.rnn import RNNSpec
from wmcore.tasks.base import InputChannel
from wmcore.tasks.sequence_recall import SequenceRecallSpec
from wmcore.trials import Lookup


def source(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def looked_up(index: list[list[int]], rows: int = 4) -> Lookup:
    return Lookup(torch.randn(rows, 3, generator=source(), dtype=torch.float64), torch.tensor(index))


def told(inputs, lengths=None) -> list[tuple[int, int, list[int], list[int]]]:
    return [(s.start, s.stop, s.rows.tolist(), s.member.tolist()) for s in segments(inputs, lengths)]


def test_trials_part_where_their_inputs_do():
    shown = looked_up([[0, 1, 2], [0, 1, 3], [1, 1, 2], [0, 1, 2]])
    found = told({"x": shown})
    assert [(start, stop) for start, stop, _, _ in found] == [(0, 2), (2, 3)]
    groups = [{tuple(np.flatnonzero(np.array(member) == k)) for k in set(member)} for _, _, _, member in found]
    assert groups == [{(0, 1, 3), (2,)}, {(0, 3), (1,), (2,)}]
    for _, _, rows, member in found:
        assert [member[row] for row in rows] == list(range(len(rows)))


def test_trials_that_meet_again_stay_apart():
    assert len(told({"x": looked_up([[0, 2, 2], [1, 2, 2]])})[-1][2]) == 2


def test_an_ended_trial_is_run_no_more():
    found = told({"x": looked_up([[0, 1, 2, 0], [1, 0, 0, 0]])}, torch.tensor([4, 2]))
    assert [(start, stop, rows) for start, stop, rows, _ in found] == [(0, 2, [0, 1]), (2, 4, [0])]


def test_nothing_is_run_behind_the_end_of_the_longest():
    assert told({"x": looked_up([[0, 1, 2, 0], [0, 1, 2, 0]])}, torch.tensor([2, 3]))[-1][1] == 3


def test_several_inputs_must_all_agree():
    first, second = looked_up([[0, 1], [0, 1], [0, 1]]), looked_up([[0, 1], [0, 1], [0, 2]])
    assert [len(rows) for _, _, rows, _ in told({"a": first, "b": second})] == [1, 2]


def test_trials_with_dense_inputs_are_each_their_own():
    inputs = {"a": looked_up([[0, 1], [0, 1]]), "b": torch.zeros(2, 2, 5)}
    assert told(inputs) == [(0, 2, [0, 1], [0, 1])]


def test_a_recall_batch_costs_less_than_two_thirds():
    task = SequenceRecallSpec().build()
    batch = task.sample(63, source(), "train")
    run = sum((s.stop - s.start) * len(s.rows) for s in segments(batch.inputs, batch.lengths))
    assert run < 2 / 3 * batch.targets.numel()


@pytest.mark.parametrize("cell", ["vanilla", "gru", "lstm"])
@given(data=st.data())
@settings(max_examples=15, deadline=None)
def test_results_are_those_of_every_trial_run_by_itself(cell, data):
    size, steps = data.draw(st.integers(1, 6)), data.draw(st.integers(1, 5))
    cells = st.lists(st.integers(0, 2), min_size=steps, max_size=steps)
    shown = looked_up(data.draw(st.lists(cells, min_size=size, max_size=size)))
    lengths = torch.tensor(data.draw(st.lists(st.integers(1, steps), min_size=size, max_size=size)))
    spec = RNNSpec(cell=cell, hidden_size=5, trunk_size=None)
    model = spec.build({"x": InputChannel((3,), "vector")}, 2, source(1)).double()
    inside = (torch.arange(steps) < lengths[:, None])[..., None]
    weight = torch.randn(size, steps, 2, generator=source(2), dtype=torch.float64)

    def run(inputs, **given):
        rollout = model(inputs, record=["h"], **given)
        model.zero_grad()
        (rollout.outputs * inside * weight).sum().backward()
        return rollout, [parameter.grad.clone() for parameter in model.parameters()]

    together, gradients = run({"x": shown}, lengths=lengths)
    apart, expected = run({"x": shown.dense()})
    close = {"rtol": 0, "atol": 1e-12}
    torch.testing.assert_close(together.outputs * inside, apart.outputs * inside, **close)
    torch.testing.assert_close(together.recorded["h"] * inside, apart.recorded["h"] * inside, **close)
    whole = lengths == steps
    for name, value in together.final_state.items():
        torch.testing.assert_close(value[whole], apart.final_state[name][whole], **close)
    torch.testing.assert_close(gradients, expected, **close)
