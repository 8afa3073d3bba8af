"""Arguments and options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

SpecArgument = Annotated[Path, typer.Argument(metavar="SPEC", help="The sweep spec, a YAML file.", show_default=False)]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="PATH=VALUE", help="Overrides one value of the spec; may be repeated."),
]
StorageOption = Annotated[
    Path, typer.Option("--storage", metavar="DIR", help="Folder that holds the folders of all sweeps.")
]
AddressOption = Annotated[
    str | None,
    typer.Option("--address", metavar="ADDRESS", help="A Ray that is running (`auto` finds it); default: start one."),
]
FolderArgument = Annotated[
    Path, typer.Argument(metavar="DIR", help="A sweep's folder: STORAGE/<name>.", show_default=False)
]
