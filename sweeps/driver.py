"""Runs a sweep from its spec to its report: stimuli, search, recordings and analyses, report."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

from ray import tune
from rich.console import Console

from sweeps.banks import stimulus_specs
from sweeps.bookkeeper import Bookkeeper
from sweeps.cluster import connected, slots
from sweeps.folder import driver_lock, open_folder, stimuli_folder
from sweeps.ledger import Ledger
from sweeps.mechanism import analyse_best, failures, is_analysed, track_results
from sweeps.native_output import stderr_in
from sweeps.progress import Display
from sweeps.report import report_path, write_report
from sweeps.spec import SweepSpec
from sweeps.stimuli import check_splits, prepare_stimuli
from sweeps.tracking import Tracker
from sweeps.trainable import VariantTrainable
from sweeps.tune_adapters import BookCallback, BookScheduler, BookSearcher
from wmcore.stimuli.contact_sheet import contact_sheet
from wmcore.stimuli.image_bank import ImageBank

LIBRARY_LOG = "libraries.log"
"""File of a sweep's folder that takes what compiled libraries write to the terminal."""


TRACKED = "tracked"
"""Empty file of a sweep's folder: everything in it has reached MLflow."""


def is_complete(spec: SweepSpec, folder: Path, ledger: Ledger) -> bool:
    """Every trial has ended, every analysis is there, the report is written, and MLflow has it all."""
    counts = ledger.counts()
    searched = counts["pending"] == 0 and (ledger.exhausted or counts["planned"] >= spec.search.budget)
    written = report_path(folder).exists() and (folder / TRACKED).exists()
    return searched and written and is_analysed(spec, folder, ledger)


def run_sweep(
    spec: SweepSpec, storage: Path, console: Console, *, source: Path | None = None, address: str | None = None
) -> tuple[Path, list[str]]:
    """Runs a sweep to its end, or goes on with one. A complete one is left as it is.

    Args:
        spec: what to run.
        storage: folder of sweeps; this one is ``storage/<name>``.
        console: where progress is shown.
        source: the spec file, copied into the folder.
        address: a running Ray to use; None starts one on this machine.

    Returns:
        The sweep's folder, and a sentence for each thing that failed without stopping it.

    Raises:
        WmsweepError: see the parts; what was done so far stays and is gone on with at the next call.
    """
    storage = storage.resolve()
    folder, ledger = open_folder(spec, storage, source)
    if is_complete(spec, folder, ledger):
        return folder, problems(spec, folder)
    display, stimuli = Display(console, spec), stimuli_folder(storage)
    with driver_lock(folder), stderr_in(folder / LIBRARY_LOG), display.running(), Tracker(spec, folder) as tracker:
        with ExitStack() as stack:
            with display.stage("Start Ray and MLflow"):
                stack.enter_context(connected(address))
                tracker.wait_until_open()
            prepare_stimuli(spec, stimuli, display)
            check_splits(spec, stimuli)
            search(spec, folder, stimuli, tracker, display)
            analyse_best(spec, folder, stimuli, display)
        _report(spec, folder, tracker, display)
    return folder, _tracked(folder, tracker) + problems(spec, folder)


def analyse_again(spec: SweepSpec, folder: Path, console: Console, *, address: str | None = None) -> list[str]:
    """Records and analyses the best checkpoints of a folder anew and writes the report; returns what failed."""
    display, stimuli = Display(console, spec), stimuli_folder(folder.parent)
    with driver_lock(folder), stderr_in(folder / LIBRARY_LOG), display.running(), Tracker(spec, folder) as tracker:
        with connected(address):
            tracker.wait_until_open()
            analyse_best(spec, folder, stimuli, display, again=True)
        _report(spec, folder, tracker, display)
    return _tracked(folder, tracker) + problems(spec, folder)


def problems(spec: SweepSpec, folder: Path) -> list[str]:
    """A sentence for each trial and each analysis of a sweep that failed."""
    failed = [trial for trial in Ledger(folder / "ledger.jsonl").in_order() if trial.state == "failed"]
    return [f"variant {trial.number} failed: {trial.reason}" for trial in failed] + failures(spec, folder)


def _report(spec: SweepSpec, folder: Path, tracker: Tracker, display: Display) -> None:
    with display.stage("Write the report"):
        page = write_report(spec, folder, stimuli_folder(folder.parent))
        track_results(spec, folder, tracker)
        tracker.artifact(None, page.parent, "report")


def _tracked(folder: Path, tracker: Tracker) -> list[str]:
    if tracker.problem:
        return [tracker.problem]
    (folder / TRACKED).touch()
    return []


def render_stimuli(spec: SweepSpec, storage: Path, console: Console) -> list[Path]:
    """Makes the banks of a sweep without training; returns a contact sheet of each."""
    display, stimuli = Display(console, spec), stimuli_folder(storage)
    with display.running(), connected():
        prepare_stimuli(spec, stimuli, display)
    return [
        contact_sheet(ImageBank.load(stimuli, s), stimuli / f"contact_sheet_{s.content_hash()}.png")
        for s in stimulus_specs(spec)
    ]


def search(spec: SweepSpec, folder: Path, stimuli: Path, tracker: Tracker, display: Display) -> None:
    """Trains what is left of a sweep's trials, on the connected Ray; the banks in ``stimuli`` must be ready."""
    book = Bookkeeper(spec, folder, stimuli, [tracker, display])
    if book.remaining == 0:
        return
    resources = {"cpu": spec.resources.cpu, "gpu": spec.resources.gpu}
    tuner = tune.Tuner(
        tune.with_resources(VariantTrainable, resources),
        tune_config=tune.TuneConfig(
            search_alg=BookSearcher(book),
            scheduler=BookScheduler(book),
            num_samples=book.remaining,
            max_concurrent_trials=slots(spec),
            reuse_actors=True,
        ),
        run_config=tune.RunConfig(
            name="tune",
            storage_path=str(folder / "ray"),
            callbacks=[BookCallback(book)],
            # Trials write their own checkpoints, which outlive Ray.
            checkpoint_config=tune.CheckpointConfig(checkpoint_frequency=0, checkpoint_at_end=False),
            failure_config=tune.FailureConfig(max_failures=2),
            verbose=0,
        ),
    )
    with display.searching(book.ledger):
        tuner.fit()
