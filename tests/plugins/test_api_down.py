# SPDX-License-Identifier: Apache-2.0
"""Without an API server: ADD goes on from what is known, and everything else never asks."""

from __future__ import annotations

import itertools
import secrets
import shutil
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
from apiserver import write_kubeconfig
from betweens import Door
from callplugin import outdate
from patience import PATIENCE, at_best, eventually

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from apiserver import RealApiServer
    from callplugin import Network, NetworkMaker

pytestmark = pytest.mark.ways("standalone", "console")  # how the agent asks is in tests/agent

SILENT = 7.0  # seconds; with no view to serve it would be 10


@pytest.fixture
def door(api_server: RealApiServer) -> Iterator[Door]:
    """Return the way to the API server of the kubeconfig `there`; closed, the server is down for who has that."""
    with Door(api_server.url) as door:
        yield door


@pytest.fixture
def there(api_server: RealApiServer, door: Door, get_nodes: str, node: str, tmp_path: Path) -> str:
    """Return the path of a kubeconfig that leads through the door."""
    del node
    return str(api_server.kubeconfig(tmp_path / "through-the-door", get_nodes, server=door.url))


class Silent:
    """An API server that takes connections and never says a word."""

    def __init__(self, listener: socket.socket) -> None:
        self._listener = listener
        self._listener.setblocking(False)  # noqa: FBT003 -- socket's signature
        self.url = f"https://127.0.0.1:{listener.getsockname()[1]}"

    def asked(self) -> int:
        """Return how many connections there were since the last time of asking."""
        count = 0
        try:
            while True:
                self._listener.accept()[0].close()
                count += 1
        except BlockingIOError:
            return count


@pytest.fixture
def silent() -> Iterator[Silent]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield Silent(listener)


@pytest.fixture
def no_answer(tmp_path: Path, silent: Silent) -> str:
    """Return the path of a kubeconfig for an API server that never says a word."""
    return str(write_kubeconfig(tmp_path / "no-answer", {"server": silent.url}, {"token": "t"}))


def lifetime(net: Network) -> None:
    """Run every command that does not need the Node."""
    answer = net.call("ADD")
    assert answer.code == 0, answer.stdout
    net.ok("CHECK", prevResult=answer.json)
    net.gc("c1")
    assert net.reserved() == ["11.0.1.2", "1100:0:0:1::2"]
    net.ok("DEL")
    assert net.reserved() == []


def test_the_view_serves(network: NetworkMaker, door: Door, there: str, run_dir: Path) -> None:
    """API server down: with a view, fresh or stale, every command works."""
    net = network(kubeconfig=there)
    net.add("before")
    door.close()
    net.ok("DEL", "before")
    outdate(run_dir, 100_000)
    answer = net.call("ADD", "stale")
    assert (answer.code, answer.addresses) == (0, ["11.0.1.3", "1100:0:0:1::3"])
    assert "using the old one" in answer.stderr
    net.ok("STATUS")
    net.ok("DEL", "stale")


def test_a_view_that_is_always_old(network: NetworkMaker, api_server: RealApiServer, door: Door, there: str) -> None:
    """With refreshAfter 0 each ADD asks, and without an answer the view serves."""
    net = network(kubeconfig=there, refreshAfter=0)
    before = len(api_server.asked())
    assert [net.add(name) for name in ("c1", "c2")] == [["11.0.1.2", "1100:0:0:1::2"], ["11.0.1.3", "1100:0:0:1::3"]]
    assert len(api_server.asked()) - before == 2
    door.close()
    assert net.add("c3") == ["11.0.1.4", "1100:0:0:1::4"]
    net.ok("STATUS")


@pytest.mark.usefixtures("node")
def test_an_old_view_and_no_answer(embedded: NetworkMaker, kubeconfig: str, silent: Silent, no_answer: str, run_dir: Path) -> None:
    """An API server that never answers costs one ADD about three seconds; the next ones have the old view unasked."""
    same = shutil.copy(kubeconfig, run_dir / "kubeconfig")  # a view belongs to the kubeconfig that it was fetched with
    net = embedded(kubeconfig=str(same))
    net.add("before")
    outdate(run_dir, 100_000)
    shutil.copy(no_answer, same)
    number = itertools.count(1)

    def add() -> None:
        pod = next(number)
        assert net.add(f"c{pod}") == [f"11.0.1.{pod + 2}", f"1100:0:0:1::{pod + 2}"]

    def add_first() -> None:
        (run_dir / "node.lock").unlink()  # where it stands that nobody has answered
        add()

    assert at_best(add_first, SILENT) < SILENT
    assert silent.asked()
    add()
    assert silent.asked() == 0


@pytest.mark.ways("standalone")
def test_without_a_view(embedded: NetworkMaker, silent: Silent, no_answer: str) -> None:
    """Neither view nor API server: try again later, inside the runtime's patience however many ask; DEL, CHECK and GC do not ask."""
    net = embedded(kubeconfig=no_answer)
    begin = time.monotonic()
    with ThreadPoolExecutor(8) as pods:
        errors = list(pods.map(lambda number: net.error("ADD", f"c{number}", env={"NODE_NAME": "n"}), range(8)))
    assert time.monotonic() - begin < 2 * PATIENCE  # one after another they would take 80 s
    assert [error["code"] for error in errors] == [11] * 8
    assert all(silent.url in error["msg"] for error in errors)
    assert silent.asked()
    net.ok("DEL")
    assert net.error("CHECK")["code"] == 3
    net.gc()
    assert silent.asked() == 0
    assert net.reserved() == []


def test_a_refused_connection(embedded: NetworkMaker, api_server: RealApiServer, tmp_path: Path) -> None:
    """Nobody listens: try again later, with the address; STATUS says 50."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    kubeconfig = api_server.kubeconfig(tmp_path / "down", "any", server=f"https://127.0.0.1:{port}")
    net = embedded(kubeconfig=str(kubeconfig))
    error = net.error(env={"NODE_NAME": "n"})
    assert error["code"] == 11
    assert f"127.0.0.1:{port}" in error["msg"]
    assert net.error("STATUS", env={"NODE_NAME": "n"})["code"] == 50


def test_nothing_but_add_asks(network: NetworkMaker, api_server: RealApiServer, node: str, kubeconfig: str, run_dir: Path) -> None:
    """DEL, CHECK and GC send no request, even where there is no view, or the Node has lost its podCIDRs."""
    net = network(kubeconfig=kubeconfig)
    answer = net.call("ADD")
    assert answer.code == 0
    (run_dir / "node.json").unlink()
    before = len(api_server.asked())
    net.ok("CHECK", prevResult=answer.json)
    net.gc("c1")
    net.ok("DEL")
    net.gc()
    assert len(api_server.asked()) == before
    assert net.reserved() == []


@pytest.fixture
def joined(api_server: RealApiServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Return the name of our Node, which has no podCIDRs yet."""
    name = f"joined-{secrets.token_hex(4)}"
    monkeypatch.setenv("NODE_NAME", name)
    api_server.create_node(name)
    yield name
    api_server.delete_node(name)


def test_pod_cidrs_not_assigned_yet(network: NetworkMaker, api_server: RealApiServer, kubeconfig: str, joined: str) -> None:
    """A Node that has just joined: try again later, and as soon as it has podCIDRs ADD sees them."""
    net = network(kubeconfig=kubeconfig)
    error = net.error()
    assert (error["code"], error["msg"]) == (11, f"Node {joined} has no spec.podCIDRs yet")
    assert (error := net.error("STATUS"))["code"] == 50
    assert error["msg"] == f"Node {joined} has no spec.podCIDRs yet"
    net.ok("DEL")
    spec = {"spec": {"podCIDR": "10.44.0.0/24", "podCIDRs": ["10.44.0.0/24", "fd44::/64"]}}
    api_server.request("PATCH", f"/api/v1/nodes/{joined}", spec, "application/merge-patch+json")
    answer = eventually(lambda: (said := net.call("ADD")).code == 0 and said, "ADD does not see them")
    assert answer.addresses == ["10.44.0.2", "fd44::2"]


def test_a_changed_annotation_serves_after_refresh(
    network: NetworkMaker, api_server: RealApiServer, node: str, kubeconfig: str, run_dir: Path
) -> None:
    """Within refreshAfter the view serves unasked; after it a change on the Node reaches the next ADD."""
    api_server.annotate(node, {"example.com/a": "10.45.0.0/24"})
    net = network(kubeconfig=kubeconfig, annotation="example.com/a", refreshAfter=60)
    assert net.add("c1") == ["10.45.0.2"]
    api_server.annotate(node, {"example.com/a": "10.46.0.0/24"})
    assert net.add("c2") == ["10.45.0.3"]
    outdate(run_dir, 61)
    assert net.add("c3") == ["10.46.0.2"]


def test_changed_pod_cidrs_serve_after_refresh(
    network: NetworkMaker, api_server: RealApiServer, node: str, kubeconfig: str, run_dir: Path
) -> None:
    """A Node that has joined anew with other podCIDRs: after refreshAfter the next ADD has them; DEL still releases the old ones."""
    net = network(kubeconfig=kubeconfig, refreshAfter=60)
    assert net.add("c1") == ["11.0.1.2", "1100:0:0:1::2"]
    api_server.delete_node(node)
    api_server.create_node(node, ["11.0.9.0/24", "1100:0:0:9::/64"])
    assert net.add("c2") == ["11.0.1.3", "1100:0:0:1::3"]
    outdate(run_dir, 61)
    assert net.add("c3") == ["11.0.9.2", "1100:0:0:9::2"]
    net.ok("DEL", "c1")
    net.ok("DEL", "c2")
    assert net.reserved() == ["11.0.9.2", "1100:0:0:9::2"]


def test_all_commands_with_a_warm_view(network: NetworkMaker, door: Door, there: str) -> None:
    """With a view, an API server that is down is not noticed."""
    net = network(kubeconfig=there)
    net.ok("STATUS")
    door.close()
    lifetime(net)
