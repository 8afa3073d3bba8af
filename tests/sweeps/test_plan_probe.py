"""The timed probe: what it measures, on a real Ray, and that it leaves nothing behind."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
import ray

from sweeps import cli
from sweeps.planning import stand_in
from sweeps.planning.measure import measure_trial
from sweeps.planning.prober import gather
from sweeps.planning.stand_in import provide_banks
from tests.fixtures.one_ray import one_ray as one_ray
from tests.fixtures.sweeps import SMALL, small_sweep, write_banks
from wmcore.errors import InputError, WmsweepError
from wmcore.spec import with_paths
from wmcore.stimuli.feature_bank import FeatureBank, feature_bank_folder
from wmcore.stimuli.image_bank import image_bank_folder
from wmcore.stimuli.spec import StimulusSpec
from wmcore.training.fit import TrainingRun
from wmcore.training.trial_spec import TrialSpec

# Ray Data's own settings object sets deprecated fields of its own when it is made.
pytestmark = pytest.mark.filterwarnings(r"ignore:.*is deprecated:Warning:ray\.data\.context")

SPEC = small_sweep()
TRIAL = SPEC.trial


@pytest.fixture(scope="module")
def stimuli() -> StimulusSpec:
    found = TRIAL.task.stimulus_spec()
    assert found is not None
    return found


@pytest.fixture(scope="module")
def banks(tmp_path_factory: pytest.TempPathFactory, stimuli: StimulusSpec) -> Path:
    return write_banks(tmp_path_factory.mktemp("banks"), stimuli)


def test_every_part_of_a_trial_is_measured(banks, tmp_path):
    cost = measure_trial(TRIAL, banks, tmp_path / "probe", seconds=0.2)
    assert all(value > 0 for value in vars(cost).values())
    run = TrainingRun(TRIAL, stimuli=banks)
    run.advance()
    saved = run.save(tmp_path / "real")
    assert cost.checkpoint_bytes == pytest.approx(sum(file.stat().st_size for file in saved.iterdir()), rel=0.01)
    assert cost.until(TRIAL, 40) > cost.until(TRIAL, 30) > cost.until(TRIAL, 10) > cost.start


def test_final_splits_that_would_take_long_are_measured_on_fewer_trials(banks, tmp_path):
    many = TrialSpec.parse(with_paths(TRIAL.model_dump(mode="json"), {"evaluation.test_trials": 10**9}))
    cost = measure_trial(many, banks, tmp_path, seconds=0.1)
    assert cost.finish > 100 * cost.evaluation


def test_a_curriculum_with_hardly_time_for_its_last_stage_is_measured(banks, tmp_path):
    curriculum = {
        "stages": [{"set": {"task.steps": 2}}, {}],
        "advance": {"metric": "accuracy", "evaluations": 5, "trials": 16},
    }
    changes = {"training.curriculum": curriculum, "training.steps": 6, "evaluation.every_steps": 1}
    staged = TrialSpec.parse(with_paths(TRIAL.model_dump(mode="json"), changes))
    assert measure_trial(staged, banks, tmp_path, seconds=0.01).step > 0


def test_banks_that_are_there_are_used_and_others_stood_in_for(banks, stimuli, tmp_path):
    assert provide_banks([stimuli], banks, tmp_path / "linked") == []
    assert feature_bank_folder(tmp_path / "linked", stimuli).resolve() == feature_bank_folder(banks, stimuli).resolve()
    (missing,) = provide_banks([stimuli], tmp_path / "none", tmp_path / "made")
    assert not (tmp_path / "none").exists()
    bank = FeatureBank.load(tmp_path / "made", stimuli)
    assert bank.features.shape == FeatureBank.load(banks, stimuli).features.shape
    assert (missing.renders, missing.feature_bytes) == (len(bank.manifest) // 4, bank.features.nbytes)
    assert missing.write_seconds > 0


def test_images_alone_may_be_missing(stimuli, tmp_path):
    banks = write_banks(tmp_path / "banks", stimuli)
    image_bank_folder(banks, stimuli).rename(tmp_path / "elsewhere")
    (missing,) = provide_banks([stimuli], banks, tmp_path / "made")
    assert not missing.with_features
    assert feature_bank_folder(tmp_path / "made", stimuli).is_symlink()


def test_too_many_images_are_not_stood_in_for(stimuli, tmp_path, monkeypatch):
    monkeypatch.setattr(stand_in, "MOST_IMAGES", 10)
    with pytest.raises(WmsweepError, match=r"Run `wmsweep render` .* or leave the timing out with --no-probe"):
        provide_banks([stimuli], tmp_path / "none", tmp_path / "made")
    assert not (tmp_path / "made").exists()


def test_a_plan_from_the_command_line(ray_folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("RAY_TMPDIR", str(ray_folder))
    monkeypatch.setenv("PYTHONWARNINGS", "ignore")
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    spec = tmp_path / "small.yaml"
    spec.write_text(SMALL)
    code = cli._run(["plan", str(spec), "--storage", str(tmp_path / "runs")], debug=True)
    out, err = capsys.readouterr()
    assert (code, err) == (0, "")
    for words in (
        "parameters per network",
        "stimuli and features",
        "train and search",
        "record and analyse",
        "in all",
        "trials at once",
        "disk",
        "memory",
        "early stopping saves",
    ):
        assert words in out
    assert "failed" not in out
    assert not ray.is_initialized()
    assert list(scratch.iterdir()) == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["scratch", "small.yaml"]


def test_without_a_probe_nothing_heavy_starts(tmp_path):
    spec = tmp_path / "small.yaml"
    spec.write_text(SMALL)
    code = f"from sweeps import cli; code = cli._run(['plan', {str(spec)!r}, '--no-probe'], debug=True); "
    code += "import sys; print(code, 'ray' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert "parameters per network" in done.stdout
    assert "in all" not in done.stdout
    assert done.stdout.splitlines()[-1] == "0 False"
    assert [path.name for path in tmp_path.iterdir()] == ["small.yaml"]


def test_an_address_without_ray_is_bad_input(tmp_path, capsys):
    spec = tmp_path / "small.yaml"
    spec.write_text(SMALL)
    code = cli._run(["plan", str(spec), "--storage", str(tmp_path), "--address", "127.0.0.1:1"], debug=False)
    assert code == 2
    assert "--address" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["small.yaml"]


def test_workers_that_are_late_refuse_or_die(one_ray):
    class Worker:
        """Does what it is told."""

        def wait(self, seconds: float) -> float:
            time.sleep(seconds)
            return seconds

        def refuse(self) -> None:
            raise InputError("a.b", "must be 1", value=2)

        def die(self) -> None:
            os._exit(3)

    workers = [ray.remote(Worker).options(num_cpus=0).remote() for _ in range(3)]
    told: list[int] = []
    assert gather([workers[0].wait.remote(0.0), workers[1].wait.remote(0.01)], 60.0, told.append) == [0.0, 0.01]
    assert told[-1] == 2
    assert gather([workers[0].wait.remote(0.0), workers[1].wait.remote(600.0)], 3.0) == [0.0, None]
    with pytest.raises(InputError, match="must be 1") as caught:
        gather([workers[0].refuse.remote()], 60.0)
    assert caught.value.exit_code == 2
    with pytest.raises(WmsweepError, match="A process of the probe has died"):
        gather([workers[2].die.remote()], 60.0)
