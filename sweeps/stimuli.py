"""The stage that makes a sweep's image and feature banks, for every stimulus spec that its space can name."""

from __future__ import annotations

from pathlib import Path

from analysis_jobs.render import prepare
from sweeps.progress import Display
from sweeps.spec import SweepSpec
from wmcore.seeding import numpy_generator
from wmcore.stimuli.spec import StimulusSpec

_DRAWS = 256


def stimulus_specs(spec: SweepSpec) -> list[StimulusSpec]:
    """The different stimulus specs of a sweep: at every end of its space and at random points of it."""
    generator = numpy_generator(0, "stimulus specs")
    points = spec.search.space.corner_points()
    if any(path.startswith("task") for path in spec.search.space.paths):
        points += [spec.search.space.point(generator) for _ in range(_DRAWS)]
    found: dict[str, StimulusSpec] = {}
    for point in points:
        stimuli = spec.trial_for(point).task.stimulus_spec()
        if stimuli is not None:
            found[stimuli.content_hash()] = stimuli
    return list(found.values())


def prepare_stimuli(spec: SweepSpec, folder: Path, display: Display) -> None:
    """Renders and encodes what is not on disk yet, through the connected Ray.

    Raises:
        GateError: the features do not carry the labels.
    """
    for stimuli in stimulus_specs(spec):
        with display.stage("Stimuli and features") as update:
            prepare(stimuli, folder, update)
