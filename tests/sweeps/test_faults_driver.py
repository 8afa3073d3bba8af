"""Two drivers for one sweep, and drivers that are interrupted."""

from __future__ import annotations

import os
import re
import shutil
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.fixtures.driven import (
    PATIENCE_S,
    Driven,
    check_nothing_lost,
    check_reports_once,
    held,
    table,
    undisturbed,
    until,
)

pytestmark = [
    pytest.mark.faults,
    pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning"),
]
CHANGES: dict[str, Any] = {
    "search.sampler": {"kind": "random", "seed": 4},
    "search.scheduler": {"kind": "none"},
    "search.trials": 3,
}


def test_a_second_driver_is_refused_and_does_not_disturb_the_first(tmp_path, ray_folder):
    sweep = Driven(tmp_path, ray_folder, {**CHANGES, "analyses": [], "recording": {}})
    sweep.write_banks()
    with sweep.driver() as first:
        sweep.wait_for(first, lambda: len(sweep.events("reported")) > 0)
        # So that it cannot come to its end before the second one has tried.
        with held(first):
            before = sweep.path.read_bytes()
            codes = [sweep.run(), sweep.resume(), sweep.resume("--trials", "2")]
            said = [line for line in sweep.output.splitlines() if line.startswith("Error: ")]
            assert sweep.path.read_bytes() == before
        assert codes == [2, 2, 2], sweep.output
        assert len(said) == 3
        for line in said:
            assert line.startswith(f"Error: {sweep.folder} is being run by another driver (process {first.pid} on ")
        assert first.wait(PATIENCE_S) == 0, sweep.output
    ledger = check_nothing_lost(sweep, planned=3, finished=3)
    check_reports_once(sweep)
    assert table(ledger) == table(undisturbed(sweep.spec, tmp_path / "undisturbed", sweep.stimuli))


def test_ctrl_c_while_libraries_are_loaded(tmp_path, ray_folder):
    sweep = Driven(tmp_path, ray_folder, CHANGES)
    with sweep.driver() as process:
        maps = Path(f"/proc/{process.pid}/maps")
        sweep.wait_for(process, lambda: "libtorch" in maps.read_text())
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(PATIENCE_S) == 130
    assert sweep.output == "Interrupted before anything had begun.\n"
    assert not sweep.folder.exists()
    assert sweep.is_empty()


STAGES = ("Start Ray and MLflow", "Stimuli and features", "Train and search", "Record and analyse", "Write the report")
LONGEST_S = {"Start Ray and MLflow": 3.0, "Stimuli and features": 3.0, "Record and analyse": 3.0}
"""How far into a stage it is interrupted at most; the others right at their beginning."""
ATTEMPTS = 8


def test_ctrl_c_at_any_stage(tmp_path, ray_folder):
    (tmp_path / "storage").mkdir()
    sweep = Driven(tmp_path / "storage", ray_folder, CHANGES)
    moments = np.random.default_rng(5)
    for stage in STAGES:
        # A terminal interrupts the whole group, a job server the driver alone.
        for interrupt in (os.killpg, os.kill):
            delay = moments.uniform(0, LONGEST_S.get(stage, 0))
            before = shutil.copytree(sweep.storage, tmp_path / f"before_{stage}_{interrupt.__name__}")
            for attempt in range(ATTEMPTS):
                said = interrupted(sweep, stage, interrupt, delay / 2**attempt if attempt < ATTEMPTS - 1 else 0)
                if f"{stage}: done" not in said:
                    break
                # A machine so fast that the stage was over by then: once more, and earlier.
                shutil.rmtree(sweep.storage)
                shutil.copytree(before, sweep.storage)
            else:
                pytest.fail(f"{stage} was never met while it lasted: {said}")
    assert sweep.resume() == 0, sweep.output
    ledger = check_nothing_lost(sweep, planned=3, finished=3)
    check_reports_once(sweep)
    assert table(ledger) == table(undisturbed(sweep.spec, tmp_path / "undisturbed", sweep.stimuli))
    assert (sweep.folder / "report" / "index.html").exists()


def interrupted(sweep: Driven, stage: str, interrupt: Callable[[int, int], None], delay: float) -> str:
    """What a driver says that is interrupted so many seconds into a stage; it may have come to its end by then."""
    printed = len(sweep.output) if (sweep.storage / "output.txt").exists() else 0
    reports = len(sweep.events("reported"))
    with sweep.driver(*(("resume", str(sweep.folder)) if sweep.path.exists() else ())) as process:
        sweep.wait_for(process, lambda: f"{stage} ..." in sweep.output[printed:])
        if stage == "Train and search" and interrupt is os.kill:
            sweep.wait_for(process, lambda: len(sweep.events("reported")) > reports)
        time.sleep(delay)
        with suppress(ProcessLookupError):
            interrupt(process.pid, signal.SIGINT)
            # Who presses it presses it again: while Ray is ended, and when all is said.
            time.sleep(0.5)
            interrupt(process.pid, signal.SIGINT)
            until(lambda: process.poll() is not None or "Interrupted" in sweep.output[printed:], lambda: sweep.output)
            interrupt(process.pid, signal.SIGINT)
        code = process.wait(PATIENCE_S)
    said = sweep.output[printed:]
    assert "Traceback" not in said
    if code == 0:
        assert f"{stage}: done" in said
    else:
        assert code == 130, said
        last = said.rstrip().splitlines()[-1]
        assert re.fullmatch(
            rf"Interrupted\. Nothing is lost: `\S+ -m sweeps resume {re.escape(str(sweep.folder))}` goes on\.", last
        )
    sweep.wait_until_empty()
    return said
