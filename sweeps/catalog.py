"""Everything that can be named in a sweep spec, each with its first docstring line; and the specs that are shipped."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from importlib.resources import files
from typing import Any, get_args

from wmcore.registry import kind_of, kinds
from wmcore.spec import Spec


def catalog() -> dict[str, dict[str, str]]:
    """Group ("tasks", "models", ...) -> kind -> one line about it."""
    from sweeps.distributions import DISTRIBUTIONS
    from sweeps.samplers import AnySampler
    from sweeps.schedule import AnyScheduler
    from wmcore.analyses.base import AnalysisSpec
    from wmcore.models.base import ModelSpec
    from wmcore.renderers.base import RendererSpec
    from wmcore.stimuli.backbones.base import BackboneSpec
    from wmcore.stimuli.object_sets.base import ObjectSetSpec
    from wmcore.stimuli.views import AnyViews
    from wmcore.tasks.base import TaskSpec

    groups: dict[str, Mapping[str, type[Spec]]] = {
        "tasks": kinds(import_module("wmcore.tasks"), TaskSpec),
        "models": kinds(import_module("wmcore.models"), ModelSpec),
        "analyses": kinds(import_module("wmcore.analyses"), AnalysisSpec),
        "renderers": kinds(import_module("wmcore.renderers"), RendererSpec),
        "object sets": kinds(import_module("wmcore.stimuli.object_sets"), ObjectSetSpec),
        "views": _union_kinds(AnyViews),
        "backbones": kinds(import_module("wmcore.stimuli.backbones"), BackboneSpec),
        "samplers": _union_kinds(AnySampler),
        "schedulers": _union_kinds(AnyScheduler),
        "distributions": DISTRIBUTIONS,
    }
    return {group: {name: first_line(spec) for name, spec in found.items()} for group, found in groups.items()}


def shipped_specs() -> dict[str, str]:
    """Path below ``search_spaces`` -> the comment on the file's first line, sorted by path."""
    root = files("search_spaces")
    found: dict[str, str] = {}
    folders = [("", root)]
    while folders:
        prefix, folder = folders.pop()
        for entry in folder.iterdir():
            if entry.is_dir():
                folders.append((f"{prefix}{entry.name}/", entry))
            elif entry.name.endswith(".yaml"):
                first = entry.read_text(encoding="utf-8").split("\n", 1)[0]
                found[prefix + entry.name] = first.lstrip("# ").strip() if first.startswith("#") else ""
    return dict(sorted(found.items()))


def first_line(spec: type[Spec]) -> str:
    """The first line of a class's own docstring, or nothing."""
    return (spec.__doc__ or "").strip().split("\n", 1)[0]


def _union_kinds(union: Any) -> dict[str, type[Spec]]:
    members = get_args(get_args(union)[0])
    return dict(sorted((str(kind_of(member)), member) for member in members))
