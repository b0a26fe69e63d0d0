# SPDX-License-Identifier: Apache-2.0
"""The Node view: who asks, who waits, and what serves when nobody answers."""

from __future__ import annotations

import json
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
from patience import PATIENCE

from kubenode.base.log import Log
from kubenode.cni.errors import CNIError
from kubenode.host.nodeview import MARK, NodeView
from kubenode.nodes.node import Node

if TYPE_CHECKING:
    from pathlib import Path

ALWAYS = 300.0


class Server:
    """Answers with a Node whose name counts the requests, or with an error."""

    def __init__(self) -> None:
        self.asked = 0
        self.error: CNIError | None = None
        self.delay = 0.0

    def fetch(self) -> Node:
        self.asked += 1
        time.sleep(self.delay)
        if self.error:
            raise self.error
        return Node(f"node-{self.asked}", "", "", (), {})


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
def view(run_dir: Path) -> NodeView:
    return NodeView(str(run_dir), "test", Log("test"))


def number(own: Node) -> int:
    return int(own.name.removeprefix("node-"))


def outdate(run_dir: Path, seconds: float) -> None:
    content = json.loads((run_dir / "node.json").read_text())
    content[MARK]["fetched"] -= seconds
    (run_dir / "node.json").write_text(json.dumps(content))


def test_asked_once(view: NodeView, server: Server, run_dir: Path) -> None:
    """The first call asks, the next take the view, which is for its owner only."""
    assert [view.get(number, server.fetch, ALWAYS) for _ in range(3)] == [1, 1, 1]
    assert server.asked == 1
    assert (run_dir / "node.json").stat().st_mode & 0o777 == 0o600
    assert not list(run_dir.glob("*.tmp"))


def test_asked_again_when_old(view: NodeView, server: Server, run_dir: Path) -> None:
    """After refreshAfter seconds it is asked for again; also when the clock was set back."""
    view.get(number, server.fetch, ALWAYS)
    outdate(run_dir, ALWAYS + 1)
    assert view.get(number, server.fetch, ALWAYS) == 2
    outdate(run_dir, -1000)
    assert view.get(number, server.fetch, ALWAYS) == 3


def test_the_old_one_serves(view: NodeView, server: Server, run_dir: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """When asking fails the old view serves, with a warning, and for a while nobody asks again."""
    view.get(number, server.fetch, ALWAYS)
    outdate(run_dir, 10_000)
    server.error = CNIError(11, "down")
    assert [view.get(number, server.fetch, ALWAYS) for _ in range(3)] == [1, 1, 1]
    assert server.asked == 2
    assert "using the old one" in capfd.readouterr().err


@pytest.mark.parametrize("ahead", [3600, 10**9, 10**12, 10**400])
def test_a_view_from_the_future(view: NodeView, server: Server, run_dir: Path, capfd: pytest.CaptureFixture[str], ahead: int) -> None:
    """A view whose date is to come, as the clock was set back, serves like any old one where the API server is down."""
    view.get(number, server.fetch, ALWAYS)
    path = run_dir / "node.json"
    seen = json.loads(path.read_text())
    path.write_text(json.dumps({**seen, MARK: {"fetched": int(time.time()) + ahead}}))
    server.error = CNIError(11, "down")
    assert view.get(number, server.fetch, ALWAYS) == 1
    assert json.loads(capfd.readouterr().err)["age"] > 3600


def test_a_slow_answer_replaces_no_newer_view(view: NodeView, run_dir: Path) -> None:
    """A view that the agent writes during a request, for all kubeconfigs, stays; the answer of that request may be older."""
    one, other = (NodeView(str(run_dir), "test", Log("test"), kubeconfig) for kubeconfig in ("/one", "/other"))
    one.get(number, lambda: Node("node-1", "", "", (), {}), ALWAYS)

    def fetch() -> Node:
        view.put(Node("node-3", "", "", (), {}))
        other.read()  # as the request does, for the name of the Node
        return Node("node-2", "", "", (), {})

    assert other.get(number, fetch, ALWAYS) == 2
    assert [each.get(number, fetch, ALWAYS) for each in (view, one, other)] == [3, 3, 3]


def test_a_view_written_by_hand(view: NodeView, server: Server, run_dir: Path) -> None:
    """What a person wrote always serves, is never replaced, and nobody is asked, even where it lacks what is wanted."""
    mine = '{"metadata": {"name": "mine"}}'
    (run_dir / "node.json").write_text(mine)
    assert view.get(lambda own: own.name, server.fetch, 0) == "mine"

    def missing(_: Node) -> None:
        raise CNIError(107, "missing")

    with pytest.raises(CNIError, match="missing"):
        view.get(missing, server.fetch, 0)
    assert server.asked == 0
    assert (run_dir / "node.json").read_text() == mine


def test_what_is_missing_may_be_there_by_now(view: NodeView, server: Server, run_dir: Path) -> None:
    """Where a view lacks what is wanted it is asked for anew, but not twice within a second; both errors are told."""

    def third(own: Node) -> int:
        if number(own) < 3:
            raise CNIError(107, f"not in {number(own)}", "annotate")
        return number(own)

    with pytest.raises(CNIError, match="not in 1"):
        view.get(third, server.fetch, ALWAYS)
    with pytest.raises(CNIError, match="not in 1"):
        view.get(third, server.fetch, ALWAYS)
    assert server.asked == 1
    outdate(run_dir, 2)
    with pytest.raises(CNIError, match="not in 2"):
        view.get(third, server.fetch, ALWAYS)
    outdate(run_dir, 2)
    server.error = CNIError(11, "down")
    with pytest.raises(CNIError) as error:
        view.get(third, server.fetch, ALWAYS)
    assert (error.value.msg, error.value.details) == ("not in 2", "annotate; as in the last known Node: down")


@pytest.mark.parametrize("failing", [False, True])
def test_one_asks_and_the_others_wait(run_dir: Path, server: Server, *, failing: bool) -> None:
    """Of many who need a view at once one asks; the others take its answer, or its error."""
    server.delay = 0.3
    server.error = CNIError(103, "forbidden", "bind") if failing else None
    answers: list[Any] = []
    barrier = threading.Barrier(8)

    def call() -> None:
        mine = NodeView(str(run_dir), "test", Log("test"))
        barrier.wait()
        try:
            answers.append(mine.get(number, server.fetch, ALWAYS))
        except CNIError as error:
            answers.append((error.code, error.msg, error.details))

    threads = [threading.Thread(target=call) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [(103, "forbidden", "bind") if failing else 1] * 8
    assert server.asked == 1


def test_while_one_renews_the_others_go_on(run_dir: Path, server: Server, view: NodeView) -> None:
    """Nobody waits for a new view while the old one can serve."""
    view.get(number, server.fetch, ALWAYS)
    outdate(run_dir, 10_000)
    asked, go_on = threading.Event(), threading.Event()

    def fetch() -> Node:
        asked.set()
        go_on.wait(10 * PATIENCE)
        return server.fetch()

    thread = threading.Thread(target=lambda: view.get(number, fetch, ALWAYS))
    thread.start()
    asked.wait()
    begin = time.monotonic()
    assert view.get(number, server.fetch, ALWAYS) == 1
    assert time.monotonic() - begin < PATIENCE
    go_on.set()
    thread.join()


@pytest.mark.parametrize("old", [False, True])
def test_a_failure_before_the_clock_was_set_back(run_dir: Path, server: Server, view: NodeView, *, old: bool) -> None:
    """A failure that a clock ahead of time has noted keeps nobody from asking, with and without an old view."""
    if old:
        view.get(number, server.fetch, ALWAYS)
        outdate(run_dir, ALWAYS + 1)
    failure = {"at": time.time() + 3600, "code": 11, "msg": "down", "details": ""}
    (run_dir / "node.lock").write_text(json.dumps(failure) + "\n")
    assert view.get(number, server.fetch, ALWAYS) == server.asked == 1 + old


def test_a_torn_failure_note(run_dir: Path, server: Server, view: NodeView) -> None:
    """Whatever the lock file holds, asking works."""
    (run_dir / "node.lock").write_text('{"at": 99')
    assert view.get(number, server.fetch, ALWAYS) == 1
    assert (run_dir / "node.lock").read_text() == ""


def test_an_agents_view_replaces_those_of_single_kubeconfigs(run_dir: Path, view: NodeView) -> None:
    """An old view of one kubeconfig may not serve later, while agent and API server are away: its subnets may be another node's by then."""
    old = NodeView(str(run_dir), "test", Log("test"), "/etc/other")
    (run_dir / "node.json").write_text(json.dumps({"metadata": {"name": "n"}, MARK: {"fetched": time.time(), "kubeconfig": "/etc/one"}}))
    assert old.get(number, lambda: Node("node-1", "", "", (), {}), ALWAYS) == 1
    assert len(list(run_dir.glob("node.*.json"))) == 1
    assert view.put(Node("node-2", "", "", (), {}))
    assert list(run_dir.glob("node.*.json")) == []
    assert old.get(number, lambda: Node("node-3", "", "", (), {}), ALWAYS) == 2
