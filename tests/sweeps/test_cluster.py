"""Addresses of a Ray: what is none, and where none answers, is said before Ray waits. test_run meets one that runs."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from sweeps import cluster
from tests.fixtures.sweeps import small_sweep
from wmcore.errors import InputError


@pytest.fixture
def listener() -> Iterator[str]:
    """The address of something that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


@pytest.fixture(autouse=True)
def no_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster.ray, "init", lambda **_: pytest.fail("connected without a check"))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)


def refused(address: str) -> str:
    with pytest.raises(InputError) as caught, cluster.connected(address):
        pass
    assert caught.value.exit_code == 2
    assert "Start one with cluster/local.sh" in caught.value.remedy
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    "address", ["foo", "", "local", "a b:1", "host:", ":6379", "host:0", "host:70000", "http://a:1"]
)
def test_what_is_no_address_is_refused(address):
    assert "must be auto or host:port, as in 127.0.0.1:6379" in refused(address)


def test_rays_client_is_refused():
    """Tune would drive the sweep in a process of the cluster, without its ledger."""
    with pytest.raises(InputError, match="a sweep cannot be driven through Ray's client") as caught:
        cluster.check_address("ray://127.0.0.1:10001")
    assert "Submit it as a job" in caught.value.remedy


@pytest.mark.parametrize("address", ["127.0.0.1:1", "[::1]:1", "no-such-host.invalid:6379"])
def test_where_nothing_listens_is_refused_at_once(address, monkeypatch):
    monkeypatch.setattr(cluster.subprocess, "Popen", lambda *_, **__: pytest.fail("Ray was asked"))
    assert "must lead to a running Ray" in refused(address)


def test_where_nothing_answers_is_given_up(monkeypatch):
    """As behind a firewall that drops what it is sent."""
    waited = []

    def drop(address: tuple[str, int], timeout: float) -> None:
        waited.append((address, timeout))
        raise TimeoutError("timed out")

    monkeypatch.setattr(cluster.socket, "create_connection", drop)
    assert "must lead to a running Ray (timed out)" in refused("10.0.0.1:6379")
    assert waited == [(("10.0.0.1", 6379), cluster.CONNECT_SECONDS)]


@pytest.mark.parametrize("how", ["address", "auto"])
def test_where_something_else_listens_is_refused_in_time(listener, how, monkeypatch):
    """``auto`` finds it as it finds a cluster that has ended."""
    monkeypatch.setattr(cluster, "PROBE_SECONDS", 6.0)
    if how == "auto":
        monkeypatch.setenv("RAY_ADDRESS", listener)
    assert "no Ray answered within 6 s" in refused(listener if how == "address" else "auto")


def test_what_ends_the_question_is_told(monkeypatch):
    monkeypatch.setattr(cluster, "PROBE", "raise ConnectionError('no\\ncluster')")
    assert "must lead to a running Ray (cluster)" in refused("auto")


def test_a_storage_that_a_node_does_not_see_is_refused(tmp_path, monkeypatch):
    """test_job asks real nodes."""
    asked = []
    monkeypatch.setattr(cluster, "slots", lambda _: 1)
    monkeypatch.setattr(cluster, "_working_dir", lambda: None)
    monkeypatch.setattr(cluster, "nodes_without", lambda path: [asked.append(path.exists()), "10.0.0.2"][1:])
    folder = tmp_path / "small"
    folder.mkdir()
    with pytest.raises(InputError, match=r"must be seen by every node .* it is not by 10\.0\.0\.2") as caught:
        cluster.check_cluster(small_sweep(), folder)
    assert caught.value.value == str(tmp_path)
    assert asked == [True]
    assert not list(folder.iterdir())
    monkeypatch.setattr(cluster, "nodes_without", lambda _: [])
    (folder / "seen-by-killed").touch()
    cluster.check_cluster(small_sweep(), folder)
    assert not list(folder.iterdir())
