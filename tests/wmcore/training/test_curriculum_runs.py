"""Training by a curriculum: who moves when, what is met and scored meanwhile, and that interruptions change nothing."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.contracts.task import same_batch
from tests.fixtures.hold import HoldSpec
from tests.fixtures.variants import assert_same, assert_same_weights, to_the_end, trial_of, weights_of
from wmcore.training.batches import Part
from wmcore.training.checkpoint import CheckpointFolder
from wmcore.training.curriculum import CurriculumSpec, Progress
from wmcore.training.fit import FitResult, TrainingRun, fit
from wmcore.training.trial_spec import TrialSpec
from wmcore.trials import Lookup

GOLDEN = Path(__file__).parents[1] / "golden" / "nback_curriculum.txt"
LAGS: tuple[dict[str, Any], ...] = (
    {"set": {"task.n": [1], "task.steps": 4, "model.dropout": 0.4}},
    {"set": {"task.n": [2]}, "replay": 0.3},
    {"replay": 0.25},
)
ALWAYS, NEVER = 0.0, 1.0


def lags(threshold: float = ALWAYS, evaluations: int = 1, **fields: Any) -> TrialSpec:
    """The small variant over two lags, each of them first alone; evaluated every 5 of 25 steps."""
    advance = {"metric": "accuracy_all_steps", "threshold": threshold, "evaluations": evaluations, "trials": 48}
    curriculum = CurriculumSpec.parse({"stages": LAGS, "advance": advance})
    evaluation = {"every_steps": 5, **fields.pop("evaluation", {})}
    return trial_of(training={"curriculum": curriculum, **fields.pop("training", {})}, evaluation=evaluation, **fields)


def stages_in(run: TrainingRun) -> list[list[float]]:
    return [evaluation.replicates["train/stage"] for evaluation in run.history]


# Moving on


def test_a_stage_is_left_after_so_many_successes_in_a_row(synthetic_stimuli: Path) -> None:
    run = TrainingRun(lags(0.7, evaluations=2), stimuli=synthetic_stimuli)
    scores = iter([0.7, 0.6, 0.8, 0.9, 0.9])
    for task in run.stage_tasks:
        task.metrics = lambda outputs, batch, own=task.metrics: {
            **own(outputs, batch),
            **({"accuracy_all_steps": next(scores)} if batch.size == 48 else {}),
        }
    while not run.finished:
        run.advance()
    assert stages_in(run) == [[1.0]] * 4 + [[2.0]]
    assert [e.metrics["train/stage_score"] for e in run.history] == [0.7, 0.6, 0.8, 0.9, 0.9]
    assert run.progress == [Progress(stage=1, successes=1, entered=(20,))]


def test_after_the_last_stage_nothing_moves(synthetic_stimuli: Path) -> None:
    run = TrainingRun(lags(), stimuli=synthetic_stimuli)
    to_the_end(run)
    assert stages_in(run) == [[1.0], [2.0], [3.0], [3.0], [3.0]]
    assert run.progress == [Progress(stage=2, entered=(5, 10))]


def test_a_stage_is_judged_by_its_own_task_on_fixed_trials(synthetic_stimuli: Path) -> None:
    """Select trials, as many as the rule says, the same at each evaluation; scored with the present weights."""
    run = TrainingRun(lags(NEVER, replicates=2), stimuli=synthetic_stimuli)
    first, task = run.stage_tasks[0], run.trial.task.model_copy(update={"n": (1,), "steps": 4}).build(synthetic_stimuli)
    seen = []
    first.metrics = lambda outputs, batch, own=first.metrics: seen.append(batch) or own(outputs, batch)
    for _ in range(2):
        found = run.advance().replicates["train/stage_score"]
        for model, batch, score in zip(run.models, seen[-2:], found, strict=True):
            assert (batch.size, batch.targets.shape[1]) == (48, 4)
            with torch.no_grad():
                outputs = model.eval()(batch.inputs).outputs
            assert task.metrics(outputs, batch)["accuracy_all_steps"] == score
    assert [same_batch(a, b) for a, b in zip(seen[:2], seen[2:], strict=True)] == [True, True]
    assert not same_batch(seen[0], seen[1])


def test_evaluations_and_final_figures_are_those_of_the_whole_task(synthetic_stimuli: Path) -> None:
    trial = lags(NEVER)
    run = TrainingRun(trial, stimuli=synthetic_stimuli)
    plain = TrainingRun(trial_of(), stimuli=synthetic_stimuli)
    weights, result = to_the_end(run)
    plain.models[0].load_state_dict(weights[0])
    select = {f"select/{name}" for name in trial.task.metric_names()}
    train = {"train/loss", "train/grad_norm", "train/stage", "train/stage_score"}
    assert set(result.history[-1].metrics) == select | train
    expected = plain.evaluate("select", 64).metrics
    assert repr({name: result.history[-1].metrics[name] for name in expected}) == repr(expected)
    assert set(result.final.metrics) == {
        f"{split}/{name}" for split in trial.task.final_splits() for name in trial.task.metric_names()
    }


# What is met


def met_by(run: TrainingRun) -> list[list[Part]]:
    """The parts of each optimiser step to the end of a run."""
    met, training = [], run.source.training
    run.source.training = lambda r, step, stage: met.append(training(r, step, stage)) or met[-1]
    to_the_end(run)
    return met


def test_a_step_holds_what_the_stage_and_its_replay_say(synthetic_stimuli: Path) -> None:
    run = TrainingRun(lags(), stimuli=synthetic_stimuli)
    met = met_by(run)
    for step, parts in enumerate(met):
        stage = min(step // 5, 2)
        sizes, weights = [([12], [1.0]), ([8, 4], [0.7, 0.3]), ([9, 2, 1], [0.75, 0.125, 0.125])][stage]
        tasks = [[0], [1, 0], [2, 0, 1]][stage]
        assert [part.batch.size for part in parts] == sizes
        assert [part.weight for part in parts] == weights
        assert [run.stage_tasks.index(part.task) for part in parts] == tasks
    tables = [
        value.table for parts in met for p in parts for value in p.batch.inputs.values() if isinstance(value, Lookup)
    ]
    assert len({table.data_ptr() for table in tables}) == 1
    images = [part.batch.conditions["image"] for parts in met for part in parts]
    trials = torch.cat([image[:, :4] for image in images])
    assert len(trials.unique(dim=0)) == len(trials) == 25 * 12


def test_trials_are_new_at_every_step_and_replicate_and_paired_over_variants(synthetic_stimuli: Path) -> None:
    def images(parts: list[list[Part]]) -> list[torch.Tensor]:
        return [part.batch.conditions["image"] for step in parts for part in step]

    one = images(met_by(TrainingRun(lags(), [1], stimuli=synthetic_stimuli)))
    other = images(met_by(TrainingRun(lags(lr=1e-4, model={"cell": "lstm"}), [1], stimuli=synthetic_stimuli)))
    assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
    unrelated = images(met_by(TrainingRun(lags(), [0], stimuli=synthetic_stimuli)))
    assert not any(torch.equal(a, b) for a, b in zip(one, unrelated, strict=True))


def test_a_step_of_training_takes_the_weighted_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    """In float64, of trials of different lengths, against a pass of its own for each stage."""
    stages = [{"set": {"task.delay": 1}}, {"set": {"task.delay": 6}, "replay": 0.3}]
    curriculum = CurriculumSpec.parse({"stages": stages, "advance": {"metric": "accuracy", "threshold": ALWAYS}})
    trial = trial_of(model={"dropout": 0.0}, grad_clip=None, training={"curriculum": None, "steps": 20})
    trial = trial.model_copy(  # no union of tasks knows this one
        update={"task": HoldSpec(), "training": trial.training.model_copy(update={"curriculum": curriculum})}
    )
    run = TrainingRun(trial)
    run.progress = [Progress(stage=1, entered=(0,))]
    model = run.models[0].double()
    met, training = [], run.source.training

    def spy(r: int, step: int, stage: int) -> list[Part]:
        met.append((training(r, step, stage), weights_of(run)[0]))
        return met[-1][0]

    monkeypatch.setattr(run.source, "training", spy)
    run.advance()
    parts, weights = met[-1]
    assert [(part.batch.size, part.batch.targets.shape[1], part.weight) for part in parts] == [(8, 8, 0.7), (4, 3, 0.3)]
    found = [parameter.grad for parameter in model.parameters()]
    model.load_state_dict(weights)
    losses = [part.weight * part.task.loss(model(part.batch.inputs).outputs, part.batch) for part in parts]
    separate = [torch.autograd.grad(loss, list(model.parameters())) for loss in losses]
    for grad, a, b in zip(found, *separate, strict=True):
        assert grad is not None
        torch.testing.assert_close(grad, a + b, rtol=0, atol=1e-14)


# Replicates


def test_replicates_move_on_their_own(synthetic_stimuli: Path) -> None:
    """With a threshold in the midst of their first scores, so that they part; each is what it is alone."""
    first = TrainingRun(lags(NEVER, replicates=3), stimuli=synthetic_stimuli).advance()
    threshold = float(np.median(first.replicates["train/stage_score"]))
    trial = lags(threshold, replicates=3)
    whole = TrainingRun(trial, stimuli=synthetic_stimuli)
    weights, _ = to_the_end(whole)
    assert len(set(stages_in(whole)[1])) == 2
    for seeds in ([1], [2, 0]):
        run = TrainingRun(trial, seeds, stimuli=synthetic_stimuli)
        own, _ = to_the_end(run)
        assert_same_weights(own, [weights[r] for r in seeds])
        assert run.progress == [whole.progress[r] for r in seeds]
        for together, found in zip(whole.history, run.history, strict=True):
            for name, values in together.replicates.items():
                assert repr(found.replicates[name]) == repr([values[r] for r in seeds])


# Interruption


PAIRED: dict[str, Any] = {"evaluations": 2, "replicates": 2}
Whole = tuple[list[dict[str, torch.Tensor]], FitResult, Path]


@pytest.fixture(scope="module")
def whole(synthetic_stimuli: Path, tmp_path_factory: pytest.TempPathFactory) -> Whole:
    """Last weights, result and checkpoints of a run that nobody disturbs."""
    folder = tmp_path_factory.mktemp("whole")
    return *to_the_end(TrainingRun(lags(**PAIRED), stimuli=synthetic_stimuli), folder), folder


@pytest.mark.parametrize(
    ("evaluations", "stage", "successes"),
    [(1, 0, 1), (2, 1, 0), (3, 1, 1), (4, 2, 0)],
    ids=["in a count", "right at a change", "in the second count", "right at the last change"],
)
def test_resumed_is_bit_identical_to_uninterrupted(
    synthetic_stimuli: Path, tmp_path: Path, whole: Whole, evaluations: int, stage: int, successes: int
) -> None:
    trial, (weights, result, folder) = lags(**PAIRED), whole
    interrupted = TrainingRun(trial, stimuli=synthetic_stimuli)
    for _ in range(evaluations):
        interrupted.advance()
        interrupted.save(tmp_path)
    assert [(p.stage, p.successes) for p in interrupted.progress] == [(stage, successes)] * 2

    latest = CheckpointFolder(tmp_path).latest()
    assert latest is not None
    resumed = TrainingRun(trial, stimuli=synthetic_stimuli)
    resumed.restore(latest)
    assert resumed.progress == interrupted.progress
    resumed_weights, resumed_result = to_the_end(resumed, tmp_path)
    assert_same_weights(resumed_weights, weights)
    assert_same(resumed_result, result)
    assert resumed.progress == [Progress(stage=2, entered=(10, 20))] * 2
    for path in sorted(folder.glob("step_*/*")):
        if path.suffix != ".pt":
            assert (tmp_path / path.parent.name / path.name).read_bytes() == path.read_bytes()


def test_the_stages_of_an_earlier_run_are_built_once(synthetic_stimuli: Path) -> None:
    first = TrainingRun(lags(), stimuli=synthetic_stimuli)
    assert len(first.tasks) == 3
    assert first.stage_tasks[2] is first.task
    again = TrainingRun(lags(lr=1e-4), stimuli=synthetic_stimuli, tasks=first.tasks)
    assert all(a is b for a, b in zip(first.stage_tasks, again.stage_tasks, strict=True))
    other = TrainingRun(trial_of(), stimuli=synthetic_stimuli, tasks=first.tasks)
    assert list(other.tasks.values()) == [first.task]


def test_a_replicate_that_is_lost_stays_where_it_is(synthetic_stimuli: Path) -> None:
    run = TrainingRun(lags(replicates=2), stimuli=synthetic_stimuli)
    with torch.no_grad():
        next(run.models[1].parameters()).fill_(math.nan)
    run.stage_tasks[0].metrics = lambda outputs, batch: {"accuracy_all_steps": float(outputs.mean())}
    run.advance()
    assert run.progress[1] == Progress()


# Learning


def test_the_loss_curve_is_the_golden_one(synthetic_stimuli: Path) -> None:
    """Stage and mean training loss of every 10 steps. WMSWEEP_WRITE_GOLDEN=1 writes the file anew, after a change on
    purpose."""
    trial = lags(
        threshold=0.6,
        lr=1e-2,
        model={"cell": "gru", "dropout": 0.0, "hidden_size": 24},
        training={"steps": 160, "batch_size": 32},
        evaluation={"every_steps": 10},
    )
    history = fit(trial, stimuli=synthetic_stimuli).history
    found = [(e.step, e.metrics["train/stage"], e.metrics["train/loss"]) for e in history]
    if os.environ.get("WMSWEEP_WRITE_GOLDEN"):
        lines = [f"{step} {stage:g} {loss:.7f}\n" for step, stage, loss in found]
        GOLDEN.write_text("# step, stage, mean training loss since the step before\n" + "".join(lines))
    golden = np.loadtxt(GOLDEN)
    assert [row[:2] for row in found] == [tuple(row) for row in golden[:, :2].tolist()]
    assert found[-1][1] == 3
    np.testing.assert_allclose([row[2] for row in found], golden[:, 2], rtol=1e-4)
