"""Moments of a trial: a step, or the start, middle or end of one of its periods.

``delay.mid`` is each trial's own step, also where trials differ in length: the first step of the period plus half of
its steps, rounded down. ``start`` is the period's first step, ``end`` its last one.
"""

from __future__ import annotations

import re

import numpy as np
import xarray as xr

from wmcore.errors import InputError
from wmcore.recording import periods

Moment = int | str
"""A step from 0 on, or ``<period>.start``, ``<period>.mid`` or ``<period>.end``."""
_NAMED = re.compile(r"(\w+)\.(start|mid|end)")


def steps_at(recording: xr.Dataset, moment: Moment, where: str) -> np.ndarray:
    """(N,) the step of each trial at a moment; -1 where a trial ends before it or lacks the period.

    Raises:
        InputError: there is no such period, or the moment is none.
    """
    lengths = recording["lengths"].values
    if isinstance(moment, int):
        if not 0 <= moment < recording.sizes["time"]:
            rule = f"must be a step from 0 to {recording.sizes['time'] - 1}"
            raise InputError(where, rule, value=moment)
        return np.where(moment < lengths, moment, -1)
    found = re.fullmatch(_NAMED, moment)
    held = periods(recording)
    if found is None or found[1] not in held:
        rule = f"must be a step, or .start, .mid or .end of one of the periods {', '.join(held)}"
        raise InputError(where, rule, value=moment, remedy="As in delay.mid.")
    start, stop = held[found[1]].T
    step = {"start": start, "mid": start + (stop - start) // 2, "end": stop - 1}[found[2]]
    return np.where(start < 0, -1, step)


def states_at(states: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """(N, H) of (N, T, H) states: each trial's own step."""
    return states[np.arange(len(states)), steps]


def check_moment(moment: Moment, steps: int | None, where: str) -> None:
    """Checks what can be known of a moment without a recording.

    Raises:
        InputError: it is no moment, or a step that no trial has.
    """
    if isinstance(moment, int):
        if moment < 0 or (steps is not None and moment >= steps):
            limit = "from 0" if steps is None else f"from 0 to {steps - 1}"
            raise InputError(where, f"must be a step {limit}", value=moment)
    elif not re.fullmatch(_NAMED, moment):
        rule = "must be a step, or .start, .mid or .end of one of the task's periods"
        raise InputError(where, rule, value=moment, remedy="As in delay.mid.")
