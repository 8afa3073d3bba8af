"""Early stopping after a resume: the rungs are as they were."""

from __future__ import annotations

from typing import Any

import pytest
from optuna.trial import TrialState

from sweeps.ledger import Ledger
from sweeps.schedule import score, stopping_rule
from sweeps.search import Study
from tests.fixtures.driven import Driven, check_nothing_lost, check_reports_once, kill_driver, table
from tests.fixtures.one_ray import one_ray as one_ray
from tests.fixtures.one_ray import searched

pytestmark = [
    pytest.mark.faults,
    pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning"),
]
RATES = [float(f"{3e-4 * 1.2**i:.3g}") for i in range(30)]
CHANGES: dict[str, Any] = {
    "trial.training.steps": 36,
    "trial.evaluation": {"every_steps": 4, "trials": 192, "test_trials": 48},
    "search.space": {"model.cell": {"choice": ["vanilla", "gru"]}, "training.optimizer.lr": {"choice": RATES}},
    "search.sampler": {"kind": "grid", "seed": 369},
    "search.scheduler": {"kind": "asha", "grace": 4, "reduction": 3},
    "search.trials": None,
    "analyses": [],
    "recording": {},
}
"""60 trials."""


def killed_half_way(sweep: Driven) -> Ledger:
    """The ledger of a sweep whose driver was killed with about half of its trials planned, and that was resumed."""
    with sweep.driver() as process:
        sweep.wait_for(process, lambda: len(sweep.events("planned")) >= 30)
        kill_driver(process)
    assert sweep.ledger.counts()["planned"] < 60
    assert sweep.resume() == 0, sweep.output

    full = sweep.ledger.counts()["finished"]
    ledger = check_nothing_lost(sweep, planned=60, finished=full, pruned=60 - full)
    check_reports_once(sweep)
    check_one_rule_decided_all(sweep)
    check_stopped_trials_are_told_as_pruned(sweep)
    return ledger


def check_one_rule_decided_all(sweep: Driven) -> None:
    """A rule that sees all reports in their order, before and after the kill, decides what was decided."""
    search = sweep.spec.search
    rule = stopping_rule(search.scheduler, search.leading, sweep.spec.trial.training.steps)
    for line in sweep.events("reported"):
        value = score(search.scheduler, search.leading, line["replicates"][search.leading.metric])
        assert rule.stops(line["trial_id"], line["step"], value) == line["stops"], line


def check_stopped_trials_are_told_as_pruned(sweep: Driven) -> None:
    """Optuna holds none of them as COMPLETE."""
    trials = sweep.ledger.in_order()
    states = {trial.user_attrs["trial_id"]: trial.state for trial in Study(sweep.spec.search, trials).study.trials}
    for trial in trials:
        expected = TrialState.COMPLETE if trial.state == "finished" else TrialState.PRUNED
        assert states[trial.trial_id] == expected, trial


def at_once(concurrency: int) -> dict[str, Any]:
    return {**CHANGES, "resources": {"cpu": 0.5, "concurrency": concurrency}}


def test_as_many_trials_reach_the_full_budget_as_in_undisturbed_sweeps(tmp_path, ray_folder, one_ray):
    """One at a time, what ASHA decides is determined, and the range of undisturbed sweeps is one number: without its
    rungs a resumed sweep would let other trials through."""
    sweep = Driven(tmp_path, ray_folder, at_once(1))
    sweep.write_banks()
    undisturbed = [searched(sweep.spec, tmp_path / f"undisturbed_{number}", sweep.stimuli) for number in range(5)]
    full = [ledger.counts()["finished"] for ledger in undisturbed]

    ledger = killed_half_way(sweep)
    assert min(full) <= ledger.counts()["finished"] <= max(full), full
    assert [table(other) for other in undisturbed] == [table(ledger)] * 5


def test_rungs_are_kept_where_trials_overtake_each_other(tmp_path, ray_folder):
    """Two at once, the order of their reports differs from run to run, and with it what ASHA decides."""
    sweep = Driven(tmp_path, ray_folder, at_once(2))
    sweep.write_banks()
    killed_half_way(sweep)
