"""The samplers that a spec can name."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from wmcore.spec import Spec

Seed = Annotated[int, Field(ge=0)]


class TpeSpec(Spec):
    """Tree-structured Parzen estimator (Bergstra et al. 2011): models good and bad values of the space."""

    kind: Literal["tpe"] = "tpe"
    seed: Seed = 0
    """Seed of the suggestions."""
    startup_trials: Annotated[int, Field(ge=1)] = 10
    """Random trials before the model is used."""
    synchronous: bool = False
    """Suggests whole batches, each from the outcomes of the batches before it alone: without early stopping the table
    of results is then the same however many trials run at once."""
    batch: Annotated[int, Field(ge=1)] = 8
    """Trials of a batch, if synchronous."""


class RandomSpec(Spec):
    """Every point drawn independently."""

    kind: Literal["random"] = "random"
    seed: Seed = 0
    """Seed of the suggestions."""


AnySampler = Annotated[TpeSpec | RandomSpec, Field(discriminator="kind")]
