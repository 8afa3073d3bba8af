"""Bad curricula and optimisers: each is refused with exit code 2 and one paragraph; good ones are valid."""

from __future__ import annotations

import pytest

from tests.fixtures.bad_specs import Bad, assert_refused, validate

STEPS, OPTIMIZER = "    steps: 3000\n", "{kind: adamw, lr: 1e-3}"
CELL_LINE = "    model.cell: {choice: [vanilla, gru, lstm]}\n"
RULE = "{metric: accuracy, evaluations: 3}"
FIRST = "{set: {task.n: [1]}}"
AT = "trial.training.curriculum"


def curriculum(*stages: str, advance: str = RULE) -> dict[str, str]:
    """Stages on lines 11, 12, ..., the rule on the line after them."""
    lines = "".join(f"        - {stage}\n" for stage in stages)
    return {STEPS: f"{STEPS}    curriculum:\n      stages:\n{lines}      advance: {advance}\n"}


def bad_set(name: str, changes: str, *says: str) -> Bad:
    """A first stage that sets something else."""
    return Bad(name, curriculum(f"{{set: {{{changes}}}}}", "{}"), 11, (f"{AT}.stages.0.set{says[0]}", *says[1:]))


def bad_rule(name: str, advance: str, *says: str) -> Bad:
    """Another rule for two stages."""
    return Bad(name, curriculum(FIRST, "{}", advance=advance), 13, (f"{AT}.advance.{says[0]}", *says[1:]))


BAD = [
    bad_set(
        "a path that does not exist",
        "task.lengths: [2]",
        ".task.lengths is [2]",
        "'lengths' does not exist there",
        "Fields of task: kind, n, features",
    ),
    bad_set("a path of training", "training.steps: 9", ".training.steps is 9", "under task or model", "task.steps."),
    bad_set("a whole task", "task: {kind: nback}", ".task is {'kind': 'nback'}", "must be a path under task or model"),
    bad_set(
        "a value out of range",
        "task.n: [1, 5]",
        ".task.n is [1, 5]",
        "must make a task that is allowed",
        "task.n.1 it is not: Input should be less than or equal to 3.",
    ),
    bad_set("a rule of the task", "task.steps: 3", ".task.steps is 3", "must exceed the largest n"),
    bad_set("another kind of task", "task.kind: recall", ".task.kind is 'recall'", "at task.kind it is not"),
    bad_set(
        "another number of units",
        "model.hidden_size: 64",
        " is {'model.hidden_size': 64}",
        "cell.weight_ih_l0 has the shape (192, 256) in this stage, but has the shape (384, 256) in the trial.",
        "such as noise.",
    ),
    bad_set(
        "other stimuli",
        "task.stimuli.objects.seed: 4",
        " is {'task.stimuli.objects.seed': 4}",
        "must leave the stimuli as they are",
        "Set stimuli in trial.task alone.",
    ),
    Bad(
        "a misspelt field of a stage",
        curriculum("{sets: {task.n: [1]}}", "{}"),
        11,
        (f"{AT}.stages.0.sets is", "is not a field of", "Did you mean set?"),
    ),
    Bad(
        "one stage",
        curriculum(FIRST),
        10,
        (f"{AT}.stages is [", "must be a list of at least 2 entries, each a mapping"),
    ),
    Bad(
        "a stage that changes nothing",
        curriculum(FIRST, "{}", "{set: {task.n: [1, 2, 3]}}"),
        13,
        (f"{AT}.stages.2.set is", "has no effect: the stage before it has the same task and model.", "leave the stage"),
    ),
    Bad(
        "replay in the first stage",
        curriculum("{set: {task.n: [1]}, replay: 0.3}", "{}"),
        11,
        (f"{AT}.stages.0.replay is 0.3", "no stage before the first.", "Leave it out."),
    ),
    Bad(
        "all replay",
        curriculum(FIRST, "{replay: 1}"),
        12,
        (f"{AT}.stages.1.replay is 1", "must be a number of at least 0 and less than 1."),
    ),
    Bad(
        "replay of less than a trial",
        curriculum(FIRST, "{set: {task.n: [2]}}", "{replay: 0.02}"),
        13,
        (f"{AT}.stages.2.replay is 0.02", "must leave a trial or more of training.batch_size, which is 64", "larger"),
    ),
    bad_rule("no metric", "{}", "metric is missing", "it must be text."),
    bad_rule(
        "a metric with its split",
        "{metric: select/accuracy}",
        "metric is 'select/accuracy'",
        "in every stage, without a split.",
        "Metrics: accuracy, ",
    ),
    bad_rule(
        "a metric that some stages lack",
        "{metric: accuracy_n3_location}",
        "metric is 'accuracy_n3_location'",
        "must be a metric that the task reports in every stage",
        "accuracy_n1_location",
    ),
    bad_rule(
        "a threshold in per cent", "{metric: accuracy, threshold: 90}", "threshold is 90.0", "is a share.", "0.9."
    ),
    bad_rule("too few trials", "{metric: accuracy, trials: 8}", "trials is 8", "must be at least 9", "that stage 2"),
    bad_rule(
        "a last stage that is never reached",
        "{metric: accuracy, evaluations: 12}",
        "evaluations is 12",
        "1 x 12 evaluations, one every 250 steps, take 3000 steps, and training.steps is 3000.",
        "train longer.",
    ),
    Bad(
        "a last stage that only some variants reach",
        curriculum(FIRST, "{}") | {CELL_LINE: "    evaluation.every_steps: {choice: [250, 500, 1000]}\n"},
        17,
        ("search.space allows the point", "take 3000 steps, and training.steps is 3000.", "Lower it, evaluate more"),
    ),
    Bad(
        "a search path into the stages",
        curriculum(FIRST, "{}") | {CELL_LINE: "    training.curriculum.stages.0.replay: {uniform: [0, 1]}\n"},
        18,
        ("search.space.training.curriculum.stages.0.replay is not a path", "Did you mean training.curriculum.stages?"),
    ),
    # Optimisers.
    Bad(
        "an unknown optimiser",
        {OPTIMIZER: "{kind: adan, lr: 1e-3}"},
        9,
        ("trial.training.optimizer.kind is 'adan'", "it must be one of adam, adamw.", "Did you mean adam?"),
    ),
    Bad(
        "a field that the optimiser lacks",
        {OPTIMIZER: "{kind: adam, lr: 1e-3, momentum: 0.9}"},
        9,
        (
            "trial.training.optimizer.momentum is 0.9",
            "is not a field of trial.training.optimizer of kind adam.",
            "weight_decay",
        ),
    ),
]


@pytest.mark.parametrize("bad", BAD, ids=lambda bad: bad.name)
def test_is_refused_in_one_paragraph(bad, tmp_path, capsys):
    assert_refused(bad, tmp_path, capsys)


def test_names_differ():
    assert len({bad.name for bad in BAD}) == len(BAD)


@pytest.mark.parametrize(
    "edits",
    [
        curriculum(FIRST, "{set: {task.n: [2], model.dropout: 0.1}, replay: 0.3}", "{replay: 0.3}"),
        # The curriculum itself is searched: with it and without it, and by its rule.
        {
            CELL_LINE: "    training.curriculum:\n      choice:\n        - null\n"
            f"        - {{stages: [{FIRST}, {{replay: 0.3}}], advance: {RULE}}}\n"
        },
        curriculum(FIRST, "{}") | {CELL_LINE: "    training.curriculum.advance.threshold: {uniform: [0.6, 0.95]}\n"},
        {CELL_LINE: "    training.optimizer.kind: {choice: [adam, adamw]}\n"},
    ],
)
def test_what_fits_is_valid(edits, tmp_path, capsys):
    path = tmp_path / "spec.yaml"
    path.write_text(Bad("good", edits, None, ()).text, encoding="utf-8")
    code, out, err = validate(capsys, path)
    assert (code, err) == (0, "")
    assert out.startswith("nback-cells is valid: 12 trials")


def test_a_stage_is_changed_from_the_command_line(tmp_path, capsys):
    path = tmp_path / "spec.yaml"
    path.write_text(Bad("good", curriculum(FIRST, "{}"), None, ()).text, encoding="utf-8")
    code, _, err = validate(capsys, path, "--set", "trial.training.curriculum.stages.0.set.task.n=[5]")
    assert code == 2
    assert err.startswith(f"Error: --set: {AT}.stages.0.set.task.n is [5]")
    assert validate(capsys, path, "--set", "trial.training.curriculum.stages.0.set.task.n=[2]")[0] == 0
