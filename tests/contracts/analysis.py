"""What every analysis must do. A test class inherits ``AnalysisContract`` and gives ``spec`` and ``recording``."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from wmcore.analyses.base import REQUIRED_COLUMNS, AnalysisResult, AnalysisSpec
from wmcore.analyses.storage import load_result, save_result
from wmcore.errors import InputError
from wmcore.models.base import SequenceModel


def synthetic_recording(
    states: np.ndarray,
    conditions: dict[str, np.ndarray],
    labels: dict[str, list[str]] | None = None,
    lengths: np.ndarray | None = None,
) -> xr.Dataset:
    """A recording with planted (N, T, H) states and no inputs."""
    size, steps = states.shape[:2]
    data: dict[str, tuple[tuple[str, ...], np.ndarray]] = {
        "state_h": (("trial", "time", "unit"), states.astype(np.float32)),
        "lengths": (("trial",), np.full(size, steps) if lengths is None else lengths),
    }
    for name, values in conditions.items():
        data[name] = (("trial", "time")[: values.ndim], values)
    attrs = {"first_state": "state_h", "condition_labels": json.dumps(labels or {})}
    return xr.Dataset(data, coords={"trial": np.arange(size), "time": np.arange(steps)}, attrs=attrs)


class AnalysisContract:
    """Inherit as ``class TestX(AnalysisContract)`` and override the fixtures that it needs and ``condition``."""

    condition: str
    """A condition that ``spec`` asks for by name; taken out of the recording, it must be named in the error."""

    @pytest.fixture(scope="class")
    @classmethod
    def spec(cls) -> AnalysisSpec:
        raise NotImplementedError

    @pytest.fixture(scope="class")
    @classmethod
    def recording(cls) -> xr.Dataset:
        raise NotImplementedError

    @pytest.fixture(scope="class")
    @classmethod
    def model(cls) -> SequenceModel | None:
        """The network that was recorded, for an analysis that needs it."""
        return None

    @pytest.fixture(scope="class")
    @classmethod
    def result(cls, spec: AnalysisSpec, recording: xr.Dataset, model: SequenceModel | None) -> AnalysisResult:
        return spec.compute(recording, model, np.random.default_rng(7))

    def test_spec_survives_json(self, spec: AnalysisSpec) -> None:
        assert type(spec).parse(json.loads(spec.canonical_json())) == spec

    def test_required_columns_stand_beside_a_null(self, result: AnalysisResult) -> None:
        table = result.table
        assert len(table) > 0
        assert set(REQUIRED_COLUMNS) <= set(table.columns)
        assert np.isfinite(table["estimate"]).all()
        assert np.isfinite(table["null"]).all()
        assert (table["ci_low"] <= table["ci_high"]).all()
        assert (table["n"] > 0).all()
        assert all(isinstance(text, str) for text in table["warning"])
        conditions = [name for name in table.columns if name not in REQUIRED_COLUMNS[1:]]
        assert not table[conditions].duplicated().any()

    def test_is_a_pure_function_of_recording_and_generator(
        self, spec: AnalysisSpec, recording: xr.Dataset, model: SequenceModel | None, result: AnalysisResult
    ) -> None:
        before = recording.copy(deep=True)
        again = spec.compute(recording, model, np.random.default_rng(7))
        xr.testing.assert_identical(recording, before)
        pd.testing.assert_frame_equal(again.table, result.table, check_exact=True)
        assert again.arrays.keys() == result.arrays.keys()
        for name, value in again.arrays.items():
            np.testing.assert_array_equal(value, result.arrays[name])

    def test_draws_nothing_from_global_generators(
        self, spec: AnalysisSpec, recording: xr.Dataset, model: SequenceModel | None
    ) -> None:
        before = np.random.get_state()[1].copy()  # noqa: NPY002 - to see that it is left alone
        spec.compute(recording, model, np.random.default_rng(7))
        np.testing.assert_array_equal(before, np.random.get_state()[1])  # noqa: NPY002

    def test_check_accepts_what_compute_accepts_and_names_what_is_missing(
        self, spec: AnalysisSpec, recording: xr.Dataset
    ) -> None:
        dims = {str(name): tuple(map(str, value.dims)) for name, value in recording.data_vars.items()}
        conditions = {name: own for name, own in dims.items() if own in (("trial",), ("trial", "time"))}
        states = [name.removeprefix("state_") for name in dims if name.startswith("state_")]
        spec.check(conditions, states, recording.sizes["time"], "analyses.0")
        del conditions[self.condition]
        with pytest.raises(InputError, match=rf"analyses\.0\..*{self.condition}"):
            spec.check(conditions, states, recording.sizes["time"], "analyses.0")

    def test_names_the_condition_that_a_recording_lacks(
        self, spec: AnalysisSpec, recording: xr.Dataset, model: SequenceModel | None
    ) -> None:
        with pytest.raises(InputError, match=self.condition):
            spec.compute(recording.drop_vars(self.condition), model, np.random.default_rng(7))

    def test_names_the_state_that_a_recording_lacks(
        self, spec: AnalysisSpec, recording: xr.Dataset, model: SequenceModel | None
    ) -> None:
        if "state" not in type(spec).model_fields:
            pytest.skip("this analysis reads no state")
        other = spec.model_copy(update={"state": "missing"})
        with pytest.raises(InputError, match="missing"):
            other.compute(recording, model, np.random.default_rng(7))

    def test_survives_the_disk_and_draws_the_same_figures_from_there(
        self, spec: AnalysisSpec, result: AnalysisResult, tmp_path: Path
    ) -> None:
        figures = spec.figures(result)
        assert figures
        first = save_result(result, tmp_path / "first", "result", figures)
        restored = load_result(tmp_path / "first", "result")
        pd.testing.assert_frame_equal(restored.table, result.table)
        assert restored.arrays.keys() == result.arrays.keys()
        for name, value in restored.arrays.items():
            assert value.dtype == result.arrays[name].dtype
            np.testing.assert_array_equal(value, result.arrays[name])
        second = save_result(restored, tmp_path / "second", "result", spec.figures(restored))
        assert first.figures.keys() == second.figures.keys() == figures.keys()
        for name, path in first.figures.items():
            assert path.read_bytes() == second.figures[name].read_bytes()
        assert not [path for path in (tmp_path / "first").iterdir() if path.name.startswith(".")]
