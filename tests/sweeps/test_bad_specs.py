"""Bad specs: each is refused with exit code 2 and one paragraph that names path, line, value, rule and remedy.

Every case starts from the same good spec and changes a few characters of it.
"""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.fixtures.bad_specs import GOOD, Bad, assert_refused, validate

CELLS = "{choice: [vanilla, gru, lstm]}"
SPACE = GOOD[GOOD.index("    model.cell: {") : GOOD.index("  sampler:")]
STIMULI = "{kind: nback, stimuli: "
BAD = [
    # Keys and kinds.
    Bad(
        "unknown key",
        {"hidden_size": "hiden_size"},
        6,
        (
            "trial.model.hiden_size is 128",
            "not a field of trial.model of kind rnn",
            "Did you mean hidden_size?",
            "cell",
        ),
    ),
    Bad(
        "unknown key at the top",
        {"search:": "serach: 3\nsearch:"},
        11,
        ("serach is 3", "not a field of a sweep", "Did you mean search?", "checkpoints"),
    ),
    Bad(
        "unknown section",
        {"  training:": "  trainin:"},
        7,
        ("trial.trainin is {'steps': 3000", "is not a field of trial", "Did you mean training?"),
    ),
    Bad(
        "key at the wrong level",
        {"steps: 3000": "steps: 3000\n    lr: 0.1"},
        9,
        ("trial.training.lr is 0.1", "exists at trial.training.optimizer.lr", "Fields: steps, batch_size"),
    ),
    Bad("unknown kind", {"kind: nback": "kind: nbakc"}, 5, ("trial.task.kind is 'nbakc'", "Did you mean nback?")),
    Bad(
        "unknown sampler",
        {"kind: tpe": "kind: tpee"},
        16,
        ("search.sampler.kind is 'tpee'", "one of cmaes, grid, nsga2, random, sobol, tpe.", "Did you mean tpe?"),
    ),
    Bad("missing kind", {"{kind: rnn, ": "{"}, 6, ("trial.model.kind is missing", "it must be rnn.")),
    Bad(
        "kind without its mapping",
        {"  - {kind: decoding}": "  - decoding"},
        21,
        ("analyses.0 is 'decoding'", "must be a mapping whose kind is one of", "Write {kind: decoding}."),
    ),
    Bad(
        "unknown analysis",
        {"kind: decoding": "kind: decodin"},
        21,
        ("analyses.0.kind is 'decodin'", "Did you mean decoding?"),
    ),
    Bad(
        "unknown key of a scheduler that has none",
        {"{kind: asha, grace": "{kind: none, grace"},
        17,
        ("search.scheduler.grace is 500", "not a field of search.scheduler of kind none", "Fields: kind."),
    ),
    # Types and bounds.
    Bad(
        "text for a number",
        {"128": "'128'"},
        6,
        ("trial.model.hidden_size is '128'", "an integer", "Write it without quotes."),
    ),
    Bad(
        "a word for a number",
        {"trials: 12": "trials: twelve"},
        19,
        ("search.trials is 'twelve'", "must be an integer of at least 1 and at most 1000000 or null."),
    ),
    Bad(
        "a fraction for an integer",
        {"128": "128.5"},
        6,
        ("trial.model.hidden_size is 128.5", "must be an integer of at least 1 and at most 8192."),
    ),
    Bad(
        "a float for an integer",
        {"steps: 3000": "steps: 3e3"},
        8,
        ("trial.training.steps is 3000.0", "must be an integer", "Write 3000."),
    ),
    Bad("a number for a list", {"n: [1, 2, 3]": "n: 2"}, 5, ("trial.task.n is 2", "must be a list", "Write [2].")),
    Bad(
        "a list for a mapping",
        {"{every_steps: 250}": "[250]"},
        10,
        ("trial.evaluation is [250]", "must be a mapping with fields such as every_steps, trials"),
    ),
    Bad(
        "text for true or false",
        {"kind: nback,": "kind: nback, different_view: yes,"},
        5,
        ("trial.task.different_view is 'yes'", "must be true or false", "Write true."),
    ),
    Bad(
        "null where something must stand",
        {"steps: 3000": "steps:"},
        8,
        ("trial.training.steps is None", "must be an integer of at least 1"),
    ),
    Bad(
        "below a bound",
        {"hidden_size: 128": "hidden_size: 0"},
        6,
        ("trial.model.hidden_size is 0", "must be an integer of at least 1 and"),
    ),
    Bad(
        "above a bound",
        {"replicates: 2": "replicates: 65"},
        4,
        ("trial.replicates is 65", "must be an integer of at least 1 and at most 64."),
    ),
    Bad(
        "on an open bound",
        {"lr: 1e-3": "lr: 0"},
        9,
        ("trial.training.optimizer.lr is 0", "must be a number of more than 0 and at most 1."),
    ),
    Bad(
        "not a finite number",
        {"lr: 1e-3": "lr: .inf"},
        9,
        ("trial.training.optimizer.lr is inf", "must be a finite number."),
    ),
    Bad(
        "out of range in a list",
        {"n: [1, 2, 3]": "n: [1, 5]"},
        5,
        ("trial.task.n.1 is 5", "must be an integer of at least 1 and at most 3."),
    ),
    Bad(
        "an empty list",
        {"n: [1, 2, 3]": "n: []"},
        5,
        ("trial.task.n is []", "must be a list of at least 1 entry, each an integer"),
    ),
    Bad(
        "the same thing twice",
        {"n: [1, 2, 3]": "n: [1, 1]"},
        5,
        ("trial.task.n is [1, 1]", "must not name anything twice."),
    ),
    Bad(
        "an unknown literal",
        {"cell: gru": "cell: gruu"},
        6,
        ("trial.model.cell is 'gruu'", "must be one of vanilla, gru, lstm.", "Did you mean gru?"),
    ),
    Bad(
        "an unknown literal in a list",
        {"identity, category": "identity, categry"},
        5,
        ("trial.task.features.2 is 'categry'", "one of location, identity, category", "Did you mean category?"),
    ),
    Bad(
        "an unknown mode",
        {"mode: max": "mode: maximum"},
        18,
        ("search.objective.mode is 'maximum'", "must be one of max, min.", "Did you mean max?"),
    ),
    Bad(
        "a rule of a task",
        {"n: [1, 2, 3]": "n: [1, 2, 3], steps: 3"},
        5,
        ("trial.task.steps is 3", "must exceed the largest n"),
    ),
    Bad("a bad name", {"nback-cells": "nback/cells"}, 1, ("name is 'nback/cells'", "must be 1 to 100 letters, digits")),
    Bad(
        "a missing field",
        {"  trials: 12\n": ""},
        11,
        ("search.trials is missing", "only the grid sampler", "Write a number."),
    ),
    Bad(
        "a misspelt missing field",
        {"trials: 12": "trails: 12"},
        19,
        ("search.trails is 12", "not a field of search.", "Did you mean trials?"),
    ),
    Bad(
        "deep in the stimuli",
        {"{kind: nback,": STIMULI + "{gate: {locatio: 1}},"},
        5,
        ("trial.task.stimuli.gate.locatio is 1", "not a field of", "Did you mean location?"),
    ),
    Bad(
        "a bad short form",
        {"{kind: nback,": STIMULI + "{gate: wran},"},
        5,
        ("trial.task.stimuli.gate is 'wran'", "one of stop, warn", "Did you mean warn?"),
    ),
    Bad(
        "a bad renderer",
        {"{kind: nback,": STIMULI + "{renderer: {kind: x}},"},
        5,
        ("trial.task.stimuli.renderer.kind is 'x'", "it must be pyvista."),
    ),
    # The space.
    Bad("empty space", {SPACE: "    {}\n"}, 12, ("search.space is {}", "must be a mapping of at least 1 entry.")),
    Bad("no space", {SPACE: ""}, 12, ("search.space is None", "must be a mapping of at least 1 entry.")),
    Bad(
        "a search path that does not exist",
        {"model.cell: {": "model.cel: {"},
        13,
        ("search.space.model.cel is not a path of the trial", "Did you mean model.cell?", "hidden_size"),
    ),
    Bad(
        "a search path without its parents",
        {"training.optimizer.lr": "lr"},
        14,
        ("search.space.lr is not a path of the trial", "Did you mean training.optimizer.lr?"),
    ),
    Bad(
        "a search path below a value",
        {"model.cell: {": "model.cell.x: {"},
        13,
        ("search.space.model.cell.x is not a path of the trial", "'x' does not exist", "Did you mean model.cell?"),
    ),
    Bad(
        "a search path from the top",
        {"model.cell: {": "trial.model.cell: {"},
        13,
        ("search.space.trial.model.cell is not a path of the trial", "write model.cell."),
    ),
    Bad(
        "a search path inside another one",
        {f"model.cell: {CELLS}": "model: {choice: [{kind: rnn}]}"},
        15,
        ("search.space.model.dropout lies inside model", "no effect", "Remove one", "when: {model: {...}}."),
    ),
    Bad(
        "an unknown distribution",
        {"{choice: ": "{chioce: "},
        13,
        (
            "search.space.model.cell is {'chioce'",
            "the keys choice, uniform, loguniform, int, logint, quantised.",
            "Did you mean choice?",
        ),
    ),
    Bad(
        "a list for a distribution",
        {CELLS: "[vanilla, gru]"},
        13,
        (
            "search.space.model.cell is ['vanilla', 'gru']",
            "must be a mapping",
            "Write a list of values as {choice: [...]}.",
        ),
    ),
    Bad(
        "two distributions",
        {"0.5]}": "0.5], int: [0, 1]}"},
        15,
        ("search.space.model.dropout is {", "one distribution, and 2 are given (uniform, int)", "Keep one of them."),
    ),
    Bad(
        "a list of choices beside a range",
        {"{uniform: [0, 0.5]}": "{uniform: [0, 0.5], choice: [0, 0.5]}"},
        15,
        ("search.space.model.dropout is {'uniform'", "2 are given (uniform, choice)", "Keep one of them."),
    ),
    Bad(
        "a distribution with a key of its own making",
        {"0.5]}": "0.5], step: 0.1}"},
        15,
        ("search.space.model.dropout.step is 0.1", "is not a field", "Fields: when, uniform."),
    ),
    Bad(
        "no choices",
        {CELLS: "{choice: []}"},
        13,
        ("search.space.model.cell.choice is []", "must be a list of at least 1 entry."),
    ),
    Bad(
        "the same choice twice",
        {"[vanilla, gru, lstm]": "[gru, gru]"},
        13,
        ("search.space.model.cell.choice is ['gru', 'gru']", "must not hold the same choice twice", "'gru' equals"),
    ),
    Bad(
        "an invalid choice",
        {"vanilla, gru, lstm]": "gru, gruu]"},
        13,
        ("search.space.model.cell.choice.1 is 'gruu'", "must be one of vanilla, gru, lstm.", "Did you mean gru?"),
    ),
    Bad(
        "low above high",
        {"[0, 0.5]": "[0.5, 0]"},
        15,
        ("search.space.model.dropout.uniform is [0.5, 0]", "must be [low, high] with low below high"),
    ),
    Bad(
        "a logarithm of zero",
        {"[1.0e-4, ": "[0, "},
        14,
        ("search.space.training.optimizer.lr.loguniform is [0, 0.01]", "must start above 0"),
    ),
    Bad(
        "one bound",
        {"[1.0e-4, 1.0e-2]": "[1.0e-4]"},
        14,
        ("search.space.training.optimizer.lr.loguniform.1 is missing", "it must be a number."),
    ),
    Bad(
        "three bounds",
        {"[0, 0.5]": "[0, 0.5, 1]"},
        15,
        ("search.space.model.dropout.uniform is [0, 0.5, 1]", "must be a list of 2 entries, each a number."),
    ),
    Bad(
        "a bound out of range",
        {"[0, 0.5]": "[0, 1]"},
        15,
        ("search.space.model.dropout.uniform.1 is 1.0", "must be a number of at least 0 and less than 1."),
    ),
    Bad(
        "an int range for a number of steps",
        {f"model.cell: {CELLS}": "task.steps: {int: [2, 8]}"},
        13,
        ("search.space.task.steps.int.0 is 2", "must exceed the largest n"),
    ),
    Bad(
        "numbers where integers belong",
        {"model.dropout": "model.hidden_size"},
        15,
        ("search.space.model.hidden_size.uniform.0 is 0.0", "must be an integer", "Search it by int: [low, high]."),
    ),
    Bad(
        "a choice of mappings, one of them bad",
        {SPACE: "    model: {choice: [{kind: rnn}, {kind: rnn, hiden_size: 3}]}\n"},
        13,
        ("search.space.model.choice.1 is {'kind'", "trial.model.hiden_size is 3", "Did you mean hidden_size?"),
    ),
    Bad(
        "a choice of kinds alone",
        {"model.cell: {choice: [vanilla, gru, lstm]}": "task.stimuli.views.kind: {choice: [interpolated, published]}"},
        13,
        (
            "search.space.task.stimuli.views.kind.choice.1 is 'published'",
            "fields of the kinds differ",
            "task.stimuli.views: {choice: [{kind: ...}",
        ),
    ),
    # Parts that do not fit each other.
    Bad(
        "a metric that is not reported",
        {"select/accuracy": "select/acuracy"},
        18,
        ("search.objective.metric is 'select/acuracy'", "the task nback reports", "Did you mean select/accuracy?"),
    ),
    Bad(
        "a metric without its split",
        {"select/accuracy": "accuracy"},
        18,
        ("search.objective.metric is 'accuracy'", "must name the split", "Write select/accuracy."),
    ),
    Bad(
        "a metric on the test split",
        {"select/accuracy": "test/accuracy"},
        18,
        ("search.objective.metric is 'test/accuracy'", "after training", "Write select/accuracy."),
    ),
    Bad(
        "a metric that only some variants report",
        {f"model.cell: {CELLS}": "task.n: {choice: [[1], [2]]}", "select/accuracy": "select/accuracy_n2_identity"},
        18,
        (
            "search.objective.metric is 'select/accuracy_n2_identity'",
            "at task.n = [1]",
            "Did you mean select/accuracy_n1_identity?",
        ),
    ),
    Bad(
        "grace between evaluations",
        {"grace: 500": "grace: 300"},
        17,
        ("search.scheduler.grace is 300", "multiple of trial.evaluation.every_steps, which is 250", "Write 250."),
    ),
    Bad(
        "grace below an evaluation",
        {"grace: 500": "grace: 100"},
        17,
        ("search.scheduler.grace is 100", "must be a multiple", "Write 250."),
    ),
    Bad(
        "grace at the end",
        {"grace: 500": "grace: 3000"},
        17,
        ("search.scheduler.grace is 3000", "below trial.training.steps", "write scheduler: {kind: none}."),
    ),
    Bad(
        "grace beyond a searched end",
        {"model.dropout: {uniform: [0, 0.5]}": "training.steps: {choice: [500, 3000]}"},
        17,
        ("search.scheduler.grace is 500", "(at training.steps = 500)", "Lower it"),
    ),
    Bad(
        "no evaluation",
        {"{every_steps: 250}": "{every_steps: 5000}"},
        10,
        ("trial.evaluation.every_steps is 5000", "at most training.steps, which is 3000", "Write 3000 or less."),
    ),
    Bad(
        "a split that the task lacks",
        {"analyses:": "recording: {split: neutrall}\nanalyses:"},
        20,
        ("recording.split is 'neutrall'", "must be one of train, select", "Did you mean neutral?"),
    ),
    Bad(
        "a state that some variants lack",
        {"analyses:": "recording: {states: [c]}\nanalyses:"},
        20,
        ("recording.states.0 is 'c'", "must be one of h."),
    ),
    Bad(
        "no states",
        {"analyses:": "recording: {states: []}\nanalyses:"},
        20,
        ("recording.states is ()", "must name at least one of h.", "Leave it out"),
    ),
    Bad(
        "an analysis of a condition that the task lacks",
        {"{kind: decoding}": "{kind: trajectories, color_by: feture}"},
        21,
        ("analyses.0.color_by is 'feture'", "must be a condition: n, feature", "Did you mean feature?"),
    ),
    Bad(
        "an analysis of a step beyond the last",
        {"{kind: decoding}": "{kind: trajectories, color_by: location, at_step: 9}"},
        21,
        ("analyses.0.at_step is 9", "below 6", "Write 5 or less."),
    ),
    Bad(
        "an analysis that lacks its step",
        {"{kind: decoding}": "{kind: trajectories, color_by: location}"},
        21,
        ("analyses.0.at_step must be given", "a value at every step", "at_step: 0."),
    ),
    Bad(
        "an analysis of a property that the task lacks",
        {"{kind: decoding}": "{kind: decoding, properties: [location, shape]}"},
        21,
        ("analyses.0.properties.1 is 'shape'", "with a value at every step: image, location"),
    ),
    Bad(
        "an analysis of a state that is not recorded",
        {"{kind: decoding}": "{kind: decoding, state: c}"},
        21,
        ("analyses.0.state is 'c'", "is recorded (recording.states): h", "model.cell"),
    ),
    Bad(
        "an analysis that runs the network on from states that are not all recorded",
        {"{kind: decoding}": "{kind: perturbation, variables: [location@0, location@1], responses: [4, 5], moment: 3}"},
        21,
        ("analyses.0 needs all states", "c will not be recorded", "model.cell", "recording.states: [h, c]."),
    ),
    Bad(
        "the same analysis twice",
        {"  - {kind": "  - {kind: decoding}\n  - {kind"},
        22,
        ("analyses.1 repeats an earlier", "Remove one of the two."),
    ),
    Bad(
        "one CPU and a half",
        {"analyses:": "resources: {cpu: 1.5}\nanalyses:"},
        20,
        ("resources.cpu is 1.5", "must be a share of one device (at most 1) or a whole number."),
    ),
    Bad(
        "next to no GPU",
        {"analyses:": "resources: {gpu: 0.00001}\nanalyses:"},
        20,
        ("resources.gpu is 1e-05", "must be 0 or at least 0.0001"),
    ),
    Bad(
        "a folder for tracking",
        {"analyses:": "tracking: {uri: ./mlruns}\nanalyses:"},
        20,
        ("tracking.uri is './mlruns'", "must be null or", "sqlite:///"),
    ),
    Bad(
        "a password for tracking",
        {"analyses:": "tracking: {uri: 'postgresql://me:hunter2@host/runs'}\nanalyses:"},
        20,
        ("tracking.uri is 'postgresql://me:***@host/runs'", "must hold no password", "PGPASSWORD"),
    ),
    Bad(
        "a database that lies elsewhere in every folder",
        {"analyses:": "tracking: {uri: 'sqlite:///runs.db'}\nanalyses:"},
        20,
        ("tracking.uri is 'sqlite:///runs.db'", "must name its file from the root on", "sqlite:////FOLDER/FILE"),
    ),
    Bad(
        "a server without a host",
        {"analyses:": "tracking: {uri: 'http://'}\nanalyses:"},
        20,
        ("tracking.uri is 'http:", "must be null or an MLflow store's address", "http://HOST:PORT"),
    ),
    # Names, bounds and options without effect.
    Bad(
        "the name of the banks' folder",
        {"nback-cells": "stimuli"},
        1,
        ("name is 'stimuli'", "must be another name", "images and features"),
    ),
    Bad(
        "next to no CPU",
        {"analyses:": "resources: {cpu: 0.001}\nanalyses:"},
        20,
        ("resources.cpu is 0.001", "must be a number of at least 0.01."),
    ),
    Bad(
        "a batch that fits nowhere",
        {"steps: 3000": "steps: 3000\n    batch_size: 65537"},
        9,
        ("trial.training.batch_size is 65537", "must be an integer of at least 1 and at most 65536."),
    ),
    Bad(
        "a seed beyond 63 bits",
        {"seed: 0": "seed: 9223372036854775808"},
        3,
        ("trial.seed is 9223372036854775808", "must be an integer of at least 0 and at most 9223372036854775807."),
    ),
    Bad(
        "more steps than anyone has time for",
        {"steps: 3000": "steps: 1000000001"},
        8,
        ("trial.training.steps is 1000000001", "must be an integer of at least 1 and at most 1000000000."),
    ),
    Bad(
        "more best trials than trials",
        {"analyses:": "checkpoints: {best: 13}\nanalyses:"},
        20,
        ("checkpoints.best is 13", "at most search.trials, which is 12", "Write 12 or less."),
    ),
    Bad(
        "recordings that nobody reads",
        {"analyses:\n  - {kind: decoding}\n": "recording: {trials: 80}\n"},
        20,
        ("recording has no effect without analyses", "Leave it out"),
    ),
    *(
        Bad(
            f"{count} {split} identities",
            {"{kind: nback,": f"{STIMULI}{{objects: {{kind: procedural, {split}_identities: {count}}}}},"},
            5,
            (f"trial.task.stimuli.objects.{split}_identities is {count}", "must be an integer of at least 2"),
        )
        for split, count in (("train", 1), ("select", 0), ("select", 1), ("test", 0), ("test", 1))
    ),
    *(
        Bad(
            f"weights {weights}",
            {"{kind: nback,": f"{STIMULI}{{backbone: {{kind: resnet50, weights: {weights}}}}},"},
            5,
            (f"trial.task.stimuli.backbone.weights is '{weights}'", words, "IMAGENET1K_V2"),
        )
        for weights, words in (
            ("/no/such.pth", "must be an existing file"),
            ("such.safetensors", "must be an existing file"),
            ("no/such", "must be an existing file"),
            ("IMAGENET1K_V3", "must be one of IMAGENET1K_V1"),
        )
    ),
    # YAML.
    Bad(
        "duplicate keys",
        {"  replicates: 2": "  seed: 1"},
        4,
        ("trial.seed stands twice", "lines 3 and 4", "Remove one of the two."),
    ),
    Bad(
        "unreadable YAML",
        {"[1, 2, 3]": "[1, 2, 3"},
        5,
        ("the file is not readable YAML", "expected ',' or ']'", "column 76"),
    ),
    Bad("a tab", {"  replicates": "\treplicates"}, 4, ("the file is not readable YAML", "use spaces.")),
    Bad(
        "a tag",
        {"[1, 2, 3]": "!!python/tuple [1, 2, 3]"},
        5,
        ("the file must be plain data", "python/tuple", "Remove the tag."),
    ),
    Bad(
        "a key that is not text",
        {"  seed: 0": "  0: seed"},
        3,
        ("trial.0 is a key that is 0", "must be text", "Put it in quotes."),
    ),
    Bad(
        "an empty file",
        {GOOD: ""},
        None,
        ("the file is empty", "Start from a spec that `wmsweep list` names."),
        place="FILE: ",
    ),
    Bad("not a mapping", {GOOD: "- 1\n"}, 1, ("the file must hold a mapping (key: value)", "a list")),
    # Overrides and storage.
    Bad(
        "an override with a bad value",
        {},
        None,
        ("trial.model.hidden_size is 'big'", "must be an integer"),
        ("trial.model.hidden_size=big",),
        place="--set: ",
    ),
    Bad(
        "an override of nothing",
        {},
        None,
        ("trial.model.sise is 3", "is not a field", "Fields: kind, cell"),
        ("trial.model.sise=3",),
        place="--set: ",
    ),
    Bad(
        "an override without a value",
        {},
        None,
        ("--set is 'trial.seed'", "must have the form path=value", "For example trial.training.steps=100."),
        ("trial.seed",),
    ),
    Bad(
        "an override of a bound",
        {},
        None,
        ("search.space.model.dropout.uniform.1 is 2.0", "must be a number of at least 0 and less than 1."),
        ("search.space.model.dropout.uniform.1=2",),
        place="--set: ",
    ),
    Bad(
        "an override that leaves no evaluation",
        {},
        10,
        ("trial.evaluation.every_steps is 250", "which is 100", "Write 100 or less."),
        ("trial.training.steps=100",),
    ),
    Bad(
        "storage below a file",
        {},
        None,
        ("the storage folder FILE/runs must be a folder", "which is a file", "Name another one with --storage."),
        arguments=("--storage", "FILE/runs"),
    ),
    Bad(
        "storage that is a file",
        {},
        None,
        ("the storage folder FILE must be a folder", "it is a file", "Name another one with --storage."),
        arguments=("--storage", "FILE"),
    ),
    Bad(
        "storage that refuses",
        {},
        None,
        ("the storage folder /proc/wmsweep", "refuses", "--storage"),
        arguments=("--storage", "/proc/wmsweep/runs"),
    ),
]


@pytest.fixture(autouse=True)
def no_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    """Importing Ray or MLflow fails, so that a check that needs them fails too."""
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.setitem(sys.modules, "mlflow", None)


@pytest.mark.parametrize("bad", BAD, ids=lambda bad: bad.name)
def test_is_refused_in_one_paragraph(bad, tmp_path, capsys):
    assert_refused(bad, tmp_path, capsys)


def test_enough_bad_specs_with_different_names():
    assert len({bad.name for bad in BAD}) == len(BAD) >= 60


def test_the_good_spec_is_good(tmp_path, capsys):
    path = tmp_path / "spec.yaml"
    path.write_text(GOOD, encoding="utf-8")
    code, out, err = validate(capsys, path, "--storage", str(tmp_path / "runs" / "deep"))
    assert (code, err) == (0, "")
    assert out.startswith("nback-cells is valid: 12 trials")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["spec.yaml"]


def test_missing_file_and_folder(tmp_path, capsys):
    (tmp_path / "sweep.yaml").write_text(GOOD, encoding="utf-8")
    code, _, err = validate(capsys, tmp_path / "swep.yaml")
    assert code == 2
    assert f"{tmp_path / 'swep.yaml'}: the spec does not exist. Did you mean sweep.yaml?" in err
    code, _, err = validate(capsys, tmp_path)
    assert code == 2
    assert "must be a file, and it is a folder" in err


def test_not_utf8(tmp_path, capsys):
    path = tmp_path / "spec.yaml"
    path.write_bytes(GOOD.replace("seed: 0", "seed: \xe9", 1).encode("latin-1"))
    code, _, err = validate(capsys, path)
    assert code == 2
    assert f"{path}:3: the file must be UTF-8 text" in err


def test_several_faults_are_counted_and_the_first_line_comes_first(tmp_path, capsys):
    path = tmp_path / "spec.yaml"
    text = (
        GOOD.replace("trials: 12", "trials: 0").replace("cell: gru", "cell: g").replace("replicates: 2", "replicate: 2")
    )
    path.write_text(text, encoding="utf-8")
    code, _, err = validate(capsys, path)
    assert code == 2
    assert err.startswith(f"Error: {path}:4: trial.replicate is 2")
    assert f"And 2 more: trial.model.cell ({path}:6), search.trials ({path}:19)." in err


def test_a_fresh_process_imports_neither_ray_nor_mlflow(tmp_path):
    path = tmp_path / "spec.yaml"
    path.write_text(GOOD.replace("lstm]", "lstmm]"), encoding="utf-8")
    code = (
        "import sys\nfrom sweeps.cli import main\n"
        f"try:\n    main(['validate', {str(path)!r}])\n"
        "except SystemExit as end:\n"
        "    print(end.code, sorted({'ray', 'mlflow'} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "2 []\n"
    assert "Did you mean lstm?" in done.stderr
