"""Whether the lines of a ledger can have happened: planned, started, reported at rising steps, ended, nothing after."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from sweeps.ledger import ENDS


@dataclass
class _Life:
    """A trial so far: its state and the step of its last report."""

    state: str = "pending"
    step: int = 0


def history_faults(lines: Iterable[Mapping[str, Any]]) -> list[str]:
    """A sentence for each event that cannot follow those before it."""
    lives: dict[str, _Life] = {}
    faults = []
    for number, line in enumerate(lines, start=1):
        fault = _take(lives, line)
        if fault:
            faults.append(f"line {number}, {line['event']}: {fault}")
    return faults


def _take(lives: dict[str, _Life], line: Mapping[str, Any]) -> str:
    """Applies an event; what is wrong with it, or an empty string."""
    event, trial_id = line["event"], line.get("trial_id")
    if event == "sweep":
        return "there are trials of another spec already" if lives else ""
    if trial_id is None:
        return ""
    if event == "planned":
        known = trial_id in lives
        lives.setdefault(trial_id, _Life())
        return f"trial {trial_id} was planned before" if known else ""
    life = lives.get(trial_id)
    if life is None:
        return f"trial {trial_id} was never planned"
    fault = _misfit(life, line)
    if event == "reported":
        life.step = line["step"]
    elif event == "retried":
        life.state, life.step = "pending", 0 if line["restarts"] else life.step
    elif event in ENDS:
        life.state = ENDS[event]
    return fault


def _misfit(life: _Life, line: Mapping[str, Any]) -> str:
    event, trial_id = line["event"], line["trial_id"]
    if event == "retried":
        return "" if life.state == "failed" else f"trial {trial_id} had not failed"
    if life.state != "pending":
        return f"trial {trial_id} had {life.state} before"
    if event == "reported" and line["step"] <= life.step:
        return f"trial {trial_id} had reported step {life.step} before"
    if event in ("pruned", "finished") and line["step"] != life.step:
        return f"trial {trial_id} ended at step {line['step']}, and its last report is of step {life.step}"
    if event == "finished" and line["result"]["best_step"] > life.step:
        return f"trial {trial_id} was best at a step that it did not reach"
    return ""
