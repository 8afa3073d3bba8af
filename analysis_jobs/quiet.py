"""Ray Data without its own bars and notes: progress is reported by whoever runs a job."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from ray.data import DataContext


@contextmanager
def quiet() -> Iterator[None]:
    """Silences Ray Data inside; its settings are restored afterwards."""
    context, logger = DataContext.get_current(), logging.getLogger("ray.data")
    bars, level = context.enable_progress_bars, logger.level
    context.enable_progress_bars = False
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        context.enable_progress_bars = bars
        logger.setLevel(level)
