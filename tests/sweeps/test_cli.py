"""The command line: what it prints, where, and with which exit code."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pytest
import typer

from sweeps import cli, doctor, run_commands, storage
from sweeps.catalog import catalog, shipped_specs
from sweeps.interrupts import ENDING_S, Patient
from sweeps.loading import load_sweep, summary
from tests.fixtures.ledgers import sweep_of_two
from tests.fixtures.sweeps import small_sweep
from wmcore.errors import InputError, MissingPartError
from wmcore.renderers.pyvista import INSTALL_GL, NO_GL

GOOD = Path(__file__).with_name("good.yaml")


def call(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as caught:
        cli.main(list(arguments))
    captured = capsys.readouterr()
    assert isinstance(caught.value.code, int)
    return caught.value.code, captured.out, captured.err


def test_list_names_every_kind_with_a_line(capsys):
    code, out, err = call(capsys, "list")
    assert (code, err) == (0, "")
    for group, kinds in catalog().items():
        assert f"{group}:\n" in out
        for name, line in kinds.items():
            assert line, f"{name} has no docstring"
            assert f"  {name} " in out
            assert line in out
    for kind in (
        "nback",
        "rnn",
        "decoding",
        "pyvista",
        "procedural",
        "efficientnet_lite0",
        "interpolated",
        "published",
        "tpe",
        "asha",
        "loguniform",
    ):
        assert f"  {kind} " in out


def test_every_shipped_spec_is_valid():
    root = Path(__file__).parents[2] / "search_spaces"
    assert set(shipped_specs()) == {str(path.relative_to(root)) for path in root.rglob("*.yaml")}
    for name in shipped_specs():
        assert load_sweep(root / name).search.budget >= 1


def test_schema_goes_to_stdout_or_a_file(capsys, tmp_path):
    code, out, _ = call(capsys, "schema")
    assert code == 0
    assert set(json.loads(out)["properties"]) >= {"name", "trial", "search", "analyses", "resources", "tracking"}
    code, said, _ = call(capsys, "schema", "--output", str(tmp_path / "schema.json"))
    assert (code, said) == (0, f"Wrote {tmp_path / 'schema.json'}.\n")
    assert (tmp_path / "schema.json").read_text(encoding="utf-8") == out
    code, _, err = call(capsys, "schema", "--output", str(tmp_path / "nowhere" / "schema.json"))
    assert code == 2
    assert "nowhere/schema.json cannot be written (No such file or directory)" in err


def test_validate_with_overrides(capsys):
    code, out, err = call(capsys, "validate", str(GOOD), "--set", "search.trials=5", "--set", "name=other")
    assert (code, err) == (0, "")
    assert out.startswith("other is valid: 5 trials")


def test_validate_names_every_objective_and_the_replicates():
    said = summary(sweep_of_two())
    assert "12 trials of 3 replicates (" in said
    assert "objectives max select/accuracy and max select/accuracy_lures, sampler tpe, scheduler none" in said
    assert "5 trials (2 searched paths, continuous), objective max select/accuracy, sampler" in summary(small_sweep())


def test_without_a_command_it_explains_itself(capsys):
    code, out, err = call(capsys)
    assert (code, err) == (0, "")
    for command in ("list", "schema", "validate", "doctor"):
        assert f"\n  {command} " in out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("vlidate",), "Did you mean 'validate'?"),
        (("validate",), "Missing argument 'SPEC'"),
        (("validate", "a", "b"), "unexpected extra argument"),
        (("validate", "--sett", "a=1", "x"), "No such option: --sett"),
        (("resume", "x", "--trials", "-1"), "equal to 0. See `wmsweep --help`."),
    ],
)
def test_wrong_usage_is_one_paragraph(capsys, arguments, words):
    code, out, err = call(capsys, *arguments)
    assert (code, out) == (2, "")
    assert err.startswith("Error: ")
    assert words in err
    assert "--help" in err
    assert err.count("\n") == 1


class TestErrors:
    @pytest.fixture(autouse=True)
    def failing_command(self, monkeypatch):
        self.error: BaseException = InputError("a.b", "must be 1", value=2)
        app = typer.Typer(pretty_exceptions_enable=False, callback=cli._options)

        @app.command()
        def fail() -> None:
            raise self.error

        @app.command()
        def succeed() -> None:
            pass

        monkeypatch.setattr(cli, "app", app)

    def test_bad_input_is_2(self, capsys):
        assert call(capsys, "fail") == (2, "", "Error: a.b is 2, but it must be 1.\n")

    def test_a_missing_part_is_1(self, capsys):
        self.error = MissingPartError("No GL.\nInstall it.")
        assert call(capsys, "fail") == (1, "", "Error: No GL. Install it.\n")

    def test_a_defect_is_one_paragraph_too(self, capsys):
        self.error = ZeroDivisionError("division\nby zero")
        code, _, err = call(capsys, "fail")
        assert code == 1
        assert "ZeroDivisionError: division by zero" in err
        assert "--debug" in err
        assert err.count("\n") == 1

    def test_interruptions_are_130(self, capsys):
        for self.error in (KeyboardInterrupt(), typer.Abort()):
            assert call(capsys, "fail") == (130, "", "Interrupted.\n")

    def test_exit_codes_pass_through(self, capsys):
        self.error = typer.Exit(1)
        assert call(capsys, "fail") == (1, "", "")
        assert call(capsys, "succeed") == (0, "", "")

    @pytest.mark.parametrize("arguments", [["--debug", "fail"], ["fail", "--debug"]])
    def test_debug_raises(self, arguments):
        with pytest.raises(InputError):
            cli.main(arguments)


def test_help_imports_nothing_heavy():
    heavy = {"torch", "ray", "mlflow", "optuna", "pandas", "matplotlib", "pydantic", "numpy"}
    code = f"import sys, sweeps.cli; print(sorted({heavy!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


BLOCK = """
import sys, time
from pathlib import Path

def block(folder=Path({folder!r})):
    (folder / "reached").touch()
    while not (folder / "go").exists():
        time.sleep(0.01)
"""


class TestCtrlC:
    """A process is held at some moment of its life, and interrupted there."""

    @pytest.fixture
    def start(self, tmp_path):
        started = []

        def begin(module: str, code: str, *command: str) -> subprocess.Popen[str]:
            (tmp_path / module).write_text(BLOCK.format(folder=str(tmp_path)) + code)
            found = os.pathsep.join([str(tmp_path), str(Path(__file__).parents[2])])
            process = subprocess.Popen(
                [sys.executable, *command],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                env={**os.environ, "PYTHONPATH": found},
            )
            started.append(process)
            while not (tmp_path / "reached").exists():
                assert process.poll() is None, process.communicate()
                time.sleep(0.01)
            return process

        yield begin
        for process in started:
            process.kill()
            process.wait()

    def test_while_the_command_line_is_loaded(self, start):
        process = start("typer.py", "block()\n", "-m", "sweeps", "list")
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=60) == ("", "Interrupted before anything had begun.\n")
        assert process.returncode == 130

    def test_while_python_ends(self, start, tmp_path):
        process = start("sitecustomize.py", "import atexit\natexit.register(block)\n", "-m", "sweeps", "--help")
        process.send_signal(signal.SIGINT)
        (tmp_path / "go").touch()
        assert process.communicate(timeout=60)[1] == ""
        assert process.returncode == 0

    def test_it_is_not_raised_again_while_it_is_answered(self, monkeypatch):
        now = 5.0
        monkeypatch.setattr("sweeps.interrupts.time.monotonic", lambda: now)
        handler = Patient()
        with pytest.raises(KeyboardInterrupt):
            handler(signal.SIGINT, None)
        now += ENDING_S
        handler(signal.SIGINT, None)
        now += 1.0
        with pytest.raises(KeyboardInterrupt):
            handler(signal.SIGINT, None)

    def test_the_installed_program_starts_there(self):
        project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())
        assert project["project"]["scripts"] == {"wmsweep": "sweeps.__main__:main"}


@pytest.mark.parametrize(
    ("argument", "found", "called"),
    [
        ("/opt/bin/wmsweep", "/opt/bin/wmsweep", "wmsweep"),
        ("/here/.venv/bin/wmsweep", "/opt/bin/wmsweep", ".venv/bin/wmsweep"),
        ("/here/my venv/bin/wmsweep", None, "'my venv/bin/wmsweep'"),
        ("/here/sweeps/__main__.py", "/opt/bin/python", ".venv/bin/python -m sweeps"),
        ("/here/sweeps/__main__.py", "/here/.venv/bin/python", "python -m sweeps"),
    ],
)
def test_it_knows_how_it_was_called(monkeypatch, argument, found, called):
    monkeypatch.setattr(run_commands.sys, "argv", [argument])
    monkeypatch.setattr(run_commands.sys, "executable", "/here/.venv/bin/python")
    monkeypatch.setattr(run_commands.shutil, "which", lambda name: found)
    monkeypatch.setattr(run_commands.os, "getcwd", lambda: "/here")
    assert run_commands._program() == called


class TestDoctor:
    def test_this_machine(self, capsys, tmp_path):
        code, out, err = call(capsys, "doctor", "--storage", str(tmp_path / "runs"))
        assert code == (1 if "missing" in out else 0), err
        for name in (
            "Python",
            "CPU",
            "memory",
            "disk",
            "rendering",
            "GPU",
            "Ray",
            "MLflow",
            "EfficientNet",
            "ResNet50",
        ):
            assert name in out
        assert not (tmp_path / "runs").exists()

    def test_what_is_required_and_lacks_is_an_error(self, capsys, monkeypatch):
        findings = [
            doctor.Finding("GL", "missing", "none", "Install [it]."),
            doctor.Finding("GPU", "optional", "none", "Buy one."),
        ]
        monkeypatch.setattr(doctor, "examine", lambda storage: findings)
        code, out, _ = call(capsys, "doctor")
        assert code == 1
        assert "GL: Install [it].\n" in out
        assert "GPU: Buy one.\n" in out
        assert out.endswith("Lacks GL.\n")

    def test_what_is_optional_is_none(self, capsys, monkeypatch):
        monkeypatch.setattr(doctor, "examine", lambda storage: [doctor.Finding("GPU", "optional", "none", "Buy one.")])
        code, out, _ = call(capsys, "doctor")
        assert code == 0
        assert "Everything that a sweep needs is here." in out

    def test_each_lack_has_its_remedy(self, monkeypatch, tmp_path):
        (tmp_path / "file").write_text("")
        monkeypatch.setattr(doctor, "_version", lambda package: None)
        monkeypatch.setattr(doctor, "RENDER_ONE", "raise SystemExit('No EGL here: install it.')")
        monkeypatch.setattr(doctor.importlib.util, "find_spec", lambda name: None)
        monkeypatch.setenv("TORCH_HOME", str(tmp_path))
        found = {finding.name: finding for finding in doctor.examine(tmp_path / "file" / "runs")}
        missing = {name for name, finding in found.items() if finding.state == "missing"}
        assert missing == {"disk", "rendering", "Ray", "MLflow", "weights of EfficientNet-Lite0"}
        assert found["weights of ResNet50"].state == "optional"
        assert all(finding.remedy for finding in found.values() if finding.state != "ok")
        assert found["rendering"].remedy == f"No EGL here: install it. {INSTALL_GL}"

    def test_a_renderer_that_crashes_has_a_remedy(self, monkeypatch):
        monkeypatch.setattr(doctor, "RENDER_ONE", "import os; os.abort()")
        finding = doctor._rendering()
        assert finding.state == "missing"
        assert "ended with code -6" in finding.remedy
        assert "apt-get install mesa-utils-bin" in finding.remedy
        assert INSTALL_GL in NO_GL

    def test_what_the_renderer_says_is_not_said_twice(self, monkeypatch):
        monkeypatch.setattr(doctor, "RENDER_ONE", f"raise SystemExit({NO_GL!r})")
        assert doctor._rendering().remedy == NO_GL

    def test_a_full_disk_is_named(self, monkeypatch, tmp_path):
        monkeypatch.setattr(doctor, "LEAST_DISK_GB", 1e9)
        assert doctor._disk(tmp_path).state == "missing"


class TestStorage:
    def test_checking_leaves_nothing(self, tmp_path):
        storage.check_storage(tmp_path / "a" / "b")
        storage.check_storage(tmp_path)
        assert list(tmp_path.iterdir()) == []

    def test_it_is_absolute_and_home_is_expanded(self, tmp_path, monkeypatch):
        monkeypatch.setenv("HOME", str(tmp_path))
        monkeypatch.chdir(tmp_path)
        for given in ("~/runs", "runs", "no/../runs", str(tmp_path / "runs")):
            assert storage.storage_folder(Path(given)) == storage.check_storage(Path(given)) == tmp_path / "runs"
        with pytest.raises(InputError, match="cannot be found"):
            storage.check_storage(Path("~no-such-user/runs"))

    def test_a_file_in_the_place_of_a_sweeps_folder_is_named(self, capsys, tmp_path):
        (tmp_path / "taken").write_text("")
        code, _, err = call(capsys, "run", str(GOOD), "--storage", str(tmp_path), "--set", "name=taken")
        assert code == 2
        assert err.startswith(f"Error: the sweep's folder {tmp_path / 'taken'} must be a folder, and something else is")
        storage.check_sweep_folder(tmp_path / "free")
        storage.check_sweep_folder(tmp_path)

    @pytest.mark.parametrize("name", ["file", "file/runs", "/proc/wmsweep", "/sys/wmsweep/a"])
    def test_what_cannot_be_written_is_refused(self, tmp_path, name):
        (tmp_path / "file").write_text("")
        with pytest.raises(InputError, match=r"the storage folder /.* must be a folder that"):
            storage.check_storage(tmp_path / name)
