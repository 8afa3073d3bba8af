"""Which stimuli a sweep needs. Reads nothing; no Ray here."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from sweeps.space import Choice
from wmcore.errors import InputError

if TYPE_CHECKING:
    from sweeps.spec import SweepSpec
    from wmcore.stimuli.spec import StimulusSpec


def stimulus_specs(spec: SweepSpec) -> list[StimulusSpec]:
    """The different stimulus specs that a sweep's space can name: each needs a bank of its own before training.

    Raises:
        InputError: a setting of the stimuli is drawn from a range, so that every trial would need its own bank.
    """
    base = spec.search.space.corner_points()[0]
    searched = []
    for path, distribution in spec.search.space.items():
        if len({_hash(spec, {**base, path: end}) for end in distribution.ends()}) == 1:
            continue
        if not isinstance(distribution, Choice):
            raise InputError(
                f"search.space.{path}",
                "changes the stimuli and must be a choice, because each value needs images and features of its own",
                remedy="List the values: {choice: [...]}.",
            )
        searched.append([(path, value) for value in distribution.ends()])
    found = {}
    for values in itertools.product(*searched):
        stimuli = spec.trial_for({**base, **dict(values)}).task.stimulus_spec()
        if stimuli is not None:
            found[stimuli.content_hash()] = stimuli
    return list(found.values())


def _hash(spec: SweepSpec, point: dict[str, object]) -> str | None:
    stimuli = spec.trial_for(point).task.stimulus_spec()
    return None if stimuli is None else stimuli.content_hash()
