"""The table of variants and the lines above it: order, figures, notes, and what fits on a terminal."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from sweeps.ledger import Ledger
from sweeps.mechanism import chosen_trials
from sweeps.overview import best_so_far, divergences, has_ended, lines, summary, time_left, trials_in_the_end
from sweeps.table import Score, baselines, digits, note, ranked, variants
from sweeps.terminal_table import TrialsTable
from tests.fixtures.ledgers import (
    ACCURACY,
    LURES,
    finish,
    open_ledger,
    plan,
    report,
    reuse,
    sweep_of_two,
    train,
    varied_sweep,
)
from tests.fixtures.sweeps import new_folder, small_sweep


@pytest.fixture(scope="module")
def two():
    return sweep_of_two()


@pytest.fixture(scope="module")
def varied(two, tmp_path_factory):
    return varied_sweep(two, tmp_path_factory.mktemp("varied"))


@pytest.fixture
def single(tmp_path):
    """One objective, one network per trial."""
    spec = small_sweep()
    return spec, open_ledger(spec, tmp_path)


def printed(table: TrialsTable, width: int = 160) -> list[str]:
    console = Console(file=io.StringIO(), width=width)
    console.print(table)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


def rows(printed_lines: list[str]) -> dict[str, list[str]]:
    """Trial number -> the words of its row."""
    words = [line.split() for line in printed_lines]
    return {row[0].rstrip("*"): row for row in words if row and row[0].rstrip("*").isdigit()}


class TestOrder:
    def test_the_front_comes_first_then_the_first_objective_then_the_state(self, two, varied):
        assert [row.number for row in variants(two, varied)] == [0, 1, 6, 2, 4, 3, 5, 7, 9, 10, 11, 8]
        assert [row.number for row in variants(two, varied) if row.front] == [0, 1, 6, 2, 4]
        assert [trial.number for trial, _ in ranked(two, varied)] == [row.number for row in variants(two, varied)]

    def test_one_objective_has_no_front(self, single):
        spec, ledger = single
        for accuracy in (0.6, 0.9):
            trial_id = plan(ledger, spec)
            train(ledger, trial_id, 40, {ACCURACY: accuracy}, networks=1)
            finish(ledger, spec, trial_id)
        stopped = plan(ledger, spec)
        train(ledger, stopped, 10, {ACCURACY: 3.0}, networks=1)
        ledger.append("pruned", trial_id=stopped, step=10)
        found = variants(spec, ledger)
        assert [(row.number, row.state, row.front) for row in found] == [
            (1, "finished", False),
            (0, "finished", False),
            (2, "pruned", False),
        ]

    def test_smaller_is_better_where_the_objective_says_so(self, tmp_path):
        spec = small_sweep(**{"search.objective": {"metric": ACCURACY, "mode": "min"}})
        ledger = open_ledger(spec, tmp_path)
        for accuracy in (0.9, 0.6):
            report(ledger, plan(ledger, spec), 10, {ACCURACY: [accuracy]})
        assert [row.number for row in variants(spec, ledger)] == [1, 0]
        assert best_so_far(spec, ledger) == f"best so far: {ACCURACY} 0.600 (trial 1, planned at step 10)"

    def test_the_front_is_analysed_first(self, two, varied):
        spec = two.model_copy(update={"checkpoints": two.checkpoints.model_copy(update={"best": 6})})
        assert [trial.number for trial in chosen_trials(spec, varied)] == [0, 1, 6, 2, 4, 3]


class TestFigures:
    def test_all_objectives_are_those_of_the_weights_that_are_kept(self, two, tmp_path):
        ledger = open_ledger(two, tmp_path)
        trial_id = plan(ledger, two)
        report(ledger, trial_id, 10, {ACCURACY: [0.5, 0.6, 0.7], LURES: [0.9, 0.9, 0.9]})
        report(ledger, trial_id, 20, {ACCURACY: [0.7, 0.8, 0.9], LURES: [0.3, 0.3, 0.3]})
        report(ledger, trial_id, 30, {ACCURACY: [0.6, 0.6, 0.6], LURES: [1.0, 1.0, 1.0]})
        (row,) = variants(two, ledger)
        assert row.best_step == 20
        assert row.values[0] == Score(pytest.approx(0.8), pytest.approx(0.1))
        assert row.values[1] == Score(pytest.approx(0.3))

    def test_the_spread_is_that_of_a_sample_and_one_network_has_none(self, two, varied, single):
        assert str(Score(0.8, 0.1)) == "0.800 ± 0.100"
        assert str(Score(0.8)) == "0.800"
        assert str(Score(1.5e-5, 2e-6)) == "1.5e-05 ± 2e-06"
        best = varied.trials[variants(two, varied)[0].trial_id]
        mean, spread = variants(two, varied)[0].tests[0].mean, variants(two, varied)[0].tests[0].spread
        assert mean == best.result["metrics"]["test/accuracy"]
        found = best.result["replicates"]["test/accuracy"]
        assert spread == pytest.approx((sum((x - sum(found) / 3) ** 2 for x in found) / 2) ** 0.5)
        spec, ledger = single
        report(ledger, plan(ledger, spec), 10, {ACCURACY: [0.6]})
        assert variants(spec, ledger)[0].values == (Score(0.6, None),)

    def test_small_and_large_figures_keep_their_digits(self):
        assert [digits(x) for x in (0.0, 0.5, -0.25, 0.01, 123.4)] == ["0.000", "0.500", "-0.250", "0.010", "123.400"]
        assert [digits(x) for x in (0.00123, 4.5e-6, 12345.678)] == ["0.00123", "4.5e-06", "1.23e+04"]

    def test_baselines_of_each_objective(self, two, varied):
        result = varied.in_order()[0].result
        assert baselines(two.search.objectives[0], result, "select") == {"chance": 0.5, "constant": 0.52}
        assert baselines(two.search.objectives[1], result, "test") == {"chance": 0.5, "constant": 0.0}
        assert baselines(two.search.objectives[0], result, "no such split") == {}
        assert baselines(two.search.objectives[0], None, "select") == {}


class TestNotes:
    def test_each_kind(self, two, varied):
        said = {trial.number: note(two, trial) for trial in varied.in_order()}
        assert said == {
            **dict.fromkeys(range(12), ""),
            6: "from earlier",
            7: "at chance 2/3",
            8: "diverged by step 20: nonfinite_loss in 1 of 3 replicates",
            9: "failed once before",
        }

    def test_a_divergence_that_the_reason_does_not_name_is_said_beside_it(self, two, tmp_path):
        ledger = open_ledger(two, tmp_path)
        trial_id = plan(ledger, two)
        report(ledger, trial_id, 10, {ACCURACY: [0.5] * 3}, divergence={"silent": 1})
        ledger.append("failed", trial_id=trial_id, reason="its worker died", divergence={"silent": 1, "saturated": 0})
        ledger.append("noted", trial_id=trial_id, text="went on from the checkpoint before")
        assert note(two, ledger.trials[trial_id]) == ("silent 1/3; its worker died; went on from the checkpoint before")

    def test_replicates_may_be_searched(self, tmp_path):
        changes = {"search.space": {"replicates": {"choice": [2, 5]}}, "search.sampler": {"kind": "random"}}
        spec = small_sweep(**changes, **{"search.trials": 2})
        ledger = open_ledger(spec, tmp_path)
        for count in (2, 5):
            report(
                ledger, plan(ledger, spec, replicates=count), 10, {ACCURACY: [0.5] * count}, divergence={"silent": 1}
            )
        assert [note(spec, trial) for trial in ledger.in_order()] == ["silent 1/2", "silent 1/5"]


class TestLines:
    def test_counts_best_and_divergences(self, two, varied):
        assert lines(two, varied) == [
            "12 of 12 trials: 8 finished (1 reused), 0 pruned, 1 failed, 2 running, 1 planned",
            "best so far: select/accuracy 0.926 ± 0.021 (trial 0), select/accuracy_lures 0.867 (trial 4); "
            "5 on the Pareto front",
            "at chance: 1 trial; nonfinite loss: 1 trial",
        ]

    def test_the_count_is_of_trials_and_not_of_replicates(self, two, tmp_path):
        ledger = open_ledger(two, tmp_path)
        for found in ({"silent": 3, "saturated": 1}, {"silent": 1}, {"saturated": 0}, {}):
            report(ledger, plan(ledger, two), 10, {ACCURACY: [0.5] * 3}, divergence=found)
        assert divergences(ledger) == "silent: 2 trials; saturated: 1 trial"

    def test_before_the_first_trial(self, single):
        spec, ledger = single
        assert lines(spec, ledger) == ["0 of 5 trials: 0 finished, 0 pruned, 0 failed, 0 running"]
        assert time_left(spec, ledger) is None
        assert not has_ended(spec, ledger)
        assert any("trial" in line for line in printed(TrialsTable(spec, ledger)))

    def test_a_failed_trial_is_never_the_best(self, single):
        spec, ledger = single
        for accuracy in (0.6, 0.9):
            report(ledger, plan(ledger, spec), 10, {ACCURACY: [accuracy]})
        ledger.append("failed", trial_id=ledger.in_order()[1].trial_id, reason="x")
        assert best_so_far(spec, ledger).endswith("0.600 (trial 0, planned at step 10)")

    def test_a_space_that_is_used_up_ends_the_sweep(self, single):
        spec, ledger = single
        trial_id = plan(ledger, spec)
        train(ledger, trial_id, 40, {ACCURACY: 0.6}, networks=1)
        assert trials_in_the_end(spec, ledger) == 5
        finish(ledger, spec, trial_id)
        assert not has_ended(spec, ledger)
        ledger.append("exhausted", reason="nothing is new")
        assert (trials_in_the_end(spec, ledger), has_ended(spec, ledger), time_left(spec, ledger)) == (1, True, 0.0)
        assert summary(spec, ledger).startswith("1 of 5 trials, and the space holds no more: 1 finished")

    def test_trials_that_cannot_be_are_not_counted(self, tmp_path):
        """A space of two cells, before the driver has seen that it is used up."""
        spec = small_sweep(**{"search.space": {"model.cell": {"choice": ["gru", "lstm"]}}, "search.trials": 500})
        ledger = Ledger(new_folder(spec, tmp_path) / "ledger.jsonl")
        assert trials_in_the_end(spec, ledger) == 2
        assert summary(spec, ledger).startswith("0 of 2 trials: ")

    def test_time_left_divides_by_what_runs_at_once(self, two, varied):
        # 9: 20 steps at 0.5 s; 10: 30 at 0.5 s; 11: the mean of seven at 20 s and one that failed after 10 s. Two run.
        assert time_left(two, varied) == pytest.approx((10 + 15 + (7 * 20 + 10) / 8) / 2)


class TestTerminal:
    def test_single_objective(self, single):
        spec, ledger = single
        trial_id = plan(ledger, spec)
        train(ledger, trial_id, 40, {ACCURACY: 0.9}, networks=1)
        finish(ledger, spec, trial_id)
        shown = printed(TrialsTable(spec, ledger), 80)
        assert shown[1].split() == ["trial", "state", "steps", "select", "test", "cell", "lr"]
        value = f"{ledger.trials[trial_id].best(ACCURACY, 'max')[1]:.3f}"
        assert rows(shown)["0"] == ["0", "finished", "40", value, value, "gru", "0.001"]
        words = [line.split() for line in shown]
        assert ["chance", "0.500", "0.500"] in words
        assert ["constant", "0.520", "0.520"] in words
        assert not any("±" in line or "note" in line or "Pareto" in line for line in shown)

    def test_several_objectives_and_replicates(self, two, varied):
        shown = printed(TrialsTable(two, varied))
        found = rows(shown)
        assert found["0"][:6] == ["0*", "finished", "40", "0.926±0.021", "0.597", "0.926±0.021"]
        assert found["6"][:2] == ["6*", "reused"]
        assert found["3"][0] == "3"
        assert " ".join(found["7"]).endswith("at chance 2/3")
        assert shown[-1] == "* on the Pareto front; mean ± standard deviation over n = 3 replicates"
        header = " ".join(" ".join(shown[:3]).split())
        assert {"accuracy", "lures", "test", "note"} <= set(header.split())
        assert ["chance", "0.500", "0.500", "0.500"] in [line.split() for line in shown]

    @pytest.mark.parametrize("width", [80, 90, 120, 200])
    def test_no_figure_is_cut_and_no_note_lost(self, two, varied, width):
        shown = printed(TrialsTable(two, varied), width)
        assert max(map(len, shown)) <= width
        assert not any("…" in line for line in shown)
        assert "0.926±0.021" in " ".join(shown)
        words = " ".join(shown).split()
        for said in ("from earlier", "at chance 2/3", "failed once before", "nonfinite_loss in 1 of 3"):
            assert set(said.split()) <= set(words)
        assert "vanilla" in words

    def test_a_live_table_has_one_line_per_row_the_running_ones_among_them(self, two, varied):
        shown = printed(TrialsTable(two, varied, 6, cut=True), 70)
        assert list(rows(shown)) == ["0", "1", "6", "2", "9", "10"]
        assert ["...", "6", "more"] in [line.split() for line in shown]
        table = shown[shown.index(next(line for line in shown if line.startswith(" ─"))) + 1 :]
        assert len(table) == 6 + 1 + 1 + 2 + 1 + 1  # rows, how many more, a gap, baselines, a gap, the legend

    def test_all_are_shown_where_there_is_room(self, two, varied):
        assert len(rows(printed(TrialsTable(two, varied, 12)))) == 12
        assert not any("more" in line for line in printed(TrialsTable(two, varied, 12)))

    def test_what_is_in_brackets_is_text(self, two, tmp_path):
        ledger = open_ledger(two, tmp_path)
        ledger.append("failed", trial_id=plan(ledger, two), reason="a[/red] b [bold]c")
        assert any("a[/red] b [bold]c" in line for line in printed(TrialsTable(two, ledger)))

    def test_it_shows_the_ledger_as_it_was(self, two, tmp_path):
        ledger = open_ledger(two, tmp_path)
        plan(ledger, two)
        table = TrialsTable(two, ledger)
        plan(ledger, two)
        assert list(rows(printed(table))) == ["0"]

    def test_a_setting_that_does_not_apply_is_empty(self, single):
        spec, ledger = single
        ledger.append("planned", number=0, trial_id="t", point={"training.optimizer.lr": 0.01})
        assert rows(printed(TrialsTable(spec, ledger)))["0"] == ["0", "planned", "0", "0.01"]


def test_a_reused_trial_has_curves_and_counts_as_finished(two, tmp_path):
    ledger = open_ledger(two, tmp_path)
    reuse(ledger, two, plan(ledger, two), "earlier", {ACCURACY: 0.9, LURES: 0.8})
    (row,) = variants(two, ledger)
    assert (row.state, row.label, row.note, row.step) == ("finished", "reused", "from earlier", 40)
    assert row.values[0].spread is not None
    assert summary(two, ledger) == "1 of 12 trials: 1 finished (1 reused), 0 pruned, 0 failed, 0 running"
