"""The stages of a trial: what each one's overrides make of its task and model, and whether they can be trained in turn.

A trial without a curriculum has one stage, which is the trial itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from pydantic import ValidationError

from wmcore.errors import InputError
from wmcore.models.base import ModelSpec, SequenceModel
from wmcore.seeding import generator
from wmcore.spec import Spec, get_path, with_paths
from wmcore.tasks.base import TaskSpec
from wmcore.training.curriculum import CurriculumSpec

if TYPE_CHECKING:
    from wmcore.training.trial_spec import TrialSpec

AnySpec = TypeVar("AnySpec", bound=Spec)
_AT = "training.curriculum"


@dataclass(frozen=True)
class Stage:
    """What is learned in a stage, and by which network."""

    task: TaskSpec
    model: ModelSpec


def stages_of(trial: TrialSpec) -> tuple[Stage, ...]:
    """The stages in order.

    Raises:
        InputError: a stage's override is not a path under task or model, or has a value that is not allowed there.
    """
    curriculum = trial.training.curriculum
    if curriculum is None:
        return (Stage(trial.task, trial.model),)
    return tuple(_stage(trial, stage.set, f"{_AT}.stages.{index}.set") for index, stage in enumerate(curriculum.stages))


def tasks_of(trial: TrialSpec) -> dict[str, TaskSpec]:
    """Content hash -> task, of all that training needs: the trial's own, which evaluations are of, and its stages'."""
    tasks = (trial.task, *(stage.task for stage in stages_of(trial)))
    return {task.content_hash(): task for task in tasks}


def network_of(stage: Stage, trial: TrialSpec, model: SequenceModel) -> SequenceModel:
    """The network of a stage. Its weights are those of the trial's ``model`` themselves: what trains one trains both.

    Args:
        model: a network that ``trial.model`` has built.
    """
    if stage.model == trial.model:
        return model
    device = next(model.parameters()).device
    network = stage.model.build(
        stage.task.input_channels(), stage.task.output_size, generator(trial.seed, "stage_network")
    ).to(device)
    for name, part in network.named_modules():
        own = model.get_submodule(name)
        for key, _ in (*part.named_parameters(recurse=False), *part.named_buffers(recurse=False)):
            setattr(part, key, getattr(own, key))
    return network


def check_curriculum(trial: TrialSpec) -> None:
    """Checks that a trial can be trained by its curriculum, and that all of the curriculum has an effect.

    Raises:
        InputError: the first misfit, with its path in the trial.
    """
    curriculum = trial.training.curriculum
    if curriculum is None:
        return
    stages = stages_of(trial)
    for index, stage in enumerate(stages):
        where = f"{_AT}.stages.{index}.set"
        _same_ports(trial.task, stage.task, where, curriculum.stages[index].set)
        trial.task.check_stage(stage.task, f"{where}.task")
        _same_parameters(trial, stage, where, curriculum.stages[index].set)
    _stages_differ(stages, curriculum)
    _can_be_judged(stages, curriculum)
    _replay_has_trials(curriculum, trial.training.batch_size)
    _last_is_reached(curriculum, trial)


def _stage(trial: TrialSpec, changes: Mapping[str, Any], where: str) -> Stage:
    base = {"task": trial.task.model_dump(mode="json"), "model": trial.model.model_dump(mode="json")}
    for path, value in changes.items():
        _path_exists(base, path, value, where)
    data = with_paths(base, changes)
    return Stage(
        _parsed(type(trial.task), data["task"], "task", changes, where),
        _parsed(type(trial.model), data["model"], "model", changes, where),
    )


def _path_exists(base: Mapping[str, Any], path: str, value: Any, where: str) -> None:
    root, _, below = path.partition(".")
    if root not in base or not below:
        rule = "must be a path under task or model: a stage changes what is learned, and nothing of how"
        raise InputError(f"{where}.{path}", rule, value=value, remedy="Write for example task.steps.")
    try:
        get_path(base, path)
    except KeyError as error:
        fields = ", ".join(base[root])
        rule = f"must be a path of the trial, and {error.args[0]!r} does not exist there"
        raise InputError(f"{where}.{path}", rule, value=value, remedy=f"Fields of {root}: {fields}.") from None


def _parsed(spec: type[AnySpec], data: Mapping[str, Any], root: str, changes: Mapping[str, Any], where: str) -> AnySpec:
    """The task or model of a stage; a fault is told about the override that is nearest to it."""
    try:
        return spec.parse(data)
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        place = ".".join((root, *map(str, fault["loc"])))
        own = [path for path in changes if path.startswith(f"{root}.")]
        blamed = next((path for path in own if f"{place}.".startswith(f"{path}.")), own[0])
        said = str(fault.get("ctx", {}).get("error", fault["msg"])).rstrip(".")
        rule = f"must make a {root} that is allowed, and at {place} it is not: {said}"
        raise InputError(f"{where}.{blamed}", rule, value=changes[blamed]) from None


def _same_ports(trial: TaskSpec, stage: TaskSpec, where: str, changes: Mapping[str, Any]) -> None:
    """One network for all stages: nothing about its inputs and outputs may change."""
    if stage.stimulus_spec() != trial.stimulus_spec():
        rule = "must leave the stimuli as they are: images and features are made once, for all stages"
        raise InputError(where, rule, value=dict(changes), remedy="Set stimuli in trial.task alone.")
    own, other = ({k: v.shape for k, v in task.input_channels().items()} for task in (trial, stage))
    if own != other:
        rule = f"must leave the network's inputs as they are, and {_difference(own, other)}"
        raise InputError(where, rule, value=dict(changes), remedy="Make room in trial.task for what every stage shows.")
    if stage.output_size != trial.output_size:
        rule = (
            f"must leave the network's outputs as they are, and they are {stage.output_size} in this stage and "
            f"{trial.output_size} in the trial"
        )
        raise InputError(where, rule, value=dict(changes), remedy="Leave out what changes their number.")


def _same_parameters(trial: TrialSpec, stage: Stage, where: str, changes: Mapping[str, Any]) -> None:
    if stage.model == trial.model:
        return
    own, other = _shapes(trial.model, trial.task), _shapes(stage.model, stage.task)
    if own != other:
        rule = f"must leave the shapes of the network's parameters as they are, and {_difference(own, other)}"
        remedy = "Set only what needs no other weights, such as noise."
        raise InputError(where, rule, value=dict(changes), remedy=remedy)


def _difference(trial: Mapping[str, tuple], stage: Mapping[str, tuple]) -> str:
    """The first shape by name that differs between a trial and a stage of it."""
    name = next(name for name in {**trial, **stage} if trial.get(name) != stage.get(name))
    shown = [f"has the shape {shapes[name]}" if name in shapes else "does not exist" for shapes in (stage, trial)]
    return f"{name} {shown[0]} in this stage, but {shown[1]} in the trial"


def _shapes(model: ModelSpec, task: TaskSpec) -> dict[str, tuple[int, ...]]:
    """Shape of every parameter and buffer; nothing is allocated."""
    with torch.device("meta"):
        network = model.build(task.input_channels(), task.output_size, torch.Generator("cpu"))
    return {name: tuple(value.shape) for name, value in network.state_dict().items()}


def _stages_differ(stages: tuple[Stage, ...], curriculum: CurriculumSpec) -> None:
    for index in range(1, len(stages)):
        if stages[index] == stages[index - 1]:
            raise InputError(
                f"{_AT}.stages.{index}.set",
                "has no effect: the stage before it has the same task and model",
                value=curriculum.stages[index].set,
                remedy="Set something else, or leave the stage out.",
            )


def _can_be_judged(stages: tuple[Stage, ...], curriculum: CurriculumSpec) -> None:
    rule, at = curriculum.advance, f"{_AT}.advance"
    reported = [stage.task.metric_names() for stage in stages]
    common = [name for name in reported[0] if all(name in names for names in reported)]
    if rule.metric not in common:
        raise InputError(
            f"{at}.metric",
            "must be a metric that the task reports in every stage, without a split",
            value=rule.metric,
            remedy=f"Metrics: {', '.join(common)}.",
        )
    if rule.metric in stages[0].task.proportions() and not 0 <= rule.threshold <= 1:
        raise InputError(
            f"{at}.threshold",
            f"must be at least 0 and at most 1, because {rule.metric} is a share",
            value=rule.threshold,
            remedy="Write for example 0.9.",
        )
    for index, stage in enumerate(stages):
        if rule.trials < stage.task.least_trials():
            raise InputError(
                f"{at}.trials",
                f"must be at least {stage.task.least_trials()}, one for each of the conditions that stage "
                f"{index + 1} averages over",
                value=rule.trials,
                remedy="Raise it.",
            )


def _replay_has_trials(curriculum: CurriculumSpec, batch_size: int) -> None:
    if (first := curriculum.stages[0].replay) > 0:
        raise InputError(
            f"{_AT}.stages.0.replay",
            "has no effect: there is no stage before the first",
            value=first,
            remedy="Leave it out.",
        )
    for index, stage in enumerate(curriculum.stages):
        if any(share.trials < 1 for share in curriculum.shares(index, batch_size)):
            raise InputError(
                f"{_AT}.stages.{index}.replay",
                f"must leave a trial or more of training.batch_size, which is {batch_size}, to the stage and to each "
                "of those before it",
                value=stage.replay,
                remedy="Train on larger batches, or change the share.",
            )


def _last_is_reached(curriculum: CurriculumSpec, trial: TrialSpec) -> None:
    rule, moves = curriculum.advance, len(curriculum.stages) - 1
    every, steps = trial.evaluation.every_steps, trial.training.steps
    if moves * rule.evaluations * every >= steps:
        raise InputError(
            f"{_AT}.advance.evaluations",
            f"must let the last stage be reached: {moves} x {rule.evaluations} evaluations, one every {every} steps, "
            f"take {moves * rule.evaluations * every} steps, and training.steps is {steps}",
            value=rule.evaluations,
            remedy="Lower it, evaluate more often, or train longer.",
        )
