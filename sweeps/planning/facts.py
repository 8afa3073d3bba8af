"""What a sweep would do, from its spec alone."""

from __future__ import annotations

from sweeps.banks import stimulus_specs
from sweeps.planning.variants import Variants
from sweeps.schedule import Asha
from sweeps.spec import SweepSpec
from wmcore.registry import kind_of


def facts(spec: SweepSpec, variants: Variants) -> dict[str, str]:
    """Name -> what a user reads."""
    trial, cells = spec.trial, spec.search.space.size()
    low, high = variants.parameters()
    steps = sorted({variant.trial.training.steps for variant in (*variants.ends, *variants.drawn)})
    trained = f"{steps[0]:,}" if len(steps) == 1 else f"{steps[0]:,} to {steps[-1]:,}"
    analyses = ", ".join(str(kind_of(type(a))) for a in spec.analyses)
    rows = {
        "space": "continuous" if cells is None else f"{cells} cells",
        "trials": str(spec.search.most_trials),
        "searched": ", ".join(spec.search.space.paths),
        "parameters per network": f"{low:,}" if low == high else f"{low:,} to {high:,}",
        "networks per trial": str(trial.replicates),
        "optimiser steps": f"{trained} per network, {trial.training.batch_size} trials each",
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
    rule = spec.stopping_rule()
    if not isinstance(rule, Asha):
        return "none"
    rungs = ", ".join(f"{rung:,}" for rung in sorted(rule.rungs))
    return f"asha: at {rungs} steps, one in {rule.reduction} goes on"
