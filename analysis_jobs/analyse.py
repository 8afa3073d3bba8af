"""Records hidden states of checkpoints and analyses them, in parallel through Ray Data.

Each item is one network: a checkpoint and a replicate. What fails is reported beside what did not.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import ray
import ray.data
import torch
from pydantic import TypeAdapter

import wmcore.analyses
from analysis_jobs.quiet import quiet
from wmcore.analyses.base import AnalysisSpec
from wmcore.analyses.storage import save_result
from wmcore.errors import WmsweepError
from wmcore.recording import RecordingSpec, record, resolve, save
from wmcore.registry import discriminated_union
from wmcore.seeding import generator, numpy_generator
from wmcore.training.checkpoint import load_checkpoint

if TYPE_CHECKING:
    import xarray as xr

    from wmcore.models.base import SequenceModel

OUTCOMES = "outcomes.json"
"""File of a network's folder that says what became of its recording and of each analysis."""
RECORDING = "recording"
"""``analysis`` of the outcome that says how the recording went; it comes first for every item."""


@dataclass(frozen=True)
class Item:
    """One network to analyse.

    Attributes:
        checkpoint: its directory.
        output: folder that receives ``recording.zarr``, tables, arrays and figures.
        stimuli: folder of the banks, or None for a task that needs none.
        replicate: of the variant.
        provenance: plain data that is added to the recording's (a bank hash, say).
    """

    checkpoint: Path
    output: Path
    stimuli: Path | None = None
    replicate: int = 0
    provenance: dict[str, Any] | None = None


@dataclass(frozen=True)
class Outcome:
    """What became of one analysis of one item (or of its recording).

    Attributes:
        trial_id: of the variant; empty where its checkpoint could not be read.
        checkpoint: directory.
        replicate: of the variant.
        analysis: kind, or ``recording``.
        name: file stem of the results.
        table: Parquet file; the Zarr folder for a recording; empty after a failure.
        figures: PNG files.
        seconds: wall time.
        error: one paragraph; empty where all went well.
    """

    trial_id: str
    checkpoint: str
    replicate: int
    analysis: str
    name: str
    table: str
    figures: list[str]
    seconds: float
    error: str


def analyse(
    items: Sequence[Item],
    analyses: Sequence[AnalysisSpec],
    recording: RecordingSpec,
    progress: Callable[[int, int], None] | None = None,
    workers: int | None = None,
) -> list[Outcome]:
    """Records and analyses every item on the Ray that is connected.

    Args:
        items: the networks.
        analyses: run on each recording, in this order; two of a kind are stored as ``<kind>`` and ``<kind>_2``.
        recording: trials and states.
        progress: called with (items done, items in all), first with 0.
        workers: actors; None takes one for each CPU of the cluster, at most one for each item.

    Returns:
        For each item, in the order given: the recording's outcome, then one per analysis.
    """
    if not items:
        return []
    if not ray.is_initialized():
        raise RuntimeError("connect to Ray before analysing")
    job = {
        "recording": recording.model_dump(mode="json"),
        "analyses": [spec.model_dump(mode="json") for spec in analyses],
    }
    # The job travels with its items: an actor's arguments would be lost with the process that holds them.
    rows = [{"position": i, "item": json.dumps(_plain(item)), "job": json.dumps(job)} for i, item in enumerate(items)]
    limit = workers or max(1, int(ray.cluster_resources().get("CPU", 1)))
    with quiet():
        # Actors that ask for less than a CPU leave room for the tasks that feed them; with whole CPUs these would wait
        # for each other for ever.
        results = ray.data.from_items(rows, override_num_blocks=len(rows)).map_batches(
            _Analyser,  # pyright: ignore[reportArgumentType] - a class is what actors are made of
            batch_size=1,
            compute=ray.data.ActorPoolStrategy(size=min(limit, len(rows))),
            num_cpus=0.5,
        )
        if progress:
            progress(0, len(rows))
        found: dict[int, list[Outcome]] = {}
        for row in results.iter_rows():
            position = int(row["position"])
            asked = {"checkpoint": str(items[position].checkpoint)}  # as the caller wrote it, relative or not
            found[position] = [Outcome(**{**outcome, **asked}) for outcome in json.loads(row["outcomes"])]
            if progress:
                progress(len(found), len(rows))
    return [outcome for i in range(len(rows)) for outcome in found[i]]


def store_outcomes(folder: Path, outcomes: Sequence[Outcome]) -> None:
    """Writes what became of a network's analyses beside their results, with paths relative to that folder."""
    plain = [
        {
            **asdict(outcome),
            "checkpoint": Path(outcome.checkpoint).name,
            "table": Path(outcome.table).name,
            "figures": [Path(figure).name for figure in outcome.figures],
        }
        for outcome in outcomes
    ]
    temporary = folder / f".{OUTCOMES}.{os.getpid()}"
    temporary.write_text(json.dumps(plain))
    temporary.replace(folder / OUTCOMES)


def load_outcomes(folder: Path) -> list[Outcome] | None:
    """What became of a network's analyses; None when they have not been run to their end."""
    try:
        found = [Outcome(**plain) for plain in json.loads((folder / OUTCOMES).read_text())]
    except (OSError, ValueError, TypeError):
        return None
    return [
        replace(
            outcome,
            table=str(folder / outcome.table) if outcome.table else "",
            figures=[str(folder / figure) for figure in outcome.figures],
        )
        for outcome in found
    ]


def analyse_one(item: Item, analyses: Sequence[AnalysisSpec], recording: RecordingSpec) -> list[Outcome]:
    """Records and analyses one network in this process; a failure becomes the outcome of the part that failed.

    What became of each part is also written to the item's folder, once all are through.
    """
    outcomes = _outcomes(item, analyses, recording)
    store_outcomes(item.output, outcomes)
    return outcomes


def _outcomes(item: Item, analyses: Sequence[AnalysisSpec], recording: RecordingSpec) -> list[Outcome]:
    start = time.monotonic()
    trial_id = ""

    def outcome(analysis: str, name: str, began: float, table: str = "", figures: Sequence[str] = (), error: str = ""):
        seconds = time.monotonic() - began
        checkpoint = str(item.checkpoint)
        return Outcome(trial_id, checkpoint, item.replicate, analysis, name, table, list(figures), seconds, error)

    try:
        item.output.mkdir(parents=True, exist_ok=True)
        checkpoint = load_checkpoint(item.checkpoint)
        trial_id = checkpoint.trial.trial_id
        data, model = _record(item, recording)
        path = save(data, item.output / "recording.zarr")
    except Exception as error:  # reported with the item, so that the others go on
        failed = _paragraph("recording failed", error)
        names = zip(analyses, _names(analyses), strict=True)
        return [
            outcome(RECORDING, RECORDING, start, error=failed),
            *(outcome(_kind(spec), name, time.monotonic(), error=f"not run: {failed}") for spec, name in names),
        ]
    outcomes = [outcome(RECORDING, RECORDING, start, table=str(path))]
    seed = checkpoint.trial.seed
    for spec, name in zip(analyses, _names(analyses), strict=True):
        began = time.monotonic()
        try:
            source = numpy_generator(seed, "replicate", item.replicate, "analysis", name)
            result = spec.compute(data, model, source)
            stored = save_result(result, item.output, name, spec.figures(result))
        except Exception as error:  # reported with the analysis, so that the others go on
            outcomes.append(outcome(_kind(spec), name, began, error=_paragraph(f"{name} failed", error)))
        else:
            figures = [str(figure) for figure in stored.figures.values()]
            outcomes.append(outcome(_kind(spec), name, began, str(stored.table), figures))
    return outcomes


def _record(item: Item, spec: RecordingSpec) -> tuple[xr.Dataset, SequenceModel]:
    checkpoint = load_checkpoint(item.checkpoint)
    trial = checkpoint.trial
    task, model = checkpoint.build(item.stimuli, item.replicate)
    spec = resolve(spec, trial.model.recordable(), task.splits)
    provenance = {
        "trial_id": trial.trial_id,
        "checkpoint_step": checkpoint.step,
        "seed": trial.seed,
        "replicate": item.replicate,
        "split": spec.split,
        "task": trial.task.model_dump(mode="json"),
        "model": trial.model.model_dump(mode="json"),
        **(item.provenance or {}),
    }
    source = generator(trial.seed, "replicate", item.replicate, "recording", spec.split)
    return record(task, model, spec, source, provenance=provenance), model


class _Analyser:
    """The actor: one thread, so that actors do not compete for cores."""

    def __init__(self) -> None:
        torch.set_num_threads(1)

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, list[Any]]:
        """One item in, its outcomes out, both as JSON."""
        plain, job = json.loads(str(batch["item"][0])), json.loads(str(batch["job"][0]))
        paths = {key: Path(plain[key]) for key in ("checkpoint", "output")}
        stimuli = Path(plain["stimuli"]) if plain["stimuli"] else None
        item = Item(**{**plain, **paths, "stimuli": stimuli})
        analyses = [_parse_analysis(spec) for spec in job["analyses"]]
        outcomes = analyse_one(item, analyses, RecordingSpec.parse(job["recording"]))
        return {"position": [int(batch["position"][0])], "outcomes": [json.dumps([asdict(o) for o in outcomes])]}


def _parse_analysis(plain: dict[str, Any]) -> AnalysisSpec:
    adapter = TypeAdapter[AnalysisSpec](discriminated_union(wmcore.analyses, AnalysisSpec))
    return adapter.validate_json(json.dumps(plain), strict=True)


def _plain(item: Item) -> dict[str, Any]:
    plain = asdict(item)
    for key in ("checkpoint", "output", "stimuli"):
        plain[key] = None if plain[key] is None else str(Path(plain[key]).absolute())
    return plain


def _kind(spec: AnalysisSpec) -> str:
    return spec.model_dump()["kind"]


def _names(analyses: Sequence[AnalysisSpec]) -> list[str]:
    """File stems: the kind, numbered from the second of a kind on."""
    seen: dict[str, int] = {}
    names = []
    for spec in analyses:
        kind = _kind(spec)
        seen[kind] = seen.get(kind, 0) + 1
        names.append(kind if seen[kind] == 1 else f"{kind}_{seen[kind]}")
    return names


def _paragraph(what: str, error: Exception) -> str:
    """One paragraph; what the user did not cause is named by its exception type and place."""
    if isinstance(error, WmsweepError):
        return f"{what}: {error}"
    place = ""
    trace = error.__traceback__
    while trace is not None:
        place = f"{Path(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno}"
        trace = trace.tb_next
    return f"{what}: {type(error).__name__}: {error} (at {place})"
