"""What a user sees while a sweep runs: plain lines without a terminal, bars and the table with one."""

from __future__ import annotations

import io
from itertools import count

import pytest
from rich.console import Console

from sweeps import progress
from sweeps.progress import Display
from tests.fixtures.ledgers import ACCURACY, LURES, finish, open_ledger, plan, reuse, sweep_of_two, train


@pytest.fixture
def two():
    return sweep_of_two(**{"search.trials": 4})


def display(spec, *, terminal: bool = False) -> Display:
    return Display(Console(file=io.StringIO(), width=120, height=40, force_terminal=terminal, color_system=None), spec)


def text(shown: Display) -> str:
    assert isinstance(shown.console.file, io.StringIO)
    return shown.console.file.getvalue()


def rendered(shown: Display) -> str:
    """What is on a terminal just now."""
    console = Console(file=io.StringIO(), width=120, height=40, color_system=None)
    console.print(shown._render())
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


class TestPlainLines:
    def test_a_stage(self, two):
        shown = display(two)
        with shown.running(), shown.stage("Render", 3) as update:
            update(1, 3)
        assert text(shown).startswith("Render ...\n  Render: done in ")

    def test_a_slow_stage_says_how_far_it_is(self, two, monkeypatch):
        clock = count(0, 8)
        monkeypatch.setattr(progress.time, "monotonic", lambda: float(next(clock)))
        shown = display(two)
        with shown.stage("Render", 3) as update:
            update(1, 3)
            update(2, 3)
        assert "  Render: 2 of 3, 24 s\n" in text(shown)
        assert "1 of 3" not in text(shown)

    def test_every_trial_that_ends(self, two, tmp_path):
        ledger, shown = open_ledger(two, tmp_path), display(two)
        ids = [plan(ledger, two) for _ in range(3)]
        with shown.running(), shown.searching(ledger):
            train(ledger, ids[0], 40, {ACCURACY: 0.9, LURES: 0.8})
            finish(ledger, two, ids[0], divergence={"at_chance": 1})
            reuse(ledger, two, ids[1], "earlier", {ACCURACY: 0.7, LURES: 0.6})
            ledger.append("noted", trial_id=ids[2], text="its newest checkpoint is damaged [x]")
            shown.noted(ledger.trials[ids[2]])
            ledger.append("failed", trial_id=ids[2], reason="its worker died", divergence={})
            for trial_id in ids:
                shown.ended(ledger.trials[trial_id])
        lines = text(shown).splitlines()
        best = [f"{ledger.trials[i].best(ACCURACY, 'max')[1]:.3f}" for i in ids[:2]]
        assert lines[0] == "Train and search ..."
        assert lines[1] == "  trial 2: its newest checkpoint is damaged [x]"
        assert lines[2].startswith(f"  trial 0: finished at step 40, select/accuracy {best[0]} ± 0.0")
        assert lines[2].endswith(" (at chance 1/3)")
        assert lines[3].startswith(f"  trial 1: reused at step 40, select/accuracy {best[1]} ± 0.0")
        assert lines[3].endswith(" (from earlier)")
        assert lines[4] == "  trial 2: failed at step 0 (its worker died; its newest checkpoint is damaged [x])"
        assert lines[5].startswith("  Train and search: done in ")

    def test_a_slow_search_says_what_is_left(self, two, tmp_path, monkeypatch):
        ledger, shown = open_ledger(two, tmp_path), display(two)
        clock = count(0, 100)
        monkeypatch.setattr(progress.time, "monotonic", lambda: float(next(clock)))
        with shown.searching(ledger):
            trial_id = plan(ledger, two)
            train(ledger, trial_id, 20, {ACCURACY: 0.9, LURES: 0.8})
            shown.reported(ledger.trials[trial_id], {})
        # 20 of 40 steps at 0.5 s, and three more trials of 20 s each.
        assert ", about 70 s left\n" in text(shown)


class TestTerminal:
    def test_stage_and_table(self, two, tmp_path, monkeypatch):
        monkeypatch.setattr(progress, "_SHARE", 1e9)  # every change is drawn at once
        ledger, shown = open_ledger(two, tmp_path), display(two, terminal=True)
        with shown.running():
            with shown.stage("Render", 2) as update:
                update(2, 2)
            with shown.searching(ledger):
                first = plan(ledger, two)
                shown.planned(ledger.trials[first])
                assert "1 of 4 trials: 0 finished, 0 pruned, 0 failed, 0 running, 1 planned" in rendered(shown)
                train(ledger, first, 20, {ACCURACY: 0.9, LURES: 0.8})
                shown.reported(ledger.trials[first], {})
                during = rendered(shown)
        assert "Render" in during
        assert "best so far: select/accuracy" in during
        assert "left 70 s" in during
        assert "running" in during
        assert "0/4" in during
        assert "trials:" not in rendered(shown)  # after the search the table makes room
        assert "4/4" in rendered(shown)

    def test_a_table_that_takes_long_is_drawn_less_often(self, two, tmp_path, monkeypatch):
        ledger, shown = open_ledger(two, tmp_path), display(two, terminal=True)
        made, now = [], [0.0]
        original = progress.TrialsTable

        def slow(*given, **options):
            made.append(now[0])
            now[0] += 2.0
            return original(*given, **options)

        monkeypatch.setattr(progress, "TrialsTable", slow)
        monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
        with shown.searching(ledger):
            for _ in range(45):
                assert "0 of 4 trials" in rendered(shown)
                now[0] += 1.0
        assert made == [0.0, 20.0, 40.0]  # 2 s of work in 20 s and no more

    def test_a_line_that_is_appended_meanwhile_is_drawn_the_next_time(self, two, tmp_path, monkeypatch):
        ledger, shown = open_ledger(two, tmp_path), display(two, terminal=True)
        original, appends = progress.lines, [True, False]

        def meanwhile(*given):
            if appends.pop(0):
                plan(ledger, two)
                raise RuntimeError("dictionary changed size during iteration")
            return original(*given)

        monkeypatch.setattr(progress, "lines", meanwhile)
        monkeypatch.setattr(progress, "_SHARE", 1e9)  # every change is drawn at once
        with shown.searching(ledger):
            assert "of 4 trials" not in rendered(shown)
            assert "1 of 4 trials" in rendered(shown)

    def test_what_else_goes_wrong_is_not_hidden(self, two, tmp_path, monkeypatch):
        ledger, shown = open_ledger(two, tmp_path), display(two, terminal=True)

        def broken(*given):
            raise RuntimeError("something else")

        monkeypatch.setattr(progress, "lines", broken)
        with shown.searching(ledger), pytest.raises(RuntimeError, match="something else"):
            rendered(shown)

    def test_more_trials_than_the_terminal_has_lines(self, tmp_path):
        spec = sweep_of_two(**{"search.trials": 100})
        ledger, shown = open_ledger(spec, tmp_path), display(spec, terminal=True)
        for _ in range(60):
            plan(ledger, spec)
        with shown.searching(ledger):
            drawn = rendered(shown).splitlines()
        assert len(drawn) < 40
        assert any("more" in line for line in drawn)
