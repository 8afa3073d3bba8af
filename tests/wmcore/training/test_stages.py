"""What the stages of a trial are, which curricula are refused, and networks that share their weights."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from pydantic import ValidationError

from tests.fixtures.hold import HoldSpec
from tests.fixtures.variants import trial_of
from wmcore.errors import InputError
from wmcore.models.rnn import RNNSpec
from wmcore.training.checkpoint import build_model
from wmcore.training.curriculum import AdvanceSpec, CurriculumSpec, StageSpec
from wmcore.training.stages import Stage, check_curriculum, network_of, stages_of, tasks_of
from wmcore.training.trial_spec import TrialSpec

RULE = {"metric": "accuracy", "evaluations": 1}


def staged(*stages: dict[str, Any], advance: dict[str, Any] | None = None, **fields: Any) -> TrialSpec:
    """The small variant (n of 1 and 2, 25 steps, evaluated every 10) with a curriculum."""
    curriculum = CurriculumSpec.parse({"stages": stages, "advance": {**RULE, **(advance or {})}})
    return trial_of(training={"curriculum": curriculum, **fields.pop("training", {})}, **fields)


LAGS: tuple[dict[str, Any], ...] = ({"set": {"task.n": [1]}}, {})


def test_a_stage_is_the_trial_but_for_what_it_sets() -> None:
    trial = staged({"set": {"task.n": [1], "task.steps": 4, "model.dropout": 0.4}}, {"set": {"task.lure_rate": 0}})
    first, second = stages_of(trial)
    assert first.task == trial.task.model_copy(update={"n": (1,), "steps": 4})
    assert first.model == trial.model.model_copy(update={"dropout": 0.4})
    assert second.task == trial.task.model_copy(update={"lure_rate": 0.0})
    assert second.model == trial.model


def test_a_trial_without_a_curriculum_is_its_own_only_stage() -> None:
    trial = trial_of()
    assert stages_of(trial) == (Stage(trial.task, trial.model),)
    assert list(tasks_of(trial).values()) == [trial.task]


def test_the_tasks_of_a_trial_are_its_own_and_those_of_its_stages() -> None:
    """The trial's own is evaluated, whether or not it is a stage; one that is in several stages is there once."""
    lag, noisy, long = {"task.n": [1]}, {"task.n": [1], "model.dropout": 0.3}, {"task.n": [1], "task.steps": 8}
    trial = staged({"set": lag}, {"set": noisy}, {"set": long}, training={"steps": 100})
    first, _, last = stages_of(trial)
    assert list(tasks_of(trial).values()) == [trial.task, first.task, last.task]


def test_a_curriculum_is_part_of_the_identity_and_survives_its_json() -> None:
    trial = staged(*LAGS)
    assert TrialSpec.parse(trial.model_dump(mode="json")) == trial
    assert len({trial.trial_id, trial_of().trial_id, staged(*LAGS, advance={"threshold": 0.8}).trial_id}) == 3


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        ([{"set": {"training.batch_size": 3}}, {}], r"stages\.0\.set\.training\.batch_size is 3.* under task or model"),
        ([{}, {"set": {"task": {}}}], r"stages\.1\.set\.task is \{\}.* must be a path under task or model"),
        ([{}, {"set": {"n": [1]}}], r"stages\.1\.set\.n is \[1\].* must be a path under task or model"),
        (
            [{"set": {"task.nn": [1]}}, {}],
            r"stages\.0\.set\.task\.nn is \[1\].*'nn' does not exist.*Fields of task: ki",
        ),
        ([{"set": {"task.n.0": 1}}, {}], r"stages\.0\.set\.task\.n\.0 is 1.*'0' does not exist there"),
        ([{"set": {"task.n": [4]}}, {}], r"stages\.0\.set\.task\.n is \[4\].*at task\.n\.0 it is not.*less than or"),
        ([{"set": {"task.steps": 2}}, {}], r"set\.task\.steps is 2.*must exceed the largest n"),
        (
            [{"set": {"task.lure_rate": 0.5, "task.features": ["location"]}}, {}],
            r"metric is 'accuracy_same_category_foils'.*every stage.*Metrics: accuracy, accuracy_all_steps, d_prime, ",
        ),
        ([{"set": {"model.cell": "gru2"}}, {}], r"set\.model\.cell is 'gru2'.*must make a model that is allowed"),
        (
            [{"set": {"model.hidden_size": 11}}, {}],
            r"set is .*weight_ih_l0 has the shape \(33, 12\) in this stage, but has the shape \(30, 12\) in",
        ),
        (
            [{"set": {"model.reduction_channels": None}}, {}],
            r"set is .*front_end\.\S+ does not exist in this stage, but has the",
        ),
        ([{"set": {"task.stimuli.objects.seed": 5}}, {}], r"stages\.0\.set is .*must leave the stimuli as they are"),
        ([{}, {}], r"stages\.1\.set is \{\}, but it has no effect"),
        ([{"set": {"task.n": [1]}}, {"set": {"task.n": [1, 2]}}, {}], r"stages\.2\.set is \{\}, but it has no effect"),
        ([{"set": {"task.n": [1]}, "replay": 0.2}, {}], r"stages\.0\.replay is 0\.2.*no stage before the first"),
        ([*LAGS[:1], {"replay": 0.04}], r"stages\.1\.replay is 0\.04.*batch_size, which is 12, to the stage and to"),
        ([*LAGS[:1], {"replay": 0.97}], r"stages\.1\.replay is 0\.97.*must leave a trial or more"),
    ],
)
def test_stages_that_cannot_be_trained_in_turn_are_refused(stages: list[dict[str, Any]], message: str) -> None:
    foils = {"metric": "accuracy_same_category_foils"} if "same_category_foils" in message else {}
    with pytest.raises(ValidationError, match=rf"training\.curriculum\.\S*{message}"):
        staged(*stages, advance=foils, model={"cell": "gru"})


@pytest.mark.parametrize(
    ("advance", "message"),
    [
        ({"metric": "select/accuracy"}, r"metric is 'select/accuracy'.*without a split"),
        ({"metric": "acuracy"}, r"metric is 'acuracy'.*Metrics: accuracy"),
        ({"metric": "accuracy_n2_location"}, r"metric is 'accuracy_n2_location'.*in every stage"),
        ({"threshold": 90}, r"threshold is 90\.0.*at most 1, because accuracy is a share"),
        ({"trials": 5}, r"trials is 5.*at least 6, one for each of the conditions that stage 2 averages over"),
        ({"evaluations": 3}, r"evaluations is 3.*1 x 3 evaluations, one every 10 steps, take 30 steps.*steps is 25"),
    ],
)
def test_rules_that_cannot_be_met_are_refused(advance: dict[str, Any], message: str) -> None:
    staged(*LAGS, advance={"evaluations": 2})
    with pytest.raises(ValidationError, match=rf"training\.curriculum\.advance\.{message}"):
        staged(*LAGS, advance=advance)


def recall(task: dict[str, Any], stage: dict[str, Any]) -> TrialSpec:
    """Serial recall with a first stage of its own, then the trial's task."""
    curriculum = {"stages": [{"set": stage}, {}], "advance": RULE}
    return TrialSpec.parse(
        {
            "task": {"kind": "sequence_recall", "items": 5, "lengths": [2, 3], **task},
            "model": {"kind": "rnn", "cell": "gru", "hidden_size": 8, "trunk_size": None},
            "training": {"steps": 25, "curriculum": curriculum},
            "evaluation": {"every_steps": 10},
        }
    )


@pytest.mark.parametrize(
    ("stage", "message"),
    [
        ({"task.test_share": 0}, r"test_share is 0\.0.*what the trial's task has \(0\.1\).*in trial\.task alone"),
        ({"task.select_share": 0.2}, r"select_share is 0\.2.*what the trial's task has \(0\.1\)"),
        ({"task.replacement": True}, r"replacement is True.*what the trial's task has \(False\)"),
        ({"task.lengths": [3, 4]}, r"lengths is \(3, 4\).*must leave out 4.*split longer_lists"),
        ({"task.delay_ms": 1100}, r"delay_ms is 1100\.0.*longer than.*\(10 steps\).*up to 11.*split longer_delays"),
        ({"task.longest_delay_ms": 1500}, r"longest_delay_ms is 1500\.0.*\(10 steps\).*up to 15"),
        ({"task.dt_ms": 50}, r"delay_ms is 1000\.0.*\(10 steps\).*up to 20"),
    ],
)
def test_a_stage_may_not_show_what_the_trials_task_holds_out(stage: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=rf"training\.curriculum\.stages\.0\.set\.task\.{message}"):
        recall({}, stage)


@pytest.mark.parametrize("stage", [{"task.lengths": [2]}, {"task.lengths": [3]}, {"task.delay_ms": 500}])
def test_no_stage_that_is_allowed_trains_on_a_list_that_is_held_out(stage: dict[str, Any]) -> None:
    trial = recall({"longest_delay_ms": 1200}, stage)
    own = trial.task.build()
    held_out = own.sample(2000, torch.Generator().manual_seed(0), "test").conditions["sequence"].unique()
    for task in stages_of(trial):
        shown = task.task.build().sample(2000, torch.Generator().manual_seed(1), "train").conditions["sequence"]
        assert not torch.isin(shown, held_out).any()


def test_stages_of_a_task_that_holds_nothing_out_are_free() -> None:
    nothing = {"select_share": 0, "test_share": 0, "cue_channels": 3}
    recall(nothing, {"task.replacement": True, "task.lengths": [2]})
    recall({**nothing, "cue_channels": 4, "lengths": [2, 3, 4]}, {"task.test_share": 0.1})


def test_a_threshold_of_what_is_no_share_has_no_bounds() -> None:
    staged(*LAGS, advance={"metric": "d_prime", "threshold": 2.5})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"task.cues": 2}, r"inputs as they are, and cue has the shape \(2,\) in this stage, but has the shape \(1,\)"),
        ({"task.outputs": 5}, r"outputs as they are, and they are 5 in this stage and 4 in the trial"),
    ],
)
def test_one_network_serves_all_stages(change: dict[str, Any], message: str) -> None:
    rule = AdvanceSpec(metric="accuracy", evaluations=1)
    curriculum = CurriculumSpec(stages=(StageSpec(set=change), StageSpec()), advance=rule)
    # No union of tasks knows this one.
    trial = trial_of(training={"steps": 25})
    training = trial.training.model_copy(update={"curriculum": curriculum})
    with pytest.raises(InputError, match=message):
        check_curriculum(trial.model_copy(update={"task": HoldSpec(), "training": training}))


@pytest.mark.parametrize("cell", ["vanilla", "gru", "lstm"])
def test_a_network_of_another_stage_has_the_same_weights_and_trains_them(cell: str) -> None:
    spec = HoldSpec()
    trial = trial_of(model={"cell": cell, "dropout": 0.0}).model_copy(update={"task": spec})
    model = build_model(trial, 0).double()
    assert isinstance(trial.model, RNNSpec)
    noisy = Stage(spec, trial.model.model_copy(update={"dropout": 0.5}))
    assert network_of(Stage(HoldSpec(delay=1), trial.model), trial, model) is model
    other = network_of(noisy, trial, model)
    assert other is not model
    assert [name for name, _ in other.named_parameters()] == [name for name, _ in model.named_parameters()]
    assert all(a is b for a, b in zip(other.parameters(), model.parameters(), strict=True))

    batch = spec.build().sample(9, torch.Generator().manual_seed(0), "train")
    before = model(batch.inputs).outputs
    assert torch.equal(other(batch.inputs).outputs, before)
    assert not torch.equal(other(batch.inputs, generator=torch.Generator().manual_seed(1)).outputs, before)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    other(batch.inputs).outputs.square().sum().backward()
    optimizer.step()
    after = model(batch.inputs).outputs
    assert not torch.equal(after, before)
    assert torch.equal(other(batch.inputs).outputs, after)
