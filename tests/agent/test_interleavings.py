# SPDX-License-Identifier: Apache-2.0
"""A relay that is gone, a runtime that goes on without it, and an agent that comes back to the call: each in an order that once went wrong.

The agent is stopped within a call by what the call has to wait for: a network's lock, or a log file that is a pipe nobody reads yet.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from agentprocess import AgentProcess, request
from callplugin import environment
from flocks import locked, until_waited_for
from patience import eventually

from kubenode.base.log import Log
from kubenode.cni.errors import TRY_AGAIN_LATER, CNIError
from kubenode.plugins import host_local, kube_node, skel
from kubenode.plugins.standalone import Standalone

from .test_server import reserved

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from kubenode.host.datadir import DiskStore

    from .conftest import NetConfMaker


def send(agent: AgentProcess, command: str, netconf: dict[str, Any], **how: Any) -> socket.socket:
    """Make a call without waiting for its answer; closing the socket is the relay's end."""
    sock = agent.connect()
    sock.sendall(request("kube-node", command, netconf, **how))
    sock.shutdown(socket.SHUT_WR)
    return sock


def locally(command: str, netconf: dict[str, Any], container_id: str) -> tuple[int, bytes]:
    """Make the same call without agent, as the standalone plugin does; it says where the Node is as it cannot know."""
    conf = {**netconf, "ipam": {**netconf["ipam"], "delegate": "embedded"}}
    environ = environment(command, container_id=container_id)
    return skel.run(kube_node.COMMANDS, environ, json.dumps(conf).encode(), Log("kube-node"), Standalone(environ))


def records(run_dir: Path) -> list[str]:
    directory = run_dir / "attachments"
    return sorted(path.name for path in directory.iterdir()) if directory.is_dir() else []


class Pause:
    """A log file at which a call of the agent stops until it is read."""

    def __init__(self, path: Path) -> None:
        os.mkfifo(path)
        self.path = path
        self._reader = -1

    def end(self) -> None:
        if self._reader < 0:
            self._reader = os.open(self.path, os.O_RDONLY | os.O_NONBLOCK)

    def close(self) -> None:
        self.end()
        os.close(self._reader)


@pytest.fixture
def pause(tmp_path: Path) -> Iterator[Pause]:
    made = Pause(tmp_path / "log.pipe")
    yield made
    made.close()


@contextmanager
def in_background(*calls: Any) -> Iterator[threading.Thread]:
    """Make calls in a thread, one after the other; they have ended when this has."""

    def work() -> None:
        for call in calls:
            call()

    thread = threading.Thread(target=work)
    thread.start()
    yield thread
    thread.join(30)
    assert not thread.is_alive()


def test_killed_where_an_add_waits(agent: AgentProcess, netconf: NetConfMaker, data_dir: Path, run_dir: Path) -> None:
    """An ADD has written nothing while it waits for the lock: its relay may be gone, its DEL over, and the agent about to be killed."""
    with locked(data_dir / "net"), send(agent, "ADD", netconf(), container_id="late"):
        until_waited_for(data_dir / "net")
        assert records(run_dir) == []
        agent.kill()
    assert reserved(data_dir / "net") == records(run_dir) == []


def test_the_answer_comes_before_anybody_else(
    agent: AgentProcess, node_file: Path, netconf: NetConfMaker, data_dir: Path, run_dir: Path, pause: Pause
) -> None:
    """An ADD whose relay goes before the answer takes back its own addresses, never those that the same container was given after a DEL."""
    conf, quiet = netconf(logfile=str(pause.path)), netconf(nodeFile=str(node_file))
    answers: list[tuple[int, bytes]] = []
    with ExitStack() as stack:
        with send(agent, "ADD", conf, container_id="c"):
            eventually(lambda: len(reserved(data_dir / "net")) == 2)
        # Its relay is gone, it has its addresses, and stops before its answer.
        again = [lambda: answers.append(locally("DEL", quiet, "c")), lambda: answers.append(locally("ADD", quiet, "c"))]
        runtime = stack.enter_context(in_background(*again))
        runtime.join(1)
        pause.end()
    assert [code for code, _ in answers] == [0, 0]
    assert agent.ask("kube-node", "STATUS", netconf()).code == 0  # waits for what is before it
    given = sorted(ip["address"].partition("/")[0] for ip in json.loads(answers[1][1])["ips"])
    assert reserved(data_dir / "net") == given
    assert records(run_dir) == ["net:c:eth0"]
    assert locally("DEL", quiet, "c") == (0, b"")
    assert reserved(data_dir / "net") == records(run_dir) == []


def test_a_del_that_is_stopped_at_its_end(
    agent: AgentProcess, node_file: Path, netconf: NetConfMaker, data_dir: Path, run_dir: Path, pause: Pause
) -> None:
    """A DEL that comes back to itself late takes nothing from the same container's next ADD, not its record either."""
    quiet = netconf(nodeFile=str(node_file))
    assert agent.ask("kube-node", "ADD", netconf(), container_id="c").code == 0
    answers: list[tuple[int, bytes]] = []
    with ExitStack() as stack:
        with send(agent, "DEL", netconf(logfile=str(pause.path)), container_id="c"):
            eventually(lambda: reserved(data_dir / "net") == [])
        again = [lambda: answers.append(locally("DEL", quiet, "c")), lambda: answers.append(locally("ADD", quiet, "c"))]
        runtime = stack.enter_context(in_background(*again))
        runtime.join(1)
        pause.end()
    assert [code for code, _ in answers] == [0, 0]
    assert agent.ask("kube-node", "STATUS", netconf()).code == 0
    assert len(reserved(data_dir / "net")) == 2
    assert records(run_dir) == ["net:c:eth0"]


def test_a_gc_that_is_stopped_at_its_end(
    agent: AgentProcess, node_file: Path, netconf: NetConfMaker, data_dir: Path, run_dir: Path, pause: Pause
) -> None:
    """A GC that comes back to itself late forgets nothing of pods that have come since: a DEL may need it."""
    quiet = netconf(nodeFile=str(node_file))
    assert agent.ask("kube-node", "ADD", netconf(), container_id="stale").code == 0
    with send(agent, "GC", {**netconf(logfile=str(pause.path)), "cni.dev/valid-attachments": []}):
        eventually(lambda: reserved(data_dir / "net") == [])
    assert locally("ADD", quiet, "new")[0] == 0
    pause.end()
    eventually(lambda: "net:stale:eth0" not in records(run_dir))
    time.sleep(0.2)
    assert records(run_dir) == ["net:new:eth0"]


def test_too_late_is_told_apart() -> None:
    """host-local's own code stands for every error of the reference's; "try again later" is none, and keeps its code."""
    netconf = {"cniVersion": "1.1.0", "name": "net", "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.0.0.0/24"}]]}}

    class Late(Standalone):
        def store(self, data_dir: str, network: str) -> DiskStore:
            raise CNIError(TRY_AGAIN_LATER, "not done within 12 s")

    _, stdout = skel.run(host_local.COMMANDS, environment("ADD"), json.dumps(netconf).encode(), Log("host-local"), Late({}))
    assert json.loads(stdout)["code"] == 11
