"""Serial recall of item sequences (sequence_recall.md): see a list, hold it over a delay, report it in order.

The network sees L items one after the other, and after a delay is asked for the item of each rank in turn. With the
durations of the defaults, ``cue_channels`` 4 and both shares 0 it is the published task; by default some lists are held
out of training, and cues are in reserve for longer lists. Shapes: B trials, T steps, K items, L ranks of a trial, W of
the longest one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, Self

import torch
from pydantic import Field, field_validator, model_validator
from torch import Tensor
from torch.nn import functional

from wmcore.errors import InputError
from wmcore.tasks.base import InputChannel, Task, TaskSpec
from wmcore.tasks.sequence_sampling import (
    DELAY,
    FIXATION,
    FLAGS,
    PADDING,
    PHASES,
    RESPONSE,
    STIMULUS,
    Durations,
    Pool,
    Timeline,
    balanced_rows,
    independent_rows,
    interleaved,
    signals,
)
from wmcore.tasks.sequence_scoring import Recall, guessing, metric_names, shuffling
from wmcore.tasks.sequence_sets import MOST_LISTS, TRAIN, ListTable, list_table, number_of_lists
from wmcore.trials import Input, Lookup, TrialBatch

Milliseconds = Annotated[float, Field(gt=0, le=3_600_000)]


class SequenceRecallSpec(TaskSpec):
    """Serial recall: lists of items are shown, held over a delay, and reported rank by rank."""

    kind: Literal["sequence_recall"] = "sequence_recall"
    items: Annotated[int, Field(ge=2, le=512)] = 8
    """K, number of different items."""
    lengths: Annotated[tuple[Annotated[int, Field(ge=1, le=32)], ...], Field(min_length=1)] = (2, 3, 4)
    """L, items per list, ascending; trials of all lengths are mixed in a batch."""
    length_weights: tuple[Annotated[float, Field(gt=0, le=1e6)], ...] | None = None
    """Relative weight of each length, in the order of ``lengths``: its share of the training trials, and exactly its
    weight in the loss; null: equal. In all other splits every length has the same number of trials."""
    replacement: bool = False
    """Whether an item can occur twice in a list. Without, ranks are dependent: knowing the other items of a list raises
    chance for the last one from 1/K to 1/(K - L + 1)."""
    item_code: Literal["one_hot", "circular", "both"] = "one_hot"
    """How item k is shown: by a channel of its own, as cos and sin of 2 pi k / K, or by both."""
    dt_ms: Milliseconds = 100.0
    """Milliseconds per step; every duration must be a multiple of it."""
    fixation_ms: Milliseconds = 500.0
    """Milliseconds before the first item."""
    stimulus_ms: Milliseconds = 500.0
    """Milliseconds that each item is shown for."""
    gap_ms: Annotated[float, Field(ge=0, le=3_600_000)] = 0.0
    """Milliseconds without any input between two items; none follows the last item."""
    delay_ms: Milliseconds = 1000.0
    """Milliseconds between the last item and the first cue; the shortest delay, if there is a longest one."""
    longest_delay_ms: Milliseconds | None = None
    """Longest delay in milliseconds: each trial's is drawn uniformly from ``delay_ms`` on, by dt; null: all alike."""
    response_ms: Milliseconds = 500.0
    """Milliseconds that each rank is cued for; the item is due at all of its steps."""
    input_noise: Annotated[float, Field(ge=0, le=10)] = 0.0
    """Standard deviation of the Gaussian noise on every input channel at every step, whose signals are 0 and 1."""
    cue_channels: Annotated[int, Field(ge=1, le=32)] = 6
    """Cues that the network has an input for, at least the longest length; some in reserve allow a test of longer
    lists (split ``longer_lists``)."""
    select_share: Annotated[float, Field(ge=0, le=0.5)] = 0.1
    """Share of the lists of each length that only ``select`` shows; 0: it draws from the training lists."""
    test_share: Annotated[float, Field(ge=0, le=0.5)] = 0.1
    """Share of the lists of each length that only ``test`` shows; 0: it draws from the training lists."""

    @field_validator("lengths")
    @classmethod
    def _ascending(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if value != tuple(sorted(set(value))):
            raise ValueError(f"must be ascending, each length once, as in {sorted(set(value))}")
        return value

    @model_validator(mode="after")
    def _durations_are_steps(self) -> SequenceRecallSpec:
        for name in ("fixation_ms", "stimulus_ms", "gap_ms", "delay_ms", "longest_delay_ms", "response_ms"):
            duration = getattr(self, name)
            if duration is None:
                continue
            steps = duration / self.dt_ms
            if not math.isclose(steps, round(steps), rel_tol=1e-9):
                near = max(1, round(steps)) * self.dt_ms
                remedy = f"Write {near:g}, or another dt_ms."
                raise InputError(name, f"must be a multiple of dt_ms ({self.dt_ms:g})", value=duration, remedy=remedy)
        if self.longest_delay_ms is not None and self.longest_delay_ms <= self.delay_ms:
            rule = f"must exceed delay_ms ({self.delay_ms:g})"
            remedy = "Leave it out for a delay that is always the same."
            raise InputError("longest_delay_ms", rule, value=self.longest_delay_ms, remedy=remedy)
        return self

    @model_validator(mode="after")
    def _lists_can_be_made(self) -> SequenceRecallSpec:
        longest, count = self.lengths[-1], len(self.lengths)
        if longest > self.items and not self.replacement:
            raise InputError(
                "lengths",
                f"must not exceed the number of items ({self.items}) without replacement",
                value=longest,
                remedy="Take more items or shorter lists, or set replacement to true.",
            )
        if self.cue_channels < longest:
            rule = f"must be at least the longest length ({longest}), or its last items could not be asked for"
            raise InputError("cue_channels", rule, value=self.cue_channels)
        if self.length_weights is not None and (len(self.length_weights) != count or count == 1):
            rule = f"must give one weight for each length ({count}), and has no effect where there is only one"
            raise InputError("length_weights", rule, value=self.length_weights)
        self.lists()
        return self

    def steps(self, duration_ms: float) -> int:
        """A duration in steps."""
        return round(duration_ms / self.dt_ms)

    def longest_delay(self) -> int:
        """Steps of the longest delay in training."""
        return self.steps(self.longest_delay_ms or self.delay_ms)

    def longer_length(self) -> int | None:
        """One item more than trained; None where cues, items or the number of lists do not allow it."""
        length = self.lengths[-1] + 1
        possible = self.cue_channels >= length and (self.replacement or self.items >= length)
        return length if possible and number_of_lists(self.items, length, self.replacement) <= MOST_LISTS else None

    def width(self) -> int:
        """W, items of the longest list of any split."""
        return self.longer_length() or self.lengths[-1]

    def lists(self) -> ListTable:
        """All lists of the trained lengths, and which of them are held out."""
        shares = (self.select_share, self.test_share)
        return list_table(self.items, self.lengths, self.replacement, *shares, self.width())

    def splits(self) -> dict[str, str]:
        """Split name -> what it holds."""
        held_out = self.select_share + self.test_share > 0
        lists = "training lists" if held_out else "all lists"
        tested = "lists kept for the test" if self.test_share else lists
        found = {
            "train": lists,
            "select": "lists kept for selection" if self.select_share else lists,
            "test": tested,
        }
        if held_out:
            found["test_seen"] = "training lists in fresh trials"
        found["longer_delays"] = f"{tested}, held twice as long as the longest delay that was trained"
        if self.longer_length() is not None:
            found["longer_lists"] = "lists of one item more than was trained"
        return found | {"neutral": "all lists, each equally often as far as the trials allow (for analyses)"}

    def check_stage(  # pyright: ignore[reportIncompatibleMethodOverride] - a stage has the task's kind
        self, stage: Self, where: str
    ) -> None:
        """Lists that are held out, longer lists and longer delays stay new to a network whatever its stages are."""
        if self.select_share + self.test_share > 0:
            for name in ("replacement", "select_share", "test_share"):
                if (value := getattr(stage, name)) != (own := getattr(self, name)):
                    rule = f"must be what the trial's task has ({own}): it decides which lists no stage may show"
                    raise InputError(f"{where}.{name}", rule, value=value, remedy="Set it in trial.task alone.")
        longer = self.longer_length()
        if longer in stage.lengths:
            rule = f"must leave out {longer}, which is the length of the trial's split longer_lists"
            remedy = "Add it to trial.task.lengths, or lower trial.task.cue_channels: there is then no such split."
            raise InputError(f"{where}.lengths", rule, value=stage.lengths, remedy=remedy)
        if stage.longest_delay() > self.longest_delay():
            name = "delay_ms" if stage.longest_delay_ms is None else "longest_delay_ms"
            rule = (
                f"must not make delays longer than those of the trial's task ({self.longest_delay()} steps), and one "
                f"takes up to {stage.longest_delay()}: its split longer_delays is twice as long as the longest trained"
            )
            remedy = "Set longest_delay_ms in trial.task."
            raise InputError(f"{where}.{name}", rule, value=getattr(stage, name), remedy=remedy)

    def split_names(self) -> tuple[str, ...]:
        return tuple(self.splits())

    def final_splits(self) -> tuple[str, ...]:
        # Not the longer lists, of which the metrics by trained length are not defined: they are for analyses.
        return tuple(name for name in self.splits() if name.startswith("test") or name == "longer_delays")

    def metric_names(self) -> tuple[str, ...]:
        return metric_names(self.lengths)

    def proportions(self) -> frozenset[str]:
        return frozenset(self.metric_names())

    def least_trials(self) -> int:
        return len(self.lengths)

    def item_channels(self) -> int:
        """Input channels that show items."""
        return {"one_hot": self.items, "circular": 2, "both": self.items + 2}[self.item_code]

    def input_channels(self) -> Mapping[str, InputChannel]:
        return {"task": InputChannel((self.item_channels() + FLAGS + self.cue_channels,), "vector")}

    def condition_dims(self) -> Mapping[str, tuple[str, ...]]:
        per_trial = ("length", "sequence", "delay", *(f"item_{p}" for p in range(self.width())))
        per_step = ("phase", "rank", "history")
        return {**dict.fromkeys(per_trial, ("trial",)), **dict.fromkeys(per_step, ("trial", "time"))}

    def timing(self) -> tuple[str, ...]:
        by_length = ("length",) if len(self.lengths) > 1 else ()
        return by_length if self.longest_delay_ms is None else (*by_length, "delay")

    @property
    def output_size(self) -> int:
        return self.items

    def build(self, stimuli: Path | None = None) -> SequenceRecall:
        return SequenceRecall(self)


class SequenceRecall(Task):
    """The task with all of its lists.

    Input channels in this order: the item; fixation; stimulus on; delay; one cue per rank. All are 0 in a gap and
    behind the end of a trial. Targets are the items; at steps at which none is due they are 0 and do not count.
    """

    spec: SequenceRecallSpec

    def __init__(self, spec: SequenceRecallSpec) -> None:
        self.spec = spec
        self.splits = spec.splits()
        names = tuple(str(k) for k in range(spec.items))
        self.condition_labels = {"phase": PHASES, **{f"item_{p}": names for p in range(spec.width())}}
        self._durations = Durations(
            *(spec.steps(ms) for ms in (spec.fixation_ms, spec.stimulus_ms, spec.gap_ms, spec.response_ms))
        )
        self._signals = signals(spec)
        weights = torch.ones(spec.width() + 1)
        weights[list(spec.lengths)] = torch.tensor(spec.length_weights or (1.0,) * len(spec.lengths))
        self._weights = weights  # by length
        lists = spec.lists()
        self._trained_ids = lists.prefixes[lists.kept_for == TRAIN, -1]
        self._pools = {split: Pool.of(spec, split) for split in self.splits}

    def sample(self, batch_size: int, generator: torch.Generator, split: str) -> TrialBatch:
        if split not in self.splits:
            raise InputError("split", f"must be one of {', '.join(self.splits)}", value=split)
        pool = self._pools[split]
        weights = self._weights[list(pool.lengths)] if split == "train" else torch.ones(len(pool.lengths))
        option = interleaved(weights, batch_size, generator)
        if split == "neutral":
            row = balanced_rows(pool.rows, option, self.spec.items, generator)
        else:
            row = independent_rows(pool.rows, option, generator)
        return self._batch(pool.lists, row, self._delays(batch_size, split, generator), generator)

    def _delays(self, size: int, split: str, generator: torch.Generator) -> Tensor:
        """(B,) steps."""
        shortest = self.spec.steps(self.spec.delay_ms)
        longest = self.spec.longest_delay()
        if split == "longer_delays":
            return torch.full((size,), 2 * longest)
        return torch.randint(shortest, longest + 1, (size,), generator=generator)

    def _batch(self, lists: ListTable, row: Tensor, delay: Tensor, generator: torch.Generator) -> TrialBatch:
        items, length, prefixes = lists.items[row], lists.length[row], lists.prefixes[row]
        time = Timeline.of(self._durations, length, delay)
        padding = time.phase == PADDING
        due = time.phase == RESPONSE
        item = items.gather(1, time.rank.clamp(min=0))
        return TrialBatch(
            inputs={"task": self._inputs(time, item, generator)},
            targets=torch.where(due, item, 0),
            loss_mask=due.float(),
            lengths=time.lengths,
            periods=time.periods(self._durations, length, int(length.max())),
            conditions={
                "length": length,
                "sequence": prefixes[:, -1],
                "delay": delay,
                **{f"item_{p}": items[:, p] for p in range(items.shape[1])},
                "phase": time.phase,
                "rank": time.rank,
                "history": torch.where(padding, -1, prefixes.gather(1, time.shown)),
            },
        )

    def _inputs(self, time: Timeline, item: Tensor, generator: torch.Generator) -> Input:
        """The task's vectors, looked up in a table of the few that there are unless noise makes each its own."""
        silence = len(self._signals) - 1
        by_phase = torch.full((len(PHASES) + 1,), silence)  # in a gap and, at its end, in padding
        by_phase[FIXATION], by_phase[DELAY] = self.spec.items, self.spec.items + 1
        signal = torch.where(time.phase == STIMULUS, item, by_phase[time.phase])
        signal = torch.where(time.phase == RESPONSE, self.spec.items + 2 + time.rank, signal)
        if self.spec.input_noise == 0:
            return Lookup(self._signals, signal)
        shown = self._signals[signal]
        noise = self.spec.input_noise * torch.randn(shown.shape, generator=generator)
        return shown + noise * (time.phase != PADDING)[..., None]

    def loss(self, outputs: Tensor, batch: TrialBatch) -> Tensor:
        """L = sum_l w_l mean_{b: L_b = l} (sum_t m_bt CE_bt / sum_t m_bt) / sum_l w_l, over the lengths of the batch.

        The mean over a trial comes first, so that longer lists, which have more responses, do not count for more
        (sequence_recall.md section 5).
        """
        mask, length = batch.loss_mask, batch.conditions["length"]
        trial, step = mask.nonzero(as_tuple=True)
        losses = functional.cross_entropy(outputs[trial, step], batch.targets[trial, step], reduction="none")
        total = torch.zeros_like(mask[:, 0], dtype=losses.dtype).index_add_(0, trial, losses * mask[trial, step])
        of_trial = total / mask.sum(1).clamp(min=1e-9)
        weights = self._weights.to(outputs)
        trials = torch.zeros_like(weights).index_add_(0, length, torch.ones_like(of_trial))
        weight = (weights / trials.clamp(min=1))[length]
        return (of_trial * weight).sum() / weight.sum()

    def metrics(self, outputs: Tensor, batch: TrialBatch) -> dict[str, float]:
        """Item accuracy is a mean over response steps; a sequence is right if it is at all of them.

        ``accuracy``, ``transposition_rate`` and ``intrusion_rate`` add up to 1 (``wmcore.tasks.sequence_scoring``).
        Figures without a length are means over the lengths that the batch holds, each counted alike.
        """
        items, length = _shown(batch)
        steps = torch.arange(items.shape[1] * self._durations.response, device=items.device)
        start = batch.lengths - length * self._durations.response
        at = (start[:, None] + steps).clamp(max=batch.targets.shape[1] - 1)
        answers = outputs.argmax(-1).gather(1, at).view(*items.shape, -1)
        return Recall.of_answers(answers, items).summary(length, self.spec.lengths)

    def baselines(self, batch: TrialBatch) -> dict[str, dict[str, float]]:
        """Expected scores of four policies, none of which does the task.

        ``chance`` answers with any list that can occur; ``constant`` always with item 0; ``last_item`` remembers the
        last item and guesses the others; ``unordered`` knows which items were shown, and gives them in any order.
        """
        items, length = _shown(batch)
        size, replacement = self.spec.items, self.spec.replacement
        policies = {
            "chance": guessing(items, length, size, replacement),
            "constant": Recall.of_answers(torch.zeros_like(items)[..., None], items),
            "last_item": guessing(items, length, size, replacement, last_known=True),
            "unordered": shuffling(items, length),
        }
        return {name: recall.summary(length, self.spec.lengths) for name, recall in policies.items()}

    def sampling_summary(self, batch: TrialBatch) -> dict[str, float]:
        c = batch.conditions
        sequence = c["sequence"].cpu()
        held_out = ~torch.isin(sequence, self._trained_ids)
        return {
            **{f"share_L{length}": float((c["length"] == length).double().mean()) for length in self.spec.lengths},
            "held_out_share": float(held_out.double().mean()),
            "distinct_lists": float(len(sequence.unique())),
            "mean_delay_ms": float(c["delay"].double().mean()) * self.spec.dt_ms,
        }


def _shown(batch: TrialBatch) -> tuple[Tensor, Tensor]:
    """(B, W) items shown at each rank, -1 behind the end of a list, and (B,) L."""
    ranks = (name for name in batch.conditions if name.startswith("item_"))
    return torch.stack([batch.conditions[name] for name in ranks], dim=1), batch.conditions["length"]
