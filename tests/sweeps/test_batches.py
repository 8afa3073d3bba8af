"""Synchronous batches: what is suggested depends on whole batches alone, never on what happened to end first."""

from __future__ import annotations

import json
import random
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from sweeps.bookkeeper import Bookkeeper
from sweeps.tune_adapters import BookSearcher
from tests.fixtures.sweeps import new_folder, small_sweep, train

CHANGES: dict[str, Any] = {
    "search.sampler": {"kind": "tpe", "seed": 3, "startup_trials": 3, "synchronous": True, "batch": 4},
    "search.scheduler": {"kind": "none"},
    "search.trials": 14,
}


def new_book(folder: Path, **changes: Any) -> Bookkeeper:
    spec = small_sweep(**{**CHANGES, **changes})
    return Bookkeeper(spec, new_folder(spec, folder), folder / "stimuli", [])


def goodness(book: Bookkeeper, trial_id: str) -> float:
    return 0.9 - abs(book.ledger.trials[trial_id].point["training.optimizer.lr"] - 0.01) * 10


def drive(book: Bookkeeper, at_once: int, order: random.Random, kill_at: int | None = None) -> Bookkeeper:
    """Trains everything, so many trials at once; which of the running ones ends first is drawn."""
    running: list[str] = []
    ended = 0
    while True:
        while len(running) < at_once and (config := book.next_trial()) is not None:
            running.append(config["trial_id"])
        if not running:
            return book
        trial_id = running.pop(order.randrange(len(running)))
        train(book, trial_id, [goodness(book, trial_id)] * 4)
        ended += 1
        if ended == kill_at:
            book, running = Bookkeeper(book.spec, book.folder, book.stimuli, []), []


def table(book: Bookkeeper) -> list[tuple[int, str, str]]:
    return [(t.number, t.trial_id, json.dumps(t.reports)) for t in book.ledger.in_order()]


def test_the_table_is_the_same_however_many_run_at_once_and_whichever_ends_first(tmp_path):
    alone = table(drive(new_book(tmp_path / "one"), 1, random.Random(0)))
    assert len(alone) == 14
    for at_once in (2, 4, 8):
        for seed in range(3):
            book = new_book(tmp_path / f"{at_once}_{seed}")
            assert table(drive(book, at_once, random.Random(seed))) == alone
    for kill_at in (1, 5, 8, 13):
        book = new_book(tmp_path / f"killed_{kill_at}")
        assert table(drive(book, 3, random.Random(kill_at), kill_at)) == alone


def test_without_batches_the_order_of_ends_does_matter(tmp_path):
    """Otherwise the test above could not fail."""
    changes = {"search.sampler": {"kind": "tpe", "seed": 3, "startup_trials": 3}}
    tables = {str(table(drive(new_book(tmp_path / f"{seed}", **changes), 4, random.Random(seed)))) for seed in range(4)}
    assert len(tables) > 1


def test_a_batch_is_planned_whole_before_any_of_it_starts(tmp_path):
    book = new_book(tmp_path)
    book.next_trial()
    assert len(book.ledger.trials) == 4


def test_a_kill_while_a_batch_is_planned_changes_nothing(tmp_path):
    whole = new_book(tmp_path / "whole")
    whole.next_trial()
    cut = new_book(tmp_path / "cut")
    cut.next_trial()
    lines = cut.ledger.path.read_text().splitlines(keepends=True)
    cut.ledger.path.write_text("".join(lines[:3]))  # the spec and two of four
    again = Bookkeeper(cut.spec, cut.folder, cut.stimuli, [])
    assert again.next_trial() is not None
    assert again.next_trial() is not None
    assert again.next_trial() is not None
    assert list(again.ledger.trials) == list(whole.ledger.trials)


@pytest.mark.parametrize("planned", [3, 11])
def test_the_rest_of_such_a_batch_is_planned_before_any_of_it_trains(tmp_path, planned):
    """Otherwise it would be suggested from the outcomes of its own trials."""
    whole = drive(new_book(tmp_path / "whole"), 1, random.Random(0))
    lines = whole.ledger.path.read_text().splitlines(keepends=True)
    last = [number for number, line in enumerate(lines) if '"planned"' in line][planned - 1]
    cut = new_book(tmp_path / "cut")
    cut.ledger.path.write_text("".join(lines[: last + 1]))
    again = Bookkeeper(cut.spec, cut.folder, cut.stimuli, [])
    assert table(drive(again, 1, random.Random(0))) == table(whole)


def test_the_searcher_waits_between_batches(tmp_path):
    book = new_book(tmp_path)
    searcher = BookSearcher(book)
    ids = [searcher.suggest(f"ray{i}")["trial_id"] for i in range(4)]
    for trial_id in ids[:3]:
        assert searcher.suggest("early") is None
        assert book.waits
        train(book, trial_id, [0.5] * 4)
    assert searcher.suggest("still early") is None
    train(book, ids[3], [0.5] * 4)
    assert searcher.suggest("now")["trial_id"] not in ids


@pytest.mark.parametrize("kind", ["tpe", "random"])
def test_nothing_waits_without_batches(tmp_path, kind):
    book = new_book(tmp_path, **{"search.sampler": {"kind": kind, "seed": 1}})
    assert [book.next_trial() is not None for _ in range(15)] == [True] * 14 + [False]
    assert not book.waits


def test_batches_cost_no_memory(tmp_path):
    """Where they begin is computed: a sweep may be given a million trials and end with its space."""
    book = new_book(tmp_path, **{"search.trials": 1_000_000})
    tracemalloc.start()
    assert book.next_trial() is not None
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 5_000_000
