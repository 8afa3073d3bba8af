"""Where a sweep stands, from its ledger alone: once, followed while a driver works, and on a disk that is read-only."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path

import pytest
from rich.console import Console

from sweeps import cli, status
from sweeps.folder import driver_lock
from sweeps.ledger import Ledger
from sweeps.status import closing, follow, rows_that_fit, show
from tests.fixtures.ledgers import ACCURACY, LURES, finish, open_ledger, plan, sweep_of_two, train, varied_sweep
from tests.fixtures.sweeps import small_sweep
from wmcore.errors import InputError

READ_ONLY = """\
import os, sys
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
CHANGES = {"os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.truncate", "os.link", "os.symlink", "os.chmod"}

def read_only(event, arguments):
    # Python compiles modules into its own cache: only this folder's disk is read-only.
    inside = bool(arguments) and isinstance(arguments[0], (str, bytes, os.PathLike)) and os.fsdecode(arguments[0])
    if inside and os.path.abspath(inside).startswith(sys.argv[1]):
        if event in CHANGES or (event == "open" and arguments[2] & WRITING):
            raise OSError(30, "Read-only file system", inside)

sys.addaudithook(read_only)
from sweeps import cli
code = cli._run(["status", sys.argv[1]], False) or cli._run(["status", "--follow", sys.argv[1]], False)
print("loaded", sorted({"ray", "mlflow", "optuna"} & set(sys.modules)))
sys.exit(code)
"""


@pytest.fixture
def two():
    return sweep_of_two()


def console(terminal: bool = False, height: int = 40) -> Console:
    return Console(file=io.StringIO(), width=120, height=height, force_terminal=terminal, color_system=None)


def text(shown: Console) -> str:
    assert isinstance(shown.file, io.StringIO)
    return shown.file.getvalue()


def one_trial(spec, folder: Path) -> Ledger:
    """A sweep of one trial, which is running."""
    ledger = open_ledger(spec, folder)
    train(ledger, plan(ledger, spec), 20, {ACCURACY: 0.9, LURES: 0.8})
    return ledger


class TestOnce:
    def test_everything_is_there(self, two, tmp_path):
        varied_sweep(two, tmp_path)
        shown = console()
        show(tmp_path / "small", shown)
        for said in (
            "12 of 12 trials: 8 finished (1 reused), 0 pruned, 1 failed, 2 running, 1 planned\n",
            "best so far: select/accuracy 0.926 ± 0.021 (trial 0)",
            "at chance: 1 trial; nonfinite loss: 1 trial\n",
            "about 22 s of training left\n",
            f"No driver is at work on it: `wmsweep resume {tmp_path / 'small'}` goes on.",
            "at chance 2/3",
        ):
            assert said in text(shown)

    def test_the_driver_is_named(self, two, tmp_path):
        one_trial(two, tmp_path)
        shown = console()
        with driver_lock(tmp_path / "small"):
            show(tmp_path / "small", shown)
        assert f"Driven by process {os.getpid()} on " in text(shown)
        assert "No driver" not in text(shown)
        assert "Training has ended" not in text(shown)

    def test_after_training_a_driver_analyses(self, tmp_path):
        spec = small_sweep(**{"search.sampler": {"kind": "random"}, "search.trials": 1, "checkpoints": {}})
        ledger = open_ledger(spec, tmp_path)
        trial_id = plan(ledger, spec)
        train(ledger, trial_id, 40, {ACCURACY: 0.9}, networks=1)
        finish(ledger, spec, trial_id)
        during, after = console(), console()
        with driver_lock(tmp_path / "small"):
            show(tmp_path / "small", during)
        show(tmp_path / "small", after)
        assert "Training has ended; analyses and the report follow." in text(during)
        assert "riven by" not in text(after)
        assert "left" not in text(after)

    def test_a_torn_last_line_has_not_happened(self, two, tmp_path):
        ledger = one_trial(two, tmp_path)
        before = console()
        show(tmp_path / "small", before)
        with ledger.path.open("ab") as file:
            file.write(b'{"event":"finished","trial')
        torn = console()
        show(tmp_path / "small", torn)
        assert text(torn) == text(before)

    def test_an_extended_sweep_shows_its_new_number_of_trials(self, two, tmp_path):
        one_trial(two, tmp_path).append("extended", trials=20)
        shown = console()
        show(tmp_path / "small", shown)
        assert "1 of 20 trials" in text(shown)

    def test_a_read_only_disk(self, two, tmp_path):
        """Looking at a sweep changes nothing, and loads nothing that could."""
        ledger = varied_sweep(two, tmp_path)
        for trial in ledger.in_order():
            if not trial.ended:
                ledger.append("failed", trial_id=trial.trial_id, reason="x", divergence={})
        folder = tmp_path / "small"
        before = sorted(path.name for path in folder.iterdir())
        command = [sys.executable, "-W", "ignore", "-c", READ_ONLY, str(folder)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2])
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("12 of 12 trials: 8 finished") == 3  # once, and followed: the line and the table
        assert done.stdout.endswith("loaded []\n")
        assert sorted(path.name for path in folder.iterdir()) == before

    def test_what_is_no_sweep_is_bad_input(self, tmp_path):
        for look in (show, follow):
            with pytest.raises(InputError, match="is not the folder of a sweep"):
                look(tmp_path, console())


class TestFollowed:
    @pytest.mark.parametrize("terminal", [True, False])
    def test_it_shows_what_happens_and_ends_with_the_driver(self, tmp_path, monkeypatch, terminal):
        spec = sweep_of_two(**{"search.sampler": {"kind": "random"}, "search.trials": 1, "checkpoints": {}})
        ledger, driver, looks = one_trial(spec, tmp_path), ExitStack(), []
        (trial_id,) = ledger.trials
        between = iter(
            [
                lambda: train(ledger, trial_id, 40, {ACCURACY: 0.9, LURES: 0.8}),
                lambda: finish(ledger, spec, trial_id),
                driver.close,
            ]
        )

        def sleep(seconds: float) -> None:
            looks.append(text(shown))
            next(between)()

        monkeypatch.setattr(status.time, "sleep", sleep)
        shown = console(terminal)
        driver.enter_context(driver_lock(tmp_path / "small"))
        follow(tmp_path / "small", shown)
        assert len(looks) == 3
        first, second, third, last = (b.removeprefix(a) for a, b in pairwise(["", *looks, text(shown)]))
        for said in (first, second):
            assert "0 finished, 0 pruned, 0 failed, 1 running" in said
            assert f"Driven by process {os.getpid()} on " in said
            assert "Training has ended" not in said
        assert second != first
        assert "1 finished" in third
        assert "Training has ended; analyses and the report follow." in third
        assert "1 finished" in last
        assert "riven by" not in last
        # The table is drawn at each look on a terminal, and otherwise once.
        assert ["chance" in said for said in (third, last)] == [terminal, True]

    def test_reading_a_long_ledger_takes_a_small_share_of_the_time(self, two, tmp_path, monkeypatch):
        one_trial(two, tmp_path)
        slept, clock = [], iter(range(0, 1000, 3))

        def sleep(seconds: float) -> None:
            slept.append(seconds)
            if len(slept) == 3:
                raise KeyboardInterrupt

        monkeypatch.setattr(status.time, "sleep", sleep)
        monkeypatch.setattr(status.time, "monotonic", lambda: float(next(clock)))
        follow(tmp_path / "small", console())
        assert slept == [30.0, 30.0, 30.0]

    @pytest.mark.parametrize("removed", [False, True])
    def test_a_sweep_may_be_extended_or_removed_meanwhile(self, two, tmp_path, monkeypatch, removed):
        ledger, looks = one_trial(two, tmp_path), []

        def sleep(seconds: float) -> None:
            looks.append(text(shown))
            if len(looks) == 2:
                raise KeyboardInterrupt
            if removed:
                ledger.path.unlink()
            else:
                ledger.append("extended", trials=20)

        monkeypatch.setattr(status.time, "sleep", sleep)
        shown = console()
        if removed:
            with pytest.raises(InputError, match="is not the folder of a sweep"):
                follow(tmp_path / "small", shown)
        else:
            follow(tmp_path / "small", shown)
            assert "1 of 12 trials" in looks[0]
            assert "1 of 20 trials" in looks[1]

    def test_ctrl_c_ends_it_cleanly(self, two, tmp_path):
        one_trial(two, tmp_path)
        command = [sys.executable, "-W", "ignore", "-m", "sweeps", "status", "-f", str(tmp_path / "small")]
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]
        )
        try:
            assert process.stdout is not None
            assert process.stdout.readline().startswith("1 of 12 trials: 0 finished")
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=60)
        finally:
            process.kill()
            process.communicate()
        assert (process.returncode, out, err) == (0, "", "")


def test_the_command(two, tmp_path, capsys):
    varied_sweep(two, tmp_path)
    assert cli._run(["status", str(tmp_path / "small")], debug=False) == 0
    assert "12 of 12 trials: 8 finished (1 reused)" in capsys.readouterr().out
    assert cli._run(["status", "--follow", str(tmp_path)], debug=False) == 2
    assert "is not the folder of a sweep" in " ".join(capsys.readouterr().err.split())


def test_what_is_left_on_the_terminal_when_a_sweep_ends(two, tmp_path):
    shown = console()
    shown.print(closing(two, varied_sweep(two, tmp_path)))
    lines = [line for line in text(shown).splitlines() if line.strip()]
    assert lines[0].startswith("12 of 12 trials: 8 finished (1 reused)")
    assert lines[-2].startswith("best so far: ")
    assert lines[-1] == "at chance: 1 trial; nonfinite loss: 1 trial"


@pytest.mark.parametrize(("height", "beside", "rows"), [(40, 0, 22), (40, 3, 19), (10, 0, 4)])
def test_a_live_table_fits_on_the_terminal(height, beside, rows):
    assert rows_that_fit(console(height=height), beside) == rows
