"""N-back: the corrected sampling as properties, recomputed by plain loops; metrics and baselines on known answers."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from scipy.stats import chi2, norm
from torch import Tensor
from torch.nn import functional

from tests.contracts.task import TaskContract, same_batch
from tests.fixtures.banks import make_bank, small_stimuli
from wmcore.errors import InputError
from wmcore.stimuli.feature_bank import FeatureBank
from wmcore.tasks.base import TaskSpec
from wmcore.tasks.nback import FEATURES, SPLITS, NBack, NBackSpec
from wmcore.tasks.nback_sampling import FrameSampler, SplitImages
from wmcore.trials import TrialBatch, dense

NO_ACTION, NON_MATCH, MATCH = 0, 1, 2
ANALYSIS_SPLIT = "neutral"
TASK_SPLITS = [split for split in SPLITS if split != ANALYSIS_SPLIT]


def source(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def task_of(bank: FeatureBank, **fields) -> NBack:
    return NBack(NBackSpec(stimuli=small_stimuli(), **fields), bank)


class TestMTMF(TaskContract):
    @pytest.fixture(scope="class")
    @classmethod
    def spec(cls) -> TaskSpec:
        return NBackSpec(stimuli=small_stimuli())

    @pytest.fixture(scope="class")
    @classmethod
    def stimuli(cls, synthetic_stimuli: Path) -> Path | None:
        return synthetic_stimuli


class TestSTSF(TestMTMF):
    @pytest.fixture(scope="class")
    @classmethod
    def spec(cls) -> TaskSpec:
        return NBackSpec(stimuli=small_stimuli(), n=(2,), features=("location",), steps=5)


class Frame:
    """One executive frame, recomputed from the conditions by plain comparisons."""

    def __init__(self, trial: dict, t: int) -> None:
        n, feature = trial["n"], FEATURES[trial["feature"]]
        self.cell, self.t = (n, feature), t
        self.same = {
            name: trial[name][t] == trial[name][t - n] for name in ("location", "identity", "category", "view")
        }
        self.match = self.same[feature]
        neighbours = [t - lag for lag in (n - 1, n + 1) if lag >= 1 and t - lag >= 0]
        values = trial[feature]
        self.lure = not self.match and any(values[s] == values[t] for s in neighbours)
        # Could a lure have been asked for here, given whether the foil had to be of the same category?
        options = [s for s in neighbours if values[s] != values[t - n]]
        if feature == "identity":
            of_category = [(trial["category"][s] == trial["category"][t - n]) == self.same["category"] for s in options]
            options = [s for s, fits in zip(options, of_category, strict=True) if fits]
        self.lure_possible = not self.match and bool(options)
        # And could it have been avoided?
        self.lure_forced = feature == "identity" and self.same["category"]


def trials_of(batch: TrialBatch) -> list[dict]:
    names = ("n", "feature", "location", "identity", "category", "view")
    columns = {name: batch.conditions[name].tolist() for name in names}
    return [{name: column[i] for name, column in columns.items()} for i in range(batch.size)]


def executive_frames(batch: TrialBatch) -> list[Frame]:
    return [Frame(trial, t) for trial in trials_of(batch) for t in range(trial["n"], len(trial["location"]))]


def grouped(frames: list[Frame], *keys) -> dict[tuple, list[Frame]]:
    found: dict[tuple, list[Frame]] = {}
    for frame in frames:
        found.setdefault(tuple(key(frame) for key in keys), []).append(frame)
    return found


def assert_share(frames: list[Frame], share: float, is_one) -> None:
    """Exactly the share, up to rounding."""
    count = sum(is_one(frame) for frame in frames)
    assert abs(count - share * len(frames)) < 1 + 1e-6


def by_cell(frame: Frame):
    return frame.cell


def by_step(frame: Frame):
    return frame.t


def by_match(frame: Frame):
    return frame.match


SPEC_FIELDS = st.fixed_dictionaries(
    {
        "n": st.sets(st.integers(1, 3), min_size=1).map(tuple),
        "features": st.sets(st.sampled_from(FEATURES), min_size=1).map(tuple),
        "steps": st.integers(4, 8),
        "match_probability": st.sampled_from([0.3, 0.5, 0.7]),
        "lure_rate": st.sampled_from([0.0, 0.25, 0.6]),
        "congruence": st.sampled_from([0.0, 0.5, 0.8]),
        "same_category_foils": st.sampled_from([0.0, 0.5, 1.0]),
        "different_view": st.booleans(),
    }
).map(lambda fields: fields if "identity" in fields["features"] else {**fields, "same_category_foils": 0.5})


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(fields=SPEC_FIELDS, split=st.sampled_from(TASK_SPLITS), seed=st.integers(0, 2**31), size=st.integers(1, 260))
def test_the_sampling_rule_holds_for_every_spec(
    synthetic_bank: FeatureBank, fields: dict, split: str, seed: int, size: int
) -> None:
    task = task_of(synthetic_bank, **fields)
    spec = task.spec
    batch = task.sample(size, source(seed), split)
    counts = Counter(
        (n, FEATURES[f]) for n, f in zip(*(batch.conditions[k].tolist() for k in ("n", "feature")), strict=True)
    )
    assert set(counts) <= set(spec.cells())
    assert max(counts.values()) - min(counts[cell] for cell in spec.cells()) <= 1
    frames = executive_frames(batch)
    if spec.different_view:
        assert not any(frame.same["view"] for frame in frames)
    for group in grouped(frames, by_cell, by_step).values():
        assert_share(group, spec.match_probability, by_match)
    for (cell, _, match), group in grouped(frames, by_cell, by_step, by_match).items():
        feature = cell[1]
        if feature != "location":
            assert_share(group, spec.congruence, lambda f: f.same["location"])
        if feature == "location":
            assert_share(group, spec.congruence, lambda f: f.same["category"])
            inside = [f for f in group if f.same["category"]]
            assert_share(inside, spec.congruence, lambda f: f.same["identity"])
        if feature == "identity" and not match:
            assert_share(group, spec.same_category_foils, lambda f: f.same["category"])
        if feature == "category" and match:
            assert_share(group, spec.congruence, lambda f: f.same["identity"])
        if not match:
            possible = sum(f.lure_possible for f in group)
            wanted = spec.lure_rate * len(group)
            lures = sum(f.lure for f in group)
            assert lures > min(possible, wanted) - 1 - 1e-6
            # Two identities per category leave no choice but a lure on some same-category foils.
            forced = sum(f.lure and f.lure_forced for f in group)
            assert lures - forced < min(possible, wanted) + 1 + 1e-6


def test_lures_come_at_the_rate_that_was_asked_for() -> None:
    """With six identities per category a lure can always be avoided; the rate is exact where one is possible."""
    stimuli = small_stimuli(train=6)
    task = NBack(NBackSpec(stimuli=stimuli, lure_rate=0.4), make_bank(stimuli))
    frames = [f for f in executive_frames(task.sample(1800, source(), "train")) if not f.match]
    seen = 0
    for (cell, t), group in grouped(frames, by_cell, by_step).items():
        possible = sum(f.lure_possible for f in group)
        lures = sum(f.lure for f in group)
        assert abs(lures - min(possible, 0.4 * len(group))) < 1 + 1e-6, (cell, t)
        seen += possible > 0.4 * len(group)
    assert seen >= 6
    assert all(f.lure_possible for f in frames if f.lure)


def test_no_lures_when_none_are_asked_for() -> None:
    stimuli = small_stimuli(train=6)
    task = NBack(NBackSpec(stimuli=stimuli, lure_rate=0.0), make_bank(stimuli))
    batch = task.sample(900, source(), "train")
    assert not any(frame.lure for frame in executive_frames(batch))
    assert task.sampling_summary(batch)["lure_rate"] == 0


@pytest.mark.parametrize("split", list(SPLITS))
def test_targets_and_labels_agree_with_the_frames(synthetic_bank: FeatureBank, split: str) -> None:
    task = task_of(synthetic_bank)
    batch = task.sample(300, source(3), split)
    c = {name: value.tolist() for name, value in batch.conditions.items()}
    for i, trial in enumerate(trials_of(batch)):
        n = trial["n"]
        for t in range(6):
            if t < n:
                expected = NO_ACTION
                assert not any(c[name][i][t] for name in ("executive", "is_match", "is_lure", "same_category"))
            else:
                frame = Frame(trial, t)
                expected = MATCH if frame.match else NON_MATCH
                assert c["executive"][i][t]
                assert c["is_match"][i][t] == frame.match
                assert c["is_lure"][i][t] == frame.lure
                assert c["same_category"][i][t] == frame.same["category"]
            assert batch.targets[i, t] == expected
            assert batch.loss_mask[i, t] == pytest.approx(1.0 if t >= n else 0.1)


@pytest.mark.parametrize("split", list(SPLITS))
def test_labels_are_those_of_the_image_that_is_shown(synthetic_bank: FeatureBank, split: str) -> None:
    task = task_of(synthetic_bank)
    batch = task.sample(50, source(), split)
    features = dense(batch.inputs["features"])
    manifest = synthetic_bank.manifest
    train = manifest[(manifest["identity_split"] == "train") & (manifest["view_split"] == "train")].index
    reference = synthetic_bank.features[torch.tensor(train.to_numpy())].double()
    mean, sd = reference.mean((0, 2, 3)), reference.permute(1, 0, 2, 3).flatten(1).std(1)
    for i, t in itertools.product(range(0, 50, 7), range(6)):
        row = int(batch.conditions["image"][i, t])
        for name in ("location", "category", "identity", "view"):
            label = task.condition_labels[name][int(batch.conditions[name][i, t])]
            assert label == str(manifest[name][row])
        shown = (synthetic_bank.features[row].double() - mean[:, None, None]) / sd[:, None, None]
        torch.testing.assert_close(features[i, t].double(), shown, rtol=1e-4, atol=1e-4)


def test_the_task_vector_names_feature_and_n(synthetic_bank: FeatureBank) -> None:
    batch = task_of(synthetic_bank).sample(200, source(), "train")
    vector = dense(batch.inputs["task"])
    seen = set()
    for i, trial in enumerate(trials_of(batch)):
        expected = [0.0] * 6
        expected[trial["feature"]] = 1.0
        expected[3 + trial["n"] - 1] = 1.0
        assert vector[i].tolist() == [expected] * 6
        seen.add(tuple(expected))
    assert len(seen) == 9


@pytest.mark.parametrize("split", list(SPLITS))
def test_every_split_shows_its_own_stimuli_and_all_of_them(synthetic_bank: FeatureBank, split: str) -> None:
    words = {"train": ("train", "train"), "select": ("train", "select"), "test": ("train", "test")}
    words |= {"select_identity": ("select", "train"), "test_identity": ("test", "train")}
    words |= {"select_both": ("select", "select"), "test_both": ("test", "test"), "neutral": ("train", "test")}
    identities, views = words[split]
    batch = task_of(synthetic_bank).sample(1200, source(), split)
    m = synthetic_bank.manifest
    expected = set(m.index[(m["identity_split"] == identities) & (m["view_split"] == views)])
    assert set(batch.conditions["image"].flatten().tolist()) == expected


def test_selection_and_test_share_no_held_out_stimulus(synthetic_bank: FeatureBank) -> None:
    task = task_of(synthetic_bank)
    shown = {
        split: {
            name: set(task.sample(600, source(), split).conditions[name].flatten().tolist())
            for name in ("view", "identity", "image")
        }
        for split in SPLITS
    }
    select = [split for split in SPLITS if split.startswith("select")]
    test = [split for split in SPLITS if split.startswith("test") or split == ANALYSIS_SPLIT]
    trained = shown["train"]
    for a, b in itertools.product(select, test):
        for name in ("view", "identity"):
            assert not (shown[a][name] - trained[name]) & (shown[b][name] - trained[name])
        assert not shown[a]["image"] & shown[b]["image"]
        assert not shown[a]["image"] & trained["image"]
        assert not shown[b]["image"] & trained["image"]
    assert shown["select"]["identity"] == shown["test"]["identity"] == trained["identity"]


def test_neutral_frames_are_uniform_and_independent(synthetic_bank: FeatureBank) -> None:
    """Chi-square tests at a level of 1e-6 each: a bias of a few per cent fails them."""
    task = task_of(synthetic_bank, n=(1,), features=("location",), steps=4)
    batch = task.sample(6000, source(11), ANALYSIS_SPLIT)
    codes = {}
    for name in ("location", "identity", "view"):
        values = batch.conditions[name]
        codes[name] = torch.unique(values, return_inverse=True)[1]
    assert [int(code.max()) + 1 for code in codes.values()] == [4, 12, 2]

    def chi_square(values: Tensor, cells: int) -> None:
        observed = torch.bincount(values.flatten(), minlength=cells).double()
        expected = values.numel() / cells
        statistic = float(((observed - expected) ** 2 / expected).sum())
        assert statistic < chi2.isf(1e-6, cells - 1)

    for code in codes.values():
        size = int(code.max()) + 1
        for t in range(4):
            chi_square(code[:, t], size)
        for s, t in itertools.combinations(range(4), 2):
            chi_square(code[:, s] * size + code[:, t], size * size)
    for a, b in itertools.combinations(codes.values(), 2):
        width = int(b.max()) + 1
        chi_square(a * width + b, (int(a.max()) + 1) * width)


def test_task_frames_before_n_are_uniform(synthetic_bank: FeatureBank) -> None:
    task = task_of(synthetic_bank, n=(2,), features=("location",))
    first = task.sample(8000, source(), "train").conditions["location"][:, :2]
    share = torch.bincount(first.flatten(), minlength=4) / first.numel()
    assert (share - 0.25).abs().max() < 5 * math.sqrt(0.25 * 0.75 / first.numel())


def test_category_foils_use_every_other_category_alike() -> None:
    stimuli = small_stimuli()
    task = NBack(NBackSpec(stimuli=stimuli, n=(1,), features=("category",), steps=2, lure_rate=0.0), make_bank(stimuli))
    category = task.sample(8000, source(), "train").conditions["category"]
    pairs = Counter(zip(*category.T.tolist(), strict=True))
    foils = torch.tensor([pairs[a, b] for a, b in itertools.permutations(range(4), 2)]).double()
    assert int(foils.sum()) == 4000
    assert (foils / 4000 - 1 / 12).abs().max() < 5 * math.sqrt((1 / 12) * (11 / 12) / 4000)


def test_the_rates_of_the_reference_are_the_defaults_and_are_reported() -> None:
    stimuli = small_stimuli(train=6)
    task = NBack(NBackSpec(stimuli=stimuli), make_bank(stimuli))
    assert (task.spec.n, task.spec.features, task.spec.steps) == ((1, 2, 3), FEATURES, 6)
    batch = task.sample(3600, source(), "train")
    frames = executive_frames(batch)
    non_match = [f for f in frames if not f.match]
    foils = [f for f in non_match if f.cell[1] == "identity"]
    summary = task.sampling_summary(batch)
    assert summary == {
        "match_rate": pytest.approx(sum(f.match for f in frames) / len(frames)),
        "lure_rate": pytest.approx(sum(f.lure for f in non_match) / len(non_match)),
        "same_category_foil_rate": pytest.approx(sum(f.same["category"] for f in foils) / len(foils)),
    }
    assert summary["match_rate"] == pytest.approx(0.5, abs=0.005)
    assert summary["same_category_foil_rate"] == pytest.approx(0.5, abs=0.01)
    # Not every non-match can be a lure (no neighbour yet, or one of the wrong kind), so less than .25 is achieved.
    assert 0.12 < summary["lure_rate"] <= 0.25


def test_replicated_quotas_do_not_fix_a_trial(synthetic_bank: FeatureBank) -> None:
    """Whether a given trial matches at a step says nothing about another step of it."""
    batch = task_of(synthetic_bank, n=(1,), features=("location",)).sample(6000, source(), "train")
    match = batch.conditions["is_match"][:, 1:].double()
    correlation = torch.corrcoef(match.T) - torch.eye(5)
    assert correlation.abs().max() < 5 / math.sqrt(6000)


def test_a_batch_of_all_trials_is_a_mix_at_every_place(synthetic_bank: FeatureBank) -> None:
    """Batches drawn ahead are cut into rows: a part must hold every cell, in no order."""
    batch = task_of(synthetic_bank).sample(1024, source(), "train")
    for start in range(0, 1024, 256):
        part = batch.rows(start, start + 256)
        cells = Counter(zip(part.conditions["n"].tolist(), part.conditions["feature"].tolist(), strict=True))
        assert len(cells) == 9
        assert min(cells.values()) > 8


# Metrics and baselines


def handmade() -> tuple[NBack, TrialBatch]:
    """Two trials of four steps: 1-back on location and 2-back on identity."""
    stimuli = small_stimuli()
    spec = NBackSpec(stimuli=stimuli, n=(1, 2), features=("location", "identity"), steps=4)
    task = NBack(spec, make_bank(stimuli))
    executive = torch.tensor([[0, 1, 1, 1], [0, 0, 1, 1]], dtype=torch.bool)
    match = torch.tensor([[0, 1, 0, 0], [0, 0, 0, 1]], dtype=torch.bool)
    batch = TrialBatch(
        inputs={},
        targets=torch.where(executive, torch.where(match, MATCH, NON_MATCH), NO_ACTION),
        loss_mask=torch.where(executive, 1.0, 0.1),
        lengths=torch.tensor([4, 4]),
        conditions={
            "n": torch.tensor([1, 2]),
            "feature": torch.tensor([0, 1]),
            "executive": executive,
            "is_match": match,
            "is_lure": torch.tensor([[0, 0, 1, 0], [0, 0, 0, 0]], dtype=torch.bool),
            "same_category": torch.tensor([[0, 1, 0, 1], [0, 0, 1, 1]], dtype=torch.bool),
        },
    )
    return task, batch


def answers(actions: list[list[int]]) -> Tensor:
    return functional.one_hot(torch.tensor(actions), 3).float()


def test_metrics_of_known_answers() -> None:
    task, batch = handmade()
    # Location: match right, lure wrong, non-match right (2 of 3); identity: foil wrong, match right (1 of 2).
    # One no_action step of eight steps wrong as well.
    found = task.metrics(answers([[0, 2, 2, 1], [1, 0, 2, 2]]), batch)
    # Hits 2 of 2, false alarms 2 of 3.
    d_prime = norm.ppf(2.5 / 3) - norm.ppf(2.5 / 4)
    assert found.pop("accuracy_n1_identity") != found.pop("accuracy_n2_location")  # NaN: the batch holds none
    assert math.isnan(found.pop("accuracy"))
    assert found == {
        "accuracy_all_steps": pytest.approx(5 / 8),
        "d_prime": pytest.approx(d_prime),
        "accuracy_lures": 0.0,
        "accuracy_same_category_foils": 0.0,
        "accuracy_n1_location": pytest.approx(2 / 3),
        "accuracy_n2_identity": pytest.approx(1 / 2),
    }


def test_accuracy_is_the_mean_over_cells_and_not_over_steps(synthetic_bank: FeatureBank) -> None:
    """A network that only does 1-back: right on 5 of 5 frames there, wrong on all of 4 and of 3."""
    task = task_of(synthetic_bank)
    batch = task.sample(900, source(), "test")
    wrong = torch.where(batch.targets == MATCH, NON_MATCH, MATCH)
    action = torch.where((batch.conditions["n"] == 1)[:, None], batch.targets, wrong)
    action = torch.where(batch.conditions["executive"], action, NO_ACTION)
    found = task.metrics(functional.one_hot(action, 3).float(), batch)
    assert found["accuracy"] == pytest.approx(1 / 3)
    for n, feature in task.spec.cells():
        assert found[f"accuracy_n{n}_{feature}"] == (1.0 if n == 1 else 0.0)
    assert found["accuracy_all_steps"] == pytest.approx((6 + 2 + 3) / 18)


def test_a_perfect_and_a_silent_network(synthetic_bank: FeatureBank) -> None:
    task = task_of(synthetic_bank)
    batch = task.sample(900, source(), "test")
    perfect = task.metrics(functional.one_hot(batch.targets, 3).float(), batch)
    assert perfect.pop("d_prime") > 5
    assert set(perfect.values()) == {1.0}
    silent = task.metrics(functional.one_hot(torch.zeros_like(batch.targets), 3).float(), batch)
    assert silent.pop("accuracy_all_steps") == pytest.approx((1 + 2 + 3) / 18)
    assert silent.pop("d_prime") == pytest.approx(0, abs=0.01)
    assert set(silent.values()) == {0.0}


def test_baselines_are_those_of_the_reference(synthetic_bank: FeatureBank) -> None:
    """Constant .5; category-only .75 on identity and 1 on category; over all steps (n + (6 - n) / 2) / 6."""
    task = task_of(synthetic_bank)
    found = task.baselines(task.sample(3600, source(), "test"))
    assert set(found) == {"chance", "constant", "category_only"}
    for n, feature in task.spec.cells():
        name = f"accuracy_n{n}_{feature}"
        assert found["chance"][name] == 0.5
        # 400 trials per cell: exact but for the rounding of an odd count.
        assert found["constant"][name] == pytest.approx(0.5, abs=1 / 400)
        expected = {"location": 0.5, "identity": 0.75, "category": 1.0}[feature]
        assert found["category_only"][name] == pytest.approx(expected, abs=2 / 400)
    for policy in ("chance", "constant"):
        assert found[policy]["accuracy"] == pytest.approx(0.5, abs=0.002)
        assert found[policy]["accuracy_all_steps"] == pytest.approx(2 / 3, abs=0.002)
    assert found["category_only"]["accuracy"] == pytest.approx((0.5 + 0.75 + 1) / 3, abs=0.004)
    assert found["category_only"]["accuracy_same_category_foils"] == 0.0
    assert found["chance"]["d_prime"] == 0.0
    assert found["constant"]["accuracy_lures"] == 1.0


@pytest.mark.parametrize("n", [1, 2, 3])
@pytest.mark.parametrize("p", [0.3, 0.5, 0.7])
def test_floor_of_a_constant_policy_over_all_steps(synthetic_bank: FeatureBank, n: int, p: float) -> None:
    task = task_of(synthetic_bank, n=(n,), features=("location",), match_probability=p)
    found = task.baselines(task.sample(1000, source(), "test"))
    assert found["constant"]["accuracy_all_steps"] == pytest.approx((n + (6 - n) * max(p, 1 - p)) / 6, abs=1e-6)
    assert found["constant"]["accuracy"] == pytest.approx(max(p, 1 - p), abs=1e-6)
    assert found["chance"]["accuracy"] == pytest.approx(p * p + (1 - p) * (1 - p))
    assert found["chance"]["accuracy_lures"] == pytest.approx(1 - p)


def test_guessing_at_random_scores_what_chance_says(synthetic_bank: FeatureBank) -> None:
    task = task_of(synthetic_bank, match_probability=0.3, lure_rate=0.5)
    batch = task.sample(6000, source(), "test")
    guess = torch.where(torch.rand(batch.targets.shape, generator=source(5)) < 0.3, MATCH, NON_MATCH)
    guess = torch.where(batch.conditions["executive"], guess, NO_ACTION)
    found = task.metrics(functional.one_hot(guess, 3).float(), batch)
    for name, value in task.baselines(batch)["chance"].items():
        # The rarest kind of step is met over a thousand times.
        assert found[name] == pytest.approx(value, abs=0.06), name


def test_loss_is_the_formula_of_the_reference(synthetic_bank: FeatureBank) -> None:
    task = task_of(synthetic_bank, no_action_weight=0.3)
    batch = task.sample(40, source(), "train")
    outputs = torch.randn((40, 6, 3), generator=source(1))
    due, before = [], []
    for i, t in itertools.product(range(40), range(6)):
        scores = [math.exp(float(value)) for value in outputs[i, t]]
        value = -math.log(scores[int(batch.targets[i, t])] / sum(scores))
        (due if t >= int(batch.conditions["n"][i]) else before).append(value)
    expected = sum(due) / len(due) + 0.3 * sum(before) / len(before)
    assert float(task.loss(outputs, batch)) == pytest.approx(expected, rel=1e-5)


def test_no_weight_before_n_means_no_gradient_there(synthetic_bank: FeatureBank) -> None:
    task = task_of(synthetic_bank, no_action_weight=0.0)
    batch = task.sample(40, source(), "train")
    outputs = torch.randn((40, 6, 3), generator=source(1)).requires_grad_()
    task.loss(outputs, batch).backward()
    assert outputs.grad is not None
    assert torch.equal(outputs.grad.abs().sum(-1) > 0, batch.conditions["executive"])


# Errors and the spec


def test_published_views_cannot_show_another_view_on_every_match() -> None:
    stimuli = small_stimuli(views={"kind": "published"})
    bank = make_bank(stimuli)
    with pytest.raises(ValidationError, match="different_view needs at least two views in every split, and test has"):
        NBackSpec(stimuli=stimuli)
    task = NBack(NBackSpec(stimuli=stimuli, different_view=False), bank)
    frames = executive_frames(task.sample(300, source(), "test"))
    assert all(frame.same["view"] for frame in frames)
    assert not all(frame.same["view"] for frame in executive_frames(task.sample(300, source(), "select")))


def test_foils_need_the_identity_feature() -> None:
    with pytest.raises(ValidationError, match="same_category_foils has no effect without the feature identity"):
        NBackSpec(features=("location",), same_category_foils=0.2)


@pytest.mark.parametrize(
    ("category", "locations", "message"),
    [
        ([0, 1, 2], 4, "at least 2 identities per category"),
        ([0, 0], 4, "at least 2 categories and 2 locations"),
        ([0, 0, 1, 1], 1, "at least 2 categories and 2 locations"),
    ],
)
def test_stimuli_that_are_too_few_are_refused(category: list[int], locations: int, message: str) -> None:
    objects, views = len(category), 3
    table = torch.arange(objects * locations * views).view(objects, locations, views)
    images = SplitImages(
        table, torch.arange(objects), torch.tensor(category), torch.arange(locations), torch.arange(views)
    )
    with pytest.raises(InputError, match=message):
        FrameSampler(NBackSpec(), images)


def test_a_split_without_images_is_refused(synthetic_bank: FeatureBank) -> None:
    empty = replace(synthetic_bank, views={**synthetic_bank.views, "test": ()})
    with pytest.raises(InputError, match="at least one train identity per category and one test view"):
        SplitImages.of(empty, "test", "train")


def test_a_bank_with_a_hole_is_refused(synthetic_bank: FeatureBank) -> None:
    manifest = synthetic_bank.manifest.drop(index=5).reset_index(drop=True)
    features = torch.cat([synthetic_bank.features[:5], synthetic_bank.features[6:]])
    with pytest.raises(InputError, match="every object at every location and view"):
        task_of(replace(synthetic_bank, manifest=manifest, features=features)).sample(10, source(), "select")


def test_one_category_is_too_few(synthetic_bank: FeatureBank) -> None:
    keep = (synthetic_bank.manifest["category"] == "car").to_numpy(copy=True)
    bank = replace(
        synthetic_bank,
        manifest=synthetic_bank.manifest[keep].reset_index(drop=True),
        features=synthetic_bank.features[torch.from_numpy(keep)],
    )
    with pytest.raises(InputError, match="at least 2 categories"):
        task_of(bank).sample(10, source(), "train")


def test_build_needs_a_folder_with_the_bank(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="stimuli"):
        NBackSpec().build()
    with pytest.raises(InputError, match=str(tmp_path)):
        NBackSpec().build(tmp_path)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"n": [4]}, "less than or equal to 3"),
        ({"n": [0]}, "greater than or equal to 1"),
        ({"n": []}, "at least 1"),
        ({"n": [1, 1]}, "twice"),
        ({"features": ["location", "location"]}, "twice"),
        ({"features": ["colour"]}, "'location', 'identity' or 'category'"),
        ({"steps": 3}, "exceed the largest n"),
        ({"match_probability": 0.0}, "greater than 0"),
        ({"match_probability": 1.0}, "less than 1"),
        ({"lure_rate": 1.1}, "less than or equal to 1"),
        ({"different_view": 1}, "boolean"),
        ({"n": ["1"]}, "integer"),
        ({"lures": 0.1}, "not permitted"),
    ],
)
def test_spec_refuses(fields: dict, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        NBackSpec.parse({"kind": "nback", **fields})


def test_order_does_not_make_another_spec() -> None:
    a = NBackSpec.parse({"kind": "nback", "n": [3, 1], "features": ["category", "location"]})
    b = NBackSpec.parse({"kind": "nback", "n": [1, 3], "features": ["location", "category"]})
    assert a == b
    assert a.content_hash() == b.content_hash()
    assert a.cells() == ((1, "location"), (1, "category"), (3, "location"), (3, "category"))
    assert "accuracy_same_category_foils" not in a.metric_names()


def test_the_same_seed_gives_the_same_trials_for_any_order_of_calls(synthetic_bank: FeatureBank) -> None:
    a, b = task_of(synthetic_bank), task_of(synthetic_bank)
    b.sample(10, source(9), "test_both")
    for split in SPLITS:
        assert same_batch(a.sample(64, source(2), split), b.sample(64, source(2), split))
