"""Which stimuli a sweep needs. Reads nothing; no Ray here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sweeps.distributions import Choice
from wmcore.errors import InputError

if TYPE_CHECKING:
    from sweeps.spec import SweepSpec
    from wmcore.stimuli.spec import StimulusSpec


def stimulus_specs(spec: SweepSpec) -> list[StimulusSpec]:
    """The different stimulus specs that a sweep's space can name: each needs a bank of its own before training.

    Raises:
        InputError: a setting of the stimuli is drawn from a range, so that every trial would need its own bank.
    """
    space = spec.search.space
    searched = []
    for path, distribution in space.items():
        points = space.points_at(path)
        if isinstance(distribution, Choice):
            if _differ(spec, points):
                searched.append(path)
            continue
        # Where its ends switch other paths on or off, those may be what changes the stimuli.
        for active in {frozenset(point) for point in points}:
            if _differ(spec, [point for point in points if point.keys() == active]):
                raise InputError(
                    f"search.space.{path}",
                    "changes the stimuli and must be a choice, because each value needs images and features of its own",
                    value=distribution.model_dump(mode="json", exclude_none=True),
                    remedy="List the values: {choice: [...]}.",
                )
    found = {}
    for point in space.combinations(searched):
        stimuli = spec.trial_for(point).task.stimulus_spec()
        if stimuli is not None:
            found[stimuli.content_hash()] = stimuli
    return list(found.values())


def _differ(spec: SweepSpec, points: list[dict[str, Any]]) -> bool:
    """Whether these points have different stimuli."""
    stimuli = [spec.trial_for(point).task.stimulus_spec() for point in points]
    return len({None if one is None else one.content_hash() for one in stimuli}) > 1
