"""The table of results does not depend on how many trials run at once."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import pytest

from sweeps.spec import SweepSpec
from sweeps.tune_adapters import BookScheduler
from tests.fixtures.driven import table, undisturbed
from tests.fixtures.ledgers import most_at_once
from tests.fixtures.one_ray import one_ray as one_ray
from tests.fixtures.one_ray import searched
from tests.fixtures.sweeps import small_sweep, write_banks

CHANGES: dict[str, Any] = {
    "trial.replicates": 2,
    "trial.training.steps": 80,
    "search.scheduler": {"kind": "none"},
    "search.trials": 6,
    "analyses": [],
    "recording": {},
}
DISCRETE = {
    "search.space": {"model.cell": {"choice": ["vanilla", "gru"]}, "training.batch_size": {"choice": [4, 8, 16]}}
}
TPE = {"kind": "tpe", "seed": 1, "startup_trials": 3, "synchronous": True, "batch": 4}


def sweep_at(concurrency: int, **changes: Any) -> SweepSpec:
    """The small sweep with so many trials at once."""
    return small_sweep(**{**CHANGES, **changes, "resources": {"cpu": 0.25, "concurrency": concurrency}})


def check_same_table(tmp_path: Path, concurrencies: tuple[int, ...], **changes: Any) -> None:
    """Every way gives what one trial after the other gives, without Ray."""
    spec = sweep_at(1, **changes)
    stimuli = spec.trial.task.stimulus_spec()
    assert stimuli is not None
    banks = write_banks(tmp_path / "stimuli", stimuli)
    expected = undisturbed(spec, tmp_path / "undisturbed", banks)
    assert expected.counts()["finished"] == 6
    for concurrency in concurrencies:
        ledger = searched(sweep_at(concurrency, **changes), tmp_path / str(concurrency), banks)
        assert (most_at_once(ledger) > 1) == (concurrency > 1)
        assert table(ledger) == table(expected)


def test_a_free_actor_goes_to_the_newest_trial():
    """The oldest one has an actor of its own, which Tune ends when it takes another."""
    trials = [SimpleNamespace(status=status) for status in ("RUNNING", "PENDING", "PENDING", "TERMINATED")]
    controller = SimpleNamespace(get_trials=lambda: trials)
    scheduler = BookScheduler(MagicMock())
    assert scheduler.choose_trial_to_run(controller) is trials[2]
    trials[1:3] = []
    assert scheduler.choose_trial_to_run(controller) is None


def test_random_at_1_2_and_4(tmp_path, one_ray):
    check_same_table(tmp_path, (1, 2, 4), **{"search.sampler": {"kind": "random", "seed": 4}})


@pytest.mark.faults
@pytest.mark.parametrize(
    "changes",
    [
        {**DISCRETE, "search.sampler": {"kind": "grid"}, "search.trials": None},
        {"search.sampler": {"kind": "sobol", "seed": 2}},
        {"search.sampler": TPE},
    ],
    ids=["grid", "sobol", "tpe"],
)
def test_the_others_at_2_and_4(tmp_path, one_ray, changes):
    check_same_table(tmp_path, (2, 4), **changes)
