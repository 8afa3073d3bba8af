"""Runs a sweep from its spec to its report: stimuli, search, recordings and analyses, report."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from ray import tune
from rich.console import Console

from sweeps.banks import stimulus_specs
from sweeps.bookkeeper import Bookkeeper
from sweeps.cluster import check_cluster, connected, slots
from sweeps.folder import driver_lock, open_folder, read_folder, stimuli_folder
from sweeps.ledger import Ledger
from sweeps.mechanism import analyse_best, failures, is_analysed, track_results
from sweeps.native_output import stderr_in
from sweeps.prior import read_prior
from sweeps.progress import Display
from sweeps.report import report_path, write_report
from sweeps.resume import extended, retry_failed
from sweeps.reuse import FinishedElsewhere
from sweeps.spec import SweepSpec
from sweeps.stimuli import check_splits, prepare_stimuli
from sweeps.tracking import Tracker
from sweeps.trainable import VariantTrainable
from sweeps.tune_adapters import BookCallback, BookScheduler, BookSearcher
from wmcore.stimuli.contact_sheet import contact_sheet
from wmcore.stimuli.image_bank import ImageBank
from wmcore.training.divergence import FATAL

LIBRARY_LOG = "libraries.log"
"""File of a sweep's folder that takes what compiled libraries write to the terminal."""


TRACKED = "tracked"
"""File of a sweep's folder that names the store (nothing for its own) which everything in it has reached."""


@dataclass(frozen=True)
class Ended:
    """A sweep that has been driven to its end.

    Attributes:
        spec: with the number of trials that it has by now.
        folder: ``storage/<name>``.
        problems: a sentence for each thing that failed without stopping it.
    """

    spec: SweepSpec
    folder: Path
    problems: list[str]


def is_complete(spec: SweepSpec, folder: Path, ledger: Ledger) -> bool:
    """Every trial has ended, every analysis is there, the report is written, and MLflow has it all."""
    counts = ledger.counts()
    searched = counts["pending"] == 0 and (ledger.exhausted or counts["planned"] >= spec.search.budget)
    tracked = (folder / TRACKED).exists() and (folder / TRACKED).read_text() == (spec.tracking.uri or "")
    return searched and tracked and report_path(folder).exists() and is_analysed(spec, folder, ledger)


def run_sweep(
    spec: SweepSpec, storage: Path, console: Console, *, source: Path | None = None, address: str | None = None
) -> Ended:
    """Runs a sweep to its end, or goes on with one. A complete one is left as it is.

    Args:
        spec: what to run.
        storage: folder of sweeps; this one is ``storage/<name>``.
        console: where progress is shown.
        source: the spec file, copied into the folder.
        address: a running Ray to use; None starts one on this machine.

    Raises:
        WmsweepError: see the parts; what was done so far stays and is gone on with at the next call.
    """
    folder, spec, _ = open_folder(spec, storage.resolve(), source)
    return _drive(spec, folder, console, address)


def resume_sweep(
    folder: Path, console: Console, *, more: int = 0, retry: bool = False, address: str | None = None
) -> Ended:
    """Goes on with a sweep from its folder alone.

    Args:
        folder: ``storage/<name>``.
        more: so many trials more than it has.
        retry: failed trials are trained again, too.

    Raises:
        InputError: it is no sweep's folder, it is being driven, or its space holds no more trials.
    """
    folder = folder.resolve()
    spec, ledger = read_folder(folder)
    return _drive(extended(spec, ledger, more) if more else spec, folder, console, address, retry)


def _drive(spec: SweepSpec, folder: Path, console: Console, address: str | None, retry: bool = False) -> Ended:
    """Args:
    spec: with the number of trials that the sweep is to have; the ledger may say fewer.
    retry: failed trials are trained again.
    """
    ledger = Ledger(folder / "ledger.jsonl")
    if is_complete(spec, folder, ledger) and not (retry and ledger.counts()["failed"]):
        return Ended(spec, folder, problems(spec, folder))
    display, stimuli = Display(console, spec), stimuli_folder(folder.parent)
    with driver_lock(folder), stderr_in(folder / LIBRARY_LOG), display.running():
        (folder / TRACKED).unlink(missing_ok=True)
        _learn(spec, folder)
        with Tracker(spec, folder) as tracker:
            with ExitStack() as stack:
                with display.stage("Start Ray and MLflow"):
                    if spec.tracking.uri is not None:
                        tracker.wait_until_open()  # a wrong address costs no Ray; a store of its own is made meanwhile
                    stack.enter_context(connected(address))
                    check_cluster(spec, folder)
                    tracker.wait_until_open()
                # Not before all that can be refused has passed: who tries again would extend or retry again.
                _extend(spec, folder)
                if retry:
                    tracker.retried(retry_failed(folder, Ledger(ledger.path)))
                prepare_stimuli(spec, stimuli, display)
                check_splits(spec, stimuli)
                search(spec, folder, stimuli, tracker, display)
                analyse_best(spec, folder, stimuli, display)
            _report(spec, folder, tracker, display)
    return Ended(spec, folder, _tracked(spec, folder, tracker) + problems(spec, folder))


def _extend(spec: SweepSpec, folder: Path) -> None:
    ledger = Ledger(folder / "ledger.jsonl")
    if ledger.budgets and spec.search.budget > ledger.budgets[-1]:
        ledger.append("extended", trials=spec.search.budget)


def _learn(spec: SweepSpec, folder: Path) -> None:
    """Takes what an earlier sweep knows into the ledger, before the first trial."""
    ledger = Ledger(folder / "ledger.jsonl")
    if not ledger.trials and not ledger.warm and (prior := read_prior(spec)) is not None:
        ledger.append("warmed", **prior)


def analyse_again(spec: SweepSpec, folder: Path, console: Console, *, address: str | None = None) -> list[str]:
    """Records and analyses the best checkpoints of a folder anew and writes the report; returns what failed."""
    display, stimuli = Display(console, spec), stimuli_folder(folder.parent)
    with driver_lock(folder), stderr_in(folder / LIBRARY_LOG), display.running(), Tracker(spec, folder) as tracker:
        with connected(address):
            tracker.wait_until_open()
            analyse_best(spec, folder, stimuli, display, again=True)
        _report(spec, folder, tracker, display)
    return _tracked(spec, folder, tracker) + problems(spec, folder)


def problems(spec: SweepSpec, folder: Path) -> list[str]:
    """A sentence for each trial that broke and each analysis that failed."""
    trials = Ledger(folder / "ledger.jsonl").in_order()
    failed = [trial for trial in trials if trial.state == "failed"]
    # That some variants diverge is a result of a search, which its table shows; that all do is none.
    broken = [t for t in failed if len(failed) == len(trials) or not any(kind in t.divergence for kind in FATAL)]
    return [f"variant {trial.number} failed: {trial.reason}" for trial in broken] + failures(spec, folder)


def _report(spec: SweepSpec, folder: Path, tracker: Tracker, display: Display) -> None:
    with display.stage("Write the report"):
        page = write_report(spec, folder, stimuli_folder(folder.parent))
        track_results(spec, folder, tracker)
        tracker.artifact(None, page.parent, "report")


def _tracked(spec: SweepSpec, folder: Path, tracker: Tracker) -> list[str]:
    if tracker.problem:
        return [tracker.problem]
    (folder / TRACKED).write_text(spec.tracking.uri or "")
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
    elsewhere = FinishedElsewhere(folder.parent, but=folder)
    for problem in elsewhere.unreadable:
        display.console.print(f"  nothing is reused from there: {problem}", markup=False)
    book = Bookkeeper(spec, folder, stimuli, [tracker, display], elsewhere)
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
