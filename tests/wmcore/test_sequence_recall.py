"""Serial recall: sampling against plain loops, the published numbers, and scores against brute force."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import Tensor
from torch.nn import functional

from tests.contracts.task import TaskContract
from wmcore.analyses.moments import states_at, steps_at
from wmcore.analyses.variables import items_of
from wmcore.models.base import Rollout, SequenceModel, State
from wmcore.models.rnn import RNNSpec
from wmcore.recording import RecordingSpec, record
from wmcore.tasks.base import TaskSpec
from wmcore.tasks.sequence_recall import SequenceRecallSpec
from wmcore.tasks.sequence_sampling import PHASES, interleaved
from wmcore.tasks.sequence_scoring import Recall, guessing, shuffling
from wmcore.tasks.sequence_sets import SELECT, TEST, TRAIN, number_of_lists
from wmcore.training.trial_spec import TrialSpec
from wmcore.trials import Inputs, TrialBatch, batch_shape, dense

PUBLISHED = {"cue_channels": 4, "select_share": 0.0, "test_share": 0.0}
RICH = {
    "items": 6,
    "lengths": (2, 4),
    "length_weights": (1.0, 3.0),
    "replacement": True,
    "item_code": "both",
    "dt_ms": 50.0,
    "fixation_ms": 100.0,
    "stimulus_ms": 150.0,
    "gap_ms": 50.0,
    "delay_ms": 100.0,
    "longest_delay_ms": 250.0,
    "response_ms": 100.0,
    "input_noise": 0.2,
}

HELD_OUT_PAIRS = {
    SELECT: [(1, 2), (2, 5), (3, 4), (4, 2), (4, 3), (6, 4)],
    TEST: [(5, 2), (5, 6), (5, 7), (6, 1), (6, 2), (7, 1)],
}


def source(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def lists_of(batch: TrialBatch) -> list[tuple[int, ...]]:
    """The items of every trial, by rank."""
    columns = [batch.conditions[name].tolist() for name in items_of(list(batch.conditions))]
    return [tuple(item for item in row if item >= 0) for row in zip(*columns, strict=True)]


class TestHeldOut(TaskContract):
    @pytest.fixture(scope="class")
    @classmethod
    def spec(cls) -> TaskSpec:
        return SequenceRecallSpec()


class TestPublished(TaskContract):
    @pytest.fixture(scope="class")
    @classmethod
    def spec(cls) -> TaskSpec:
        return SequenceRecallSpec(**PUBLISHED)


class TestRich(TaskContract):
    @pytest.fixture(scope="class")
    @classmethod
    def spec(cls) -> TaskSpec:
        return SequenceRecallSpec(**RICH)


# What a trial shows


class Echo(SequenceModel):
    """h_t = x_t, y_t = the item channels of h_t: what is read at index t must have been shown at step t."""

    def __init__(self, channels: int, items: int) -> None:
        super().__init__()
        self.channels, self.items = channels, items

    def initial_state(self, batch_size: int, generator: torch.Generator | None = None) -> State:
        return {"h": torch.zeros(batch_size, self.channels)}

    def step(self, x: Inputs, state: State, generator: torch.Generator | None = None) -> tuple[Tensor, State]:
        h = dense(x["task"])
        return h[..., : self.items], {"h": h}

    def forward(
        self,
        inputs: Inputs,
        generator: torch.Generator | None = None,
        record: Sequence[str] = (),
        lengths: Tensor | None = None,
    ) -> Rollout:
        h = dense(inputs["task"])
        return Rollout(h[..., : self.items], {"h": h[:, -1]}, {"h": h} if record else {})


@pytest.mark.parametrize(
    ("length", "steps", "middle", "end"), [(2, 35, 20, 24), (3, 45, 25, 29), (4, 55, 30, 34), (5, 65, 35, 39)]
)
def test_phase_indices_are_those_of_the_reference(length: int, steps: int, middle: int, end: int) -> None:
    spec = SequenceRecallSpec(**{**PUBLISHED, "lengths": (length,), "cue_channels": 5})
    recording = record(
        spec.build(), Echo(16, 8), RecordingSpec(split="neutral", trials=40, states=("h",)), source(), provenance={}
    )
    assert recording.sizes["time"] == steps
    assert set(recording["lengths"].values) == {steps}
    expected = {"fixation.start": 0, "fixation.end": 4, "delay.mid": middle, "delay.end": end, "trial.end": steps - 1}
    expected |= {f"stimulus_{p}.end": (9, 14, 19, 24, 29)[p] for p in range(length)}
    expected |= {f"response_{i}.start": end + 1 + 5 * i for i in range(length)}
    expected |= {f"response_{i}.end": end + 5 + 5 * i for i in range(length)}
    for moment, step in expected.items():
        assert set(steps_at(recording, moment, "test")) == {step}, moment
    # The echo network: the state at the last step of a stimulus is that item's code, one step later it is not.
    states = recording["state_h"].values
    for p in range(length):
        at = steps_at(recording, f"stimulus_{p}.end", "test")
        assert (states_at(states, at)[:, :8].argmax(1) == recording[f"item_{p}"].values).all()
        assert (states_at(states, at)[:, 9] == 1).all()
        cue = states_at(states, steps_at(recording, f"response_{p}.start", "test"))
        assert (cue == np.eye(16)[11 + p]).all()
    assert (states_at(states, steps_at(recording, "stimulus_0.end", "test") + 1)[:, 8:11] == [0, 1, 0]).all()
    assert (states_at(states, steps_at(recording, "delay.start", "test")) == np.eye(16)[10]).all()
    assert (states_at(states, steps_at(recording, "delay.end", "test")) == np.eye(16)[10]).all()


def by_plain_loops(spec: SequenceRecallSpec, items: tuple[int, ...], delay: int) -> dict[str, list]:
    """One trial, phase after phase: the input of every step and what it is called."""
    steps: dict[str, list] = {name: [] for name in ("input", "phase", "rank", "prefix", "target")}

    def add(ms: float, phase: str, on: Sequence[int], code: list[float], rank: int, shown: int, target: int) -> None:
        for _ in range(round(ms / spec.dt_ms)):
            flags = [1.0 if i in on else 0.0 for i in range(3 + spec.cue_channels)]
            steps["input"].append(code + flags)
            steps["phase"].append(PHASES.index(phase))
            steps["rank"].append(rank)
            steps["prefix"].append(items[:shown])
            steps["target"].append(target)

    def code_of(item: int | None) -> list[float]:
        one_hot = [1.0 if k == item else 0.0 for k in range(spec.items)]
        angle = 2 * math.pi * (item or 0) / spec.items
        circle = [0.0, 0.0] if item is None else [math.cos(angle), math.sin(angle)]
        return {"one_hot": one_hot, "circular": circle, "both": one_hot + circle}[spec.item_code]

    nothing = code_of(None)
    add(spec.fixation_ms, "fixation", [0], nothing, -1, 0, 0)
    for p, item in enumerate(items):
        add(spec.stimulus_ms, "stimulus", [1], code_of(item), p, p + 1, 0)
        if p < len(items) - 1:
            add(spec.gap_ms, "gap", [], nothing, -1, p + 1, 0)
    add(delay * spec.dt_ms, "delay", [2], nothing, -1, len(items), 0)
    for i, item in enumerate(items):
        add(spec.response_ms, "response", [3 + i], nothing, i, len(items), item)
    return steps


SPECS = st.builds(
    lambda steps, noise, **fields: SequenceRecallSpec(
        **{f"{name}_ms": count * 20.0 for name, count in steps.items()},
        dt_ms=20.0,
        input_noise=noise,
        select_share=0,
        test_share=0,
        **fields,
    ),
    steps=st.fixed_dictionaries(
        {
            "fixation": st.integers(1, 3),
            "stimulus": st.integers(1, 3),
            "gap": st.integers(0, 2),
            "delay": st.integers(1, 3),
            "longest_delay": st.integers(4, 6),
            "response": st.integers(1, 3),
        }
    ),
    noise=st.just(0.0),
    items=st.integers(4, 6),
    lengths=st.sets(st.integers(1, 4), min_size=1).map(lambda found: tuple(sorted(found))),
    replacement=st.booleans(),
    item_code=st.sampled_from(["one_hot", "circular", "both"]),
    cue_channels=st.integers(4, 6),
)


@settings(max_examples=30, deadline=None)
@given(spec=SPECS, seed=st.integers(0, 2**31), data=st.data())
def test_every_trial_is_what_plain_loops_make_of_its_items(
    spec: SequenceRecallSpec, seed: int, data: st.DataObject
) -> None:
    split = data.draw(st.sampled_from(spec.split_names()))
    batch = spec.build().sample(12, source(seed), split)
    steps = batch_shape(batch.inputs)[1]
    assert steps == int(batch.lengths.max())
    inputs, c = dense(batch.inputs["task"]), batch.conditions
    prefixes: dict[tuple[int, ...], int] = {}
    for b, items in enumerate(lists_of(batch)):
        assert len(items) == int(c["length"][b])
        expected = by_plain_loops(spec, items, int(c["delay"][b]))
        used = len(expected["phase"])
        assert used == int(batch.lengths[b])
        torch.testing.assert_close(inputs[b, :used], torch.tensor(expected["input"]), rtol=0, atol=1e-6)
        assert (inputs[b, used:] == 0).all()
        assert c["phase"][b].tolist() == expected["phase"] + [-1] * (steps - used)
        assert c["rank"][b].tolist() == expected["rank"] + [-1] * (steps - used)
        assert batch.targets[b, :used].tolist() == expected["target"]
        due = [PHASES[phase] == "response" for phase in expected["phase"]]
        assert batch.loss_mask[b].tolist() == due + [0] * (steps - used)
        assert (c["history"][b, used:] == -1).all()
        for prefix, history in zip(expected["prefix"], c["history"][b, :used].tolist(), strict=True):
            assert prefixes.setdefault(prefix, history) == history
        assert c["sequence"][b] == c["history"][b, used - 1]
        assert expected["phase"][batch.periods["delay"][b, 0] - 1] == PHASES.index("stimulus")
        for name, (start, stop) in ((name, bounds[b].tolist()) for name, bounds in batch.periods.items()):
            phase, _, rank = name.partition("_")
            inside = [expected["phase"][t] == PHASES.index(phase) if phase != "trial" else True for t in range(used)]
            if rank:
                inside = [flag and expected["rank"][t] == int(rank) for t, flag in enumerate(inside)]
            assert [t for t, flag in enumerate(inside) if flag] == list(range(start, stop)), name
    assert len(set(prefixes.values())) == len(prefixes)


def test_the_published_input_has_fifteen_channels() -> None:
    assert SequenceRecallSpec(**PUBLISHED).input_channels()["task"].shape == (15,)
    assert SequenceRecallSpec(**PUBLISHED).output_size == 8


def test_noise_has_its_standard_deviation_and_spares_the_padding() -> None:
    plain, noisy = (SequenceRecallSpec(input_noise=sd).build() for sd in (0.0, 0.3))
    a, b = (task.sample(600, source(3), "train") for task in (plain, noisy))
    noise = dense(b.inputs["task"]) - dense(a.inputs["task"])
    padding = a.conditions["phase"] == -1
    assert (noise[padding] == 0).all()
    values = noise[~padding]
    assert values.std().item() == pytest.approx(0.3, rel=5 / math.sqrt(2 * values.numel()))
    assert abs(values.mean().item()) < 5 * 0.3 / math.sqrt(values.numel())
    assert torch.equal(a.targets, b.targets)


def test_delays_are_uniform_from_the_shortest_to_the_longest_and_twice_as_long_at_last() -> None:
    task = SequenceRecallSpec(delay_ms=300.0, longest_delay_ms=700.0).build()
    delay = task.sample(4000, source(), "train").conditions["delay"]
    share = torch.bincount(delay, minlength=8) / 4000
    assert (share[:3] == 0).all()
    assert (share[3:] - 0.2).abs().max() < 5 * math.sqrt(0.2 * 0.8 / 4000)
    assert set(task.sample(50, source(), "longer_delays").conditions["delay"].tolist()) == {14}
    assert set(SequenceRecallSpec().build().sample(50, source(), "longer_delays").conditions["delay"].tolist()) == {20}


# Which lists there are


@pytest.mark.parametrize(("length", "count"), [(2, 56), (3, 336), (4, 1680)])
def test_distinct_sequences_of_the_reference(length: int, count: int) -> None:
    spec = SequenceRecallSpec(**{**PUBLISHED, "lengths": (length,)})
    assert number_of_lists(8, length, False) == count
    found = spec.lists().items[:, :length].tolist()
    assert sorted(map(tuple, found)) == list(itertools.permutations(range(8), length))
    seen = lists_of(spec.build().sample(count * 20, source(), "train"))
    assert len(set(seen)) == count


def test_lists_with_repeats_are_all_lists() -> None:
    spec = SequenceRecallSpec(items=3, lengths=(2, 4), replacement=True)
    for length in (2, 4):
        rows = spec.lists().items[spec.lists().rows(length)][:, :length].tolist()
        assert sorted(map(tuple, rows)) == list(itertools.product(range(3), repeat=length))


def test_every_block_of_lists_holds_each_item_once_at_each_rank() -> None:
    spec = SequenceRecallSpec()
    for length in spec.lengths:
        blocks = spec.lists().items[spec.lists().rows(length)][:, :length].view(-1, 8, length)
        assert (blocks.sort(dim=1).values == torch.arange(8)[None, :, None]).all()


def test_ids_tell_all_lists_of_all_lengths_apart() -> None:
    spec = SequenceRecallSpec(items=4, lengths=(1, 2, 3, 4), replacement=True, select_share=0, test_share=0)
    ids = spec.lists().prefixes[:, -1]
    assert len(ids.unique()) == len(ids) == 4 + 16 + 64 + 256


def test_no_held_out_list_is_ever_trained_and_every_pair_of_item_and_rank_is() -> None:
    spec = SequenceRecallSpec()
    task = spec.build()
    shown = {split: set(lists_of(task.sample(50_000, source(1), split))) for split in spec.split_names()}
    for a, b in itertools.combinations(("train", "select", "test"), 2):
        assert not shown[a] & shown[b]
    assert shown["test_seen"] == shown["train"]
    assert shown["longer_delays"] == shown["test"]
    assert shown["neutral"] == shown["train"] | shown["select"] | shown["test"]
    assert {len(found) for found in shown["longer_lists"]} == {5}
    for length, count in ((2, 56), (3, 336), (4, 1680)):
        sizes = [sum(len(found) == length for found in shown[split]) for split in ("train", "select", "test")]
        tenth = round(0.1 * count)
        assert sizes == [count - 2 * tenth, tenth, tenth]
        pairs = {(item, p) for found in shown["train"] if len(found) == length for p, item in enumerate(found)}
        assert len(pairs) == 8 * length


@pytest.mark.parametrize(("select", "test"), [(0.1, 0.1), (0.1, 0.0), (0.0, 0.1), (0.0, 0.0)])
def test_every_split_says_which_lists_it_holds(select: float, test: float) -> None:
    """The text of a split begins with its pool; equal pools have equal texts."""
    spec = SequenceRecallSpec(items=4, lengths=(2, 3), select_share=select, test_share=test)
    task = spec.build()
    lists = spec.lists()
    held_out = select + test > 0
    pools = {
        "training lists" if held_out else "all lists": lists.kept_for == TRAIN,
        "lists kept for selection": lists.kept_for == SELECT,
        "lists kept for the test": lists.kept_for == TEST,
    }
    for split, text in task.splits.items():
        if split not in ("longer_lists", "neutral"):
            pool = next(rows for name, rows in pools.items() if text.startswith(name))
            ids = task.sample(2000, source(), split).conditions["sequence"].unique()
            assert torch.equal(ids, lists.prefixes[pool, -1].sort().values), split


def test_which_lists_are_held_out_is_fixed_for_good() -> None:
    """A golden: a checkpoint that was trained on one split must never meet another one."""
    lists = SequenceRecallSpec().lists()
    held_out = {
        kept_for: sorted(map(tuple, lists.items[lists.rows(2, kept_for)][:, :2].tolist()))
        for kept_for in (SELECT, TEST)
    }
    assert held_out == HELD_OUT_PAIRS
    # Other lengths beside it change nothing.
    other = SequenceRecallSpec(lengths=(2,)).lists()
    assert torch.equal(other.kept_for, lists.kept_for[: len(other.kept_for)])


def test_without_shares_every_split_draws_from_all_lists() -> None:
    spec = SequenceRecallSpec(**PUBLISHED)
    assert "test_seen" not in spec.split_names()
    assert "longer_lists" not in spec.split_names()
    assert (spec.lists().kept_for == TRAIN).all()
    task = spec.build()
    for split in ("train", "select", "test"):
        assert len(set(lists_of(task.sample(60_000, source(), split)))) == 56 + 336 + 1680
    only_test = SequenceRecallSpec(select_share=0).lists()
    assert set(only_test.kept_for.tolist()) == {TRAIN, TEST}
    assert set(SequenceRecallSpec().lists().kept_for.tolist()) == {TRAIN, SELECT, TEST}


@pytest.mark.parametrize(
    ("fields", "length"),
    [
        ({}, 5),
        ({"cue_channels": 4}, None),
        ({"items": 4, "cue_channels": 6, "select_share": 0.0}, None),
        ({"items": 4, "replacement": True}, 5),
        ({"items": 60, "lengths": (2, 3)}, None),
    ],
)
def test_longer_lists_exist_where_cues_items_and_numbers_allow(fields: dict, length: int | None) -> None:
    spec = SequenceRecallSpec(**fields)
    assert spec.longer_length() == length
    assert ("longer_lists" in spec.split_names()) == (length is not None)


@settings(max_examples=40, deadline=None)
@given(size=st.integers(1, 700), seed=st.integers(0, 2**31), replacement=st.booleans())
def test_neutral_trials_are_balanced_in_every_item_and_rank(size: int, seed: int, replacement: bool) -> None:
    spec = SequenceRecallSpec(items=5, lengths=(1, 2, 3), replacement=replacement, select_share=0, test_share=0)
    lists = lists_of(spec.build().sample(size, source(seed), "neutral"))
    sizes = [sum(len(found) == length for found in lists) for length in spec.lengths]
    assert max(sizes) - min(sizes) <= 1
    for length in spec.lengths:
        mine = [found for found in lists if len(found) == length]
        counts = Counter((item, p) for found in mine for p, item in enumerate(found))
        for p in range(length):
            each = [counts[item, p] for item in range(5)]
            assert max(each) - min(each) <= 1
        whole_passes, rest = divmod(len(mine), number_of_lists(5, length, replacement))
        repeats = Counter(mine)
        assert set(repeats.values()) <= {whole_passes, whole_passes + 1}
        assert sum(value == whole_passes + 1 for value in repeats.values()) == rest


@settings(max_examples=60, deadline=None)
@given(
    weights=st.lists(st.floats(0.05, 1), min_size=1, max_size=4),
    size=st.integers(1, 300),
    seed=st.integers(0, 2**31),
    data=st.data(),
)
def test_any_run_of_trials_has_every_length_at_its_share(
    weights: list[float], size: int, seed: int, data: st.DataObject
) -> None:
    option = interleaved(torch.tensor(weights), size, source(seed))
    assert option.shape == (size,)
    start = data.draw(st.integers(0, size - 1))
    stop = data.draw(st.integers(start + 1, size))
    counts = torch.bincount(option[start:stop], minlength=len(weights)).double()
    expected = torch.tensor(weights).double() / sum(weights) * (stop - start)
    assert (counts - expected).abs().max() <= len(weights)


def test_lengths_come_at_their_weights_in_training_and_equally_elsewhere() -> None:
    spec = SequenceRecallSpec(length_weights=(0.2, 0.3, 0.5))
    task = spec.build()
    shares = task.sampling_summary(task.sample(1000, source(), "train"))
    assert [shares[f"share_L{length}"] for length in (2, 3, 4)] == pytest.approx([0.2, 0.3, 0.5], abs=0.002)
    for split in set(spec.split_names()) - {"train", "longer_lists"}:
        shares = task.sampling_summary(task.sample(999, source(), split))
        assert [shares[f"share_L{length}"] for length in (2, 3, 4)] == [1 / 3] * 3
    assert set(task.sample(3, source(), "select").conditions["length"].tolist()) == {2, 3, 4}


def test_trials_of_training_are_uniform_over_its_lists() -> None:
    spec = SequenceRecallSpec(lengths=(2,))
    counts = Counter(lists_of(spec.build().sample(8800, source(), "train")))
    assert len(counts) == 44
    assert max(abs(count - 200) for count in counts.values()) < 5 * math.sqrt(200)


def test_the_summary_of_the_sampling() -> None:
    task = SequenceRecallSpec(longest_delay_ms=1400.0).build()
    held_out = {
        split: task.sampling_summary(task.sample(300, source(), split))["held_out_share"] for split in task.splits
    }
    assert held_out.pop("neutral") == pytest.approx(0.2, abs=0.07)
    expected = {"train": 0.0, "select": 1.0, "test": 1.0, "test_seen": 0.0, "longer_delays": 1.0, "longer_lists": 1.0}
    assert held_out == expected
    batch = task.sample(300, source(), "train")
    summary = task.sampling_summary(batch)
    assert summary["distinct_lists"] == len(set(lists_of(batch)))
    assert summary["mean_delay_ms"] == pytest.approx(batch.conditions["delay"].double().mean().item() * 100)
    assert 1000 < summary["mean_delay_ms"] < 1400


# Loss and metrics


def test_the_loss_is_a_mean_over_each_trial_before_it_is_one_over_trials() -> None:
    task = SequenceRecallSpec(length_weights=(1.0, 2.0, 5.0)).build()
    batch = task.sample(40, source(), "train").rows(3, 33)
    outputs = torch.randn((*batch.targets.shape, 8), generator=source(1))
    of_trials: dict[int, list[float]] = {2: [], 3: [], 4: []}
    for b in range(batch.size):
        found = []
        for t in range(batch.targets.shape[1]):
            if batch.loss_mask[b, t]:
                scores = [math.exp(float(value)) for value in outputs[b, t]]
                found.append(-math.log(scores[int(batch.targets[b, t])] / sum(scores)))
        assert len(found) == 5 * int(batch.conditions["length"][b])
        of_trials[int(batch.conditions["length"][b])].append(sum(found) / len(found))
    means = {length: sum(found) / len(found) for length, found in of_trials.items()}
    expected = (means[2] + 2 * means[3] + 5 * means[4]) / 8
    assert float(task.loss(outputs, batch)) == pytest.approx(expected, rel=1e-5)


def test_a_batch_without_some_length_weighs_those_that_it_has() -> None:
    task = SequenceRecallSpec(length_weights=(1.0, 2.0, 5.0)).build()
    batch = task.sample(1, source(), "train")
    outputs = torch.randn((*batch.targets.shape, 8), generator=source(1))
    losses = functional.cross_entropy(outputs[0], batch.targets[0], reduction="none")
    assert float(task.loss(outputs, batch)) == pytest.approx(float(losses[batch.loss_mask[0] > 0].mean()), rel=1e-5)
    longer = task.sample(9, source(), "longer_lists")
    assert torch.isfinite(task.loss(torch.zeros(*longer.targets.shape, 8), longer))


def test_metrics_of_known_answers() -> None:
    """Two responses of two steps each at length 2, three at length 3; answers written by hand."""
    spec = SequenceRecallSpec(items=5, lengths=(2, 3), response_ms=200.0, cue_channels=3, select_share=0, test_share=0)
    items = torch.tensor([[0, 1, -1], [2, 3, 4], [4, 0, 1]])
    answers = torch.tensor(
        [
            # Right; then an item of another rank that is a repetition, then right.
            [[0, 0], [0, 1], [3, 3]],
            # All right.
            [[2, 2], [3, 3], [4, 4]],
            # An intrusion, the same intrusion again (a repetition), then right and a transposition.
            [[2, 2], [2, 3], [1, 0]],
        ]
    )
    recall = Recall.of_answers(answers, items)
    found = recall.summary(torch.tensor([2, 3, 3]), spec.lengths)
    of_two = {"right": 3 / 4, "transposition": 1 / 4, "intrusion": 0.0, "repetition": 1 / 4}
    of_three = {"right": 7 / 12, "transposition": 1 / 12, "intrusion": 4 / 12, "repetition": 1 / 12}
    assert found == pytest.approx(
        {
            "accuracy": (of_two["right"] + of_three["right"]) / 2,
            "sequence_accuracy": (0 + 1 / 2) / 2,
            "accuracy_L2": of_two["right"],
            "accuracy_L3": of_three["right"],
            "sequence_accuracy_L2": 0.0,
            "sequence_accuracy_L3": 0.5,
            "accuracy_rank0": (1 + 1 / 2) / 2,
            "accuracy_rank1": (1 / 2 + 1 / 2) / 2,
            "accuracy_rank2": 3 / 4,
            "transposition_rate": (of_two["transposition"] + of_three["transposition"]) / 2,
            "intrusion_rate": (of_two["intrusion"] + of_three["intrusion"]) / 2,
            "repetition_rate": (of_two["repetition"] + of_three["repetition"]) / 2,
        }
    )


@pytest.mark.parametrize("fields", [{}, RICH])
def test_a_network_that_answers_right_at_the_due_steps_alone_is_perfect(fields: dict) -> None:
    spec = SequenceRecallSpec(**fields)
    task = spec.build()
    for split in spec.split_names():
        batch = task.sample(60, source(), split)
        wrong = (batch.targets + 1) % spec.items
        answers = torch.where(batch.loss_mask > 0, batch.targets, wrong)
        found = task.metrics(functional.one_hot(answers, spec.items).float(), batch)
        for name, value in found.items():
            expected = 0.0 if name.endswith("_rate") else 1.0
            assert value == expected or (split == "longer_lists" and "_L" in name and math.isnan(value)), name
        # One step of one response of one trial wrong.
        due = int(batch.periods["response_0"][0, 1]) - 1
        answers[0, due] = wrong[0, due]
        found = task.metrics(functional.one_hot(answers, spec.items).float(), batch)
        length = int(batch.conditions["length"][0])
        if split != "longer_lists":
            trials = int((batch.conditions["length"] == length).sum())
            assert found[f"sequence_accuracy_L{length}"] == pytest.approx(1 - 1 / trials)
            steps = trials * length * spec.steps(spec.response_ms)
            assert found[f"accuracy_L{length}"] == pytest.approx(1 - 1 / steps)


def test_right_and_wrong_answers_of_both_kinds_are_all_answers() -> None:
    task = SequenceRecallSpec(**RICH).build()
    batch = task.sample(200, source(), "test")
    found = task.metrics(torch.randn((*batch.targets.shape, 6), generator=source(2)), batch)
    assert found["accuracy"] + found["transposition_rate"] + found["intrusion_rate"] == pytest.approx(1)
    for name, chance in task.baselines(batch)["chance"].items():
        if "sequence" not in name and "repetition" not in name:
            assert found[name] == pytest.approx(chance, abs=0.08), name


# Baselines


def expected_by_enumeration(shown: tuple[int, ...], answers: list[tuple[int, ...]]) -> Recall:
    """The mean over equally likely answers to one list."""
    items = torch.tensor(shown).expand(len(answers), -1)
    found = Recall.of_answers(torch.tensor(answers)[..., None], items)
    means = {name: getattr(found, name).mean(0, keepdim=True) for name in vars(found)}
    return Recall(**means)


@pytest.mark.parametrize("replacement", [False, True])
@pytest.mark.parametrize("shown", [(0,), (2, 1), (1, 1), (3, 0, 2), (0, 2, 0), (1, 1, 1), (3, 3, 0, 0)])
def test_policies_score_what_enumeration_says(shown: tuple[int, ...], replacement: bool) -> None:
    if not replacement and len(set(shown)) < len(shown):
        return
    size, length = 4, len(shown)
    possible = list(itertools.product(range(size), repeat=length))
    possible = possible if replacement else list(itertools.permutations(range(size), length))
    items, lengths = torch.tensor([[*shown, *([-1] * (4 - length))]]), torch.tensor([length])
    pairs = {
        "chance": (guessing(items, lengths, size, replacement), possible),
        "last": (
            guessing(items, lengths, size, replacement, last_known=True),
            [answer for answer in possible if answer[-1] == shown[-1]],
        ),
        "unordered": (shuffling(items, lengths), list(itertools.permutations(shown))),
    }
    for name, (found, answers) in pairs.items():
        expected = expected_by_enumeration(shown, answers)
        for column in vars(expected):
            value = getattr(found, column)
            value = value if value.ndim == 1 else value[:, :length]
            torch.testing.assert_close(value, getattr(expected, column), msg=f"{name} {column}")


def test_baselines_of_the_reference() -> None:
    task = SequenceRecallSpec(**PUBLISHED).build()
    found = task.baselines(task.sample(3000, source(), "test"))
    assert set(found) == {"chance", "constant", "last_item", "unordered"}
    chance = found["chance"]
    for length in (2, 3, 4):
        assert chance[f"accuracy_L{length}"] == pytest.approx(1 / 8)
        whole = math.factorial(8 - length) / math.factorial(8)
        assert chance[f"sequence_accuracy_L{length}"] == pytest.approx(whole)
        assert found["unordered"][f"accuracy_L{length}"] == pytest.approx(1 / length)
        assert found["unordered"][f"sequence_accuracy_L{length}"] == pytest.approx(1 / math.factorial(length))
        last = (1 + (length - 1) / 7) / length
        assert found["last_item"][f"accuracy_L{length}"] == pytest.approx(last)
        assert found["constant"][f"accuracy_L{length}"] == pytest.approx(1 / 8, abs=0.03)
        assert found["constant"][f"sequence_accuracy_L{length}"] == 0
    assert chance["intrusion_rate"] == pytest.approx(1 - 3 / 8)
    assert chance["transposition_rate"] == pytest.approx((1 + 2 + 3) / 3 / 8)
    assert found["last_item"]["accuracy_rank3"] == 1
    assert found["last_item"]["accuracy_rank0"] == pytest.approx(1 / 7)
    assert found["unordered"]["intrusion_rate"] == 0


def test_a_small_network_learns_more_than_any_shortcut_gives() -> None:
    spec = SequenceRecallSpec(items=5, lengths=(1, 2), select_share=0.0, test_share=0.0, stimulus_ms=100.0)
    task = spec.build()
    model = RNNSpec(hidden_size=32, trunk_size=None).build(spec.input_channels(), spec.output_size, source())
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    for step in range(150):
        batch = task.sample(32, source(step), "train")
        optimizer.zero_grad()
        task.loss(model(batch.inputs).outputs, batch).backward()
        optimizer.step()
    batch = task.sample(200, source(), "neutral")
    with torch.no_grad():
        found = task.metrics(model(batch.inputs).outputs, batch)
    assert found["accuracy"] > max(scores["accuracy"] for scores in task.baselines(batch).values())


# Bad input


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"lengths": [3, 2]}, r"must be ascending, each length once, as in \[2, 3\]"),
        ({"lengths": [2, 2, 3]}, r"must be ascending, each length once, as in \[2, 3\]"),
        ({"lengths": []}, "at least 1 item"),
        ({"lengths": None}, "valid array"),
        ({"lengths": [0, 2]}, "greater than or equal to 1"),
        ({"lengths": [2, 9], "cue_channels": 9}, r"lengths is 9, but it must not exceed the number of items \(8\)"),
        ({"lengths": [2, 7]}, r"cue_channels is 6, but it must be at least the longest length \(7\)"),
        ({"lengths": [2, 8], "cue_channels": 8, "items": 12}, "must have at most 1,000,000 lists.*19,958,400 lists"),
        ({"delay_ms": 1050.0}, r"delay_ms is 1050.0, but it must be a multiple of dt_ms \(100\)\. Write 1000"),
        ({"response_ms": 1e-9}, "response_ms is 1e-09, but it must be a multiple of dt_ms.*Write 100"),
        ({"gap_ms": 30.0}, "gap_ms is 30.0, but it must be a multiple of dt_ms"),
        ({"stimulus_ms": 70.0}, "multiple of dt_ms.*Write 100, or another dt_ms"),
        ({"longest_delay_ms": 2040.0}, "longest_delay_ms is 2040.0, but it must be a multiple of dt_ms"),
        ({"longest_delay_ms": 1000.0}, r"longest_delay_ms is 1000.0, but it must exceed delay_ms \(1000\)"),
        ({"length_weights": [1.0, 2.0]}, r"length_weights is.*one weight for each length \(3\)"),
        ({"lengths": [2], "length_weights": [1.0]}, "no effect where there is only one"),
        ({"length_weights": [1.0, 0.0, 1.0]}, "greater than 0"),
        ({"lengths": [1, 2]}, "every item at every rank in training.*rank 0 of a list of 1"),
        ({"items": 3, "lengths": [2]}, "test_share.*every item at every rank|must hold out at least one list"),
        ({"items": 2, "lengths": [2]}, "select_share is 0.1, but it must hold out at least one list"),
        ({"select_share": 0.6}, "less than or equal to 0.5"),
        ({"select_share": 0.5, "test_share": 0.5}, "every item at every rank in training"),
        ({"stimulus_ms": 0.0}, "greater than 0"),
        ({"dt_ms": -1.0}, "greater than 0"),
        ({"item_code": "analog"}, "'one_hot', 'circular' or 'both'"),
        ({"input_noise": -0.1}, "greater than or equal to 0"),
        ({"noise": 0.1}, "not permitted"),
    ],
)
def test_spec_refuses(fields: dict, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        SequenceRecallSpec.parse({"kind": "sequence_recall", **fields})


def test_durations_of_fractions_of_a_millisecond_are_multiples() -> None:
    spec = SequenceRecallSpec(
        dt_ms=0.1, fixation_ms=0.3, stimulus_ms=0.7, gap_ms=0.6, delay_ms=1.1, response_ms=0.2, **PUBLISHED
    )
    batch = spec.build().sample(6, source(), "train")
    length = batch.conditions["length"]
    assert torch.equal(batch.lengths, 3 + 7 * length + 6 * (length - 1) + 11 + 2 * length)


def test_evaluations_need_a_trial_of_every_length() -> None:
    fields = {"task": {"kind": "sequence_recall"}, "model": {"kind": "rnn", "trunk_size": None}}
    with pytest.raises(ValidationError, match=r"evaluation\.trials is 2, but the task needs at least 3"):
        TrialSpec.parse({**fields, "evaluation": {"trials": 2}})
    task = SequenceRecallSpec().build()
    batch = task.sample(3, source(5), "select")
    outputs = torch.zeros(*batch.targets.shape, 8)
    assert all(map(math.isfinite, task.metrics(outputs, batch).values()))
    assert not all(map(math.isfinite, task.metrics(outputs[:2], batch.rows(0, 2)).values()))
