"""Commands that run sweeps and look at their folders. Each imports what is heavy itself."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sweeps.interrupts import INTERRUPTED, end_at_once
from sweeps.options import AddressOption, FolderArgument, SetOption, SpecArgument, StorageOption
from wmcore.errors import WmsweepError

if TYPE_CHECKING:
    from rich.console import Console

    from sweeps.driver import Ended
    from sweeps.spec import SweepSpec


class Interrupted(WmsweepError):
    """The user pressed Ctrl-C."""

    exit_code = INTERRUPTED


def run(
    spec: SpecArgument,
    storage: StorageOption = Path("runs"),
    overrides: SetOption = None,
    address: AddressOption = None,
) -> None:
    """Run a sweep to its report, or go on with one.

    A finished folder is left as it is and its table shown; a changed spec is refused.
    """
    with _loading():
        from rich.console import Console

        from sweeps.driver import run_sweep
        from sweeps.loading import load_sweep
        from sweeps.storage import check_storage, check_sweep_folder
        from sweeps.store_address import check_database_driver

        storage = check_storage(storage)
        sweep = load_sweep(spec, overrides or [], storage)
        check_sweep_folder(storage / sweep.name)
        check_database_driver(sweep.tracking.uri)
    console = Console()
    with _resumable(storage / sweep.name):
        ended = run_sweep(sweep, storage, console, source=spec, address=address)
    _end(ended, console)


def resume(
    folder: FolderArgument,
    trials: Annotated[
        int, typer.Option("--trials", metavar="N", min=0, help="N trials more than the sweep has.", show_default=False)
    ] = 0,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Train failed trials again, too.")] = False,
    address: AddressOption = None,
) -> None:
    """Go on with a sweep from its folder alone.

    What is there is replayed: study, early stopping, queue.
    """
    with _loading():
        from rich.console import Console

        from sweeps.driver import resume_sweep

    console = Console()
    with _resumable(folder):
        ended = resume_sweep(folder, console, more=trials, retry=retry_failed, address=address)
    _end(ended, console)


def plan(
    spec: SpecArgument,
    storage: StorageOption = Path("runs"),
    overrides: SetOption = None,
    address: AddressOption = None,
    probe: Annotated[
        bool, typer.Option("--probe/--no-probe", help="Time a few steps of it, to say how long all of it takes.")
    ] = True,
) -> None:
    """Say what a sweep would do and take: time, disk, memory.

    Times a few steps where the sweep would run; leaves nothing there.
    """
    from rich.console import Console

    from sweeps.loading import load_sweep
    from sweeps.planning.plan import show_plan
    from sweeps.storage import storage_folder

    show_plan(load_sweep(spec, overrides or []), storage_folder(storage), Console(), address=address, timed=probe)


def status(
    folder: FolderArgument,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Stay until it has ended, or until Ctrl-C.")] = False,
) -> None:
    """Show how far a sweep is, from its ledger alone."""
    from rich.console import Console

    from sweeps import status

    (status.follow if follow else status.show)(folder, Console())


def analyze(folder: FolderArgument, address: AddressOption = None) -> None:
    """Analyse the best checkpoints again; write the report."""
    from rich.console import Console

    from sweeps.driver import analyse_again
    from sweeps.folder import read_folder

    spec, _ = read_folder(folder)
    console = Console()
    problems = analyse_again(spec, folder.resolve(), console, address=address)
    _close(spec, folder.resolve(), console)
    _raise(problems)


def report(folder: FolderArgument) -> None:
    """Write a sweep's report from what is there."""
    from sweeps.folder import read_folder, stimuli_folder
    from sweeps.report import write_report

    spec, _ = read_folder(folder)
    folder = folder.resolve()
    typer.echo(f"Report: {write_report(spec, folder, stimuli_folder(folder.parent))}")


def render(spec: SpecArgument, storage: StorageOption = Path("runs"), overrides: SetOption = None) -> None:
    """Make a sweep's images and features; train nothing."""
    from rich.console import Console

    from sweeps.driver import render_stimuli
    from sweeps.loading import load_sweep
    from sweeps.storage import check_storage

    sweep = load_sweep(spec, overrides or [])
    storage = check_storage(storage)
    for sheet in render_stimuli(sweep, storage, Console()):
        typer.echo(f"Contact sheet: {sheet}")


def ui(
    folder: FolderArgument,
    port: Annotated[int, typer.Option("--port", min=1, max=65535, help="Port on this machine.")] = 5000,
) -> None:
    """Open MLflow on a sweep's store; Ctrl-C ends it."""
    from sweeps.folder import read_folder
    from sweeps.tracking import tracking_uri

    spec, _ = read_folder(folder)
    uri = tracking_uri(spec, folder)
    if uri.startswith("http"):
        typer.echo(f"This sweep is tracked by a server: open {uri}")
        return
    typer.echo(f"MLflow on {folder}: http://127.0.0.1:{port} (Ctrl-C ends it)")
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", uri, "--host", "127.0.0.1"]
    command += ["--port", str(port), "--workers", "1"]
    # In the place of this process, so that whoever ends the one ends the other.
    os.execv(command[0], command)


def register(app: typer.Typer) -> None:
    """Adds the commands in the order in which they are used."""
    for command in (plan, render, run, resume, status, analyze, report, ui):
        app.command()(command)


@contextmanager
def _loading() -> Iterator[None]:
    """Ctrl-C ends the process at once: nothing has begun."""
    before = signal.signal(signal.SIGINT, end_at_once)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def _resumable(folder: Path) -> Iterator[None]:
    """Ctrl-C says how to go on."""
    try:
        yield
    except KeyboardInterrupt as interrupt:
        raise Interrupted(
            f"Interrupted. Nothing is lost: `{_program()} resume {shlex.quote(str(folder))}` goes on."
        ) from interrupt


def _end(ended: Ended, console: Console) -> None:
    _close(ended.spec, ended.folder, console)
    _raise(ended.problems)


def _close(spec: SweepSpec, folder: Path, console: Console) -> None:
    """The closing table, and where to go from here."""
    from sweeps.ledger import Ledger
    from sweeps.report import report_path
    from sweeps.status import closing

    console.print(closing(spec, Ledger(folder / "ledger.jsonl")))
    console.print(f"\nReport:  {report_path(folder)}", soft_wrap=True, markup=False)
    console.print(f"MLflow:  {_program()} ui {shlex.quote(str(folder))}", soft_wrap=True, markup=False)


def _program() -> str:
    """How this program is called here."""
    here = Path(sys.argv[0])
    return f"{_called(Path(sys.executable))} -m sweeps" if here.name == "__main__.py" else _called(here)


def _called(program: Path) -> str:
    """Its name where the shell finds it by that, else where it lies."""
    found = shutil.which(program.name)
    found_it = found is not None and os.path.abspath(found) == os.path.abspath(program)
    return program.name if found_it else shlex.quote(os.path.relpath(program))


def _raise(problems: list[str]) -> None:
    """Exit code 1 with one paragraph, after everything else has been shown."""
    if problems:
        more = f" And {len(problems) - 1} more: see the report." if len(problems) > 1 else ""
        raise WmsweepError(f"The sweep has ended, but {problems[0].rstrip('.')}.{more}")
