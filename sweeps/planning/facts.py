"""What a sweep would do, from its spec alone."""

from __future__ import annotations

from sweeps.banks import stimulus_specs
from sweeps.planning.fates import trials_of
from sweeps.planning.variants import Variants
from sweeps.schedule import Asha, stopping_rule
from sweeps.spec import SweepSpec
from wmcore.registry import kind_of


def facts(spec: SweepSpec, variants: Variants) -> dict[str, str]:
    """Name -> what a user reads."""
    trial, cells = spec.trial, spec.search.space.size()
    low, high = variants.parameters()
    analyses = ", ".join(str(kind_of(type(a))) for a in spec.analyses)
    rows = {
        "space": "continuous" if cells is None else f"{cells} cells",
        "trials": str(trials_of(spec)),
        "searched": ", ".join(spec.search.space.paths),
        "parameters per network": f"{low:,}" if low == high else f"{low:,} to {high:,}",
        "networks per trial": str(trial.replicates),
        "optimiser steps": f"{trial.training.steps:,} per network, {trial.training.batch_size} trials each",
        "early stopping": _stopping(spec),
        "checkpoints analysed": f"{spec.checkpoints.best} best: {analyses or 'none'}",
    }
    for stimuli in stimulus_specs(spec):
        objects, views = len(stimuli.objects.meshes()), len(stimuli.views.views())
        rows[f"stimuli {stimuli.content_hash()}"] = (
            f"{objects} objects x {views} views = {objects * views:,} renders, "
            f"features by {kind_of(type(stimuli.backbone))}"
        )
    return rows


def _stopping(spec: SweepSpec) -> str:
    rule = stopping_rule(spec.search.scheduler, spec.search.leading, spec.trial.training.steps)
    if not isinstance(rule, Asha):
        return "none"
    rungs = ", ".join(f"{rung:,}" for rung in sorted(rule.rungs))
    return f"asha: at {rungs} steps, one in {rule.reduction} goes on"
