"""Writes a sweep's report: one HTML page and its figures, from plain tables. Knows nothing of Ray or of sweeps."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined
from matplotlib.figure import Figure


@dataclass(frozen=True)
class Headline:
    """The best variant's figure on the test split, beside its baselines.

    Attributes:
        interval: 95 % interval of the estimate, with its unit in ``n``.
        baselines: policy -> score on the same trials.
        single: one network was trained, so that the interval says nothing of other seeds.
        chosen: by what the variant is the best, as in ``on selection``.
    """

    variant: int
    metric: str
    estimate: float
    interval: tuple[float, float]
    n: str
    baselines: Mapping[str, float]
    single: bool
    chosen: str = "on selection"


@dataclass(frozen=True)
class AnalysisView:
    """One analysis of one checkpoint.

    Attributes:
        title: analysis, variant and replicate.
        figures: PNG files.
        table: the rows to show; the whole table is at ``table_path``.
        problem: what went wrong, or an empty string.
    """

    title: str
    figures: Sequence[Path]
    table: pd.DataFrame | None
    table_path: Path | None
    problem: str = ""


@dataclass(frozen=True)
class ReportData:
    """Everything that the page shows.

    Attributes:
        divergence: how many variants have diverged in which way; empty if none.
        explained: what the figures in the table of variants are, where that is not plain.
        splits: split -> every metric of the best variant with its interval and baselines; the first is shown open.
        sampling: split -> rates of the sampling as achieved.
    """

    title: str
    summary: str
    headline: Headline | None
    variants: pd.DataFrame
    splits: Mapping[str, pd.DataFrame]
    sampling: pd.DataFrame
    gates: Sequence[tuple[str, pd.DataFrame]]
    contact_sheets: Sequence[Path]
    figures: Mapping[str, Figure]
    captions: Mapping[str, str]
    analyses: Sequence[AnalysisView]
    spec_yaml: str
    versions: Mapping[str, str]
    notes: Sequence[str] = field(default_factory=tuple)
    divergence: str = ""
    explained: str = ""


def write(data: ReportData, folder: Path) -> Path:
    """Writes ``index.html`` and ``files/`` into a folder; returns the page.

    Everything that the page shows is copied beside it, so that the folder can be moved, sent and opened on its own.
    """
    files = folder / "files"
    shutil.rmtree(files, ignore_errors=True)
    files.mkdir(parents=True)
    for name, figure in data.figures.items():
        figure.savefig(files / f"{name}.png", dpi=150)

    def beside(path: Path, prefix: str = "") -> str:
        copy = files / (re.sub(r"[^A-Za-z0-9]+", "_", prefix) + path.name)
        shutil.copyfile(path, copy)
        return copy.relative_to(folder).as_posix()

    environment = Environment(
        loader=PackageLoader("analysis_jobs"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters["table"] = html_table
    environment.filters["beside"] = beside
    page = folder / "index.html"
    temporary = folder / f".index.{os.getpid()}.html"
    temporary.write_text(environment.get_template("report.html.j2").render(data=data))
    temporary.rename(page)
    return page


def html_table(frame: pd.DataFrame) -> str:
    """A table with three digits and escaped text; columns without a single entry are left out."""
    frame = frame.replace("", None).dropna(axis="columns", how="all")
    # Long names may be wrapped after their signs.
    frame = frame.rename(columns=lambda name: re.sub(r"([/._])", "\\1\N{ZERO WIDTH SPACE}", str(name)))
    return frame.to_html(index=False, border=0, na_rep="", float_format=_digits, escape=True, classes="figures")


def _digits(value: Any) -> str:
    return f"{value:.3g}" if abs(value) < 0.1 and value != 0 else f"{value:.3f}"
