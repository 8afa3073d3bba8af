"""Batches of inputs put together: every trial stays what it was, and what comes after it is padding."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from wmcore.models.rnn import RNNSpec
from wmcore.tasks.base import InputChannel
from wmcore.trials import Input, Inputs, Lookup, batch_shape, concatenated, dense, of_trials

TABLE = torch.randn(7, 3, 2, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
SIZES = ((3, 4), (2, 6), (4, 5))
"""(trials, steps) of each part."""


def values(name: str, trials: int, steps: int) -> Input:
    source = torch.Generator().manual_seed(100 * trials + steps)
    if name == "picture":
        return Lookup(TABLE, torch.randint(1, len(TABLE), (trials, steps), generator=source))
    return torch.randn(trials, steps, 5, generator=source, dtype=torch.float64)


@pytest.fixture
def parts() -> list[Inputs]:
    return [{name: values(name, *size) for name in ("picture", "cue")} for size in SIZES]


def test_every_trial_is_there_in_order_and_padded_at_its_end(parts: list[Inputs]) -> None:
    whole = concatenated(parts)
    assert batch_shape(whole) == (9, 6)
    start = 0
    for part, (trials, steps) in zip(parts, SIZES, strict=True):
        for name, value in of_trials(whole, start, start + trials).items():
            assert torch.equal(dense(value)[:, :steps], dense(part[name]))
        cue, picture = whole["cue"], whole["picture"]
        assert isinstance(cue, Tensor)
        assert isinstance(picture, Lookup)
        assert not cue[start : start + trials, steps:].any()
        assert not picture.index[start : start + trials, steps:].any()
        start += trials


def test_a_table_is_not_copied(parts: list[Inputs]) -> None:
    picture = concatenated(parts)["picture"]
    assert isinstance(picture, Lookup)
    assert picture.table is TABLE


def test_one_part_is_left_as_it_is(parts: list[Inputs]) -> None:
    whole = concatenated(parts[:1])
    assert all(whole[name] is value for name, value in parts[0].items())


@pytest.mark.parametrize("cell", ["vanilla", "gru", "lstm"])
def test_one_padded_pass_gives_what_separate_passes_give(parts: list[Inputs], cell: str) -> None:
    channels = {"picture": InputChannel((3, 2, 2), "features"), "cue": InputChannel((5,), "vector")}
    spec = RNNSpec.parse({"kind": "rnn", "cell": cell, "hidden_size": 6, "trunk_size": 5, "reduction_channels": 2})
    model = spec.build(channels, 3, torch.Generator().manual_seed(1)).double()
    outputs, start = model(concatenated(parts)).outputs, 0
    for part, (trials, steps) in zip(parts, SIZES, strict=True):
        found = outputs[start : start + trials, :steps]
        torch.testing.assert_close(found, model(part).outputs, rtol=0, atol=1e-12)
        start += trials


@pytest.mark.parametrize("has_table", [True, False])
def test_where_tables_differ_the_rows_are_taken(parts: list[Inputs], has_table: bool) -> None:
    """As where input noise is new in a later stage."""
    own = parts[1]["picture"]
    assert isinstance(own, Lookup)
    other = Lookup(TABLE + 1, own.index) if has_table else TABLE[own.index] + 1
    picture = concatenated([parts[0], {**parts[1], "picture": other}])["picture"]
    assert isinstance(picture, Tensor)
    assert torch.equal(picture[:3, :4], dense(parts[0]["picture"]))
    assert torch.equal(picture[3:], TABLE[own.index] + 1)
    assert not picture[:3, 4:].any()


def test_inputs_of_other_names_are_refused(parts: list[Inputs]) -> None:
    with pytest.raises(ValueError, match="different names"):
        concatenated([parts[0], {"cue": parts[1]["cue"]}])
