"""The shipped specs of serial recall: names that only the recording of a trained network would otherwise refute."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from sweeps.loading import load_sweep
from wmcore.analyses.subspaces import SubspacesSpec
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
