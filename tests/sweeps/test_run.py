"""One small sweep from its spec to its report: real rendering, a real Ray, MLflow and analyses, and what follows."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import traceback
import warnings
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import optuna
import pandas as pd
import pytest
import ray.data
from mlflow import MlflowClient

from sweeps import cli, driver
from sweeps.ledger import Ledger
from sweeps.mechanism import analysis_folder, chosen_trials
from sweeps.tracking import TRIAL, child_runs, tracking_uri
from tests.fixtures.sweeps import SMALL, small_sweep
from wmcore.stimuli.feature_bank import feature_bank_folder
from wmcore.stimuli.image_bank import image_bank_folder

pytestmark = [
    # Ray Data's own settings object sets deprecated fields of its own when it is made.
    pytest.mark.filterwarnings(r"ignore:.*is deprecated:Warning:ray\.data\.context"),
    # MLflow itself uses what SQLAlchemy is about to drop.
    pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning"),
]
SPEC = small_sweep()


@dataclass
class Ran:
    """A sweep that was run by the command line."""

    storage: Path
    code: int
    out: str
    err: str

    @property
    def folder(self) -> Path:
        return self.storage / SPEC.name

    @property
    def ledger(self) -> Ledger:
        return Ledger(self.folder / "ledger.jsonl")


def wmsweep(*arguments: str | Path) -> tuple[int, str, str]:
    """The command line in this process: exit code, standard output, standard error."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Ray and Tune; ours are errors everywhere else
        code = cli._run([str(argument) for argument in arguments], debug=False)
    return code, out.getvalue(), err.getvalue()


def wmsweep_apart(*arguments: str | Path) -> tuple[int, str, str]:
    """The same in a process of its own, as a user starts it: one process connects to Ray once."""
    command = [sys.executable, "-m", "sweeps", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout, done.stderr


@pytest.fixture(scope="module", autouse=True)
def _own_ray() -> Iterator[None]:
    """Ray's files in a folder of their own, with a short name: sockets lie in it. Its settings are undone."""
    before = dict(os.environ)
    with tempfile.TemporaryDirectory(prefix="wm", dir="/tmp", ignore_cleanup_errors=True) as folder:
        os.environ["RAY_TMPDIR"] = folder
        os.environ["PYTHONWARNINGS"] = "ignore"
        os.environ["COLUMNS"] = "200"
        yield
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture(scope="module")
def spec_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("spec") / "small.yaml"
    path.write_text(SMALL)
    return path


@pytest.fixture(scope="module")
def ran(spec_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Ran:
    storage = tmp_path_factory.mktemp("storage")
    return Ran(storage, *wmsweep("run", spec_file, "--storage", storage))


@pytest.fixture(scope="module")
def again(spec_file: Path, ran: Ran, tmp_path_factory: pytest.TempPathFactory) -> Ran:
    """The same sweep in another storage; nothing is shared. Its analyses are left out."""
    storage = tmp_path_factory.mktemp("another")
    changes = ("--set", "analyses=[]", "--set", "recording={}")
    return Ran(storage, *wmsweep_apart("run", spec_file, "--storage", storage, *changes))


def table(out: str) -> list[str]:
    """The rows of the closing table."""
    lines = out.splitlines()
    start = next(i for i, line in enumerate(lines) if line.split()[:2] == ["trial", "state"])
    return [" ".join(line.split()) for line in lines[start:] if line.strip()][:-2]


def test_it_ends_well_with_the_table_of_variants(ran):
    assert (ran.code, ran.err) == (0, "")
    assert not ray.is_initialized()
    states = [t.state for t in ran.ledger.in_order()]
    assert len(states) == 5
    assert {"finished", "pruned"} == set(states), "the small sweep shows both"
    rows = [row.split() for row in table(ran.out)]
    assert sorted(row[0] for row in rows if row[0].isdigit()) == ["0", "1", "2", "3", "4"]
    shown = {row[0]: [float(value) for value in row[1:]] for row in rows if row[0] in ("chance", "constant")}
    assert set(shown) == {"chance", "constant"}
    assert shown["chance"] == [0.5, 0.5]
    assert f"Report:  {ran.folder}/report/index.html" in ran.out
    assert re.search(rf"MLflow:  \S.* ui {re.escape(str(ran.folder))}", ran.out)
    for stage in (
        "Start Ray and MLflow",
        "Stimuli and features",
        "Train and search",
        "Record and analyse",
        "Write the report",
    ):
        assert f"{stage}: done in" in ran.out


def test_no_thread_of_ray_data_outlives_the_connection(ran):
    """One that still asks Ray for something ends the process, with the report half written."""
    home = str(Path(ray.data.__file__).parent)
    left = []
    for frame in sys._current_frames().values():
        # A thread that waits without a limit for its own queue asks nobody anything.
        waits = frame.f_code.co_name == "wait" and frame.f_locals.get("timeout", 0) is None
        if not waits and any(call.filename.startswith(home) for call in traceback.extract_stack(frame)):
            left.append(traceback.extract_stack(frame)[-1])
    assert not left


def test_trials_end_where_the_rungs_are(ran):
    for trial in ran.ledger.in_order():
        if trial.state == "finished":
            assert list(trial.reports) == [10, 20, 30, 40]
            assert trial.result is not None
            assert trial.result["metrics"]["select/accuracy"] == trial.best("select/accuracy", "max")[1]
        else:
            assert trial.step in (10, 20)
            assert list(trial.reports) == list(range(10, trial.step + 1, 10))


class Links(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [value for name, value in attrs if name in ("src", "href") and value]


def check_report(folder: Path) -> str:
    page = folder / "report" / "index.html"
    text = page.read_text()
    links = Links()
    links.feed(text)
    assert len(links.found) > 5
    for link in links.found:
        assert (page.parent / link).is_file(), link
        assert not Path(link).is_absolute()
    return text


def test_the_report_names_the_best_variant_and_links_what_exists(ran):
    text = check_report(ran.folder)
    (best,) = chosen_trials(SPEC, ran.ledger)
    assert f"Variant {best.number} is best on selection" in text
    assert f"<strong>{best.result['metrics']['test/accuracy']:.3f}</strong>" in text
    assert "category only" in text
    for title in ("decoding", "trajectories"):
        assert f"{title} of variant {best.number}, replicate 0" in text
    assert "seed: 3" in text


def test_verify_proves_it(ran):
    code, out, _ = wmsweep("verify", ran.folder)
    counts = ran.ledger.counts()
    assert code == 0
    shown = " ".join(out.split())
    figures = f"5 = {counts['finished']} finished + {counts['pruned']} pruned + 0 failed + 0 pending"
    assert f"planned = finished + pruned + failed + pending: {figures}" in shown
    assert f"PRUNED: {counts['finished']} COMPLETE, {counts['pruned']} PRUNED" in shown
    assert "one MLflow run per trial: 5 runs, 5 trials" in shown
    assert out.count("ok  ") == 7
    assert "FAIL" not in out


def test_every_trial_has_its_run_and_the_best_its_analyses(ran):
    store = MlflowClient(tracking_uri(SPEC, ran.folder))
    runs = {run.data.tags[TRIAL]: run for run in child_runs(store, SPEC.name)}
    assert set(runs) == set(ran.ledger.trials)
    for trial_id, trial in ran.ledger.trials.items():
        assert runs[trial_id].data.tags["wmsweep.state"] == trial.state
        history = store.get_metric_history(runs[trial_id].info.run_id, "select/accuracy")
        assert {m.step: m.value for m in history} == {s: m["select/accuracy"] for s, m in trial.reports.items()}

    (best,) = chosen_trials(SPEC, ran.ledger)
    on_disk = analysis_folder(ran.folder, best.trial_id, 0)
    files = sorted(path.name for path in on_disk.iterdir() if path.suffix in (".parquet", ".png"))
    assert {"decoding.parquet", "trajectories.parquet"} <= set(files)
    assert sum(name.endswith(".png") for name in files) >= 2
    assert len(pd.read_parquet(on_disk / "decoding.parquet")) > 0
    run = runs[best.trial_id].info.run_id
    logged = store.list_artifacts(run, "analyses/replicate_0")
    assert sorted(Path(a.path).name for a in logged) == files
    checkpoint = {Path(a.path).name for a in store.list_artifacts(run, "best_checkpoint")}
    assert checkpoint, "the best checkpoint is an artifact"


def test_tune_keeps_nothing_that_anyone_needs(ran):
    """A sweep can be understood and gone on with when Ray's own files are gone."""
    kept = list((ran.folder / "ray").rglob("*.pkl")) + list((ran.folder / "ray").rglob("searcher-state*"))
    for path in kept:
        assert b"Bookkeeper" not in path.read_bytes()
        assert b"sweeps.ledger" not in path.read_bytes()


def test_run_on_the_finished_folder_trains_nothing(ran, spec_file, monkeypatch):
    monkeypatch.setattr(driver, "connected", lambda address=None: pytest.fail("Ray was started"))
    before = {p: p.read_bytes() for p in (ran.folder / "ledger.jsonl", ran.folder / "report" / "index.html")}
    code, out, err = wmsweep("run", spec_file, "--storage", ran.storage)
    assert (code, err) == (0, "")
    assert table(out) == table(ran.out)
    assert {path: path.read_bytes() for path in before} == before


def test_a_changed_spec_is_refused_with_the_difference(ran, spec_file):
    before = (ran.folder / "ledger.jsonl").read_bytes()
    code, out, err = wmsweep("run", spec_file, "--storage", ran.storage, "--set", "trial.training.batch_size=16")
    assert (code, out) == (2, "")
    assert "trial.training.batch_size: 8 -> 16" in err
    assert (ran.folder / "ledger.jsonl").read_bytes() == before


def test_the_same_seed_gives_the_same_stimuli_trials_and_table(ran, again):
    assert (again.code, again.err) == (0, "")
    stimuli = SPEC.trial.task.stimulus_spec()
    for place in (image_bank_folder, feature_bank_folder):
        descriptions = [
            json.loads((place(r.storage / "stimuli", stimuli) / "bank.json").read_text()) for r in (ran, again)
        ]
        assert descriptions[0]["sha256"] == descriptions[1]["sha256"]
    manifests = [
        pd.read_parquet(image_bank_folder(r.storage / "stimuli", stimuli) / "manifest.parquet") for r in (ran, again)
    ]
    pd.testing.assert_frame_equal(*manifests)
    one, two = ran.ledger.in_order(), again.ledger.in_order()
    assert [t.trial_id for t in one] == [t.trial_id for t in two]
    assert [t.point for t in one] == [t.point for t in two]
    assert [(t.state, t.step, t.reports) for t in one] == [(t.state, t.step, t.reports) for t in two]
    elsewhere = {"seconds": 0, "node": ""}
    assert [{**(t.result or {}), **elsewhere} for t in one] == [{**(t.result or {}), **elsewhere} for t in two]
    assert table(ran.out) == table(again.out)


def test_finished_trials_train_to_the_same_bits_again(ran, tmp_path):
    finished = [trial for trial in ran.ledger.in_order() if trial.state == "finished"]
    code, out, err = wmsweep("verify", ran.folder, "--rerun", len(finished))
    assert (code, err) == (0, "")
    for trial in finished:
        assert re.search(rf"ok +variant {trial.number} trains to the same bits: \d+ figures", out)
    code, out, _ = wmsweep("verify", ran.folder, "--rerun", len(finished) + 1)
    assert code == 1
    assert f"FAIL  as many trials as asked for: {len(finished)} of {len(finished) + 1}" in out


@pytest.mark.parametrize("digit", ["metrics", "replicates"])
def test_one_changed_digit_of_the_record_is_found(ran, tmp_path, digit):
    folder = tmp_path / SPEC.name
    shutil.copytree(ran.folder, folder, ignore=shutil.ignore_patterns("ray", "report"))
    (tmp_path / "stimuli").symlink_to(ran.storage / "stimuli")
    lines = [json.loads(line) for line in (folder / "ledger.jsonl").read_text().splitlines()]
    for line in lines:
        if line["event"] == "finished":
            value = line["result"][digit]["test/accuracy"]
            changed = np.nextafter(value, 2).tolist()
            line["result"][digit]["test/accuracy"] = changed
    (folder / "ledger.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    code, out, _ = wmsweep("verify", folder, "--rerun", 1)
    assert code == 1
    assert re.search(rf"FAIL +variant \d+ trains to the same bits: {digit} differ", out)


def test_optuna_opens_what_is_exported(ran, tmp_path):
    file = tmp_path / "study.db"
    code, out, err = wmsweep("export", ran.folder, "--optuna", file)
    assert (code, err) == (0, "")
    assert f"sqlite:///{file}" in out
    study = optuna.load_study(study_name=SPEC.name, storage=f"sqlite:///{file}")
    trials = ran.ledger.in_order()
    assert [t.user_attrs["trial_id"] for t in study.trials] == [t.trial_id for t in trials]
    shown = {"finished": "COMPLETE", "pruned": "PRUNED"}
    assert [t.state.name for t in study.trials] == [shown[t.state] for t in trials]
    best = max(t.best("select/accuracy", "max")[1] for t in trials if t.state == "finished")
    assert study.best_value == best
    assert [t.params["model.cell"] for t in study.trials] == [t.point["model.cell"] for t in trials]
    # What is there is never written over.
    before = file.read_bytes()
    code, _, err = wmsweep("export", ran.folder, "--optuna", file)
    assert code == 2
    assert str(file) in err
    assert "does not exist yet" in err
    assert file.read_bytes() == before


def test_another_sweep_of_the_storage_reuses_what_has_finished(ran, tmp_path):
    """The same trials under another name, without early stopping: what was finished is not trained again."""
    spec_file = tmp_path / "second.yaml"
    spec_file.write_text(SMALL.replace("name: small", "name: second"))
    changes = (
        "analyses=[]",
        "recording={}",
        "search.trials=3",
    )
    code, out, err = wmsweep_apart(
        "run", spec_file, "--storage", ran.storage, *(word for change in changes for word in ("--set", change))
    )
    assert (code, err) == (0, "")
    folder = ran.storage / "second"
    ledger = Ledger(folder / "ledger.jsonl")
    finished = {t.trial_id: t for t in ran.ledger.in_order() if t.state == "finished"}
    reused = [t for t in ledger.in_order() if t.source]
    assert reused
    assert {t.trial_id for t in reused} == set(finished) & set(ledger.trials)
    started = {line["trial_id"] for line in ledger.whole_lines() if line["event"] == "started"}
    assert started == set(ledger.trials) - set(finished)
    assert f"({len(reused)} reused)" in out
    for trial in reused:
        assert trial.source == SPEC.name
        assert trial.result == finished[trial.trial_id].result
    runs = {r.data.tags[TRIAL]: r for r in child_runs(MlflowClient(f"sqlite:///{folder}/mlflow.db"), "second")}
    assert set(runs) == set(ledger.trials)
    for trial_id, run in runs.items():
        assert run.data.tags.get("wmsweep.reused_from") == (SPEC.name if trial_id in finished else None)
    assert wmsweep("verify", folder)[0] == 0


def test_a_finished_sweep_is_extended(again):
    """From its folder alone; the first trials stay as they are."""
    before = again.ledger.in_order()
    code, out, err = wmsweep_apart("resume", again.folder, "--trials", 2)
    assert (code, err) == (0, "")
    after = again.ledger.in_order()
    assert len(after) == len(before) + 2
    assert after[: len(before)] == before
    assert "7 of 7 trials" in out
    assert wmsweep("verify", again.folder)[0] == 0
    assert "7 of 7 trials" in wmsweep("status", again.folder)[1]
    # Nothing is left to do, by either command.
    ledger = (again.folder / "ledger.jsonl").read_bytes()
    assert wmsweep("resume", again.folder)[0] == 0
    assert (again.folder / "ledger.jsonl").read_bytes() == ledger


def test_status_works_from_the_ledger_alone(ran, tmp_path):
    alone = tmp_path / "small"
    alone.mkdir()
    (alone / "ledger.jsonl").write_bytes((ran.folder / "ledger.jsonl").read_bytes())
    code = (
        "import sys; from sweeps import cli; code = cli._run(['status', sys.argv[1]], False); "
        "print('loaded', sorted({'ray', 'mlflow'} & set(sys.modules))); sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(alone)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    counts = ran.ledger.counts()
    assert f"5 of 5 trials: {counts['finished']} finished, {counts['pruned']} pruned, 0 failed" in done.stdout
    assert "chance" in done.stdout
    assert done.stdout.endswith("loaded []\n")
    assert [p.name for p in alone.iterdir()] == ["ledger.jsonl"]


def test_report_is_written_again(ran):
    page = ran.folder / "report" / "index.html"
    before = page.read_text()
    page.unlink()
    (ran.folder / "report" / "files" / "learning_curves.png").unlink()
    code, out, _ = wmsweep("report", ran.folder)
    assert (code, out) == (0, f"Report: {page}\n")
    assert page.read_text() == before
    check_report(ran.folder)


def test_analyze_runs_again(ran):
    (best,) = chosen_trials(SPEC, ran.ledger)
    parquet = analysis_folder(ran.folder, best.trial_id, 0) / "decoding.parquet"
    before, ledger = pd.read_parquet(parquet), (ran.folder / "ledger.jsonl").read_bytes()
    parquet.unlink()
    code, out, err = wmsweep_apart("analyze", ran.folder)
    assert (code, err) == (0, "")
    assert f"Report:  {ran.folder}/report/index.html" in out
    pd.testing.assert_frame_equal(pd.read_parquet(parquet), before)
    assert (ran.folder / "ledger.jsonl").read_bytes() == ledger
    assert wmsweep("verify", ran.folder)[0] == 0
