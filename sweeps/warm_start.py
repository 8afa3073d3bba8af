"""What a sweep tries first, and what it knows before it starts."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, Field

from wmcore.spec import Spec


def _spelt_out(folder: str) -> str:
    if folder.startswith("~") and folder.partition("/")[0] != "~":
        raise ValueError("must be spelt out: of the abbreviations only ~/ for your own home is known")
    return folder


class WarmStartSpec(Spec):
    """Points to try first, and an earlier sweep to learn from."""

    points: tuple[dict[str, Any], ...] = ()
    """Tried first, in this order: path -> value; the sampler fills in the paths that a point leaves out."""
    sweep: Annotated[str, AfterValidator(_spelt_out)] | None = None
    """Folder of an earlier sweep: its outcomes at points of this space inform the sampler."""
    best: Annotated[int, Field(ge=0)] = 0
    """So many best points of that sweep are tried first, after ``points``."""
