"""What a sweep would do, from its spec alone."""

from __future__ import annotations

from rich.table import Table

from sweeps.banks import stimulus_specs
from sweeps.schedule import Asha, stopping_rule
from sweeps.spec import SweepSpec
from wmcore.registry import kind_of
from wmcore.seeding import numpy_generator
from wmcore.training.checkpoint import build_model

_DRAWS = 16


def parameter_counts(spec: SweepSpec) -> tuple[int, int]:
    """Least and most trainable parameters of one network, over every end of the space and random points of it."""
    generator = numpy_generator(0, "plan")
    points = spec.search.space.corner_points() + [spec.search.space.point(generator) for _ in range(_DRAWS)]
    trials = {trial.model.content_hash(): trial for trial in map(spec.trial_for, points)}
    counts = [
        sum(p.numel() for p in build_model(trial, 0).parameters() if p.requires_grad) for trial in trials.values()
    ]
    return min(counts), max(counts)


def plan_table(spec: SweepSpec) -> Table:
    """The plan for a terminal."""
    trial, search = spec.trial, spec.search
    cells = search.space.size()
    low, high = parameter_counts(spec)
    table = Table(show_header=False, pad_edge=False, show_edge=False, title=spec.name, title_justify="left")
    rows = {
        "space": "continuous" if cells is None else f"{cells} cells",
        "trials": str(search.budget if cells is None else min(cells, search.budget)),
        "searched": ", ".join(search.space.paths),
        "parameters per network": f"{low:,}" if low == high else f"{low:,} to {high:,}",
        "networks per trial": str(trial.replicates),
        "optimiser steps": f"{trial.training.steps:,} per network, {trial.training.batch_size} trials each",
        "early stopping": _stopping(spec),
    }
    analyses = ", ".join(str(kind_of(type(a))) for a in spec.analyses)
    rows["checkpoints analysed"] = f"{spec.checkpoints.best} best: {analyses or 'none'}"
    for stimuli in stimulus_specs(spec):
        objects, views = len(stimuli.objects.meshes()), len(stimuli.views.views())
        rows[f"stimuli {stimuli.content_hash()}"] = (
            f"{objects} objects x {views} views = {objects * views:,} renders, "
            f"features by {kind_of(type(stimuli.backbone))}"
        )
    for name, value in rows.items():
        table.add_row(f"[dim]{name}[/]", value)
    return table


def _stopping(spec: SweepSpec) -> str:
    rule = stopping_rule(spec.search.scheduler, spec.search.leading, spec.trial.training.steps)
    if not isinstance(rule, Asha):
        return "none"
    rungs = ", ".join(f"{rung:,}" for rung in sorted(rule.rungs))
    return f"asha: at {rungs} steps, one in {rule.reduction} goes on"
