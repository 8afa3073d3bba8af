"""The nearest valid name, for messages."""

from __future__ import annotations

import difflib
from collections.abc import Sequence


def nearest(name: str, known: Sequence[str]) -> str | None:
    """The known name most like ``name``: by spelling, or one whose last part is the same. None if none is near."""
    by_case = {other.lower(): other for other in reversed(known)}
    found = difflib.get_close_matches(name.lower(), list(by_case), n=1, cutoff=0.6)
    if found:
        return by_case[found[0]]
    last = name.replace("/", ".").split(".")[-1]
    endings = {other.replace("/", ".").split(".")[-1]: other for other in reversed(known)}
    found = difflib.get_close_matches(last, list(endings), n=1, cutoff=0.75)
    return endings[found[0]] if found else None


def nearest_hint(name: str, known: Sequence[str]) -> str:
    """``Did you mean x?``, or nothing."""
    near = nearest(name, known)
    return f"Did you mean {near}?" if near else ""
