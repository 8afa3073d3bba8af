"""Which package may import which, and how large a module may be: read from the source, without importing it."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FORBIDDEN = {
    "wmcore": {"ray", "mlflow", "optuna", "sweeps", "analysis_jobs", "search_spaces", "cluster"},
    "analysis_jobs": {"sweeps", "cluster"},
    "sweeps": {"cluster", "tests"},
}
MODULES = sorted(path for package in FORBIDDEN for path in (ROOT / package).rglob("*.py"))
LONGEST = 400


def imported(source: str) -> set[str]:
    """Top-level packages that a module imports anywhere, inside functions too."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names.update(alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.split(".")[0])
        elif isinstance(node, ast.Call) and _name(node.func) in ("import_module", "__import__") and node.args:
            first = node.args[0]
            if isinstance(first, ast.Constant) and isinstance(first.value, str):
                names.add(first.value.split(".")[0])
    return names


def _name(function: ast.expr) -> str:
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")


def test_the_reader_sees_every_form_of_import():
    source = "import a.b as c\nfrom d.e import f\nfrom . import m\n"
    source += "def g():\n    import h, i.j\n    import_module('k.l')\n"
    assert imported(source) == {"a", "d", "h", "i", "k"}


def test_there_are_modules_to_check():
    assert {path.relative_to(ROOT).parts[0] for path in MODULES} >= {"wmcore", "sweeps"}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_down(path):
    package = path.relative_to(ROOT).parts[0]
    wrong = imported(path.read_text(encoding="utf-8")) & FORBIDDEN[package]
    assert not wrong, f"{package} must not import {', '.join(sorted(wrong))}"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_modules_are_short_and_named_for_what_they_hold(path):
    assert path.stem not in {"utils", "util", "helpers", "helper", "common", "misc"}
    lines = len(path.read_text(encoding="utf-8").splitlines())
    assert lines <= LONGEST, f"{lines} lines: split it"
