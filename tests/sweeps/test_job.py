"""A sweep as a job on a Ray of two nodes with token authentication, and what is refused there."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from mlflow import MlflowClient

from sweeps.ledger import Ledger
from sweeps.tracking import TRIAL, child_runs, tracking_uri
from sweeps.verify import verify
from tests.fixtures.clusters import BIN, SIDE_BY_SIDE, Cluster
from tests.fixtures.ledgers import most_at_once
from tests.fixtures.processes import own_ray_folder
from tests.fixtures.sweeps import SMALL, small_sweep, write_banks
from wmcore.spec import with_paths

pytestmark = [
    pytest.mark.faults,
    pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning"),
]
REPOSITORY = Path(__file__).resolve().parents[2]
PATIENCE_S = 300.0
"""Only what hangs takes so long."""
CHANGES = {
    "search.sampler": {"kind": "random", "seed": 4},
    "search.scheduler": {"kind": "none"},
    "search.trials": 4,
    "resources": {"cpu": 1},
    "analyses": [],
    "recording": {},
}
SPEC = small_sweep(**CHANGES)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A head and one more node with one CPU each; the other node has no wmsweep of its own."""
    bare = tmp_path_factory.mktemp("bare")
    (bare / "sweeps").mkdir()
    (bare / "sweeps" / "__init__.py").write_text('raise ImportError("no wmsweep on this node")\n')
    with own_ray_folder() as folder:
        found = Cluster(folder)
        found.start_head(cpus=1)
        found.add_node("node", cpus=1, PYTHONPATH=str(bare))
        yield found


@pytest.fixture
def spec_file(tmp_path: Path) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text(yaml.safe_dump(with_paths(yaml.safe_load(SMALL), CHANGES), sort_keys=False))
    return path


def submit(cluster: Cluster, *command: str | Path) -> subprocess.CompletedProcess[str]:
    """``ray job submit`` from the repository, to the job's end."""
    how = ["job", "submit", "--address", cluster.dashboard, "--working-dir", str(REPOSITORY)]
    return cluster.ray(*how, "--", *map(str, command), patience_s=PATIENCE_S)


def refused(job: subprocess.CompletedProcess[str]) -> str:
    """What a job says that is refused: one paragraph, in one line."""
    assert job.returncode != 0, job.stdout
    (line,) = {line for line in job.stdout.splitlines() if line.startswith("Error: ")}
    assert "exit code 2" in job.stdout
    return line


def test_a_sweep_runs_as_a_job_on_every_node(cluster, spec_file, tmp_path):
    stimuli = SPEC.trial.task.stimulus_spec()
    assert stimuli is not None
    write_banks(tmp_path / "stimuli", stimuli)
    script = tmp_path / "side_by_side.py"
    script.write_text(SIDE_BY_SIDE)
    job = submit(cluster, "python", script, "2", "run", spec_file, "--storage", tmp_path, "--address", "auto")
    assert job.returncode == 0, job.stdout

    folder = tmp_path / SPEC.name
    ledger = Ledger(folder / "ledger.jsonl")
    assert ledger.counts() == {"planned": 4, "finished": 4, "pruned": 0, "failed": 0, "pending": 0}
    for check in verify(SPEC, folder, ledger):
        assert check.holds, check
    runs = child_runs(MlflowClient(tracking_uri(SPEC, folder)), SPEC.name)
    assert sorted(run.data.tags[TRIAL] for run in runs) == sorted(ledger.trials)
    assert most_at_once(ledger) == 2  # on a node with one CPU each
    assert len({trial.result["node"] for trial in ledger.in_order() if trial.result}) == 2


def test_a_folder_that_ends_with_the_job_is_refused(cluster, spec_file):
    job = submit(cluster, "wmsweep", "run", spec_file, "--address", "auto")
    assert "--storage is '" in refused(job)
    assert "must lie outside the job's working directory, which is a copy that Ray deletes" in refused(job)


def test_a_job_names_its_cluster(cluster, spec_file, tmp_path):
    job = submit(cluster, "wmsweep", "run", spec_file, "--storage", tmp_path)
    assert "--address must be given inside a Ray job" in refused(job)
    assert "Add --address auto." in refused(job)


SEES = """
import sys
from pathlib import Path
from sweeps.cluster import connected, nodes_without
with connected("auto"):
    print("without:", [len(nodes_without(Path(path))) for path in sys.argv[1:]])
"""


def test_a_folder_that_a_node_does_not_see_is_found(cluster, tmp_path):
    (tmp_path / "file").touch()
    job = submit(cluster, "python", "-c", SEES, tmp_path / "file", tmp_path / "no_file")
    assert "without: [0, 1]" in job.stdout


def run(cluster: Cluster, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """``wmsweep run`` on the head, without a job that would bring the code along."""
    command = [str(BIN / "wmsweep"), "run", *map(str, arguments), "--address", cluster.address]
    return cluster.run(*command, patience_s=PATIENCE_S)


def test_a_node_without_wmsweep_is_refused(cluster, spec_file, tmp_path):
    done = run(cluster, spec_file, "--storage", tmp_path)
    assert done.returncode == 2, done.stdout
    assert "--address must lead to a cluster whose nodes have wmsweep" in done.stderr
    assert "no wmsweep on this node" in done.stderr


def test_more_than_a_node_has_is_refused_before_anything_else(cluster, spec_file, tmp_path):
    done = run(cluster, spec_file, "--storage", tmp_path, "--set", "resources.cpu=2")
    assert done.returncode == 2, done.stdout
    assert "resources.cpu is 2.0, but it exceeds what any node of this cluster has" in done.stderr
    assert not (tmp_path / "stimuli").exists()
