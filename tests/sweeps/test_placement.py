"""What a cluster's nodes hold: by hand-made lists of nodes, and on a Ray that declares GPUs which nobody has."""

from __future__ import annotations

from collections import Counter
from fractions import Fraction

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from sweeps.ledger import Ledger
from sweeps.placement import Node, alive_nodes, fits, fitting
from sweeps.spec import ResourceSpec
from tests.fixtures.clusters import BIN, SIDE_BY_SIDE, Cluster
from tests.fixtures.sweeps import SMALL, small_sweep, write_banks
from wmcore.errors import InputError
from wmcore.spec import with_paths

TENTHS = st.integers(1, 10).map(lambda n: n / 10)


def needs(cpu: float = 1, gpu: float = 0, **rest: int) -> ResourceSpec:
    return ResourceSpec.parse({"cpu": cpu, "gpu": gpu, **rest})


@pytest.mark.parametrize(
    ("node", "resources", "trials"),
    [
        (Node("a", 8), needs(), 8),
        (Node("a", 8), needs(cpu=3), 2),
        (Node("a", 1), needs(cpu=0.1), 10),
        (Node("a", 2.5), needs(cpu=0.5), 5),
        (Node("a", 8, 2), needs(gpu=0.25), 8),
        (Node("a", 6, 2), needs(gpu=0.25), 6),
        (Node("a", 16, 3), needs(gpu=0.3), 9),
        (Node("a", 8, 2), needs(gpu=0.6), 2),  # 1.2 of 2 GPUs, and no device has 0.6 left
        (Node("a", 8, 3), needs(gpu=2), 1),
        (Node("a", 8, 1), needs(gpu=2), 0),
        (Node("a", 8), needs(gpu=0.25), 0),
        (Node("a", 0, 4), needs(gpu=1), 0),
    ],
)
def test_trials_that_a_node_holds(node, resources, trials):
    assert fits(node, resources) == trials


@given(cpus=st.integers(0, 6), gpus=st.integers(0, 3), cpu=TENTHS, gpu=TENTHS | st.sampled_from([0.25, 2.0]))
def test_a_node_holds_what_can_be_placed_one_by_one(cpus, gpus, cpu, gpu):
    free, devices = Fraction(cpus), [Fraction(1)] * gpus
    placed = 0
    while free >= Fraction(str(cpu)):
        wanted = [Fraction(str(gpu))] if gpu <= 1 else [Fraction(1)] * int(gpu)
        for share in wanted:
            device = next((i for i, left in enumerate(devices) if left >= share), None)
            if device is None:
                break
            devices[device] -= share
        else:
            free, placed = free - Fraction(str(cpu)), placed + 1
            continue
        break
    assert fits(Node("a", cpus, gpus), needs(cpu, gpu)) == placed


def test_a_cluster_holds_what_its_nodes_hold():
    nodes = [Node("a", 3), Node("b", 3), Node("c", 8, 1)]
    assert fitting(nodes, needs(cpu=2)) == 1 + 1 + 4  # of 14 CPUs one is left over on two nodes
    assert fitting(nodes, needs(gpu=0.5)) == 2
    assert fitting(nodes, needs(concurrency=5)) == 5
    assert fitting(nodes, needs(gpu=1, concurrency=5)) == 1


def refused(nodes: list[Node], resources: ResourceSpec) -> str:
    with pytest.raises(InputError) as caught:
        fitting(nodes, resources)
    assert "a trial runs on one node" in caught.value.remedy
    return str(caught.value)


def test_the_sum_of_a_cluster_is_not_enough():
    told = refused([Node("a", 8, 1), Node("b", 16, 1)], needs(gpu=2))
    assert "resources.gpu is 2.0, but it exceeds what any node of this cluster has (b has 16 CPU and 1 GPU)" in told
    assert "Ask for at most 1, or join another cluster" in told
    told = refused([Node("a", 8), Node("b", 12)], needs(cpu=16))
    assert "resources.cpu is 16.0, but it exceeds what any node of this cluster has (b has 12 CPU and 0 GPU)" in told
    assert "Ask for at most 12" in told


def test_a_share_of_a_gpu_needs_a_gpu():
    told = refused([Node("a", 8)], needs(gpu=0.25))
    assert "resources.gpu is 0.25, but it exceeds" in told
    assert "Set it to 0, or join another cluster" in told


def test_what_lies_on_two_nodes_is_refused():
    told = refused([Node("a", 16), Node("b", 2, 4), Node("c", 2, 4)], needs(cpu=4, gpu=1))
    assert "resources is {'cpu': 4.0, 'gpu': 1.0}, but it must be found on one node" in told
    assert "(a has 16 CPU and 0 GPU; c has 2 CPU and 4 GPU)" in told


def test_a_node_that_went_down_holds_nothing():
    listing = [
        {"NodeManagerAddress": "10.0.0.1", "Alive": True, "Resources": {"CPU": 4.0, "memory": 1e9}},
        {"NodeManagerAddress": "10.0.0.2", "Alive": False, "Resources": {}},
        {"NodeManagerAddress": "10.0.0.3", "Alive": True, "Resources": {"CPU": 2.0, "GPU": 1.0}},
    ]
    assert alive_nodes(listing) == [Node("10.0.0.1", 4), Node("10.0.0.3", 2, 1)]


CHANGES = {
    "search.sampler": {"kind": "random", "seed": 4},
    "search.scheduler": {"kind": "none"},
    "search.trials": 4,
    "resources": {"cpu": 0.5, "gpu": 0.5},
    "analyses": [],
    "recording": {},
}
PATIENCE_S = 300.0
"""Only what hangs takes so long."""


@pytest.mark.faults
def test_shares_of_gpus_are_spread_over_all(ray_folder, tmp_path):
    """Four trials with half a GPU each fill two GPUs, side by side."""
    spec = small_sweep(**CHANGES)
    stimuli = spec.trial.task.stimulus_spec()
    assert stimuli is not None
    write_banks(tmp_path / "stimuli", stimuli)
    spec_file, script = tmp_path / "small.yaml", tmp_path / "drive.py"
    spec_file.write_text(yaml.safe_dump(with_paths(yaml.safe_load(SMALL), CHANGES), sort_keys=False))
    script.write_text(SIDE_BY_SIDE)

    cluster = Cluster(ray_folder)
    cluster.start_head(cpus=2, gpus=2)
    how = ["4", "run", str(spec_file), "--storage", str(tmp_path), "--address", cluster.address]
    done = cluster.run(str(BIN / "python"), str(script), *how, patience_s=PATIENCE_S)
    assert done.returncode == 0, done.stdout + done.stderr

    ledger = Ledger(tmp_path / spec.name / "ledger.jsonl")
    assert ledger.counts() == {"planned": 4, "finished": 4, "pruned": 0, "failed": 0, "pending": 0}
    notes = {trial: (tmp_path / spec.name / "trials" / trial / "gpus").read_text() for trial in ledger.trials}
    assert Counter(notes.values()) == {"0": 2, "1": 2}, notes

    # Half a GPU fits, two and a half CPUs do not: said before anything is made ready.
    other = tmp_path / "other"
    how = [str(spec_file), "--storage", str(other), "--set", "resources.cpu=3", "--address", cluster.address]
    done = cluster.run(str(BIN / "wmsweep"), "run", *how, patience_s=PATIENCE_S)
    assert done.returncode == 2, done.stdout
    assert "resources.cpu is 3.0, but it exceeds what any node of this cluster has" in done.stderr
    assert not (other / "stimuli").exists()
