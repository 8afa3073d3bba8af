"""The registry, on packages made for the purpose."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest
from pydantic import TypeAdapter, ValidationError

import wmcore.models
import wmcore.tasks
from wmcore.models.base import ModelSpec
from wmcore.models.rnn import RNNSpec
from wmcore.registry import discriminated_union, kind_of, kinds
from wmcore.spec import Spec
from wmcore.tasks.base import TaskSpec
from wmcore.tasks.nback import NBackSpec
from wmcore.tasks.sequence_recall import SequenceRecallSpec

MakePackage = Callable[..., tuple[ModuleType, type[Spec]]]

HEAD = "from typing import Literal\nfrom wmcore.spec import Spec\n"
BASE = HEAD + "class Base(Spec):\n    pass\n"


def kind(name: str, class_name: str) -> str:
    return (
        f"{HEAD}from {{package}}.base import Base\nclass {class_name}(Base):\n    kind: Literal[{name!r}] = {name!r}\n"
    )


@pytest.fixture
def make_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[MakePackage]:
    monkeypatch.syspath_prepend(tmp_path)
    made: list[str] = []

    def make(name: str, **modules: str) -> tuple[ModuleType, type[Spec]]:
        made.append(name)
        (tmp_path / name).mkdir()
        for file, content in {"__init__": "", "base": BASE, **modules}.items():
            (tmp_path / name / f"{file}.py").write_text(content.replace("{package}", name))
        importlib.invalidate_caches()
        package = importlib.import_module(name)
        return package, importlib.import_module(f"{name}.base").Base

    yield make
    for name in [module for module in sys.modules if module.split(".")[0] in made]:
        del sys.modules[name]


def test_a_file_is_a_kind(make_package: MakePackage) -> None:
    package, base = make_package("zoo_one", zebra=kind("zebra", "Zebra"), ape=kind("ape", "Ape"))
    found = kinds(package, base)
    assert list(found) == ["ape", "zebra"]
    assert [cls.__name__ for cls in found.values()] == ["Ape", "Zebra"]
    adapter = TypeAdapter(discriminated_union(package, base))
    assert type(adapter.validate_python({"kind": "zebra"})).__name__ == "Zebra"
    with pytest.raises(ValidationError, match="'ape', 'zebra'"):
        adapter.validate_python({"kind": "lion"})


def test_a_kind_that_is_defined_twice_is_refused_with_both_places(make_package: MakePackage) -> None:
    package, base = make_package("zoo_two", first=kind("ape", "Ape"), second=kind("ape", "Other"))
    with pytest.raises(TypeError, match=r"'ape'.*zoo_two\.first.*zoo_two\.second"):
        kinds(package, base)


def test_imported_kinds_and_foreign_specs_do_not_count(make_package: MakePackage) -> None:
    package, base = make_package(
        "zoo_three",
        ape=kind("ape", "Ape"),
        helper="from zoo_three.ape import Ape\n" + HEAD + "class Part(Spec):\n    kind: Literal['part'] = 'part'\n",
    )
    assert list(kinds(package, base)) == ["ape"]


def test_kind_of() -> None:
    assert kind_of(NBackSpec) == "nback"
    assert kind_of(TaskSpec) is None


def test_the_shipped_kinds() -> None:
    assert kinds(wmcore.tasks, TaskSpec)["nback"] is NBackSpec
    assert kinds(wmcore.tasks, TaskSpec)["sequence_recall"] is SequenceRecallSpec
    assert kinds(wmcore.models, ModelSpec)["rnn"] is RNNSpec
