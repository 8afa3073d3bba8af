"""From a file and overrides to a checked sweep spec."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pydantic import ValidationError

from sweeps.ledger import Ledger
from sweeps.messages import explain
from sweeps.nearest import nearest_hint
from sweeps.prior import read_prior
from sweeps.spec import SweepSpec
from sweeps.yaml_source import YamlSource, read_yaml
from wmcore.errors import InputError

DOTTED_KEYS = ("search.space",)
"""Mappings of a sweep spec whose keys are dotted paths."""


def load_sweep(path: Path, overrides: Sequence[str] = (), storage: Path | None = None) -> SweepSpec:
    """Reads and checks a sweep spec; starts nothing and writes nothing.

    Args:
        path: the YAML file.
        overrides: ``path=value`` each, applied in order before the check.
        storage: folder of sweeps where it is to run. If it has begun there, it keeps what it took from the earlier
            sweep that its warm start names, which may be gone by then.

    Raises:
        InputError: the first fault in the order of the file, with its line.
    """
    source = read_yaml(path, overrides, DOTTED_KEYS)
    try:
        spec = SweepSpec.parse(source.data)
    except ValidationError as error:
        raise explain(error, source.data, SweepSpec, source) from error
    if storage is None or not _has_learnt(storage / spec.name):
        _earlier_sweep_fits(spec, source)
    return spec


def _has_learnt(folder: Path) -> bool:
    ledger = Ledger(folder / "ledger.jsonl")
    return bool(ledger.trials or ledger.warm)


def _earlier_sweep_fits(spec: SweepSpec, source: YamlSource) -> None:
    where, named = "search.warm_start.sweep", spec.search.warm_start.sweep
    if named is None:
        return
    place, folder = source.place(where), Path(named).expanduser()
    if not (folder / "ledger.jsonl").exists():
        near = nearest_hint(folder.name, sorted(path.name for path in folder.parent.glob("*") if path.is_dir()))
        raise InputError(
            where,
            "must be the folder of an earlier sweep, and no ledger.jsonl is there",
            value=named,
            remedy=near or "Name DIR/<name> of a run.",
            source=place,
        )
    try:
        read_prior(spec)
    except InputError as error:
        value = {"value": error.value} if error.has_value else {}
        found = source.place(error.where) if error.where.startswith("search.") else place
        raise InputError(error.where, error.rule, remedy=error.remedy, source=found, **value) from error


def summary(spec: SweepSpec) -> str:
    """One paragraph about a valid spec."""
    cells = spec.search.space.size()
    searched = f"{len(spec.search.space.paths)} searched path{'s' if len(spec.search.space.paths) > 1 else ''}"
    space = f"{searched}, {'continuous' if cells is None else f'{cells} cells'}"
    analyses = ", ".join(str(analysis.model_dump()["kind"]) for analysis in spec.analyses) or "none"
    objectives = " and ".join(f"{objective.mode} {objective.metric}" for objective in spec.search.objectives)
    replicates = f" of {spec.trial.replicates} replicates" if spec.trial.replicates > 1 else ""
    return (
        f"{spec.name} is valid: {spec.search.budget} trials{replicates} ({space}), "
        f"objective{'s' if len(spec.search.objectives) > 1 else ''} {objectives}, "
        f"sampler {spec.search.sampler.kind}, scheduler {spec.search.scheduler.kind}, analyses {analyses}."
    )
