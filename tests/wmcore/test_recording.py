from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
from torch import Tensor, nn

from wmcore.errors import InputError
from wmcore.models.base import Rollout, SequenceModel
from wmcore.recording import (
    RecordingSpec,
    condition_labels,
    inputs_of,
    load,
    periods,
    provenance,
    record,
    resolve,
    save,
)
from wmcore.tasks.base import InputChannel, Task
from wmcore.trials import Lookup, TrialBatch, dense


class TableTask(Task):
    """Items are rows of a large table; a cue is a dense input. Labels are the parity of the row."""

    inputs = {"item": InputChannel((3, 2), "features"), "cue": InputChannel((2,), "vector")}
    output_size = 2
    splits = {"train": "rows", "select": "rows", "test": "rows", "neutral": "rows"}
    condition_labels = {"parity": ("even", "odd"), "cue": ("first", "second")}

    def __init__(self) -> None:
        self.table = torch.arange(6000.0).reshape(1000, 3, 2) / 6000

    def sample(self, batch_size: int, generator: torch.Generator, split: str) -> TrialBatch:
        index = torch.randint(0, 1000, (batch_size, 4), generator=generator)
        cue = torch.randint(0, 2, (batch_size,), generator=generator)
        return TrialBatch(
            inputs={
                "item": Lookup(self.table, index),
                "cue": torch.eye(2)[cue][:, None].expand(-1, 4, -1),
            },
            targets=index % 2,
            loss_mask=torch.ones(batch_size, 4),
            lengths=torch.full((batch_size,), 4),
            periods={"all": torch.tensor([0, 4]).expand(batch_size, 2)},
            conditions={"parity": index % 2, "cue": cue, "is_odd": index % 2 == 1},
        )

    def loss(self, outputs: Tensor, batch: TrialBatch) -> Tensor:
        return outputs.mean()

    def metrics(self, outputs: Tensor, batch: TrialBatch) -> dict[str, float]:
        return {}

    def baselines(self, batch: TrialBatch) -> dict[str, dict[str, float]]:
        return {}

    def sampling_summary(self, batch: TrialBatch) -> dict[str, float]:
        return {}


class Leaky(SequenceModel):
    """h_t = h_{t-1} / 2 + W x_t, with dropout that must be off in a recording."""

    def __init__(self) -> None:
        super().__init__()
        self.read = nn.Linear(8, 5)
        self.out = nn.Linear(5, 2)
        self.drop = nn.Dropout(0.5)

    def initial_state(self, batch_size, generator=None):
        return {"h": torch.zeros(batch_size, 5)}

    def step(self, x, state, generator=None):
        flat = torch.cat([dense(x["item"]).flatten(1), dense(x["cue"])], dim=1)
        h = state["h"] / 2 + self.drop(self.read(flat))
        return self.out(h), {"h": h}

    def forward(self, inputs, generator=None, record=(), lengths=None):
        state, outputs, kept = self.initial_state(dense(inputs["cue"]).shape[0]), [], []
        for t in range(4):
            now = {k: v.at(t) if isinstance(v, Lookup) else v[:, t] for k, v in inputs.items()}
            output, state = self.step(now, state)
            outputs.append(output)
            kept.append(state["h"])
        stacked = torch.stack(kept, 1)
        states = {
            "h": stacked,
            "square": stacked[..., :3] ** 2,
            "matrix": stacked[..., :, None] * stacked[..., None, :2],
        }
        return Rollout(torch.stack(outputs, 1), state, {name: states[name] for name in record})


@pytest.fixture(scope="module")
def model() -> Leaky:
    model = Leaky()
    source = torch.Generator().manual_seed(3)
    for parameter in model.parameters():
        nn.init.uniform_(parameter, -0.5, 0.5, generator=source)
    return model.train()


def made(model: Leaky, **fields: object) -> xr.Dataset:
    spec = RecordingSpec.parse({"trials": 300, "states": ["h"], **fields})
    return record(TableTask(), model, spec, torch.Generator().manual_seed(1), provenance={"trial_id": "abc", "seed": 4})


def test_holds_what_the_model_did(model: Leaky) -> None:
    data = made(model)
    batch = TableTask().sample(300, torch.Generator().manual_seed(1), "neutral")
    assert model.training  # left as it was found
    model.eval()
    with torch.no_grad():
        rollout = model(batch.inputs, record=("h",))
    model.train()
    torch.testing.assert_close(torch.from_numpy(data["state_h"].values), rollout.recorded["h"])
    torch.testing.assert_close(torch.from_numpy(data["outputs"].values), rollout.outputs)
    assert data["state_h"].dims == ("trial", "time", "unit")
    assert data["outputs"].dims == ("trial", "time", "channel")
    assert data["parity"].dims == ("trial", "time")
    assert data["cue"].dims == ("trial",)
    np.testing.assert_array_equal(data["targets"], batch.targets)
    np.testing.assert_array_equal(data["is_odd"], batch.conditions["is_odd"])


def test_inputs_run_through_the_model_give_the_recorded_states(model: Leaky, tmp_path: Path) -> None:
    data = load(save(made(model), tmp_path / "r.zarr"))
    inputs = inputs_of(data)
    item = inputs["item"]
    assert isinstance(item, Lookup)
    assert item.table.shape[0] == len(torch.unique(item.index)) < 1000  # used rows only
    batch = TableTask().sample(300, torch.Generator().manual_seed(1), "neutral")
    torch.testing.assert_close(item.dense(), dense(batch.inputs["item"]), rtol=0, atol=0)
    torch.testing.assert_close(dense(inputs["cue"]), dense(batch.inputs["cue"]), rtol=0, atol=0)
    state = {"h": torch.zeros(300, 5)}
    model.eval()
    with torch.no_grad():
        for t in range(4):
            now = {k: v.at(t) if isinstance(v, Lookup) else v[:, t] for k, v in inputs.items()}
            _, state = model.step(now, state)
            torch.testing.assert_close(torch.from_numpy(data["state_h"].values[:, t]), state["h"])
    model.train()


def test_round_trip_is_identical_and_replaces_whole(model: Leaky, tmp_path: Path) -> None:
    data = made(model, states=["square", "h", "matrix"])
    path = tmp_path / "deep" / "r.zarr"
    save(made(model, trials=10), path)
    save(data, path)
    restored = load(path)
    xr.testing.assert_identical(restored, data)
    for name in data.variables:
        assert restored[name].dtype == data[name].dtype
    assert json.loads((path / "zarr.json").read_text())["zarr_format"] == 3
    assert [p.name for p in path.parent.iterdir()] == ["r.zarr"]  # no temporary folder stays
    assert restored["state_square"].dims == ("trial", "time", "unit")
    assert restored["state_h"].dims == ("trial", "time", "unit_h")
    assert restored["state_matrix"].sizes["unit_matrix_1"] == 2
    assert restored.attrs["first_state"] == "state_square"


def test_attributes_are_json(model: Leaky) -> None:
    data = made(model)
    assert all(isinstance(value, str | int) for value in data.attrs.values())
    assert condition_labels(data)["parity"] == ("even", "odd")
    assert periods(data).keys() == {"all"}
    assert (periods(data)["all"] == [0, 4]).all()
    assert provenance(data) == {"trial_id": "abc", "seed": 4}
    assert json.loads(data.attrs["recording"])["split"] == "neutral"


def test_same_generator_same_recording_and_no_global_draws(model: Leaky) -> None:
    before = torch.get_rng_state()
    xr.testing.assert_identical(made(model), made(model))
    assert torch.equal(before, torch.get_rng_state())


def test_resolve_fills_the_default_and_refuses_what_does_not_exist() -> None:
    assert resolve(RecordingSpec(), ("h", "c"), ("train", "neutral")).states == ("h",)
    with pytest.raises(InputError, match=r"recording\.split is 'neutrl'.*Did you mean neutral"):
        resolve(RecordingSpec(split="neutrl"), ("h",), ("train", "neutral"))
    with pytest.raises(InputError, match=r"recording\.states\.1 is 'd'"):
        resolve(RecordingSpec(states=("h", "d")), ("h", "c"))
    with pytest.raises(InputError, match="each state once"):
        resolve(RecordingSpec(states=("h", "h")), ("h", "c"))


def test_record_refuses_an_unknown_split_and_unresolved_states(model: Leaky) -> None:
    with pytest.raises(InputError, match=r"recording\.split"):
        made(model, split="elsewhere")
    with pytest.raises(InputError, match="resolved"):
        made(model, states=None)


def test_load_names_what_is_not_a_recording(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="must be the folder of a recording"):
        load(tmp_path)
