"""A sweep's study as a file that Optuna's own tools open."""

from __future__ import annotations

import warnings
from pathlib import Path

import optuna
from optuna.exceptions import ExperimentalWarning
from sqlalchemy.exc import SQLAlchemyError

from sweeps.ledger import Ledger
from sweeps.search import rebuilt
from sweeps.spec import SweepSpec
from wmcore.errors import InputError


def export_optuna(spec: SweepSpec, ledger: Ledger, file: Path) -> int:
    """Writes the sweep's trials to an SQLite file, as a study of its name; returns how many.

    Raises:
        InputError: the file exists, or cannot be written.
    """
    if file.exists():
        raise InputError("--optuna", "must be a file that does not exist yet", value=str(file), remedy="Name another.")
    if not file.parent.is_dir():
        raise InputError("--optuna", "must lie in a folder that exists", value=str(file), remedy="Make it first.")
    held = rebuilt(spec.search, ledger)
    trials = held.own_trials()
    partial = file.with_name(f".{file.name}.partial")
    partial.unlink(missing_ok=True)
    try:
        storage = optuna.storages.RDBStorage(f"sqlite:///{partial.resolve()}")
        study = optuna.create_study(study_name=spec.name, storage=storage, directions=held.study.directions)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            study.set_metric_names([objective.metric for objective in spec.search.objectives])
        study.add_trials(trials)
        storage.engine.dispose()
        partial.rename(file)
    except (OSError, SQLAlchemyError) as error:
        said = str(error).partition("\n")[0]
        raise InputError("--optuna", f"cannot be written ({said})", value=str(file), remedy="Name another.") from error
    finally:
        partial.unlink(missing_ok=True)
    return len(trials)
