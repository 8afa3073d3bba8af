"""From measured parts to a sweep: time, disk and memory with known answers, and how they are shown."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
from rich.console import Console

from sweeps.planning import estimate as estimating
from sweeps.planning.costs import Cost
from sweeps.planning.estimate import ANALYSE_STAGE, RENDER_STAGE, SEARCH_STAGE, Span, estimate, exactly
from sweeps.planning.facts import facts
from sweeps.planning.measure import Analysed, StimulusCost
from sweeps.planning.probe import ANALYSES_LIMIT_S, Probe
from sweeps.planning.show import duration, show_estimate, size
from sweeps.planning.stand_in import Missing
from sweeps.planning.variants import variants_of
from tests.fixtures.sweeps import small_sweep

COST = Cost(start=2.0, step=0.1, evaluation=0.5, save=0.25, finish=3.0, checkpoint_bytes=1e6)
TO_END = 2.0 + 40 * 0.1 + 4 * 0.75 + 3.0
ANALYSED = Analysed(seconds=10.0, bytes=5_000_000, copied_bytes=1_000_000, problem="")


def probed(spec, **changes) -> Probe:
    """On a machine that is as fast as the one of the constants."""
    return Probe(
        **{
            "cpus": 2,
            "at_once": 2,
            "device": "cpu",
            "ray_seconds": 4.0,
            "worker_seconds": estimating.WORKERS_REFERENCE_S,
            "trials": [(variant, COST) for variant in variants_of(spec).to_probe()],
            "stimuli": [],
            "analyses": [ANALYSED],
            "unfinished": 0,
            "trial_bytes": 10**9,
            "worker_bytes": 10**9,
            "gpu_bytes": 0,
            "load": 0.3,
            **changes,
        }
    )


def estimated(spec, **changes):
    return estimate(spec, variants_of(spec), probed(spec, **changes))


def unstopped(**changes):
    return small_sweep(**{"search.scheduler": {"kind": "none"}, "search.trials": 4, **changes})


def test_time_without_early_stopping_has_no_range():
    found = estimated(unstopped())
    start = estimating.WORKERS_REFERENCE_S + estimating.START_TUNE_S
    search = found.stages[SEARCH_STAGE]
    assert search.mean == pytest.approx(start + 2 * (TO_END + estimating.BETWEEN_TRIALS_S))
    assert search.low == search.high == search.mean
    assert found.saved is None
    assert found.to_end.mean == pytest.approx(TO_END)
    assert found.total.mean == pytest.approx(sum(span.mean for span in found.stages.values()))


def test_early_stopping_gives_a_range_and_what_it_saves():
    found = estimated(small_sweep(**{"search.trials": 12}))
    search = found.stages[SEARCH_STAGE]
    assert search.low < search.mean < search.high
    assert found.total.high - found.total.low == pytest.approx(search.high - search.low)
    assert found.saved is not None
    assert 0 < found.saved.low < found.saved.mean < found.saved.high < 1


def test_disk():
    """4 trials keep 2 to 4 checkpoints each; the best one's is copied; its network leaves 5 MB, 1 MB of it copied."""
    disk = estimated(unstopped()).disk_bytes
    assert disk == Span(*(pytest.approx(kept * 4e6 + 1e6 + 6e6) for kept in (2, 3, 4)))
    three = estimated(unstopped(**{"trial.replicates": 3, "checkpoints.best": 2})).disk_bytes
    assert three.mean == pytest.approx(3 * 4e6 + 2e6 + 6 * 6e6)


def test_stimuli_that_are_not_made_yet():
    spec = unstopped()
    stimuli = spec.trial.task.stimulus_spec()
    assert stimuli is not None
    cost = StimulusCost(load=3.0, render=0.1, features=0.3, render_bytes=2000.0)
    before = estimated(spec)
    assert RENDER_STAGE not in before.stages
    missing = Missing(stimuli, renders=100, write_seconds=7.0, feature_bytes=10**6)
    found = estimated(spec, stimuli=[(missing, cost)])
    assert found.stages[RENDER_STAGE].mean == pytest.approx(estimating.START_RENDERING_S + 3 + 100 * 0.4 / 2 + 7)
    assert found.disk_bytes.mean - before.disk_bytes.mean == pytest.approx(200_000 + 10**6)
    images = estimated(spec, stimuli=[(replace(missing, feature_bytes=0), cost)])
    assert images.stages[RENDER_STAGE].mean == pytest.approx(estimating.START_RENDERING_S + 3 + 100 * 0.1 / 2 + 7)


@pytest.mark.parametrize(("networks", "seconds"), [(1, 10), (2, 10), (3, 20), (5, 30)])
def test_analyses_go_in_rounds(networks, seconds):
    spec = unstopped(**{"trial.replicates": networks})
    stage = estimated(spec).stages[ANALYSE_STAGE]
    assert stage == exactly(pytest.approx(estimating.START_ANALYSES_S + seconds))


def test_analyses_that_were_given_up_take_at_least_so_long():
    found = estimated(unstopped(), analyses=[], unfinished=1)
    assert found.stages[ANALYSE_STAGE].mean == pytest.approx(estimating.START_ANALYSES_S + ANALYSES_LIMIT_S)
    assert found.stages[ANALYSE_STAGE].at_least
    assert found.total.at_least
    assert ANALYSE_STAGE not in estimated(unstopped(analyses=[], recording={}), analyses=[]).stages


def test_a_slower_machine_takes_longer_for_what_was_not_measured():
    spec = unstopped()
    slow = estimated(spec, worker_seconds=3 * estimating.WORKERS_REFERENCE_S)
    fast = estimated(spec)
    assert all(slow.stages[name].mean > span.mean for name, span in fast.stages.items())


def test_memory_is_that_of_the_larger_stage():
    own = estimating.DRIVER_BYTES
    assert estimated(unstopped(), trial_bytes=10**9, at_once=3).memory_bytes == own + 3 * 10**9
    many = unstopped(**{"trial.replicates": 4})
    assert estimated(many, worker_bytes=2 * 10**9, at_once=1).memory_bytes == own + 4 * 10**9
    assert estimated(unstopped(), gpu_bytes=10**8).gpu_bytes == 2 * 10**8


def test_shown_in_human_units():
    assert [duration(s) for s in (0.52, 9.94, 9.96, 59, 99.4, 100, 3600, 6000, 7200, 360_000, 4e6)] == [
        "0.5 s",
        "9.9 s",
        "10 s",
        "59 s",
        "99 s",
        "1.7 min",
        "60 min",
        "1.7 h",
        "2.0 h",
        "100 h",
        "1,111 h",
    ]
    assert [size(b) for b in (100, 5.2e6, 123.4e6, 999e6, 2.5e9, 3e12)] == [
        "0.0 MB",
        "5.2 MB",
        "123 MB",
        "999 MB",
        "2.5 GB",
        "3,000 GB",
    ]


def test_the_table_names_stages_ranges_and_failures(tmp_path):
    spec = small_sweep(**{"search.trials": 12})
    failed = replace(ANALYSED, problem="decoding failed: [odd] reason")
    probe = probed(spec, analyses=[failed, failed], unfinished=1, gpu_bytes=10**9, device="cuda", load=3.21)
    out = io.StringIO()
    show_estimate(Console(file=out, width=120), estimate(spec, variants_of(spec), probe), probe, tmp_path)
    text = " ".join(out.getvalue().split())
    for words in (
        "train and search",
        "in all more than",
        "trials at once │ 2, on cuda",
        "early stopping saves",
        "% of the search",
        "GPU memory │ 2.0 GB for 2 trials, beside CUDA's own",
        "are free",
        "keeps this machine busy (load 3.2 on 2 CPUs)",
    ):
        assert words in text
    quiet = io.StringIO()
    show_estimate(
        Console(file=quiet, width=120), estimate(spec, variants_of(spec), probe), replace(probe, load=1.0), tmp_path
    )
    assert "busy" not in quiet.getvalue()
    assert text.count("An analysis failed on an untrained network: decoding failed: [odd] reason") == 1


def test_facts_come_from_the_spec_alone():
    spec = small_sweep()
    rows = facts(spec, variants_of(spec))
    assert rows["trials"] == "5"
    assert rows["early stopping"] == "asha: at 10, 20 steps, one in 2 goes on"
    assert rows["checkpoints analysed"] == "1 best: decoding, trajectories"
    low, high = rows["parameters per network"].split(" to ")
    assert int(low.replace(",", "")) < int(high.replace(",", ""))
