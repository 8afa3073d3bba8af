"""A plan from beginning to end, as the command line shows it."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from sweeps.planning.facts import facts
from sweeps.planning.show import show_estimate, show_facts
from sweeps.planning.variants import variants_of
from sweeps.spec import SweepSpec


def show_plan(
    spec: SweepSpec, storage: Path, console: Console, *, address: str | None = None, timed: bool = True
) -> None:
    """Shows what a sweep would do and, unless ``timed`` is false, what it would take.

    Raises:
        WmsweepError: as of ``probe``.
    """
    variants = variants_of(spec)
    show_facts(console, spec.name, facts(spec, variants))
    if not timed:
        return
    # Ray is imported only where it is needed.
    from sweeps.planning.estimate import estimate
    from sweeps.planning.probe import probe

    with console.status("Timing a few steps") as status:
        found = probe(spec, variants, storage, lambda text: status.update(f"{text} ..."), address)
    show_estimate(console, estimate(spec, variants, found), found, storage)
