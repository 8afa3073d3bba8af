"""The report's page and figures, from small tables."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from analysis_jobs import report_figures as figures
from analysis_jobs.report import AnalysisView, Headline, ReportData, html_table, write

EMPTY = pd.DataFrame()
BARE = ReportData(
    title="Sweep small",
    summary="0 of 5 trials",
    headline=None,
    variants=EMPTY,
    splits={},
    sampling=EMPTY,
    gates=(),
    contact_sheets=(),
    figures={},
    captions={},
    analyses=(),
    spec_yaml="name: small\n",
    versions={"torch": "2.11"},
)
BASELINES = {"chance": 0.5, "category_only": 0.62}
REPORTS = pd.DataFrame(
    {
        "trial": [0, 0, 0, 1, 2, 2],
        "state": ["finished"] * 3 + ["pruned"] + ["finished"] * 2,
        "step": [10, 20, 30, 10, 10, 20],
        "value": [0.5, 0.7, 0.8, 0.45, 0.6, np.nan],
    }
)
POINTS = pd.DataFrame(
    {
        "state": ["finished", "pruned", "finished"],
        "value": [0.8, 0.45, 0.6],
        "model.cell": ["gru", "vanilla", "gru"],
        "training.optimizer.lr": [1e-3, 1e-2, 1e-4],
        "model.hidden_size": [8, 16, 32],
        "task.different_view": [True, False, True],
    }
)
SCORES = pd.DataFrame(
    [
        {
            "split": split,
            "metric": metric,
            "estimate": value,
            "ci_low": value - 0.1,
            "ci_high": value + 0.05,
            **BASELINES,
        }
        for split in ("select", "test", "test_both")
        for metric, value in (("accuracy", 0.8), ("accuracy_n1_location", 0.9))
    ]
)


def written(data: ReportData, folder: Path) -> str:
    page = write(data, folder / "report")
    assert page == folder / "report" / "index.html"
    assert not list(page.parent.glob(".index*"))
    return page.read_text()


def test_nothing_finished_yet(tmp_path):
    text = written(BARE, tmp_path)
    assert "<h1>Sweep small</h1>" in text
    assert "0 of 5 trials" in text
    assert "is best on selection" not in text
    assert "The spec names none." in text
    assert "torch 2.11" in text
    assert "{{" not in text


def test_every_text_is_escaped(tmp_path):
    bad = "<script>alert('x')</script> & more"
    (tmp_path / "a&b.png").write_bytes(b"sheet")
    data = replace(
        BARE,
        title=bad,
        summary=bad,
        notes=[bad],
        spec_yaml=bad,
        variants=pd.DataFrame({bad: [bad]}),
        gates=[(bad, pd.DataFrame({"property": [bad]}))],
        contact_sheets=[tmp_path / "a&b.png"],
        analyses=[AnalysisView(bad, (), None, None, bad)],
        versions={bad: bad},
        figures={"a": Figure()},
        captions={"a": bad},
    )
    text = written(data, tmp_path)
    assert "<script>" not in text
    assert text.count("&lt;script&gt;") >= 10
    assert 'src="files/a&amp;b.png"' in text


def test_the_headline_stands_beside_its_baselines(tmp_path):
    headline = Headline(3, "accuracy", 0.9126, (0.89, 0.93), "48 trials", BASELINES, single=True)
    text = " ".join(written(replace(BARE, headline=headline), tmp_path).split())
    assert "Variant 3 is best on selection. On the test split its accuracy is <strong>0.913</strong>" in text
    assert "(95 % interval 0.890 to 0.930, n = 48 trials)" in text
    assert "chance 0.500, category only 0.620." in text
    assert "how much another seed would differ is not in it" in text
    several = written(replace(BARE, headline=replace(headline, single=False, chosen="by far")), tmp_path)
    assert "another seed" not in several
    assert "Variant 3 is best by far. On" in several


def test_what_is_said_of_the_variants(tmp_path):
    table = pd.DataFrame({"variant": [1], "note": ["at chance 2/3"]})
    data = replace(BARE, variants=table, divergence="at chance: 1 trial", explained="Figures are means.")
    text = " ".join(written(data, tmp_path).split())
    assert '<p class="warning">Diverged: at chance: 1 trial.</p>' in text
    assert "has no test figure. Figures are means.</p>" in text
    assert 'class="scroll tall noted"' in text
    bare = written(replace(BARE, variants=table[["variant"]]), tmp_path)
    assert 'class="warning"' not in bare
    assert 'class="scroll tall"' in bare


def test_an_analysis_that_failed_is_shown_beside_one_that_did_not(tmp_path):
    path = tmp_path / "trials" / "a" / "decoding.parquet"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"table")
    path.with_suffix(".png").write_bytes(b"figure")
    views = [
        AnalysisView("decoding of variant 1", [path.with_suffix(".png")], pd.DataFrame({"estimate": [0.5]}), path),
        AnalysisView("trajectories of variant 1", (), None, None, "trajectories failed: no condition 'colour'."),
    ]
    text = written(replace(BARE, analyses=views), tmp_path)
    assert '<p class="problem">trajectories failed: no condition &#39;colour&#39;.</p>' in text
    assert text.count('class="problem"') == 1
    # What is shown lies beside the page, so that the report can be moved on its own.
    assert 'href="files/decoding_of_variant_1_decoding.parquet">decoding.parquet</a>' in text
    assert 'src="files/decoding_of_variant_1_decoding.png"' in text
    assert (tmp_path / "report" / "files" / "decoding_of_variant_1_decoding.png").read_bytes() == b"figure"
    assert "<td>0.500</td>" in text


def test_figures_are_written_where_the_page_links_them(tmp_path):
    figure = figures.learning_curves(REPORTS, BASELINES, "select/accuracy", [10])
    data = replace(BARE, figures={"learning_curves": figure}, captions={"learning_curves": "As it trained."})
    text = written(data, tmp_path)
    assert 'src="files/learning_curves.png"' in text
    assert "<figcaption>As it trained.</figcaption>" in text
    assert (tmp_path / "report" / "files" / "learning_curves.png").read_bytes().startswith(b"\x89PNG")


def test_a_page_is_replaced_whole(tmp_path):
    written(BARE, tmp_path)
    assert "another" in written(replace(BARE, title="another"), tmp_path)


def test_numbers_are_short_and_gaps_are_empty():
    text = html_table(pd.DataFrame({"lr": [1.23456e-4, np.nan], "accuracy": [0.123456, 0.0]}))
    for shown in ("<td>0.000123</td>", "<td>0.123</td>", "<td>0.000</td>", "<td></td>"):
        assert shown in text


def test_long_names_can_be_wrapped_after_their_signs():
    text = html_table(pd.DataFrame({"training.optimizer.lr": [1], "select/d_prime": [2], "plain": [3]}))
    space = "\N{ZERO WIDTH SPACE}"
    for shown in (f"training.{space}optimizer.{space}lr", f"select/{space}d_{space}prime", ">plain<"):
        assert shown in text


class TestFigures:
    def axes(self, figure: Figure) -> list[Axes]:
        figure.draw_without_rendering()
        return figure.axes

    def legend(self, figure: Figure) -> list[str]:
        return [text.get_text() for legend in figure.legends for text in legend.get_texts()]

    def test_learning_curves(self):
        figure = figures.learning_curves(REPORTS, BASELINES, "select/accuracy", [10, 20])
        (axes,) = self.axes(figure)
        assert (axes.get_xlabel(), axes.get_ylabel()) == ("optimiser steps", "select/accuracy")
        labels = self.legend(figure)
        assert sorted(labels) == ["category only", "chance", "early-stopping rung", "finished", "pruned"]
        levels = {line.get_label(): line.get_ydata()[0] for line in axes.get_lines() if len(set(line.get_ydata())) == 1}
        assert levels["chance"] == 0.5
        assert levels["category only"] == 0.62
        curves = [line for line in axes.get_lines() if list(line.get_xdata()) == [10, 20, 30]]
        assert [list(line.get_ydata()) for line in curves] == [[0.5, 0.7, 0.8]]
        assert curves[0].get_color() == figures.STATE_COLOURS["finished"]

        # The last number of every trial, also of one whose last report was none.
        dots = {(line.get_xdata()[0], line.get_ydata()[0]) for line in axes.get_lines() if line.get_marker() == "o"}
        assert dots == {(30, 0.8), (10, 0.45), (10, 0.6)}

    def test_training_history(self):
        history = pd.DataFrame({"step": [10, 20], "train/loss": [2.0, 1.0], "select/a": [0.1, 0.4], "select/a_L2": 0.5})
        loss, metrics = self.axes(figures.training_history(history, ["select/a", "select/a_L2"], "a"))
        assert [list(line.get_ydata()) for line in loss.get_lines()] == [[2.0, 1.0]]
        legend = metrics.get_legend()
        assert [text.get_text() for text in legend.get_texts()] == ["overall", "L2"]
        assert [list(line.get_ydata()) for line in metrics.get_lines()] == [[0.1, 0.4], [0.5, 0.5]]
        assert (metrics.get_xlabel(), metrics.get_ylabel(), loss.get_ylabel()) == (
            "optimiser steps",
            "a",
            "training loss",
        )

    def test_training_history_shows_the_stages_of_a_curriculum(self):
        history = pd.DataFrame({"step": [10, 20], "train/loss": 1.0, "select/a": 0.5, "train/stage": [1.0, 1.4]})
        *_, stages = self.axes(figures.training_history(history, ["select/a"], "a"))
        assert [list(line.get_ydata()) for line in stages.get_lines()] == [[1.0, 1.4]]
        assert stages.get_ylabel() == "stage"
        assert stages.get_ylim()[0] < 1 < 1.4 < stages.get_ylim()[1]

    def test_learning_curves_of_every_state(self):
        """A sweep's report can be written while it runs, and after it was killed."""
        states = ["finished", "reused", "pruned", "failed", "running", "planned"]
        reports = pd.DataFrame({"trial": range(6), "state": states, "step": 10, "value": 0.5})
        assert set(states) <= set(self.legend(figures.learning_curves(reports, {}, "a", [])))

    def test_learning_curves_of_replicates(self):
        values = [0.4, 0.6, 0.8, 0.6, 0.8, 0.8]
        single = pd.DataFrame({"trial": 0, "replicate": [0, 0, 0, 1, 1, 1], "step": [10, 20, 30] * 2, "value": values})
        single = pd.concat([pd.DataFrame({"trial": 2, "replicate": [0, 1], "step": 10, "value": [0.5, 0.7]}), single])
        figure = figures.learning_curves(REPORTS, BASELINES, "select/accuracy", [10], single)
        everything, *panels = self.axes(figure)
        assert [p.get_title(loc="left") for p in panels] == ["variant 2, n = 2", "variant 0, n = 2"]
        lines = [line for line in panels[1].get_lines() if list(line.get_xdata()) == [10, 20, 30]]
        assert [(list(line.get_ydata()), line.get_linewidth()) for line in lines] == [
            ([0.4, 0.6, 0.8], 0.8),
            ([0.6, 0.8, 0.8], 0.8),
            ([0.5, 0.7, 0.8], 2.0),  # the mean
        ]
        assert panels[0].get_ylim() == everything.get_ylim()
        labels = self.legend(figure)
        assert len(labels) == len(set(labels))
        assert {"one replicate", "chance", "finished"} <= set(labels)

    def test_pareto_of_two(self):
        """The area under the staircase is what some variant attains."""
        points = pd.DataFrame(
            {
                "variant": [3, 1, 4, 0],
                "front": [True, True, False, True],
                "select/accuracy": [0.9, 0.7, 0.7, 0.8],
                "select/loss": [3.0, 1.0, 2.5, 2.0],
            }
        )
        objectives = {"select/accuracy": "max", "select/loss": "min"}
        policies = {
            "chance": {"select/accuracy": 0.5, "select/loss": 4.0},
            "guess": {"select/accuracy": 0.6},
            "prior": {"select/loss": 3.5},
            "none": {},
        }
        figure = figures.pareto(points, objectives, policies)
        (axes,) = self.axes(figure)
        assert axes.get_xlabel() == "select/accuracy (more is better)"
        assert axes.get_ylabel() == "select/loss (less is better)"
        joined = next(line for line in axes.get_lines() if line.get_drawstyle() == "steps-pre")
        assert list(zip(joined.get_xdata(), joined.get_ydata(), strict=True)) == [(0.7, 1.0), (0.8, 2.0), (0.9, 3.0)]
        dots = {c.get_label(): c.get_offsets().tolist() for c in axes.collections}
        assert dots["finished variant"] == [[0.7, 2.5]]
        assert dots["on the Pareto front"] == [[0.9, 3.0], [0.7, 1.0], [0.8, 2.0]]
        assert {(t.get_text(), *t.xy) for t in axes.texts} == {("3", 0.9, 3.0), ("1", 0.7, 1.0), ("0", 0.8, 2.0)}
        drawn = {line.get_label(): (set(line.get_xdata()), set(line.get_ydata())) for line in axes.get_lines()}
        assert drawn["chance"] == ({0.5}, {4.0})
        assert drawn["guess"][0] == {0.6}
        assert drawn["prior"][1] == {3.5}
        assert set(self.legend(figure)) == {"chance", "guess", "prior", "finished variant", "on the Pareto front"}

    def test_pareto_where_less_of_the_first_is_better(self):
        points = pd.DataFrame({"variant": [0, 1], "front": True, "a": [1.0, 2.0], "b": [1.0, 3.0]})
        (axes,) = self.axes(figures.pareto(points, {"a": "min", "b": "max"}, {}))
        (joined,) = axes.get_lines()
        assert (joined.get_drawstyle(), list(joined.get_xdata())) == ("steps-post", [1.0, 2.0])

    @pytest.mark.parametrize(("objectives", "panels"), [(3, 2), (5, 4), (8, 6)])
    def test_pareto_of_several(self, objectives, panels):
        """Each panel joins the variants that are best in its two objectives."""
        names = [f"select/{letter}" for letter in "abcdefgh"[:objectives]]
        values = {name: [0.1, 0.2, 0.3] if i == 1 else [0.3, 0.2, 0.1] for i, name in enumerate(names)}
        points = pd.DataFrame({"variant": [0, 1, 2], "front": True, **values})
        found = self.axes(figures.pareto(points, dict.fromkeys(names, "max"), {"chance": {"select/a": 0.0}}))
        assert [axes.get_ylabel().split()[0] for axes in found] == names[1 : panels + 1]
        joined = [next(line for line in axes.get_lines() if line.get_drawstyle() == "steps-pre") for axes in found]
        assert [len(line.get_xdata()) for line in joined] == [3] + [1] * (panels - 1)

    def test_search_space_without_what_does_not_apply(self):
        points = POINTS.assign(**{"model.dropout": [0.1, np.nan, 0.3], "model.cell": ["gru", np.nan, "gru"]})
        panels = {p.get_xlabel(): p for p in self.axes(figures.search_space(points, "a", []))}
        drawn = {name: sum(len(c.get_offsets()) for c in panel.collections) for name, panel in panels.items()}
        assert (drawn["dropout"], drawn["cell"], drawn["lr"]) == (2, 2, 3)
        assert [t.get_text() for t in panels["cell"].get_xticklabels()] == ["gru"]

    def test_search_space(self):
        figure = figures.search_space(POINTS, "select/accuracy", ["training.optimizer.lr"])
        panels = self.axes(figure)
        assert [p.get_xlabel() for p in panels] == ["cell", "lr", "hidden size", "different view"]
        assert [p.get_xscale() for p in panels] == ["linear", "log", "linear", "linear"]
        assert panels[0].get_ylabel() == panels[3].get_ylabel() == "select/accuracy"
        assert [t.get_text() for t in panels[0].get_xticklabels()] == ["gru", "vanilla"]
        assert [t.get_text() for t in panels[3].get_xticklabels()] == ["False", "True"]
        for panel in panels:
            dots = {
                to_hex(c.get_facecolor()[0]).upper(): c.get_offsets() for c in panel.collections if len(c.get_offsets())
            }
            assert {colour: len(offsets) for colour, offsets in dots.items()} == {"#0072B2": 2, "#E69F00": 1}

    @pytest.mark.parametrize("bounds", [(1e-4, 1e-2), (1e-3, 6e-3), (1e-5, 1e-1), (2e-3, 3e-3)])
    def test_labels_of_a_logarithmic_axis_can_be_read(self, bounds):
        points = POINTS.assign(**{"training.optimizer.lr": [bounds[0], bounds[1], sum(bounds) / 2]})
        figure = figures.search_space(points, "select/accuracy", ["training.optimizer.lr"])
        axes = self.axes(figure)[1]
        low, high = axes.get_xlim()
        labels = [t for t in axes.get_xticklabels() if t.get_text() and low <= t.get_position()[0] <= high]
        assert labels
        boxes = sorted((label.get_window_extent() for label in labels), key=lambda box: box.x0)
        assert all(a.x1 < b.x0 for a, b in pairwise(boxes))

    def test_by_metric(self):
        figure = figures.by_metric(SCORES, "accuracy", list(BASELINES))
        panels = self.axes(figure)
        assert [p.get_title(loc="left") for p in panels] == ["select", "test", "test both"]
        assert {"chance", "category only"} <= set(self.legend(figure))
        for panel in panels:
            assert panel.get_ylim()[0] < 0.5
            heights = {round(float(s[0][1]), 3) for c in panel.collections for s in getattr(c, "get_segments", list)()}
            assert {0.5, 0.62} <= heights  # the baselines
            assert {0.7, 0.8} <= heights  # lower ends of the intervals
        assert panels[0].get_ylabel() == "accuracy"

    def test_by_metric_with_what_could_not_be_measured(self):
        gaps = SCORES.assign(ci_low=np.nan, ci_high=np.nan)
        gaps.loc[1, ["estimate", "chance"]] = np.nan
        assert len(self.axes(figures.by_metric(gaps, "accuracy", list(BASELINES)))) == 3

    @pytest.mark.parametrize("name", ["learning_curves", "search_space", "by_metric"])
    def test_they_can_be_drawn(self, tmp_path, name):
        figure = {
            "learning_curves": lambda: figures.learning_curves(REPORTS, BASELINES, "select/accuracy", [10, 20]),
            "search_space": lambda: figures.search_space(POINTS, "select/accuracy", ["training.optimizer.lr"]),
            "by_metric": lambda: figures.by_metric(SCORES, "accuracy", list(BASELINES)),
        }[name]()
        figure.savefig(tmp_path / f"{name}.png", dpi=150)
        assert (tmp_path / f"{name}.png").stat().st_size > 10_000
