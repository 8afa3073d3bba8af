"""Commands that only read a sweep's record. Each imports what is heavy itself."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sweeps.options import FolderArgument
from wmcore.errors import WmsweepError


def verify(
    folder: FolderArgument,
    rerun: Annotated[
        int, typer.Option("--rerun", metavar="K", min=0, help="Train K random finished trials again and compare.")
    ] = 0,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of that draw.")] = 0,
) -> None:
    """Prove that nothing was lost or counted twice.

    Ledger, checkpoints, Optuna and MLflow must agree.
    """
    from rich.console import Console

    from sweeps.folder import read_folder
    from sweeps.rerun import rerun as retrained
    from sweeps.verify import Check
    from sweeps.verify import verify as checks

    spec, ledger = read_folder(folder)
    console = Console()

    def show(found: list[Check]) -> bool:
        for check in found:
            mark = "[green]ok  [/]" if check.holds else "[red]FAIL[/]"
            console.print(f"{mark}  {check.name}: {check.figures}", soft_wrap=True)
        return all(check.holds for check in found)

    consistent = show(checks(spec, folder, ledger))
    if rerun:
        tell = console.print if console.is_terminal else lambda line: None
        consistent &= show(retrained(spec, folder.resolve(), ledger, rerun, seed, tell))
    if not consistent:
        raise WmsweepError(f"{folder} is not consistent: see the lines marked FAIL above.")


def export(
    folder: FolderArgument,
    optuna: Annotated[
        Path, typer.Option("--optuna", metavar="FILE", help="A new SQLite file, for Optuna's dashboard.")
    ],
) -> None:
    """Write a sweep's study for other tools."""
    from sweeps.export import export_optuna
    from sweeps.folder import read_folder

    spec, ledger = read_folder(folder)
    count = export_optuna(spec, ledger, optuna)
    typer.echo(f"Wrote {count} trials: optuna-dashboard sqlite:///{optuna}")


def register(app: typer.Typer) -> None:
    """Adds the commands in the order in which they are used."""
    for command in (verify, export):
        app.command()(command)
