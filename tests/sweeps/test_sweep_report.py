"""The report of a sweep from a ledger written by hand: what it says of objectives, replicates and failures."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from sweeps import report as report_module
from sweeps.report import write_report
from sweeps.sweep_figures import split_scores, sweep_figures
from sweeps.table import variants
from tests.fixtures.ledgers import ACCURACY, LURES, finish, open_ledger, plan, report, sweep_of_two, train, varied_sweep
from tests.fixtures.sweeps import small_sweep, write_banks


@pytest.fixture(scope="module")
def two():
    return sweep_of_two()


@pytest.fixture(scope="module")
def stimuli(two, tmp_path_factory) -> Path:
    return write_banks(tmp_path_factory.mktemp("stimuli"), two.trial.task.stimulus_spec())


@pytest.fixture(scope="module")
def page(two, stimuli, tmp_path_factory) -> Path:
    storage = tmp_path_factory.mktemp("storage")
    varied_sweep(two, storage)
    return write_report(two, storage / "small", stimuli)


def cells(text: str) -> list[list[str]]:
    """The table of variants: its header and its rows."""
    table = text[text.index("<table") : text.index("</table>")].replace("\N{ZERO WIDTH SPACE}", "")
    found = [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row, re.DOTALL) for row in table.split("<tr")[1:]]
    return [[cell.strip() for cell in row] for row in found]


def words(page: Path) -> str:
    return " ".join(page.read_text().split())


def test_the_table_says_everything_of_every_variant(page):
    header, *rows = cells(page.read_text())
    assert header == [
        "variant",
        "state",
        "steps",
        "Pareto front",
        ACCURACY,
        LURES,
        "test/accuracy",
        "test/accuracy_lures",
        "model.cell",
        "training.optimizer.lr",
        "note",
    ]
    assert [row[0] for row in rows] == ["0", "1", "6", "2", "4", "3", "5", "7", "9", "10", "11", "8"]
    assert [row[3] for row in rows] == ["●"] * 5 + [""] * 7
    found = {row[0]: dict(zip(header, row, strict=True)) for row in rows}
    assert found["0"][ACCURACY] == "0.926 ± 0.021"
    assert found["0"][LURES] == "0.597"
    assert (found["6"]["state"], found["6"]["note"]) == ("reused", "from earlier")
    assert found["7"]["note"] == "at chance 2/3"
    assert found["8"]["note"] == "diverged by step 20: nonfinite_loss in 1 of 3 replicates"


def test_the_page_says_what_its_figures_are(page):
    text = words(page)
    assert "12 of 12 trials: 8 finished (1 reused), 0 pruned, 1 failed, 2 running, 1 planned" in text
    assert "Diverged: at chance: 1 trial; nonfinite loss: 1 trial." in text
    assert "Variant 8 failed: diverged by step 20" in text
    assert (
        "Variant 0 is best on selection by accuracy, the first of 2 objectives, and on the Pareto front, with " in text
    )
    assert "with variants 1, 6, 2, 4. On the test split its accuracy is <strong>0.926</strong>" in text
    assert "n = 3 replicates)" in text
    assert "those of one set of weights, its best by select/accuracy." in text
    assert "Figures are mean ± standard deviation over n = 3 replicates." in text
    assert "another seed" not in text


def test_its_figures_are_there_with_captions(page):
    text = words(page)
    assert re.findall(r'src="files/(\w+)\.png"', text)[:5] == [
        "pareto",
        "learning_curves",
        "training_history",
        "search_space",
        "best_by_metric",
    ]
    assert (
        "The objectives of 8 finished variants, each at its best weights by select/accuracy (the mean of n = 3" in text
    )
    assert "5 are on the Pareto front" in text
    assert (
        "select/accuracy of every variant as it trained (the mean of n = 3 replicates), beside its baselines." in text
    )
    assert "Below: the 3 best variants, the mean with each of the n replicates." in text
    for name in ("pareto", "learning_curves"):
        assert (page.parent / "files" / f"{name}.png").read_bytes().startswith(b"\x89PNG")


def test_a_single_objective_of_single_networks_has_nothing_of_it(stimuli, tmp_path):
    spec = small_sweep(analyses=[], recording={})
    ledger = open_ledger(spec, tmp_path)
    for number in range(3):
        trial_id = plan(ledger, spec)
        train(ledger, trial_id, 10 if number else 40, {ACCURACY: 0.9 - 0.1 * number}, networks=1)
        if number:
            ledger.append("pruned", trial_id=trial_id, step=10)
        else:
            finish(ledger, spec, trial_id)
    page = write_report(spec, tmp_path / "small", stimuli)
    text = words(page)
    assert "Variant 0 is best on selection. On the test split its accuracy is <strong>" in text
    header, *rows = cells(page.read_text())
    assert header == ["variant", "state", "steps", ACCURACY, "test/accuracy", "model.cell", "training.optimizer.lr"]
    value = f"{ledger.in_order()[0].best(ACCURACY, 'max')[1]:.3f}"
    assert rows[0] == ["0", "finished", "40", value, value, "gru", "0.001"]
    for word in ("Pareto", "±", "Diverged", 'class="warning"', "the mean of", "Below", "one set of weights"):
        assert word not in text
    assert "Pruned variants (orange) had fewer steps." in text
    assert "how much another seed would differ is not in it" in text


def test_before_anything_has_finished(two, stimuli, tmp_path):
    ledger = open_ledger(two, tmp_path)
    assert "No variant has trained to its end." in words(write_report(two, tmp_path / "small", stimuli))
    report(ledger, plan(ledger, two), 10, {ACCURACY: [0.5, 0.6, 0.7], LURES: [0.5] * 3})
    drawn = sweep_figures(two, ledger, variants(two, ledger), None)
    assert list(drawn) == ["learning_curves", "search_space"]
    assert split_scores(None).empty


def test_a_report_without_a_number_can_be_drawn(two, tmp_path):
    """A replicate that has diverged makes its mean undefined."""
    ledger = open_ledger(two, tmp_path)
    nan = float("nan")
    report(ledger, plan(ledger, two), 10, {ACCURACY: [nan, nan, nan], LURES: [nan] * 3})
    assert list(sweep_figures(two, ledger, variants(two, ledger), None)) == ["learning_curves"]


def test_of_many_failures_the_first_are_named(two, stimuli, tmp_path):
    ledger = open_ledger(two, tmp_path)
    for number in range(12):
        ledger.append("failed", trial_id=plan(ledger, two), reason=f"reason {number}", divergence={})
    text = words(write_report(two, tmp_path / "small", stimuli))
    assert text.count('class="problem"') == report_module._FAILED + 1 == 11
    assert "Variant 9 failed: reason 9" in text
    assert "2 more failed: the notes in the table of variants say why." in text
    assert text.count("reason 11") == 1  # in the table


def test_many_variants_are_drawn_in_part(two, tmp_path, monkeypatch):
    monkeypatch.setattr("sweeps.sweep_figures._CURVES", 3)
    ledger = varied_sweep(two, tmp_path)
    figure, caption = sweep_figures(two, ledger, variants(two, ledger), None)["learning_curves"]
    assert caption.startswith("select/accuracy of the 3 best variants as it trained")
    curves = [line for line in figure.axes[0].get_lines() if len(line.get_xdata()) == 4]
    assert len(curves) == 3


def test_settings_that_do_not_apply_and_settings_of_nothing(two, tmp_path):
    spec = small_sweep(
        **{
            "search.space": {
                "training.grad_clip": {"choice": [None, 1.0]},
                "model.cell": {"choice": ["gru", "vanilla"]},
            }
        }
    )
    ledger = open_ledger(spec, tmp_path)
    report(ledger, plan(ledger, spec, **{"training.grad_clip": None, "model.cell": "gru"}), 10, {ACCURACY: [0.5]})
    report(ledger, plan(ledger, spec, **{"training.grad_clip": 1.0}), 10, {ACCURACY: [0.6]})
    figure, _ = sweep_figures(spec, ledger, variants(spec, ledger), None)["search_space"]
    figure.draw_without_rendering()
    clip, cell = figure.axes
    assert [label.get_text() for label in clip.get_xticklabels()] == ["1.0", "none"]
    assert [label.get_text() for label in cell.get_xticklabels()] == ["gru"]
