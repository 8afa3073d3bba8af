"""Thin adapters between Ray Tune and the sweep's own parts: suggestions, early stopping, and the record.

Tune pickles these with its own state, so none holds an open file, and each gives that state up: what a sweep is lies
in the ledger alone.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from ray.tune import Callback
from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

if TYPE_CHECKING:
    from sweeps.bookkeeper import Bookkeeper


class _StatelessForTune:
    """Pickles as an empty shell: nothing is ever restored from Tune's files."""

    def __getstate__(self) -> dict[str, Any]:
        return {}


class BookSearcher(_StatelessForTune, Searcher):
    """Serves the book's next trial: unfinished ones first, then new suggestions."""

    def __init__(self, book: Bookkeeper) -> None:
        super().__init__(metric=None, mode=None)
        self._book = book

    def suggest(self, trial_id: str) -> dict[str, Any] | None:
        config = self._book.next_trial()
        if config is None and self._book.waits:
            return None  # asked again when a trial has ended
        return Searcher.FINISHED if config is None else config  # pyright: ignore[reportReturnType] - as documented

    def on_trial_complete(self, trial_id: str, result: dict | None = None, error: bool = False) -> None:
        """Outcomes reach the study through ``BookCallback``, which sees every result."""

    def save(self, checkpoint_path: str) -> None:
        """Nothing to save."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing to restore."""


class BookScheduler(_StatelessForTune, FIFOScheduler):
    """Asks the book whether a trial goes on."""

    def __init__(self, book: Bookkeeper) -> None:
        super().__init__()
        self._book = book

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        stops = self._book.decide(trial.config["trial_id"], json.loads(result["report"])["evaluation"])
        return TrialScheduler.STOP if stops else TrialScheduler.CONTINUE

    def choose_trial_to_run(self, tune_controller: Any) -> Any:
        """The newest trial that waits: it takes an actor that has become free. So would the oldest, which Tune chooses
        by itself, and Tune would then end the actor that was about to start for it: short trials would run one after
        the other."""
        trials = reversed(tune_controller.get_trials())
        return next((trial for trial in trials if trial.status == Trial.PENDING), None)


class BookCallback(_StatelessForTune, Callback):
    """Writes what happened: Tune calls it for every result, the last and the stopping one included."""

    def __init__(self, book: Bookkeeper) -> None:
        self._book = book

    def on_trial_start(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
        self._book.started(trial.config["trial_id"])

    def on_trial_result(self, iteration: int, trials: list, trial: Any, result: dict, **info: Any) -> None:
        self._book.reported(trial.config["trial_id"], json.loads(result["report"]))

    def on_trial_error(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
        self._book.failed(trial.config["trial_id"], _reason(trial))


def _reason(trial: Any) -> str:
    """The last line of what an actor died of."""
    text = str(trial.get_error() or "the worker ended without a result").strip()
    return text.splitlines()[-1][:500]
