"""The shipped specs of serial recall: names that only the recording of a trained network would otherwise refute."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from sweeps.loading import load_sweep
from wmcore.analyses.subspaces import SubspacesSpec
from wmcore.errors import InputError
from wmcore.tasks.sequence_recall import SequenceRecallSpec

SPECS = sorted((Path(__file__).parents[2] / "search_spaces" / "sequence_recall").glob("*.yaml"))


@pytest.mark.parametrize("path", SPECS, ids=lambda path: path.stem)
def test_subspaces_are_compared_after_every_item_and_over_the_delay(path: Path) -> None:
    sweep = load_sweep(path)
    task = sweep.trial.task
    assert isinstance(task, SequenceRecallSpec)
    (subspaces,) = [analysis for analysis in sweep.analyses if isinstance(analysis, SubspacesSpec)]
    # One item alone has no other to be compared with.
    after_items = [f"stimulus_{p}.end" for p in range(1, max(task.lengths))]
    assert list(subspaces.moments) == [*after_items, "delay.mid", "delay.end"]
    batch = task.build().sample(30, torch.Generator().manual_seed(0), sweep.recording.split)
    assert {str(moment).partition(".")[0] for moment in subspaces.moments} <= set(batch.periods)


def test_delays_that_differ_are_told_apart_before_anything_is_trained() -> None:
    (path,) = [path for path in SPECS if path.stem == "gru"]
    longer = "trial.task.longest_delay_ms=2000"
    with pytest.raises(InputError, match=r"analyses\.1\.within.*differ in delay.*within: \[length, delay\]"):
        load_sweep(path, [longer])
    course = "{kind: temporal_generalisation, within: [length, delay]}"
    speed = "{kind: speed, within: [length, delay]}"
    assert len(load_sweep(path, [longer, f"analyses=[{course}, {speed}]"]).analyses) == 2
    with pytest.raises(InputError, match=r"analyses\.1\.within.*differ in delay"):
        load_sweep(path, [longer, f"analyses=[{course}, {{kind: speed}}]"])
