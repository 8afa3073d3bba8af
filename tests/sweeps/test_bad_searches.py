"""Bad searches: distributions, conditions, samplers, schedulers, objectives and warm starts that do not fit."""

from __future__ import annotations

import pytest

from tests.fixtures.bad_specs import Bad, assert_refused, validate
from tests.fixtures.sweeps import new_folder, small_sweep

CELL, LR, DROPOUT = (
    "{choice: [vanilla, gru, lstm]}",
    "{loguniform: [1.0e-4, 1.0e-2]}",
    "{uniform: [0, 0.5]}",
)
CELL_LINE, LR_LINE, DROPOUT_LINE = (
    f"    model.cell: {CELL}\n",
    f"    training.optimizer.lr: {LR}\n",
    f"    model.dropout: {DROPOUT}\n",
)
SAMPLER, SCHEDULER, OBJECTIVE = (
    "{kind: tpe, seed: 0}",
    "{kind: asha, grace: 500, reduction: 3}",
    "{metric: select/accuracy, mode: max}",
)
NO_SCHEDULER = {SCHEDULER: "{kind: none}"}
NUMBERS = {CELL_LINE: "    model.hidden_size: {int: [8, 64]}\n"}
GRID = {SAMPLER: "{kind: grid}", LR_LINE: "", DROPOUT_LINE: "    model.hidden_size: {quantised: [8, 32, 8]}\n"}
"""3 x 4 cells."""
TWO = "[{metric: select/accuracy}, {metric: select/d_prime}]"


def dropout(distribution: str) -> dict[str, str]:
    return {DROPOUT: distribution}


def when(condition: str) -> dict[str, str]:
    return dropout(f"{{uniform: [0, 0.5], when: {condition}}}")


def size(distribution: str) -> dict[str, str]:
    return {DROPOUT_LINE: f"    model.hidden_size: {distribution}\n"}


def warm(text: str) -> dict[str, str]:
    return {"  trials: 12\n": f"  trials: 12\n  warm_start: {text}\n"}


def refused(path: str) -> str:
    return f"search.space.{path}"


AT = "search.space.model.dropout"
BAD = [
    # What has no effect, or unpairs the variants.
    Bad(
        "a searched seed",
        {LR_LINE: "    seed: {int: [0, 9]}\n"},
        14,
        (refused("seed must not be searched"), "the same stimuli and trials", "Write trial.replicates: 5"),
    ),
    Bad(
        "a condition that another one brings along",
        {LR_LINE: "    model.hidden_size: {choice: [8, 16], when: {model.cell: [gru, lstm]}}\n"}
        | when("{model.cell: [gru, lstm], model.hidden_size: 8}"),
        15,
        (
            f"{AT}.when.model.cell is ['gru', 'lstm']",
            "the other conditions hold only where model.cell is 'gru', 'lstm'",
        ),
    ),
    Bad(
        "every value of a path that is searched wherever the other conditions hold",
        {LR_LINE: "    model.hidden_size: {choice: [8, 16], when: {model.cell: [gru, lstm]}}\n"}
        | when("{model.cell: gru, model.hidden_size: [8, 16]}"),
        15,
        (f"{AT}.when.model.hidden_size is [8, 16]", "has no effect: it names every value of model.hidden_size."),
    ),
    Bad(
        "tpe that never uses its model",
        {SAMPLER: "{kind: tpe, startup_trials: 13}"},
        16,
        ("search.sampler.startup_trials is 13", "must be at most search.trials, which is 12", "every trial is random"),
    ),
    Bad(
        "nsga2 of one generation",
        {SAMPLER: "{kind: nsga2, population: 500}"},
        16,
        ("search.sampler.population is 500", "must be at most search.trials, which is 12", "{kind: random}"),
    ),
    Bad(
        "cmaes that never starts",
        {SAMPLER: "{kind: cmaes, startup_trials: 50}"} | NUMBERS,
        16,
        ("search.sampler.startup_trials is 50", "must be at most search.trials, which is 12"),
    ),
    Bad(
        "an earlier sweep in another user's home",
        warm("{sweep: ~nobody9/runs, best: 1}"),
        20,
        ("search.warm_start.sweep is '~nobody9/runs'", "must be spelt out"),
    ),
    # logint and quantised.
    Bad(
        "logint from 0",
        size("{logint: [0, 64]}"),
        15,
        (refused("model.hidden_size.logint.0 is 0"), "must be an integer of at least 1"),
    ),
    Bad(
        "logint of fractions",
        size("{logint: [1, 64.5]}"),
        15,
        (refused("model.hidden_size.logint.1 is 64.5"), "must be an integer of at least 1"),
    ),
    Bad(
        "logint with low above high",
        size("{logint: [64, 8]}"),
        15,
        (refused("model.hidden_size.logint is [64, 8]"), "must be [low, high] with low below high"),
    ),
    Bad(
        "logint of one bound",
        size("{logint: [64]}"),
        15,
        (refused("model.hidden_size.logint.1 is missing"), "it must be an integer"),
    ),
    Bad(
        "logint beyond what the trial allows",
        size("{logint: [8, 9000]}"),
        15,
        (refused("model.hidden_size.logint.1 is 9000"), "at most 8192"),
    ),
    Bad(
        "an integer that is no float",
        size("{int: [8, 9007199254740993]}"),
        15,
        (refused("model.hidden_size.int.1 is 9007199254740993"), "at most 9007199254740992."),
    ),
    Bad(
        "quantised without a step",
        dropout("{quantised: [0, 0.5]}"),
        15,
        (f"{AT}.quantised.2 is missing", "it must be a number of more than 0."),
    ),
    Bad(
        "a step of 0",
        dropout("{quantised: [0, 0.5, 0]}"),
        15,
        (f"{AT}.quantised.2 is 0", "must be a number of more than 0."),
    ),
    Bad(
        "a negative step",
        dropout("{quantised: [0, 0.5, -0.1]}"),
        15,
        (f"{AT}.quantised.2 is -0.1", "must be a number of more than 0."),
    ),
    Bad(
        "quantised with low above high",
        dropout("{quantised: [0.5, 0, 0.1]}"),
        15,
        (f"{AT}.quantised is [0.5, 0, 0.1]", "with low below high, and 0.5 is not below 0"),
    ),
    Bad(
        "a high bound that no step meets",
        dropout("{quantised: [0, 0.5, 0.2]}"),
        15,
        (f"{AT}.quantised is [0, 0.5, 0.2]", "a whole number of steps above low", "the steps meet 0.4 and 0.6."),
    ),
    Bad(
        "too many steps",
        dropout("{quantised: [0, 0.5, 1.0e-17]}"),
        15,
        (f"{AT}.quantised is [0, 0.5, 1e-17]", "within 9007199254740992 of 0 and at most as many steps."),
    ),
    Bad(
        "quantised text",
        dropout("{quantised: [0, half, 0.1]}"),
        15,
        (f"{AT}.quantised.1 is 'half'", "must be a number."),
    ),
    Bad(
        "quantised infinity",
        dropout("{quantised: [0, .inf, 0.1]}"),
        15,
        (f"{AT}.quantised.1 is inf", "must be a finite number."),
    ),
    Bad(
        "one number for quantised",
        dropout("{quantised: 0.1}"),
        15,
        (f"{AT}.quantised is 0.1", "must be a list of 3 entries"),
    ),
    Bad(
        "quantised fractions where integers belong",
        size("{quantised: [8, 16, 0.5]}"),
        15,
        (refused("model.hidden_size.quantised.0 is 8.0"), "must be an integer", "Search it by int: [low, high]."),
    ),
    Bad(
        "quantised stimuli",
        {DROPOUT_LINE: "    task.stimuli.objects.train_identities: {quantised: [2, 6, 2]}\n"},
        15,
        (
            refused("task.stimuli.objects.train_identities is {'quantised': [2, 6, 2]}"),
            "must be a choice, because each value needs images",
            "List the values: {choice: [...]}.",
        ),
    ),
    # Conditions.
    Bad(
        "a misspelt when",
        dropout("{uniform: [0, 0.5], wen: {model.cell: lstm}}"),
        15,
        (f"{AT}.wen is {{'model.cell': 'lstm'}}", "is not a field", "Did you mean when?"),
    ),
    Bad(
        "a condition alone",
        dropout("{when: {model.cell: lstm}}"),
        15,
        (f"{AT} is {{'when': {{'model.cell': 'lstm'}}}}", "must be a mapping with one of the keys choice, uniform"),
    ),
    Bad("an empty condition", when("{}"), 15, (f"{AT}.when is {{}}", "must be a mapping of at least 1 entry")),
    Bad("text for a condition", when("lstm"), 15, (f"{AT}.when is 'lstm'", "must be a mapping of at least 1 entry")),
    Bad(
        "a condition on a path that is not searched",
        when("{model.cel: lstm}"),
        15,
        (f"{AT}.when.model.cel is not a path of this space", "Did you mean model.cell?", "Searched are model.cell,"),
    ),
    Bad(
        "a condition on a continuous path",
        when("{training.optimizer.lr: 0.001}"),
        15,
        (
            f"{AT}.when.training.optimizer.lr is 0.001",
            "is a condition on a continuous path (loguniform)",
            "Search training.optimizer.lr by choice, int, logint or quantised.",
        ),
    ),
    Bad(
        "a condition on a value that is no choice",
        when("{model.cell: lsmt}"),
        15,
        (f"{AT}.when.model.cell is 'lsmt'", "one of the choices 'vanilla', 'gru', 'lstm'.", "Did you mean lstm?"),
    ),
    Bad(
        "a condition on one bad value of several",
        when("{model.cell: [gru, lsmt]}"),
        15,
        (f"{AT}.when.model.cell.1 is 'lsmt'", "one of the choices", "Did you mean lstm?"),
    ),
    Bad(
        "a condition on a value between the steps",
        {CELL_LINE: "    model.hidden_size: {quantised: [8, 32, 8]}\n"} | when("{model.hidden_size: 12}"),
        15,
        (
            f"{AT}.when.model.hidden_size is 12",
            "must be a value of quantised: [8, 32, 8].",
            "For example 8 or 32.",
        ),
    ),
    Bad(
        "a condition on no value",
        when("{model.cell: []}"),
        15,
        (f"{AT}.when.model.cell is []", "must be a value or a list of at least one"),
    ),
    Bad(
        "a condition that names a value twice",
        when("{model.cell: [gru, gru]}"),
        15,
        (f"{AT}.when.model.cell.1 is 'gru'", "stands there twice", "Remove one of the two."),
    ),
    Bad(
        "a condition that always holds",
        when("{model.cell: [gru, lstm, vanilla]}"),
        15,
        (f"{AT}.when.model.cell is ['gru', 'lstm', 'vanilla']", "has no effect", "Remove the condition."),
    ),
    Bad(
        "a path that depends on itself",
        {CELL: "{choice: [vanilla, gru, lstm], when: {model.cell: gru}}"},
        13,
        (refused("model.cell.when.model.cell makes the path depend on itself"), "Remove one of the conditions."),
    ),
    Bad(
        "a circle of conditions",
        {CELL: "{choice: [gru, lstm], when: {model.hidden_size: 8}}"}
        | size("{choice: [8, 16], when: {model.cell: gru}}"),
        13,
        (
            refused("model.cell.when.model.hidden_size closes a circle"),
            "model.cell, which depends on model.hidden_size, which depends on model.cell.",
            "Remove one of the conditions.",
        ),
    ),
    Bad(
        "conditions that never hold together",
        {LR_LINE: "    model.hidden_size: {choice: [8, 16], when: {model.cell: gru}}\n"}
        | when("{model.hidden_size: 8, model.cell: lstm}"),
        15,
        (
            f"{AT}.when never holds",
            "model.cell would have to have different values at once ('gru', and 'lstm').",
            "Remove one of the conditions.",
        ),
    ),
    Bad(
        "a conditional value that does not fit",
        {DROPOUT_LINE: "    task.steps: {int: [2, 8], when: {model.cell: gru}}\n"},
        15,
        (refused("task.steps.int.0 is 2"), "must exceed the largest n"),
    ),
    Bad(
        "a path inside a value that is no mapping",
        {
            CELL_LINE: "    task.stimuli.gate: {choice: [warn, {location: 0.5}]}\n",
            DROPOUT_LINE: "    task.stimuli.gate.location: {choice: [0.4, 0.5], when: {task.stimuli.gate: warn}}\n",
        },
        15,
        (
            refused("task.stimuli.gate.location.when.task.stimuli.gate is 'warn'"),
            "must name mappings only",
            "List whole mappings as the choices of task.stimuli.gate.",
        ),
    ),
    Bad(
        "a path inside a short form within a mapping",
        {
            CELL_LINE: "    task.stimuli: {choice: [{gate: warn}, {gate: stop}]}\n",
            DROPOUT_LINE: "    task.stimuli.gate.location: {choice: [0.4], when: {task.stimuli: {gate: warn}}}\n",
        },
        15,
        (
            refused("task.stimuli.gate.location.when.task.stimuli is {'gate': 'warn'}"),
            "must name mappings only",
            "List whole mappings as the choices of task.stimuli.",
        ),
    ),
    # Samplers.
    Bad(
        "a sampler without its mapping",
        {SAMPLER: "sobol"},
        16,
        ("search.sampler is 'sobol'", "must be a mapping whose kind is one of cmaes, grid,", "Write {kind: sobol}."),
    ),
    Bad(
        "an option that sobol lacks",
        {SAMPLER: "{kind: sobol, scramble: false}"},
        16,
        ("search.sampler.scramble is False", "not a field of search.sampler of kind sobol", "Fields: kind, seed."),
    ),
    *(
        Bad(
            f"a negative seed of {kind}",
            {SAMPLER: f"{{kind: {kind}, seed: -1}}"},
            16,
            ("search.sampler.seed is -1", "must be an integer of at least 0"),
        )
        for kind in ("random", "grid", "sobol", "cmaes", "nsga2")
    ),
    Bad(
        "no random trial",
        {SAMPLER: "{kind: tpe, startup_trials: 0}"},
        16,
        ("search.sampler.startup_trials is 0", "must be an integer of at least 1."),
    ),
    Bad(
        "a grid over a continuous path",
        {SAMPLER: "{kind: grid}"},
        14,
        (
            refused("training.optimizer.lr.loguniform is [0.0001, 0.01]"),
            "must be a choice, int, logint or quantised, because the grid sampler tries every value",
            "Write for example quantised: [low, high, step], or another sampler.",
        ),
    ),
    Bad(
        "more trials than cells",
        GRID | {"trials: 12": "trials: 13"},
        18,
        ("search.trials is 13", "must be at most 12: the grid has only so many cells.", "Leave it out"),
    ),
    Bad(
        "a large grid in a random order",
        {SAMPLER: "{kind: grid, seed: 3}", LR_LINE: ""} | size("{int: [8, 400000]}"),
        15,
        ("search.sampler.seed is 3", "at most 1000000 cells", "this one has 1199979.", "Search fewer values"),
    ),
    Bad(
        "a large grid with conditions",
        {SAMPLER: "{kind: grid}", LR_LINE: ""} | size("{int: [8, 1400000], when: {model.cell: gru}}"),
        15,
        ("search.sampler.kind is 'grid'", "at most 1000000 cells", "this one has 1399995.", "Search fewer values"),
    ),
    *(
        Bad(
            f"{kind} without a number of trials",
            {SAMPLER: f"{{kind: {kind}}}", "  trials: 12\n": ""},
            11,
            ("search.trials is missing", "only the grid sampler knows", "Write a number."),
        )
        for kind in ("random", "sobol", "nsga2")
    ),
    Bad(
        "cmaes over choices",
        {SAMPLER: "{kind: cmaes}"},
        13,
        (
            refused("model.cell.choice is ['vanilla', 'gru', 'lstm']"),
            "must be a range: the cmaes sampler",
            "Write sampler: {kind: tpe}, or search it in another sweep.",
        ),
    ),
    Bad(
        "cmaes with a condition",
        {SAMPLER: "{kind: cmaes}"} | NUMBERS | when("{model.hidden_size: 64}"),
        15,
        (
            f"{AT}.when is {{'model.hidden_size': 64}}",
            "must be left out: the cmaes sampler needs the same paths in every trial.",
            "Write sampler: {kind: tpe}, or leave the condition out.",
        ),
    ),
    Bad(
        "cmaes over one path",
        {SAMPLER: "{kind: cmaes}", CELL_LINE: "", DROPOUT_LINE: ""},
        14,
        ("search.sampler.kind is 'cmaes'", "at least 2 paths, and this one has 1.", "Write sampler: {kind: tpe}."),
    ),
    Bad(
        "cmaes in populations of three",
        {SAMPLER: "{kind: cmaes, population: 3}"} | NUMBERS,
        16,
        ("search.sampler.population is 3", "must be an integer of at least 4 or null."),
    ),
    Bad(
        "cmaes without a first trial",
        {SAMPLER: "{kind: cmaes, startup_trials: 0}"} | NUMBERS,
        16,
        ("search.sampler.startup_trials is 0", "must be an integer of at least 1."),
    ),
    Bad(
        "nsga2 in populations of one",
        {SAMPLER: "{kind: nsga2, population: 1}"},
        16,
        ("search.sampler.population is 1", "must be an integer of at least 2."),
    ),
    Bad(
        "a batch that nobody waits for",
        {SAMPLER: "{kind: tpe, batch: 4}"},
        16,
        ("search.sampler.batch is 4", "only a synchronous tpe suggests in batches.", "Write synchronous: true"),
    ),
    Bad(
        "an empty batch",
        {SAMPLER: "{kind: tpe, synchronous: true, batch: 0}"} | NO_SCHEDULER,
        16,
        ("search.sampler.batch is 0", "must be an integer of at least 1."),
    ),
    Bad(
        "synchronous batches beside early stopping",
        {SAMPLER: "{kind: tpe, synchronous: true}"},
        16,
        ("search.sampler.synchronous is True", "independent of timing beside asha", "Write scheduler: {kind: none}"),
    ),
    Bad(
        "yes for synchronous",
        {SAMPLER: "{kind: tpe, synchronous: yes}"},
        16,
        ("search.sampler.synchronous is 'yes'", "must be true or false.", "Write true."),
    ),
    # Schedulers.
    Bad(
        "a scheduler that does not exist",
        {"kind: asha": "kind: hyperband"},
        17,
        ("search.scheduler.kind is 'hyperband'", "must be one of asha, none."),
    ),
    Bad(
        "a reduction of one",
        {"reduction: 3": "reduction: 1"},
        17,
        ("search.scheduler.reduction is 1", "must be an integer of at least 2."),
    ),
    Bad(
        "judged by something else",
        {"reduction: 3": "judge_by: lower"},
        17,
        ("search.scheduler.judge_by is 'lower'", "one of mean, lower_bound.", "Did you mean lower_bound?"),
    ),
    Bad(
        "a confidence in the mean",
        {"reduction: 3": "confidence: 0.9"},
        17,
        ("search.scheduler.confidence is 0.9", "has no effect", "Write judge_by: lower_bound beside it"),
    ),
    Bad(
        "complete confidence",
        {"reduction: 3": "judge_by: lower_bound, confidence: 1"},
        17,
        ("search.scheduler.confidence is 1", "must be a number of more than 0.5 and less than 1."),
    ),
    Bad(
        "a lower bound of one replicate",
        {"reduction: 3": "judge_by: lower_bound", "replicates: 2": "replicates: 1"},
        17,
        ("search.scheduler.judge_by is 'lower_bound'", "must be mean where trial.replicates is 1", "Write judge_by"),
    ),
    Bad(
        "a lower bound where one replicate is searched",
        {"reduction: 3": "judge_by: lower_bound", DROPOUT_LINE: "    replicates: {int: [1, 3]}\n"},
        17,
        ("search.scheduler.judge_by is 'lower_bound'", "(at replicates = 1).", "train 2 replicates or more."),
    ),
    # Several objectives.
    Bad(
        "several objectives beside early stopping",
        {OBJECTIVE: TWO},
        17,
        (
            "search.scheduler.kind is 'asha'",
            "must be none: early stopping with several objectives is not defined, and search.objective lists 2.",
            "Write scheduler: {kind: none}, or keep one objective.",
        ),
    ),
    Bad(
        "the same objective twice",
        {OBJECTIVE: "[{metric: select/accuracy}, {metric: select/accuracy, mode: min}]"} | NO_SCHEDULER,
        18,
        ("search.objective.1.metric is 'select/accuracy'", "must be another metric", "Remove one of the two."),
    ),
    Bad(
        "several objectives for cmaes",
        {SAMPLER: "{kind: cmaes}", OBJECTIVE: TWO} | NUMBERS | NO_SCHEDULER,
        16,
        (
            "search.sampler.kind is 'cmaes'",
            "cmaes improves one objective, and search.objective lists 2.",
            "Write sampler: {kind: nsga2} or {kind: tpe}.",
        ),
    ),
    Bad(
        "one objective in a list",
        {OBJECTIVE: f"[{OBJECTIVE}]"},
        18,
        ("search.objective is [{'metric'", "or a list of 2 to 8 entries", "Write its one entry without the list."),
    ),
    Bad(
        "a metric for an objective",
        {OBJECTIVE: "select/accuracy"},
        18,
        ("search.objective is 'select/accuracy'", "must be a mapping with fields such as metric, mode or a list of"),
    ),
    Bad(
        "a second metric that is not reported",
        {OBJECTIVE: "[{metric: select/accuracy}, {metric: select/d_prim}]"} | NO_SCHEDULER,
        18,
        ("search.objective.1.metric is 'select/d_prim'", "the task nback reports.", "Did you mean select/d_prime?"),
    ),
    Bad(
        "a second metric on the test split",
        {OBJECTIVE: "[{metric: select/accuracy}, {metric: test/d_prime}]"} | NO_SCHEDULER,
        18,
        ("search.objective.1.metric is 'test/d_prime'", "split 'select'", "Write select/d_prime."),
    ),
    Bad(
        "an unknown mode of a second objective",
        {OBJECTIVE: "[{metric: select/accuracy}, {metric: select/d_prime, mode: mx}]"} | NO_SCHEDULER,
        18,
        ("search.objective.1.mode is 'mx'", "must be one of max, min.", "Did you mean max?"),
    ),
    Bad(
        "a misspelt key of a second objective",
        {OBJECTIVE: "[{metric: select/accuracy}, {metrc: select/d_prime}]"} | NO_SCHEDULER,
        18,
        ("search.objective.1.metric is missing", "metrc looks like it, misspelt."),
    ),
    Bad(
        "another best metric than the first objective",
        {OBJECTIVE: TWO, "{every_steps: 250}": "{every_steps: 250, best_metric: select/d_prime}"} | NO_SCHEDULER,
        10,
        ("trial.evaluation.best_metric is 'select/d_prime'", "decides (select/accuracy).", "Leave it out."),
    ),
    # Warm starts.
    Bad(
        "a first point with a path that is not searched",
        warm("{points: [{model.cel: gru}]}"),
        20,
        ("search.warm_start.points.0.model.cel is not a path of this space", "Did you mean model.cell?"),
    ),
    Bad(
        "a first point with an impossible choice",
        warm("{points: [{model.cell: gru}, {model.cell: gruu}]}"),
        20,
        (
            "search.warm_start.points.1.model.cell is 'gruu'",
            "must be a value of search.space.model.cell, which is choice: ['vanilla', 'gru', 'lstm'].",
            "Change it, or widen the space.",
        ),
    ),
    Bad(
        "a first point outside the bounds",
        warm("{points: [{model.dropout: 0.7}]}"),
        20,
        ("search.warm_start.points.0.model.dropout is 0.7", "uniform: [0.0, 0.5].", "Change it, or widen the space."),
    ),
    Bad(
        "an empty first point",
        warm("{points: [{}]}"),
        20,
        ("search.warm_start.points.0 is {}", "must name at least one path", "Remove it."),
    ),
    Bad(
        "a mapping for first points",
        warm("{points: {model.cell: gru}}"),
        20,
        ("search.warm_start.points is {'model.cell': 'gru'}", "must be a list, each a mapping."),
    ),
    Bad(
        "the same first point twice",
        warm("{points: [{model.dropout: 0}, {model.cell: gru}, {model.dropout: 0.0}]}"),
        20,
        (
            "search.warm_start.points.2 is {'model.dropout': 0.0}",
            "repeats the point 0 of the list.",
            "Remove one of the two.",
        ),
    ),
    Bad(
        "more first points than trials",
        {"  trials: 12\n": "  trials: 1\n  warm_start: {points: [{model.cell: gru}, {model.cell: lstm}]}\n"},
        20,
        ("search.warm_start.points must hold at most 1 points", "and holds 2.", "Remove some, or raise search.trials."),
    ),
    *(
        Bad(
            f"a first point at which {name}",
            when("{model.cell: lstm}") | warm(f"{{points: [{point}]}}"),
            20,
            (
                "search.warm_start.points.0.model.dropout is 0.1",
                "has no effect unless model.cell is 'lstm' at the same point",
                "Give model.cell as well, or leave it out.",
            ),
        )
        for name, point in (
            ("a path is not searched", "{model.cell: gru, model.dropout: 0.1}"),
            ("a path may not be searched", "{model.dropout: 0.1}"),
        )
    ),
    Bad(
        "a first point between the steps",
        size("{quantised: [8, 32, 8]}") | warm("{points: [{model.hidden_size: 12}]}"),
        20,
        (
            "search.warm_start.points.0.model.hidden_size is 12",
            "must be a value of search.space.model.hidden_size, which is quantised: [8, 32, 8].",
            "Change it, or widen the space.",
        ),
    ),
    Bad(
        "a first point that makes no trial",
        {
            CELL_LINE: "    task.n: {choice: [[1], [3], [2]]}\n",
            LR_LINE: "",
            DROPOUT_LINE: f"    task.steps: {{choice: {[8, 3, *range(9, 65)]}}}\n",
        }
        | warm("{points: [{task.n: [3], task.steps: 3}]}"),
        19,
        (
            "search.warm_start.points.0 is {'task.n': [3], 'task.steps': 3}",
            "does not make a trial: trial.task.steps is 3, but it must exceed the largest n",
        ),
    ),
    Bad(
        "the best of no sweep",
        warm("{best: 2}"),
        20,
        ("search.warm_start.best is 2", "without the folder of an earlier sweep.", "under search.warm_start.sweep."),
    ),
    Bad(
        "a negative number of best points",
        warm("{sweep: runs/x, best: -1}"),
        20,
        ("search.warm_start.best is -1", "must be an integer of at least 0."),
    ),
    Bad(
        "more best points than trials",
        warm("{points: [{model.cell: gru}], sweep: runs/x, best: 12}"),
        20,
        ("search.warm_start.best is 12", "which is 12, and there are 1 under points.", "Write 11 or less."),
    ),
    Bad(
        "an earlier sweep that is none",
        warm("{sweep: /no/such/sweep}"),
        20,
        (
            "search.warm_start.sweep is '/no/such/sweep'",
            "must be the folder of an earlier sweep, and no ledger.jsonl is there.",
            "Name DIR/<name> of a run.",
        ),
    ),
    *(
        Bad(
            f"an earlier sweep for {kind}",
            {SAMPLER: f"{{kind: {kind}}}"} | (NUMBERS if kind == "cmaes" else {}) | warm("{sweep: runs/x}"),
            20,
            (
                "search.warm_start.sweep is 'runs/x'",
                f"only tpe learns from an earlier sweep, and this is {kind}.",
                "Write best: 1 or more",
            ),
        )
        for kind in ("random", "sobol", "cmaes", "nsga2")
    ),
    *(
        Bad(
            f"{option} for a grid",
            GRID | warm(f"{{{option}: {value}}}"),
            19,
            (f"search.warm_start.{option} is {shown}", "the grid sampler tries every cell.", "Leave it out"),
        )
        for option, value, shown in (
            ("points", "[{model.cell: gru}]", "[{'model.cell': 'gru'}]"),
            ("sweep", "runs/x", "'runs/x'"),
        )
    ),
    # Divergence.
    *(
        Bad(
            f"divergence from a {field} of {value}",
            {"steps: 3000": f"steps: 3000\n    divergence: {{{field}: {value}}}"},
            9,
            (f"trial.training.divergence.{field} is {value}", words),
        )
        for field, value, words in (
            ("grad_norm", "0", "must be a number of more than 0."),
            ("silent_activity", "-0.1", "must be a number of at least 0."),
            ("silent_share", "1.5", "must be a number of more than 0 and at most 1."),
            ("saturated_margin", "1", "must be a number of at least 0 and less than 1."),
            ("saturated_share", "0", "must be a number of more than 0 and at most 1."),
        )
    ),
    Bad(
        "an unknown kind of divergence",
        {"steps: 3000": "steps: 3000\n    divergence: {silnt_share: 0.9}"},
        9,
        ("trial.training.divergence.silnt_share is 0.9", "is not a field", "Did you mean silent_share?"),
    ),
]


@pytest.mark.parametrize("bad", BAD, ids=lambda bad: bad.name)
def test_is_refused_in_one_paragraph(bad, tmp_path, capsys):
    assert_refused(bad, tmp_path, capsys)


def test_enough_bad_searches_with_different_names():
    assert len({bad.name for bad in BAD}) == len(BAD) >= 60


@pytest.mark.parametrize(
    ("edits", "words"),
    [
        (GRID, "(2 searched paths, 12 cells)"),
        (GRID | {"  trials: 12\n": ""}, "(2 searched paths, 12 cells)"),
        ({SAMPLER: "{kind: cmaes, population: 6}"} | NUMBERS, "sampler cmaes"),
        ({SAMPLER: "{kind: nsga2}", OBJECTIVE: TWO} | NO_SCHEDULER, "sampler nsga2"),
        ({SAMPLER: "{kind: tpe, synchronous: true, batch: 4}"} | NO_SCHEDULER, "sampler tpe"),
        ({"reduction: 3": "judge_by: lower_bound, confidence: 0.9"}, "scheduler asha"),
        (
            when("{model.cell: lstm}")
            | warm(
                "{points: [{model.cell: lstm, model.dropout: 0}, {model.cell: gru}, {training.optimizer.lr: 0.01}]}"
            ),
            "3 searched paths, continuous",
        ),
        # A path inside a searched mapping, at those choices of it that have the path.
        (
            {
                CELL_LINE: "    model: {choice: [{kind: rnn, cell: lstm}, {kind: rnn, cell: gru, hidden_size: 64}]}\n",
                DROPOUT_LINE: "    model.dropout: {uniform: [0, 0.5], when: {model: {kind: rnn, cell: lstm}}}\n",
            },
            "3 searched paths, continuous",
        ),
    ],
)
def test_what_fits_is_valid(edits, words, tmp_path, capsys):
    path = tmp_path / "spec.yaml"
    path.write_text(Bad("good", edits, None, ()).text, encoding="utf-8")
    code, out, err = validate(capsys, path)
    assert (code, err) == (0, "")
    assert out.startswith("nback-cells is valid: 12 trials")
    assert words in out


def test_an_earlier_sweep_that_does_not_fit_is_told_with_its_line(tmp_path, capsys):
    earlier = new_folder(small_sweep(), tmp_path / "runs")
    misspelt = earlier.with_name(earlier.name + "s")
    for named, says in (
        (earlier, (f"search.warm_start.sweep is '{earlier}'", "has no ended trial at a point of this space")),
        (misspelt, (f"search.warm_start.sweep is '{misspelt}'", f"Did you mean {earlier.name}?")),
    ):
        assert_refused(Bad("earlier", warm(f"{{sweep: {named}}}"), 20, says), tmp_path, capsys)
