"""The ledger: what happened to every trial, one JSON line per event, appended by the driver alone and flushed.

It is the record of a sweep; Ray's files and MLflow are views of it. At any time planned = finished + pruned + failed
+ pending. Events:

    sweep     version, sweep_id, spec             first line; again if the spec is corrected before the first trial
    changed   tracking, resources                 of the spec, from now on; only those that differ
    warmed    source, trials                      what the sampler knows from an earlier sweep
    extended  trials                              the sweep has so many trials from now on
    planned   number, trial_id, point, attempt    a suggestion became a trial; attempt: of the sampler's model
    started   trial_id                            an actor took it
    reported  trial_id, step, metrics, replicates, divergence, seconds, stops, entered
                                                  an evaluation; stops: early stopping ends the trial here; entered:
                                                  replicate -> stage of its curriculum that it goes on in from here
    pruned    trial_id, step                      early stopping has ended it
    finished  trial_id, step, result              trained to its end
    reused    trial_id, source, step, reports, result
                                                  finished in an earlier sweep of the same storage
    failed    trial_id, reason, divergence        diverged (which replicates, and how) or broke
    noted     trial_id, text                      something that its user should know
    retried   trial_id, restarts                  a failed trial is pending again; restarts: its reports are forgotten
    exhausted reason                              the space holds no further trial
"""

from __future__ import annotations

import errno
import json
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from sweeps.objectives import ObjectiveSpec
from wmcore.errors import InputError

VERSION = 1
CHANGEABLE = ("tracking", "resources")
"""Parts of a spec that may change in a sweep that has begun: no number depends on them."""
State = Literal["planned", "running", "finished", "pruned", "failed"]
ENDS = {"finished": "finished", "reused": "finished", "pruned": "pruned", "failed": "failed"}
"""Event that ends a trial -> the state that it is in from then on."""


@dataclass
class TrialRecord:
    """One trial as the ledger tells it.

    Attributes:
        number: order of suggestion, from 0.
        trial_id: content hash of the TrialSpec.
        point: path -> value in the search space.
        attempt: which suggestion of the sampler's model it was; None if it came from no model.
        reports: step -> metrics, in the order reported.
        replicates: step -> the leading objective's value of each replicate.
        result: of a finished trial: best step, final metrics with spread, baselines, sampling, seconds.
        divergence: kind of divergence -> number of replicates, as of the last report.
        seconds: of training so far.
        stopping: early stopping ended it at its last report.
        source: the sweep that a reused trial was trained in.
        failures: how often it failed.
        notes: what a user should know of it.
        planned_at, ended_at: the ledger's lines that say so.
    """

    number: int
    trial_id: str
    point: dict[str, Any]
    attempt: int | None = None
    state: State = "planned"
    reports: dict[int, dict[str, float]] = field(default_factory=dict)
    replicates: dict[int, list[float | None]] = field(default_factory=dict)
    result: dict[str, Any] | None = None
    reason: str = ""
    step: int = 0
    divergence: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    stopping: bool = False
    source: str = ""
    failures: int = 0
    notes: list[str] = field(default_factory=list)
    planned_at: int = 0
    ended_at: int = 0

    @property
    def ended(self) -> bool:
        """Finished, pruned or failed."""
        return self.state in ("finished", "pruned", "failed")

    def best(self, metric: str, mode: str) -> tuple[int, float] | None:
        """(step, value) of the best report of a metric, the earliest among equals; None before the first report."""
        sign = 1 if mode == "max" else -1
        values = [(step, m[metric]) for step, m in self.reports.items() if m.get(metric) is not None]
        return max(values, key=lambda pair: (sign * pair[1], -pair[0]), default=None)

    def values(self, objectives: Sequence[ObjectiveSpec]) -> tuple[float | None, ...] | None:
        """Each objective's value at the report that is best by the first one: those of one set of weights."""
        best = self.best(objectives[0].metric, objectives[0].mode)
        return None if best is None else tuple(self.reports[best[0]].get(o.metric) for o in objectives)


class Ledger:
    """Appends events and keeps the trials that they describe. No file stays open between appends."""

    def __init__(self, path: Path) -> None:
        """Reads what there is. A torn last line (without its end: the driver was killed while writing it) never
        happened.

        Raises:
            InputError: a line that has its end is damaged, or was written by a newer version.
        """
        self.path = path
        self.trials: dict[str, TrialRecord] = {}
        self.spec: dict[str, Any] | None = None
        self.sweep_id = ""
        self.warm: list[dict[str, Any]] = []
        self.extensions: list[int] = []
        self.exhausted = False
        self.lines = 0
        self._whole_bytes = 0
        if path.exists():
            self._whole_bytes = len(self._whole())
            for number, line in enumerate(self.whole_lines(), start=1):
                try:
                    self._apply(line)
                except (KeyError, TypeError, AttributeError) as error:
                    raise self._damaged(number) from error

    def append(self, event: str, **fields: Any) -> None:
        """Writes one event, flushes it to disk, and applies it.

        Raises:
            InputError: the ledger cannot be written.
        """
        line = {"event": event, "time": round(time.time(), 3), **_finite(fields)}
        data = (json.dumps(line, separators=(",", ":"), allow_nan=False) + "\n").encode()
        try:
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o644)
            try:
                os.ftruncate(descriptor, self._whole_bytes)
                os.lseek(descriptor, 0, os.SEEK_END)
                if os.write(descriptor, data) < len(data):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        except OSError as error:
            raise InputError(
                str(self.path), f"cannot be written ({error.strerror})", remedy="Make space or fix its permissions."
            ) from error
        self._whole_bytes += len(data)
        self._apply(line)

    def in_order(self) -> list[TrialRecord]:
        """Trials by number."""
        return sorted(self.trials.values(), key=lambda trial: trial.number)

    def counts(self) -> dict[str, int]:
        """planned (all), finished, pruned, failed, pending (planned or running)."""
        states = [trial.state for trial in self.trials.values()]
        ended = {name: states.count(name) for name in ("finished", "pruned", "failed")}
        pending = states.count("planned") + states.count("running")
        return {"planned": len(states), **ended, "pending": pending}

    def whole_lines(self) -> Iterator[dict[str, Any]]:
        """The events, as they are in the file.

        Raises:
            InputError: a line that has its end is damaged.
        """
        for number, raw in enumerate(self._whole().split(b"\n")[:-1], start=1):
            try:
                yield json.loads(raw)
            except ValueError as error:
                raise self._damaged(number) from error

    def _whole(self) -> bytes:
        """The file up to the end of its last whole line."""
        try:
            data = self.path.read_bytes()
        except OSError as error:
            raise InputError(
                str(self.path), f"cannot be read ({error.strerror})", remedy="Restore it or fix its permissions."
            ) from error
        return data[: data.rfind(b"\n") + 1]

    def _damaged(self, number: int) -> InputError:
        return InputError(
            f"{self.path}:{number}", "is not a line of a ledger", remedy="Restore the file from a backup."
        )

    def _apply(self, line: dict[str, Any]) -> None:
        self.lines += 1
        event = line["event"]
        if event == "sweep":
            if line["version"] > VERSION:
                raise InputError(
                    str(self.path),
                    f"was written by a newer version of wmsweep (ledger {line['version']}, this one reads {VERSION})",
                    remedy="Upgrade wmsweep.",
                )
            self.spec, self.warm, self.extensions, self.exhausted = line["spec"], [], [], False
            self.sweep_id = line.get("sweep_id", "")
            return
        if event == "changed":
            self.spec = {**(self.spec or {}), **{name: line[name] for name in CHANGEABLE if name in line}}
            return
        if event == "warmed":
            self.warm = line["trials"]
            return
        if event == "extended":
            self.extensions.append(line["trials"])
            return
        if event == "exhausted":
            self.exhausted = True
            return
        if event == "planned":
            self.trials[line["trial_id"]] = TrialRecord(
                line["number"], line["trial_id"], line["point"], attempt=line.get("attempt"), planned_at=self.lines
            )
            return
        trial = self.trials[line["trial_id"]]
        match event:
            case "started":
                trial.state = "running"
            case "reported":
                trial.reports[line["step"]] = line["metrics"]
                trial.replicates[line["step"]] = line.get("replicates", {}).get(self._leading, [])
                trial.step = line["step"]
                trial.divergence, trial.seconds = line.get("divergence", {}), line.get("seconds", 0.0)
                trial.stopping = line.get("stops", False)
            case "pruned":
                trial.state = "pruned"
            case "finished":
                trial.state, trial.result = "finished", line["result"]
                trial.divergence = line["result"].get("divergence", {})
            case "reused":
                trial.state, trial.source, trial.step = "finished", line["source"], line["step"]
                trial.reports = {report["step"]: report["metrics"] for report in line["reports"]}
                trial.replicates = {report["step"]: report["replicates"] for report in line["reports"]}
                trial.result = line["result"]
                trial.divergence = line["result"].get("divergence", {})
            case "failed":
                trial.state, trial.reason, trial.failures = "failed", line["reason"], trial.failures + 1
                trial.divergence = line.get("divergence", {})
            case "retried":
                if line["restarts"]:
                    trial.reports, trial.replicates, trial.step, trial.seconds = {}, {}, 0, 0.0
                trial.state, trial.reason, trial.divergence, trial.stopping = "planned", "", {}, False
            case "noted":
                trial.notes.append(line["text"])
            case _:
                raise KeyError(event)
        if event in ENDS:
            trial.ended_at = self.lines

    @property
    def extended_to(self) -> int | None:
        """The number of trials since the last extension; None before the first."""
        return self.extensions[-1] if self.extensions else None

    @property
    def budgets(self) -> list[int]:
        """The number of trials that the sweep was begun with, where its spec says it, and after each extension."""
        begun = (self.spec or {}).get("search", {}).get("trials")
        return [*([] if begun is None else [begun]), *self.extensions]

    @property
    def _leading(self) -> str:
        """The metric of the first objective; an empty string before the spec is known."""
        objective = (self.spec or {}).get("search", {}).get("objective", {})
        return (objective[0] if isinstance(objective, list) else objective).get("metric", "")


def _finite(value: Any) -> Any:
    """NaN and infinities as null: JSON has neither."""
    if isinstance(value, float):
        return value if value - value == 0 else None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value
