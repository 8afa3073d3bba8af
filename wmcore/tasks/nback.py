"""N-back on rendered objects (Lei, Ito & Bashivan 2024, arXiv:2411.02685), with corrected sampling.

A trial shows T objects. From step n on, the network says whether the object agrees on one feature with the one shown
n steps before. STSF, STMF and MTMF of the paper are choices of ``n`` and ``features``. Shapes: B trials, T steps.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import torch
from pydantic import Field, field_validator, model_validator
from scipy.special import ndtri
from torch import Tensor
from torch.nn import functional

from wmcore.errors import InputError
from wmcore.stimuli.feature_bank import FeatureBank
from wmcore.stimuli.object_sets.base import Split
from wmcore.stimuli.spec import StimulusSpec
from wmcore.tasks.base import InputChannel, Task, TaskSpec
from wmcore.tasks.nback_sampling import FrameSampler, SplitImages, TrialFrames
from wmcore.trials import Lookup, TrialBatch

Feature = Literal["location", "identity", "category"]
FEATURES: tuple[Feature, ...] = ("location", "identity", "category")
RESPONSES = ("no_action", "non_match", "match")
NO_ACTION, NON_MATCH, MATCH = range(3)
LARGEST_N = 3

SPLITS = {
    "train": "trained identities, training views",
    "select": "trained identities, selection views",
    "test": "trained identities, test views",
    "select_identity": "selection identities, training views",
    "test_identity": "test identities, training views",
    "select_both": "selection identities, selection views",
    "test_both": "test identities, test views",
    "neutral": "trained identities, test views; every frame uniform and independent (for analyses)",
}
"""The factorial of views and identities. Selection never shares a held-out stimulus with test."""
_VIEWS: dict[str, Split] = {
    "select": "select",
    "test": "test",
    "select_both": "select",
    "test_both": "test",
    "neutral": "test",
}
_IDENTITIES: dict[str, Split] = {
    "select_identity": "select",
    "test_identity": "test",
    "select_both": "select",
    "test_both": "test",
}


class NBackSpec(TaskSpec):
    """N-back on rendered objects: is the present object the same in one feature as the one n steps before?"""

    kind: Literal["nback"] = "nback"
    n: Annotated[tuple[Annotated[int, Field(ge=1, le=LARGEST_N)], ...], Field(min_length=1)] = (1, 2, 3)
    """Lags, each in 1..3; one is drawn per trial."""
    features: Annotated[tuple[Feature, ...], Field(min_length=1)] = FEATURES
    """Features that are compared; one is drawn per trial."""
    steps: Annotated[int, Field(ge=2, le=64)] = 6
    """T, frames per trial; one frame is one step."""
    match_probability: Annotated[float, Field(gt=0, lt=1)] = 0.5
    """p, share of match among executive steps, exact in every (n, feature, step)."""
    lure_rate: Annotated[float, Field(ge=0, le=1)] = 0.25
    """Share of non-match steps that agree with lag n-1 or n+1 instead."""
    congruence: Annotated[float, Field(ge=0, le=1)] = 0.5
    """Share of executive steps on which an irrelevant feature agrees with the frame n steps before."""
    same_category_foils: Annotated[float, Field(ge=0, le=1)] = 0.5
    """Share of identity non-matches that come from the same category."""
    different_view: bool = True
    """Every executive frame shows another view than the frame n steps before, so that no image can match itself."""
    no_action_weight: Annotated[float, Field(ge=0)] = 0.1
    """Weight of the steps before n in the loss."""
    stimuli: StimulusSpec = StimulusSpec()
    """The rendered objects and their frozen features."""

    @field_validator("n", "features")
    @classmethod
    def _no_repeats(cls, value: tuple) -> tuple:
        if len(set(value)) != len(value):
            raise ValueError("must not name anything twice")
        return tuple(sorted(value, key=FEATURES.index)) if isinstance(value[0], str) else tuple(sorted(value))

    @field_validator("steps")
    @classmethod
    def _has_executive_steps(cls, value: int, info) -> int:
        if value <= max(info.data.get("n", (0,))):
            raise ValueError("must exceed the largest n, or no response is ever due")
        return value

    @model_validator(mode="after")
    def _every_split_has_another_view(self) -> NBackSpec:
        for split in ("train", "select", "test"):
            if self.different_view and len(self.stimuli.views.names(split)) < 2:
                raise ValueError(
                    f"different_view needs at least two views in every split, and {split} has one: set it to false "
                    "(an image may then be its own match), or give the split another view"
                )
        return self

    @model_validator(mode="after")
    def _foils_have_effect(self) -> NBackSpec:
        default = type(self).model_fields["same_category_foils"].default
        if "identity" not in self.features and self.same_category_foils != default:
            raise ValueError("same_category_foils has no effect without the feature identity: leave it out")
        return self

    def stimulus_spec(self) -> StimulusSpec:
        return self.stimuli

    def cells(self) -> tuple[tuple[int, Feature], ...]:
        """(n, feature) of every task in the mix."""
        return tuple((n, feature) for n in self.n for feature in self.features)

    def metric_names(self) -> tuple[str, ...]:
        return (
            "accuracy",
            "accuracy_all_steps",
            "d_prime",
            "accuracy_lures",
            *(("accuracy_same_category_foils",) if "identity" in self.features else ()),
            *(f"accuracy_n{n}_{feature}" for n, feature in self.cells()),
        )

    def split_names(self) -> tuple[str, ...]:
        return tuple(SPLITS)

    def proportions(self) -> frozenset[str]:
        return frozenset(self.metric_names()) - {"d_prime"}

    def least_trials(self) -> int:
        return len(self.cells())

    def final_splits(self) -> tuple[str, ...]:
        return tuple(split for split in SPLITS if split not in ("train", "neutral"))

    def input_channels(self) -> Mapping[str, InputChannel]:
        return {
            "features": InputChannel(self.stimuli.backbone.feature_shape(), "features"),
            "task": InputChannel((len(FEATURES) + LARGEST_N,), "vector"),
        }

    def condition_dims(self) -> Mapping[str, tuple[str, ...]]:
        per_step = ("image", "location", "category", "identity", "view", "executive", "is_match", "is_lure")
        return {
            **dict.fromkeys(("n", "feature"), ("trial",)),
            **dict.fromkeys((*per_step, "same_category"), ("trial", "time")),
        }

    @property
    def output_size(self) -> int:
        return len(RESPONSES)

    def build(self, stimuli: Path | None = None) -> NBack:
        if stimuli is None:
            raise InputError("stimuli", "must name the folder that holds the feature banks")
        return NBack(self, FeatureBank.load(stimuli, self.stimuli))


class NBack(Task):
    """The task on one feature bank.

    Features are standardised per channel with the statistics of the training images, so that a frozen layer's scale
    does not decide what can be learned.
    """

    spec: NBackSpec
    splits = SPLITS

    def __init__(self, spec: NBackSpec, bank: FeatureBank) -> None:
        self.spec, self.bank = spec, bank
        self.table = _standardised(bank)
        labels = bank.labels
        self.condition_labels = {
            "feature": FEATURES,
            "response": RESPONSES,
            **{name: labels[name] for name in ("location", "category", "identity", "view")},
        }
        self._samplers: dict[str, FrameSampler] = {}

    def sample(self, batch_size: int, generator: torch.Generator, split: str) -> TrialBatch:
        sampler = self._sampler(split)
        cells = self.spec.cells()
        # A random permutation of a balanced list: every (n, feature) equally often, up to one trial.
        order = torch.randperm(batch_size, generator=generator)
        offset = int(torch.randint(len(cells), (1,), generator=generator))
        cell = (order + offset) % len(cells)
        n = torch.tensor([c[0] for c in cells])[cell]
        feature = torch.tensor([FEATURES.index(c[1]) for c in cells])[cell]
        if split == "neutral":
            frames = sampler.neutral(batch_size, generator)
        else:
            frames = sampler.task(cell, n, feature, generator)
        return self._batch(sampler.images, frames, n, feature)

    def _sampler(self, split: str) -> FrameSampler:
        if split not in self._samplers:
            if split not in SPLITS:
                raise InputError("split", f"must be one of {', '.join(SPLITS)}", value=split)
            images = SplitImages.of(self.bank, _VIEWS.get(split, "train"), _IDENTITIES.get(split, "train"))
            self._samplers[split] = FrameSampler(self.spec, images)
        return self._samplers[split]

    def _batch(self, images: SplitImages, frames: TrialFrames, n: Tensor, feature: Tensor) -> TrialBatch:
        batch_size, steps = frames.objects.shape
        time = torch.arange(steps)
        executive = time[None] >= n[:, None]
        lag = (time[None] - n[:, None]).clamp(min=0)
        category = images.category[frames.objects]
        values = torch.stack([frames.location, frames.objects, category])
        chosen = values.gather(0, feature[None, :, None].expand(1, batch_size, steps))[0]
        agrees = chosen == chosen.gather(1, lag)
        is_match = executive & agrees
        same_category = category == category.gather(1, lag)
        targets = torch.where(executive, torch.where(is_match, MATCH, NON_MATCH), NO_ACTION)
        vector = torch.cat(
            [functional.one_hot(feature, len(FEATURES)), functional.one_hot(n - 1, LARGEST_N)], dim=1
        ).float()
        image = images.table[frames.objects, frames.location, frames.view]
        return TrialBatch(
            inputs={"features": Lookup(self.table, image), "task": vector[:, None].expand(-1, steps, -1)},
            targets=targets,
            loss_mask=torch.where(executive, 1.0, self.spec.no_action_weight),
            lengths=torch.full((batch_size,), steps),
            periods={"trial": torch.tensor([0, steps]).expand(batch_size, 2)},
            conditions={
                "n": n,
                "feature": feature,
                "image": image,
                "location": images.location[frames.location],
                "category": images.category[frames.objects],
                "identity": images.identity[frames.objects],
                "view": images.view[frames.view],
                "executive": executive,
                "is_match": is_match,
                "is_lure": executive & ~is_match & _agrees_with_neighbour(chosen, n),
                "same_category": executive & same_category,
            },
        )

    def loss(self, outputs: Tensor, batch: TrialBatch) -> Tensor:
        """L = mean CE over steps t >= n + no_action_weight * mean CE over steps t < n (nback.md section 5)."""
        losses = functional.cross_entropy(outputs.flatten(0, 1), batch.targets.flatten(), reduction="none")
        losses = losses.view_as(batch.targets) * batch.loss_mask
        executive = batch.conditions["executive"]
        due, before = (losses * where for where in (executive, ~executive))
        return due.sum() / executive.sum().clamp(min=1) + before.sum() / (~executive).sum().clamp(min=1)

    def metrics(self, outputs: Tensor, batch: TrialBatch) -> dict[str, float]:
        """Accuracies are over executive steps; ``accuracy`` is the mean over the (n, feature) cells."""
        response = outputs.argmax(-1)
        c = batch.conditions
        accuracies = self._accuracies((response == batch.targets).float(), batch)
        return {name: accuracies.get(name, float("nan")) for name in self.spec.metric_names()} | {
            "d_prime": _d_prime(response, c["is_match"], c["executive"])
        }

    def _accuracies(self, correct: Tensor, batch: TrialBatch) -> dict[str, float]:
        """Every metric that is a mean of ``correct``, (B, T) in [0, 1]: whether, or how probably, a step is right."""
        c = batch.conditions
        executive = c["executive"]
        cells = {
            f"accuracy_n{n}_{feature}": _mean(
                correct, executive & ((c["n"] == n) & (c["feature"] == FEATURES.index(feature)))[:, None]
            )
            for n, feature in self.spec.cells()
        }
        result = {
            "accuracy": float(np.mean(list(cells.values()))),
            "accuracy_all_steps": _mean(correct, torch.ones_like(executive)),
            "accuracy_lures": _mean(correct, c["is_lure"]),
        }
        if "identity" in self.spec.features:
            identity = (c["feature"] == FEATURES.index("identity"))[:, None]
            foils = executive & ~c["is_match"] & c["same_category"] & identity
            result["accuracy_same_category_foils"] = _mean(correct, foils)
        return {**result, **cells}

    def baselines(self, batch: TrialBatch) -> dict[str, dict[str, float]]:
        """Scores of three policies that know when a response is due but do not do the task.

        ``chance`` guesses match with probability p; ``constant`` always gives the answer that p makes more frequent
        (non-match at p = .5); ``category_only`` remembers nothing but categories (right on category, .75 on identity
        at p = .5).
        """
        c = batch.conditions
        p = self.spec.match_probability
        executive = c["executive"]
        constant = torch.full_like(batch.targets, MATCH if p > 0.5 else NON_MATCH)
        by_category = torch.where(c["same_category"], MATCH, NON_MATCH)
        by_category = torch.where((c["feature"] == FEATURES.index("location"))[:, None], constant, by_category)
        policies = {"constant": constant, "category_only": by_category}
        scores = {
            name: self.metrics(
                functional.one_hot(torch.where(executive, action, NO_ACTION), len(RESPONSES)).float(), batch
            )
            for name, action in policies.items()
        }
        right = torch.where(c["is_match"], p, torch.where(executive, 1 - p, 1.0))
        chance = {**self._accuracies(right, batch), "d_prime": 0.0}
        return {"chance": chance, **scores}

    def sampling_summary(self, batch: TrialBatch) -> dict[str, float]:
        c = batch.conditions
        executive, match = c["executive"], c["is_match"]
        non_match = executive & ~match
        identity = (c["feature"] == FEATURES.index("identity"))[:, None]
        return {
            "match_rate": _mean(match, executive),
            "lure_rate": _mean(c["is_lure"], non_match),
            "same_category_foil_rate": _mean(c["same_category"], non_match & identity),
        }


def _standardised(bank: FeatureBank) -> Tensor:
    train = torch.from_numpy(bank.rows("train", "train"))
    reference = bank.features[train]
    axes = (0, *range(2, reference.ndim))
    mean = reference.mean(dim=axes, keepdim=True)
    sd = reference.std(dim=axes, keepdim=True).clamp(min=1e-6)
    return (bank.features - mean) / sd


def _agrees_with_neighbour(values: Tensor, n: Tensor) -> Tensor:
    """(B, T) bool: the value agrees with that at lag n-1 or n+1, where these lags are >= 1 and inside the trial."""
    time = torch.arange(values.shape[1])[None]
    agrees = torch.zeros_like(values, dtype=torch.bool)
    for lag in (n - 1, n + 1):
        source = time - lag[:, None]
        valid = (source >= 0) & (lag >= 1)[:, None]
        agrees |= valid & (values == values.gather(1, source.clamp(min=0)))
    return agrees


def _mean(values: Tensor, where: Tensor) -> float:
    count = int(where.sum())
    return float((values.float() * where).sum()) / count if count else float("nan")


def _d_prime(response: Tensor, is_match: Tensor, executive: Tensor) -> float:
    """d' = z((hits + .5)/(matches + 1)) - z((false alarms + .5)/(non-matches + 1)) (Hautus 1995)."""
    said_match = response == MATCH
    matches, non_matches = int((executive & is_match).sum()), int((executive & ~is_match).sum())
    hits = int((said_match & executive & is_match).sum())
    false_alarms = int((said_match & executive & ~is_match).sum())
    hit_rate, false_alarm_rate = (hits + 0.5) / (matches + 1), (false_alarms + 0.5) / (non_matches + 1)
    return float(ndtri(hit_rate) - ndtri(false_alarm_rate))
