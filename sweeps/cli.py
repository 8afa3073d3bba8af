"""The command line. Commands import what is heavy themselves, so that ``wmsweep --help`` answers at once."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from sweeps import record_commands, run_commands
from sweeps.interrupts import INTERRUPTED
from sweeps.options import SetOption, SpecArgument, StorageOption
from wmcore.errors import WmsweepError

app = typer.Typer(
    name="wmsweep",
    help="Distributed hyperparameter sweeps for neural-network models of working memory.",
    invoke_without_command=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

DEBUG = "--debug"


@app.callback()
def _options(
    context: typer.Context,
    debug: Annotated[bool, typer.Option(DEBUG, help="Show the traceback of an error; may stand anywhere.")] = False,
) -> None:
    """Distributed hyperparameter sweeps for neural-network models of working memory."""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


@app.command("list")
def list_kinds() -> None:
    """List the kinds that a spec can name, and the shipped specs."""
    from sweeps.catalog import catalog, shipped_specs

    for group, kinds in {**catalog(), "shipped specs": shipped_specs()}.items():
        typer.echo(f"{group}:")
        width = max(map(len, kinds), default=0)
        for name, line in kinds.items():
            typer.echo(f"  {name:{width}}  {line}".rstrip())
        if not kinds:
            typer.echo("  (none)")


@app.command()
def schema(
    output: Annotated[Path | None, typer.Option("--output", "-o", metavar="FILE", help="Write it to a file.")] = None,
) -> None:
    """Print the JSON Schema of a spec, for editors."""
    import json

    from sweeps.spec import SweepSpec
    from sweeps.storage import write_text

    text = json.dumps(SweepSpec.model_json_schema(), indent=2) + "\n"
    if output is None:
        typer.echo(text, nl=False)
    else:
        write_text(output, text)
        typer.echo(f"Wrote {output}.")


@app.command()
def validate(
    spec: SpecArgument,
    overrides: SetOption = None,
    storage: Annotated[
        Path | None, typer.Option("--storage", metavar="DIR", help="Check that this folder can be written, too.")
    ] = None,
) -> None:
    """Check a spec and its search space; start nothing."""
    from sweeps.loading import load_sweep, summary
    from sweeps.storage import check_storage

    text = summary(load_sweep(spec, overrides or []))
    if storage is not None:
        check_storage(storage)
    typer.echo(text)


@app.command()
def doctor(storage: StorageOption = Path("runs")) -> None:
    """Say what this machine has and lacks for a sweep."""
    from sweeps.doctor import examine, show

    findings = examine(storage)
    show(findings)
    if any(finding.state == "missing" for finding in findings):
        raise typer.Exit(1)


run_commands.register(app)
record_commands.register(app)


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line and exits: 0 done, 1 something failed, 2 bad input, 130 interrupted.

    An error is one paragraph on stderr; with ``--debug`` it is a traceback.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    debug = DEBUG in given
    sys.exit(_run([argument for argument in given if argument != DEBUG], debug))


def _run(arguments: list[str], debug: bool) -> int:
    command = typer.main.get_command(app)
    try:
        code = command.main(arguments, prog_name="wmsweep", standalone_mode=False) or 0
        return _interrupted() if code == INTERRUPTED else code
    except (KeyboardInterrupt, typer.Abort):
        return _interrupted()
    except Exception as error:
        if debug:
            raise
        return _fail(*_paragraph(error))


def _paragraph(error: Exception) -> tuple[str, int]:
    """What is said about an error, and the exit code."""
    if isinstance(error, WmsweepError):
        start = "" if error.exit_code == INTERRUPTED else "Error: "
        return f"{start}{error}", error.exit_code
    # Typer's own usage errors: their class has moved between its releases, their shape has not.
    usage = getattr(error, "format_message", None)
    if callable(usage):
        said = str(usage())
        return f"Error: {said}{'' if said.endswith(('.', '?', '!')) else '.'} See `wmsweep --help`.", 2
    said = " ".join(f"{type(error).__name__}: {error}".split())
    return f"Error: something failed that should not have ({said}). Run it again with {DEBUG} to see where.", 1


def _interrupted() -> int:
    return _fail("Interrupted.", INTERRUPTED)


def _fail(message: str, code: int) -> int:
    typer.echo(" ".join(message.split()), err=True)
    return code
