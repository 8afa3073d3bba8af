from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr
from torch import Tensor

from tests.contracts.analysis import AnalysisContract
from tests.fixtures.planted_sequences import ITEMS, recall
from wmcore.analyses.perturbation import PerturbationSpec
from wmcore.analyses.perturbation_run import carried, run_on
from wmcore.models.base import Rollout, SequenceModel, State
from wmcore.models.rnn import RNNSpec
from wmcore.tasks.base import InputChannel
from wmcore.trials import Inputs

RANKS = 3
UNITS = RANKS * ITEMS


class Slots(SequenceModel):
    """Keeps each item in a slot of its rank and answers from the slot that is cued; ``shared``: from all slots."""

    def __init__(self, shared: bool = False) -> None:
        super().__init__()
        self.shared = shared

    def initial_state(self, batch_size: int, generator: torch.Generator | None = None) -> State:
        return {"h": torch.zeros(batch_size, UNITS)}

    def step(self, x: Inputs, state: State, generator: torch.Generator | None = None) -> tuple[Tensor, State]:
        items, cue = torch.split(x["x"], [UNITS, RANKS], dim=1)  # pyright: ignore[reportArgumentType]
        h = state["h"] + items
        weight = 0.5 + 0.9 * cue if self.shared else cue
        return (h.reshape(-1, RANKS, ITEMS) * weight[:, :, None]).sum(dim=1), {"h": h}

    def forward(self, inputs: Inputs, generator: torch.Generator | None = None, record: Sequence[str] = ()) -> Rollout:
        x, state, outputs, states = inputs["x"], self.initial_state(len(inputs["x"])), [], []  # pyright: ignore
        for t in range(x.shape[1]):  # pyright: ignore[reportAttributeAccessIssue]
            output, state = self.step({"x": x[:, t]}, state)  # pyright: ignore[reportIndexIssue]
            outputs.append(output)
            states.append(state["h"])
        return Rollout(torch.stack(outputs, dim=1), state, {"h": torch.stack(states, dim=1)})


def recorded(
    model: SequenceModel, lengths: tuple[int, ...] = (2, 3), chosen: Mapping[int, np.ndarray] | None = None
) -> xr.Dataset:
    """The sequences that ``recall`` lays out, shown to a network."""
    planted = {L: np.zeros((L, ITEMS, 1)) for L in lengths}
    data = recall(planted, 0.0, np.random.default_rng(0), chosen=chosen).drop_vars("state_h")
    size, steps = data.sizes["trial"], data.sizes["time"]
    x = np.zeros((size, steps, UNITS + RANKS), dtype=np.float32)
    for p in range(max(lengths)):
        held = np.flatnonzero(data[f"item_{p}"].values >= 0)
        at = data[f"period_stimulus_{p}"].values[held, 1] - 1
        x[held, at, p * ITEMS + data[f"item_{p}"].values[held]] = 1
        for start, stop, trial in zip(*data[f"period_response_{p}"].values[held].T, held, strict=True):
            x[trial, start:stop, UNITS + p] = 1
    rollout = model({"x": torch.from_numpy(x)}, record=tuple(model.initial_state(1)))
    data = data.assign(
        {
            f"state_{name}": (("trial", "time", "unit"), value.detach().numpy())
            for name, value in rollout.recorded.items()
        }
    )
    data = data.assign(
        input_x=(("trial", "time", "input_x_axis0"), x),
        outputs=(("trial", "time", "channel"), rollout.outputs.detach().numpy()),
    )
    return data.assign_attrs(inputs=json.dumps({"x": "dense"}))


def analyse(recording: xr.Dataset, model: SequenceModel | None, **fields: object) -> pd.DataFrame:
    spec = PerturbationSpec.parse({"bootstraps": 100, "alphas": [0, 1], **fields})
    return spec.compute(recording, model, np.random.default_rng(1)).table


class TestContract(AnalysisContract):
    condition = "item_1"

    @pytest.fixture(scope="class")
    @classmethod
    def spec(cls) -> PerturbationSpec:
        return PerturbationSpec(variables=("item_0", "item_1"), alphas=(0.0, 1.0), bootstraps=100)

    @pytest.fixture(scope="class")
    @classmethod
    def recording(cls) -> xr.Dataset:
        return recorded(Slots())

    @pytest.fixture(scope="class")
    @classmethod
    def model(cls) -> SequenceModel:
        return Slots()


def test_an_edit_along_the_code_in_use_replaces_one_answer_alone() -> None:
    table = analyse(recorded(Slots()), Slots())
    full = table[table["alpha"] == 1].set_index(["measure", "cell_length", "variable"])
    assert (full.loc["replaced"]["estimate"] == 1).all()
    assert (full.loc["replaced"]["ceiling"] == 1).all()
    assert (full.loc["changed_elsewhere"]["estimate"] == 0).all()
    assert (full.loc["specificity"]["estimate"] == 1).all()
    # The code of another rank changes that rank's answer, never the edited one's; random directions do little.
    assert (full.loc["replaced"]["control_other_code"] == 0).all()
    assert (full.loc["changed_elsewhere"]["control_other_code"] > 0.2).all()
    assert (full.loc["replaced"]["control_isotropic"] < 0.3).all()
    none = table[(table["alpha"] == 0) & (table["measure"] != "specificity")]
    assert (none["estimate"] == 0).all()


def test_an_edit_of_a_readout_that_mixes_ranks_is_not_specific() -> None:
    model = Slots(shared=True)
    table = analyse(recorded(model, (3,)), model, alphas=[3])
    rows = table.set_index("measure")
    # Of another rank's answer, the value edited in has 0.5 * 3, its own value 1.4.
    assert (rows.loc["changed_elsewhere"]["estimate"] == 1).all()
    assert (rows.loc["specificity"]["estimate"] == 0).all()


@pytest.mark.parametrize("values", [2, 3])
def test_a_value_is_never_replaced_by_itself_where_lists_hold_them_all(values: int) -> None:
    shown = np.stack(np.meshgrid(*[range(values)] * RANKS), -1).reshape(-1, RANKS)
    table = analyse(recorded(Slots(), (RANKS,), {RANKS: shown}), Slots())
    replaced = table[table["measure"] == "replaced"]
    assert len(replaced) == 2 * RANKS
    np.testing.assert_array_equal(replaced["estimate"], replaced["alpha"])


def test_one_value_alone_is_refused() -> None:
    data = recorded(Slots(), (2,), {2: np.full((30, 2), 4)})
    with pytest.raises(ValueError, match=r"perturbation\.variables .*all are 4"):
        analyse(data, Slots())


@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_running_on_without_an_edit_gives_the_recorded_outputs(cell: Literal["gru", "lstm"]) -> None:
    channels = {"x": InputChannel((UNITS + RANKS,), "vector")}
    model = RNNSpec(cell=cell, hidden_size=6).build(channels, ITEMS, torch.Generator().manual_seed(0))
    data = recorded(model, (2, 3))
    states, places = carried(data, model)
    assert set(places) == ({"h", "c"} if cell == "lstm" else {"h"})
    rows = np.arange(0, data.sizes["trial"], 7)  # of both lengths, whose delays end at different steps
    now = data["period_delay"].values[rows, 1] - 1
    read = np.stack([now + 2, now + 4], axis=1)
    found = run_on(data, model, states[rows, now], places, rows, now, read)
    np.testing.assert_allclose(found, data["outputs"].values[rows[:, None], read], atol=1e-6)


def test_what_is_missing_is_named() -> None:
    data = recorded(Slots(), (2,))
    with pytest.raises(ValueError, match=r"needs the network"):
        analyse(data, None)
    with pytest.raises(ValueError, match=r"recording\.states must.*Add h to recording\.states"):
        analyse(data.drop_vars("state_h"), Slots())
    with pytest.raises(ValueError, match=r"before all responses"):
        analyse(data, Slots(), moment="response_1.start")
    conditions = {"item_0": ("trial",), "item_1": ("trial",), "location": ("trial", "time")}
    with pytest.raises(ValueError, match=r"analyses\.0\.responses .*no items"):
        PerturbationSpec(variables=("location@0", "location@1")).check(conditions, ("h",), 9, "analyses.0")
    with pytest.raises(ValueError, match=r"analyses\.0\.responses .*one moment for each"):
        PerturbationSpec(responses=(3,)).check(conditions, ("h",), 9, "analyses.0")
