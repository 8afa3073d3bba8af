"""The ledger: every event, the identity of the counts, and what damage does."""

from __future__ import annotations

import json
import math
import resource
import signal
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sweeps.ledger import VERSION, Ledger
from wmcore.errors import InputError


def planned(ledger: Ledger, number: int) -> str:
    trial_id = f"{number:016x}"
    ledger.append("planned", number=number, trial_id=trial_id, point={"model.cell": "gru", "x": number / 7})
    return trial_id


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    ledger = Ledger(tmp_path / "ledger.jsonl")
    ledger.append("sweep", version=VERSION, spec={"name": "small"})
    return ledger


def same(one: Ledger, other: Ledger) -> bool:
    return (one.trials, one.spec, one.exhausted) == (other.trials, other.spec, other.exhausted)


def test_every_event_is_applied_and_read_again(ledger):
    finished, pruned, failed, running, waiting = (planned(ledger, i) for i in range(5))
    for trial_id in (finished, pruned, failed, running):
        ledger.append("started", trial_id=trial_id)
        assert ledger.trials[trial_id].state == "running"
    ledger.append("reported", trial_id=finished, step=10, metrics={"a": 0.1}, replicates={"a": [0.1]})
    ledger.append("reported", trial_id=finished, step=20, metrics={"a": 0.3}, replicates={"a": [0.3]})
    ledger.append("finished", trial_id=finished, step=20, result={"best_step": 20})
    ledger.append("reported", trial_id=pruned, step=10, metrics={"a": 0.2}, replicates={"a": [0.2]})
    ledger.append("pruned", trial_id=pruned, step=10)
    ledger.append("failed", trial_id=failed, reason="diverged")
    ledger.append("exhausted", reason="nothing is new")

    one = ledger.trials[finished]
    assert (one.number, one.state, one.step, one.result) == (0, "finished", 20, {"best_step": 20})
    assert (one.point, one.reports) == ({"model.cell": "gru", "x": 0.0}, {10: {"a": 0.1}, 20: {"a": 0.3}})
    assert (ledger.trials[pruned].state, ledger.trials[pruned].step) == ("pruned", 10)
    assert (ledger.trials[failed].state, ledger.trials[failed].reason) == ("failed", "diverged")
    assert [t.ended for t in ledger.in_order()] == [True, True, True, False, False]
    assert ledger.trials[waiting].state == "planned"
    assert ledger.exhausted
    assert ledger.spec == {"name": "small"}
    assert ledger.counts() == {"planned": 5, "finished": 1, "pruned": 1, "failed": 1, "pending": 2}
    assert same(Ledger(ledger.path), ledger)
    lines = [json.loads(line) for line in ledger.path.read_text().splitlines()]
    assert [line["event"] for line in lines][:2] == ["sweep", "planned"]
    assert all(isinstance(line["time"], float) for line in lines)


def test_best_report():
    ledger = Ledger(Path("/nonexistent/ledger.jsonl"))
    ledger._apply({"event": "planned", "number": 0, "trial_id": "t", "point": {}})
    trial = ledger.trials["t"]
    assert trial.best("a", "max") is None
    for step, value in ((10, 0.5), (20, 0.9), (30, 0.9), (40, None), (50, 0.1), (60, 0.1)):
        ledger._apply({"event": "reported", "trial_id": "t", "step": step, "metrics": {"a": value}})
    assert trial.best("a", "max") == (20, 0.9)
    assert trial.best("a", "min") == (50, 0.1)
    assert trial.best("b", "max") is None


def test_trials_are_in_order_of_their_numbers(ledger):
    for number in (2, 0, 1):
        planned(ledger, number)
    assert [trial.number for trial in ledger.in_order()] == [0, 1, 2]


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_any_legal_history_keeps_the_identity(tmp_path, data):
    path = tmp_path / "ledger.jsonl"
    path.unlink(missing_ok=True)
    ledger, mirror = Ledger(path), dict.fromkeys(("planned", "finished", "pruned", "failed"), 0)
    ledger.append("sweep", version=VERSION, spec={})
    for _ in range(data.draw(st.integers(0, 30))):
        waiting = [t.trial_id for t in ledger.in_order() if not t.ended]
        event = data.draw(st.sampled_from(["planned", "started", "reported", "pruned", "finished", "failed"]))
        if event == "planned":
            planned(ledger, len(ledger.trials))
        elif waiting:
            trial_id = data.draw(st.sampled_from(waiting))
            fields = {
                "started": {},
                "reported": {"step": 10, "metrics": {"a": data.draw(st.floats())}, "replicates": {}},
                "pruned": {"step": 10},
                "finished": {"step": 40, "result": {}},
                "failed": {"reason": "x"},
            }[event]
            ledger.append(event, trial_id=trial_id, **fields)
        else:
            continue
        if event in mirror:
            mirror[event] += 1
        counts = ledger.counts()
        assert counts["planned"] == counts["finished"] + counts["pruned"] + counts["failed"] + counts["pending"]
        assert {name: counts[name] for name in mirror} == mirror
    assert same(Ledger(path), ledger)


@pytest.mark.parametrize("torn", [b'{"event":"failed","trial', b"{", b"\x00\x00\x00", b'{"event":"fai'])
def test_a_torn_last_line_never_happened_and_the_next_append_overwrites_it(ledger, torn):
    trial_id = planned(ledger, 0)
    whole = ledger.path.read_bytes()
    ledger.path.write_bytes(whole + torn)
    again = Ledger(ledger.path)
    assert same(again, ledger)
    assert ledger.path.read_bytes() == whole + torn  # reading changes nothing
    again.append("failed", trial_id=trial_id, reason="broke")
    data = ledger.path.read_bytes()
    assert data.startswith(whole)
    assert json.loads(data[len(whole) :])["event"] == "failed"
    assert Ledger(ledger.path).trials[trial_id].state == "failed"


@pytest.mark.parametrize(
    "damage",
    [
        "{torn",
        "",
        "5",
        "null",
        "[]",
        '{"time":1.0}',
        '{"event":"finished"}',
        '{"event":"started","trial_id":"of no trial"}',
        '{"event":"eaten","trial_id":"0000000000000000"}',
    ],
)
def test_damage_elsewhere_names_file_and_line(ledger, damage):
    trial_id = planned(ledger, 0)
    ledger.append("started", trial_id=trial_id)
    lines = ledger.path.read_text().splitlines()
    lines.insert(2, damage)
    ledger.path.write_text("\n".join(lines) + "\n")
    with pytest.raises(InputError) as caught:
        Ledger(ledger.path)
    assert f"{ledger.path}:3" in str(caught.value)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("damage", [b'{"event":"fai\n', b"\x00\n", b"garbage\n", b"\xff\n", b"\n"])
def test_a_damaged_last_line_that_has_its_end_is_not_torn(ledger, damage):
    planned(ledger, 0)
    whole = ledger.path.read_bytes()
    ledger.path.write_bytes(whole + damage)
    with pytest.raises(InputError, match=r"ledger\.jsonl:3 is not a line of a ledger"):
        Ledger(ledger.path)
    assert ledger.path.read_bytes() == whole + damage


def test_a_newer_version_is_refused(tmp_path):
    path = tmp_path / "ledger.jsonl"
    path.write_text(json.dumps({"event": "sweep", "version": VERSION + 1, "spec": {}}) + "\n")
    with pytest.raises(InputError, match=rf"newer version of wmsweep \(ledger {VERSION + 1}.*Upgrade wmsweep"):
        Ledger(path)


def test_an_unwritable_ledger_is_bad_input_and_nothing_is_applied(tmp_path):
    ledger = Ledger(tmp_path / "gone" / "ledger.jsonl")
    with pytest.raises(InputError, match=r"ledger\.jsonl cannot be written \(No such file or directory\)"):
        planned(ledger, 0)
    assert ledger.trials == {}


def test_a_full_disk_tears_nothing_but_the_line_that_did_not_fit(ledger):
    planned(ledger, 0)
    whole = ledger.path.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(whole) + 20, hard))  # the next line fits in part
    try:
        with pytest.raises(InputError, match="cannot be written"):
            planned(ledger, 1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)
    assert len(ledger.trials) == 1
    assert same(Ledger(ledger.path), ledger)
    planned(ledger, 1)
    assert ledger.path.read_bytes().startswith(whole + b'{"event":"planned"')
    assert len(Ledger(ledger.path).trials) == 2


def test_what_is_not_a_number_is_stored_as_null(ledger):
    trial_id = planned(ledger, 0)
    metrics = {"a": math.nan, "b": math.inf, "c": -math.inf, "d": 1.5}
    ledger.append("reported", trial_id=trial_id, step=1, metrics=metrics, replicates={"a": [math.nan, 1.0]})
    line = json.loads(ledger.path.read_text().splitlines()[-1], parse_constant=pytest.fail)
    assert line["metrics"] == {"a": None, "b": None, "c": None, "d": 1.5}
    assert line["replicates"] == {"a": [None, 1.0]}
    assert ledger.trials[trial_id].reports[1] == line["metrics"]  # in memory as on disk
