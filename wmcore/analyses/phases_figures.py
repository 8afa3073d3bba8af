"""Phase borders in figures over time."""

from __future__ import annotations

from matplotlib.axes import Axes

from wmcore.analyses.phases import Phases

_SHORT = {"fixation": "fix", "stimulus": "s", "delay": "delay", "response": "r"}


def mark(ax: Axes, phases: Phases, across: bool = False, names: bool = True) -> None:
    """Thin lines between the phases (a step is the middle of its unit interval), and their names above.

    Args:
        across: also as horizontal lines, for a map of step by step.
    """
    spans = phases.borders()
    for border in sorted({edge for span in spans.values() for edge in span} - {0, phases.steps}):
        ax.axvline(border - 0.5, color="0.6", lw=0.6, zorder=1.5)
        if across:
            ax.axhline(border - 0.5, color="0.6", lw=0.6, zorder=1.5)
    if not names:
        return
    for name, (start, stop) in spans.items():
        ax.annotate(
            short(name),
            ((start + stop - 1) / 2, 1.0),
            xycoords=("data", "axes fraction"),
            xytext=(0, 2),
            textcoords="offset points",
            ha="center",
            va="bottom",
            fontsize=6.5,
            color="0.35",
            annotation_clip=True,
        )


def short(name: str) -> str:
    """``stimulus_0`` as s0."""
    kind, _, number = name.rpartition("_")
    return _SHORT[kind] + number if kind in _SHORT and number.isdigit() else _SHORT.get(name, name)
