"""The sweep spec as a value: variants, defaults, and that no input whatever ends in anything but a message."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from sweeps.banks import stimulus_specs
from sweeps.loading import load_sweep
from sweeps.nearest import nearest
from sweeps.spec import SweepSpec
from tests.fixtures.sweeps import small_sweep
from wmcore.errors import InputError

GOOD = Path(__file__).with_name("good.yaml").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def sweep(tmp_path_factory) -> SweepSpec:
    path = tmp_path_factory.mktemp("spec") / "good.yaml"
    path.write_text(GOOD, encoding="utf-8")
    return load_sweep(path)


def test_trial_for_changes_only_the_point(sweep):
    point = {"model.cell": "lstm", "training.optimizer.lr": 0.002, "model.dropout": 0.1}
    trial = sweep.trial_for(point)
    assert (trial.model.cell, trial.training.optimizer.lr, trial.model.dropout) == ("lstm", 0.002, 0.1)
    same = {"model.cell": "gru", "training.optimizer.lr": 0.001, "model.dropout": 0}
    assert sweep.trial_for(same).trial_id == sweep.trial.trial_id != trial.trial_id
    assert trial.task == sweep.trial.task


def test_trial_for_replaces_whole_mappings(sweep):
    trial = sweep.trial_for({"model": {"kind": "rnn", "hidden_size": 7}})
    assert trial.model.hidden_size == 7
    assert trial.model.cell == "gru"
    assert trial.model.trunk_size == 256


def test_whole_mappings_of_different_kinds_can_be_searched(tmp_path):
    path = tmp_path / "spec.yaml"
    path.write_text(GOOD, encoding="utf-8")
    views = "search.space.task.stimuli.views={choice: [{kind: interpolated, train_views: 6}, {kind: published}]}"
    sweep = load_sweep(path, [views, "trial.task.different_view=false"])
    found = [sweep.trial_for(point) for point in sweep.search.space.points_at("task.stimuli.views")]
    assert [trial.task.stimuli.views.kind for trial in found] == ["interpolated", "published"]


def test_trial_for_refuses_with_the_path(sweep):
    with pytest.raises(InputError, match=r"model.hidden_size is 0, but it must be an integer of at least 1"):
        sweep.trial_for({"model.hidden_size": 0})


def test_what_it_writes_is_what_it_reads(sweep):
    data = json.loads(sweep.canonical_json())
    assert list(data["search"]["space"]) == sorted(sweep.search.space.paths)
    again = SweepSpec.parse(sweep.model_dump(mode="json"))
    assert again == sweep
    assert again.content_hash() == sweep.content_hash()
    assert again.search.space.paths == sweep.search.space.paths


def test_defaults():
    data = {
        "name": "x",
        "trial": {"task": {"kind": "nback"}, "model": {"kind": "rnn"}},
        "search": {
            "space": {"model.cell": {"choice": ["gru", "lstm"]}},
            "objective": {"metric": "select/accuracy"},
            "trials": 2,
        },
    }
    spec = SweepSpec.parse(data)
    assert (spec.search.sampler.kind, spec.search.scheduler.kind, spec.search.objective.mode) == ("tpe", "none", "max")
    assert (spec.resources.cpu, spec.resources.gpu, spec.resources.concurrency) == (1, 0, None)
    assert (spec.checkpoints.best, spec.analyses, spec.tracking.uri) == (2, (), None)
    # 1 and 1.0 are the same number, and so the same sweep.
    explicit = SweepSpec.parse({**data, "resources": {"cpu": 1, "gpu": 0}})
    assert explicit.content_hash() == spec.content_hash()


LINES = GOOD.splitlines()
scalars = st.none() | st.booleans() | st.integers(-3, 10**7) | st.floats() | st.text(max_size=5) | st.just("nback")
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["kind", "choice", "uniform", "quantised", "when", "model.cell", "model", "seed", "x"]),
            inner,
            max_size=3,
        )
    ),
    max_leaves=6,
)
paths = st.sampled_from(
    [
        "name",
        "trial",
        "trial.seed",
        "trial.task",
        "trial.task.kind",
        "trial.task.n",
        "trial.task.n.0",
        "trial.task.stimuli",
        "trial.task.stimuli.gate",
        "trial.task.stimuli.views",
        "trial.model",
        "trial.model.kind",
        "trial.model.reduction_channels",
        "trial.training",
        "trial.training.optimizer",
        "trial.training.grad_clip",
        "trial.evaluation.every_steps",
        "search",
        "search.space",
        "search.space.model",
        "search.space.model.cell",
        "search.space.model.cell.choice",
        "search.space.training.optimizer.lr.loguniform",
        "search.space.model.dropout.when",
        "search.space.model.dropout.when.x",
        "search.space.model.dropout.quantised",
        "search.space.model.dropout.logint",
        "search.space.task.n",
        "search.sampler",
        "search.sampler.kind",
        "search.scheduler",
        "search.scheduler.judge_by",
        "search.objective",
        "search.objective.metric",
        "search.trials",
        "search.warm_start",
        "search.warm_start.points",
        "search.warm_start.sweep",
        "search.warm_start.best",
        "resources",
        "recording",
        "recording.states",
        "analyses",
        "analyses.0",
        "analyses.0.kind",
        "tracking",
        "checkpoints",
    ]
)


def outcome(path, overrides: list[str]) -> str:
    """What the user reads: a message of one line, or nothing if the spec is valid."""
    try:
        load_sweep(path, overrides)
    except InputError as error:
        return str(error)
    return ""


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(paths, values)
def test_any_value_anywhere_gives_a_message_or_a_spec(tmp_path, path, value):
    spec = tmp_path / "spec.yaml"
    spec.write_text(GOOD, encoding="utf-8")
    said = outcome(spec, [f"{path}={_written(value)}"])
    assert not said or "--set" in said or str(spec) in said
    assert "pydantic" not in said
    assert "Input should" not in said


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_any_damage_gives_a_message_or_a_spec(tmp_path, data):
    lines = list(LINES)
    for _ in range(data.draw(st.integers(1, 3))):
        number = data.draw(st.integers(0, len(lines) - 1))
        start = data.draw(st.integers(0, len(lines[number])))
        stop = data.draw(st.integers(start, min(start + 8, len(lines[number]))))
        lines[number] = (
            lines[number][:start] + data.draw(st.sampled_from(["", ":", "[", "x", " ", "0"])) + lines[number][stop:]
        )
    spec = tmp_path / "spec.yaml"
    spec.write_text("\n".join(lines), encoding="utf-8")
    said = outcome(spec, [])
    assert "\n" not in said
    assert "Input should" not in said


def _written(value: Any) -> str:
    return json.dumps(value).replace("-Infinity", "-.inf").replace("Infinity", ".inf").replace("NaN", ".nan")


def test_nearest():
    names = ["model.cell", "model.hidden_size", "training.optimizer.lr"]
    assert nearest("model.hiden_size", names) == "model.hidden_size"
    assert nearest("lr", names) == "training.optimizer.lr"
    assert nearest("MODEL.CELL", names) == "model.cell"
    assert nearest("zzz", names) is None
    assert nearest("x", []) is None


def test_a_sweep_needs_one_bank_for_each_choice_of_its_stimuli(tmp_path):
    path = tmp_path / "spec.yaml"
    path.write_text(GOOD, encoding="utf-8")
    colours = "search.space.task.stimuli.objects.color={choice: [true, false]}"
    assert len(stimulus_specs(load_sweep(path, []))) == 1
    found = stimulus_specs(load_sweep(path, [colours]))
    assert [stimuli.objects.color for stimuli in found] == [True, False]
    with pytest.raises(InputError, match=r"changes the stimuli and must be a choice"):
        load_sweep(path, ["search.space.task.stimuli.objects.seed={int: [0, 9]}"])


def test_the_objective_decides_which_weights_are_best(tmp_path):
    path = tmp_path / "spec.yaml"
    path.write_text(GOOD, encoding="utf-8")
    sweep = load_sweep(path, ["search.objective={metric: select/d_prime, mode: min}"])
    evaluation = sweep.trial_for(sweep.search.space.corner_points()[0]).evaluation
    assert (evaluation.best_metric, evaluation.best_mode) == ("select/d_prime", "min")


def _stimuli(tmp_path: Path, space: str, *overrides: str) -> list[Any]:
    path = tmp_path / "spec.yaml"
    path.write_text(GOOD, encoding="utf-8")
    return stimulus_specs(load_sweep(path, [f"search.space={space}", *overrides]))


def test_stimuli_that_are_searched_under_conditions_have_banks_of_their_own(tmp_path):
    colour = "task.stimuli.objects.color: {choice: [true, false], when: {model.cell: gru}}"
    found = _stimuli(tmp_path, f"{{model.cell: {{choice: [vanilla, gru]}}, {colour}}}")
    assert {stimuli.objects.color for stimuli in found} == {True, False}
    # Of a range, a condition may name a value between its ends.
    seeds = "task.stimuli.objects.seed: {choice: [3, 4], when: {model.hidden_size: 20}}"
    found = _stimuli(tmp_path, f"{{model.hidden_size: {{int: [8, 32]}}, {seeds}}}")
    assert {stimuli.objects.seed for stimuli in found} == {0, 3, 4}
    # And its ends may be where it holds: what changes the stimuli is not the range itself.
    found = _stimuli(tmp_path, f"{{model.hidden_size: {{int: [20, 32]}}, {seeds}}}")
    assert {stimuli.objects.seed for stimuli in found} == {0, 3, 4}


def test_every_combination_of_searched_stimuli_has_a_bank(tmp_path):
    views = "task.stimuli.views: {choice: [{kind: interpolated}, {kind: published}]}"
    inside = "task.stimuli.views.train_views: {choice: [6, 8], when: {task.stimuli.views: {kind: interpolated}}}"
    colour = "task.stimuli.objects.color: {choice: [true, false]}"
    found = _stimuli(tmp_path, f"{{{views}, {inside}, {colour}}}", "trial.task.different_view=false")
    kinds = [(s.views.kind, getattr(s.views, "train_views", None), s.objects.color) for s in found]
    assert sorted(kinds, key=str) == sorted(
        [("interpolated", count, color) for count in (6, 8) for color in (True, False)]
        + [("published", None, color) for color in (True, False)],
        key=str,
    )


def test_a_path_inside_a_searched_mapping_comes_after_it(tmp_path):
    """Wherever the file names it."""
    path = tmp_path / "spec.yaml"
    path.write_text(GOOD, encoding="utf-8")
    inside = "model.dropout: {choice: [0.1, 0.2], when: {model: {kind: rnn, cell: lstm}}}"
    models = "model: {choice: [{kind: rnn, cell: lstm}, {kind: rnn, cell: gru, dropout: 0.4}]}"
    sweep = load_sweep(path, [f"search.space={{{inside}, {models}}}"])
    assert sweep.search.space.size() == 3
    trials = [sweep.trial_for(cell).model for cell in sweep.search.space.cells()]
    assert [(model.cell, model.dropout) for model in trials] == [("lstm", 0.1), ("lstm", 0.2), ("gru", 0.4)]


def test_where_a_path_is_not_searched_the_trial_keeps_its_own_value(sweep):
    trial = sweep.trial_for({"model.cell": "vanilla", "training.optimizer.lr": 0.002})
    assert trial.model.dropout == sweep.trial.model.dropout


def test_the_number_of_trials_has_a_bound():
    with pytest.raises(ValidationError, match="less than or equal to 1000000"):
        small_sweep(**{"search.trials": 1_000_001})
