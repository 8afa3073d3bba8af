"""From a file and overrides to a checked sweep spec."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pydantic import ValidationError

from sweeps.messages import explain
from sweeps.spec import SweepSpec
from sweeps.yaml_source import read_yaml

DOTTED_KEYS = ("search.space",)
"""Mappings of a sweep spec whose keys are dotted paths."""


def load_sweep(path: Path, overrides: Sequence[str] = ()) -> SweepSpec:
    """Reads and checks a sweep spec; starts nothing and writes nothing.

    Args:
        path: the YAML file.
        overrides: ``path=value`` each, applied in order before the check.

    Raises:
        InputError: the first fault in the order of the file, with its line.
    """
    source = read_yaml(path, overrides, DOTTED_KEYS)
    try:
        return SweepSpec.parse(source.data)
    except ValidationError as error:
        raise explain(error, source.data, SweepSpec, source) from error


def summary(spec: SweepSpec) -> str:
    """One paragraph about a valid spec."""
    cells = spec.search.space.size()
    searched = f"{len(spec.search.space.paths)} searched path{'s' if len(spec.search.space.paths) > 1 else ''}"
    space = f"{searched}, {'continuous' if cells is None else f'{cells} cells'}"
    analyses = ", ".join(str(analysis.model_dump()["kind"]) for analysis in spec.analyses) or "none"
    return (
        f"{spec.name} is valid: {spec.search.budget} trials ({space}), objective {spec.search.leading.mode} "
        f"{spec.search.leading.metric}, sampler {spec.search.sampler.kind}, scheduler {spec.search.scheduler.kind}, "
        f"analyses {analyses}."
    )
