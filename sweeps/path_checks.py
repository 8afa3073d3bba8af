"""Checks of the paths of a space: does each exist in the trial, and does none hide another?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from sweeps.nearest import nearest_hint
from sweeps.space import Space
from wmcore.errors import InputError
from wmcore.spec import get_path

if TYPE_CHECKING:
    from wmcore.training.trial_spec import TrialSpec


def check_paths(space: Space, trial: TrialSpec) -> None:
    """Checks the paths of a space against the variant that the sweep starts from.

    Raises:
        InputError: the first misfit, with its dotted path in the sweep.
    """
    _variants_are_paired(space)
    _paths_exist(space, trial.model_dump(mode="json"))
    _paths_apart(space)


def _variants_are_paired(space: Space) -> None:
    if "seed" in space.paths:
        raise InputError(
            "search.space.seed",
            "must not be searched: variants are compared on the same stimuli and trials, which the seed decides",
            remedy="Write trial.replicates: 5, say, for several networks of each variant.",
        )


def _leaf_paths(data: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Every dotted path of nested mappings, parents included, in order."""
    paths = []
    for key, value in data.items():
        paths.append(prefix + key)
        if isinstance(value, Mapping):
            paths.extend(_leaf_paths(value, f"{prefix}{key}."))
    return paths


def _paths_exist(space: Space, base: Mapping[str, Any]) -> None:
    known = _leaf_paths(base)
    for path in space.paths:
        if any(_encloses(parent, path) for parent in space.conditions.needs[path]):
            continue  # it depends on a searched mapping that may bring it along
        try:
            get_path(base, path)
        except KeyError as error:
            parts = path.split(".")
            rule = f"is not a path of the trial: {error.args[0]!r} does not exist there"
            if parts[0] == "trial":
                remedy = f"Paths start inside trial: write {'.'.join(parts[1:]) or 'model.hidden_size'}."
            else:
                remedy = nearest_hint(path, known) + _siblings(base, parts)
            raise InputError(f"search.space.{path}", rule, remedy=remedy.strip()) from None


def _siblings(base: Mapping[str, Any], parts: list[str]) -> str:
    """What exists in the deepest mapping on the way to a path."""
    node, where = base, "trial"
    for part in parts:
        below = node.get(part)
        if not isinstance(below, Mapping):
            break
        node, where = below, f"{where}.{part}"
    return f" {where} has {', '.join(node)}."


def _paths_apart(space: Space) -> None:
    for path in space.paths:
        for parent in space.paths:
            if not _encloses(parent, path):
                continue
            values = space.conditions.needs[path].get(parent)
            if values is None:
                raise InputError(
                    f"search.space.{path}",
                    f"lies inside {parent}, which is searched too, so that one of the two would have no effect",
                    remedy=f"Remove one of them, or say at which choices of {parent} it is searched: "
                    f"when: {{{parent}: {{...}}}}.",
                )
            between = path.removeprefix(f"{parent}.").split(".")[:-1]
            for value in values:
                if _has_room(value, between):
                    continue
                raise InputError(
                    f"search.space.{path}.when.{parent}",
                    f"must name mappings only, which {path} can lie inside",
                    value=value,
                    remedy=f"List whole mappings as the choices of {parent}.",
                )


def _has_room(value: Any, parts: list[str]) -> bool:
    """Whether a value is a mapping, and so is whatever of these parts it has."""
    for part in parts:
        if not isinstance(value, Mapping):
            return False
        value = value.get(part, {})
    return isinstance(value, Mapping)


def _encloses(parent: str, path: str) -> bool:
    return path.startswith(parent + ".")
