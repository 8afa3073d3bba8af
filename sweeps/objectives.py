"""What a search improves: one metric of the selection split, or several."""

from __future__ import annotations

from typing import Literal

from wmcore.spec import Spec


class ObjectiveSpec(Spec):
    """What the search improves."""

    metric: str
    """``select/<name>``, a metric of the task on the selection split."""
    mode: Literal["max", "min"] = "max"
    """Whether larger or smaller is better."""

    @property
    def name(self) -> str:
        """The metric without its split."""
        return self.metric.partition("/")[2]

    @property
    def sign(self) -> int:
        """1 where larger is better, -1 where smaller is: times a value, larger is better."""
        return 1 if self.mode == "max" else -1
