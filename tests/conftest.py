from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.fixtures.banks import make_bank, small_stimuli, write_bank
from tests.fixtures.processes import ray_folder as ray_folder
from wmcore.stimuli.feature_bank import FeatureBank


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    """Networks this small gain nothing from more, and results then do not depend on the machine's cores."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def synthetic_bank() -> FeatureBank:
    """Features that carry their labels, of the real objects and views of ``small_stimuli()``; nothing is rendered."""
    return make_bank(small_stimuli())


@pytest.fixture(scope="session")
def synthetic_stimuli(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the same bank on disk."""
    return write_bank(tmp_path_factory.mktemp("stimuli"), small_stimuli())
