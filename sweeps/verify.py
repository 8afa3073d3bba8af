"""Proves that nothing was lost and nothing counted twice: the ledger against itself, the disk, Optuna and MLflow."""

from __future__ import annotations

import sqlite3
from collections import Counter
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from optuna.trial import FrozenTrial

from sweeps.folder import checkpoints_of, holder
from sweeps.history import history_faults
from sweeps.ledger import ENDS, Ledger, TrialRecord
from sweeps.overview import has_ended
from sweeps.search import STATES, TRIAL_ID, rebuilt
from sweeps.spec import SweepSpec
from sweeps.tracking import TRIAL, child_runs, tracking_uri

SQLITE = "sqlite:///"


@dataclass(frozen=True)
class Check:
    """One thing that must hold."""

    name: str
    holds: bool
    figures: str


def verify(spec: SweepSpec, folder: Path, ledger: Ledger) -> list[Check]:
    """All checks of a sweep's folder; it is only read, and may be driven meanwhile."""
    return [
        _identity(ledger),
        _order(spec, ledger),
        _numbers(ledger),
        _trial_ids(spec, ledger),
        _checkpoints(folder, ledger),
        _optuna(spec, ledger),
        _mlflow(spec, folder, ledger),
    ]


def _identity(ledger: Ledger) -> Check:
    """Counts the lines themselves: a trial that was planned or ended twice is one too many."""
    planned, ended, states = Counter(), Counter(), Counter()
    for line in ledger.whole_lines():
        event = line["event"]
        if event == "planned":
            planned[line["trial_id"]] += 1
        elif event in ENDS:
            ended[line["trial_id"]] += 1
            states[ENDS[event]] += 1
        elif event == "retried":
            ended[line["trial_id"]] -= 1
            states["failed"] -= 1
    pending = sum(ended[trial_id] == 0 for trial_id in planned)
    reused = sum(bool(trial.source) for trial in ledger.trials.values())
    shown = " + ".join(f"{states[name]} {name}" for name in ("finished", "pruned", "failed")) + f" + {pending} pending"
    return Check(
        "planned = finished + pruned + failed + pending",
        all(count == 1 for count in planned.values())
        and all(count in (0, 1) for count in ended.values())
        and planned.total() == ended.total() + pending
        and set(ended) <= set(planned),
        f"{planned.total()} = {shown}" + (f" ({reused} of the finished reused)" if reused else ""),
    )


def _order(spec: SweepSpec, ledger: Ledger) -> Check:
    faults = history_faults(ledger.whole_lines())
    if len(ledger.trials) > spec.search.budget:
        faults.append(f"{len(ledger.trials)} trials were planned, and the sweep has {spec.search.budget}")
    faults += [fault for trial in ledger.in_order() if (fault := _missing_reports(spec, trial))]
    shown = f"{len(faults)} that cannot be: {faults[0]}" if faults else f"{ledger.lines} events"
    return Check("every event follows from those before it", not faults, shown)


def _missing_reports(spec: SweepSpec, trial: TrialRecord) -> str:
    """A trial reports at every multiple of ``every_steps`` and at its last step."""
    variant = spec.trial_for(trial.point)
    every, last = variant.evaluation.every_steps, variant.training.steps
    due = [*range(every, trial.step + 1, every), *([last] if trial.step == last and last % every else [])]
    missing = ", ".join(str(step) for step in due if step not in trial.reports)
    return f"trial {trial.trial_id} has reached step {trial.step} and not reported {missing}" if missing else ""


def _numbers(ledger: Ledger) -> Check:
    numbers = [trial.number for trial in ledger.in_order()]
    return Check("trials are numbered 0, 1, 2, ...", numbers == list(range(len(numbers))), f"{len(numbers)} trials")


def _trial_ids(spec: SweepSpec, ledger: Ledger) -> Check:
    wrong = [t.trial_id for t in ledger.in_order() if spec.trial_for(t.point).trial_id != t.trial_id]
    return Check("every trial id is the hash of its variant", not wrong, f"{len(wrong)} differ")


def _checkpoints(folder: Path, ledger: Ledger) -> Check:
    """Of a finished trial the best one, which is analysed and reused; of a pruned one any."""
    ended = [trial for trial in ledger.in_order() if trial.state in ("finished", "pruned")]
    without = []
    for trial in ended:
        checkpoints = checkpoints_of(folder, trial.trial_id)
        steps = reversed(checkpoints.steps()) if trial.result is None else [trial.result["best_step"]]
        if not any(checkpoints.is_whole(step) for step in steps):
            without.append(str(trial.number))
    figures = f"{len(ended)} of them" + (f"; not trial {', '.join(without)}" if without else "")
    return Check("every finished or pruned trial kept a checkpoint", not without, figures)


def _optuna(spec: SweepSpec, ledger: Ledger) -> Check:
    """A study that is rebuilt, against what the ledger's lines say: state, point and, if it finished, values."""
    held = rebuilt(spec.search, ledger).own_trials()
    told = {entry.user_attrs[TRIAL_ID]: entry for entry in held}
    wrong = [str(trial.number) for trial in ledger.in_order() if not _holds(spec, told.get(trial.trial_id), trial)]
    states = Counter(entry.state for entry in held)
    shown = ", ".join(f"{count} {state.name}" for state, count in sorted(states.items()))
    shown += f"; not trial {', '.join(wrong)}" if wrong else ""
    holds = not wrong and len(held) == len(ledger.trials)
    return Check("Optuna holds every trial with its point and values, a stopped one as PRUNED", holds, shown)


def _holds(spec: SweepSpec, entry: FrozenTrial | None, trial: TrialRecord) -> bool:
    """Whether an entry of a study is this trial."""
    if entry is None or entry.state != STATES[trial.state]:
        return False
    values = trial.values(spec.search.objectives) if trial.state == "finished" else None
    return spec.search.space.decode(entry.params) == trial.point and (values is None or tuple(entry.values) == values)


def _mlflow(spec: SweepSpec, folder: Path, ledger: Ledger) -> Check:
    """While a driver holds the folder, MLflow may lag behind the ledger, and the ledger as it was read behind both."""
    name, uri, driven = "one MLflow run per trial", tracking_uri(spec, folder), bool(holder(folder))
    command = "analyze" if has_ended(spec, ledger) else "resume"
    remedy = f"`wmsweep {command} {folder}` writes it again"
    if uri.startswith(SQLITE) and not _is_store(Path(uri.removeprefix(SQLITE))):
        # MLflow's client would make it.
        if driven:
            return Check(name, True, "its store is not there yet (it is being run)")
        return Check(name, False, f"{uri.removeprefix(SQLITE)} is missing or is no MLflow store; {remedy}")
    try:
        runs = Counter(run.data.tags[TRIAL] for run in child_runs(MlflowClient(uri), spec.name, ledger.sweep_id))
    except MlflowException as error:
        return Check(name, False, f"the store {uri} cannot be read ({error})")
    trials = set(Ledger(ledger.path).trials if driven else ledger.trials)
    there = set(runs) <= trials if driven else set(runs) == trials
    once = there and all(count == 1 for count in runs.values())
    figures = f"{runs.total()} runs, {len(trials)} trials" + (" (it is being run)" if driven else "")
    return Check(name, once, figures if once else f"{figures}; {remedy}")


def _is_store(path: Path) -> bool:
    """Whether an SQLite file holds MLflow's tables; opened for reading alone."""
    try:
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as connection:
            connection.execute("SELECT 1 FROM experiments LIMIT 1")
    except sqlite3.Error:
        return False
    return True
