# SPDX-License-Identifier: Apache-2.0
"""What the agent has open after thousands of calls, good and bad, is what it had open before."""

from __future__ import annotations

import os
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
from agentprocess import request
from flocks import locked
from patience import eventually

from .test_server import reserved

if TYPE_CHECKING:
    from pathlib import Path

    from agentprocess import AgentProcess

    from .conftest import NetConfMaker

ROUNDS = 150


def descriptors(agent: AgentProcess) -> list[str]:
    """Return what the agent has open, without the numbers of sockets."""
    assert agent.process
    directory = f"/proc/{agent.process.pid}/fd"
    found = []
    for name in os.listdir(directory):
        try:
            found.append(os.readlink(f"{directory}/{name}").partition(":[")[0])
        except FileNotFoundError:  # closed since
            continue
    return sorted(found)


def settled(agent: AgentProcess) -> list[str]:
    """Return the same once its threads have closed what they have answered."""
    time.sleep(0.5)
    return descriptors(agent)


def send(agent: AgentProcess, data: bytes, *, end: bool) -> None:
    """Send this and leave without an answer; `end`: after saying that it is all."""
    with agent.connect() as sock:
        sock.sendall(data)
        if end:
            sock.shutdown(socket.SHUT_WR)


def test_calls_of_every_kind(agent: AgentProcess, netconf: NetConfMaker, data_dir: Path) -> None:
    """Served, refused, failed, half-sent and abandoned calls leave no descriptor open, and no reservation."""
    conf = netconf()

    def one(number: int) -> None:
        name = f"c{number}"
        add = request("kube-node", "ADD", conf, container_id=name)
        assert agent.ask("kube-node", "ADD", conf, container_id=name).code == 0
        assert agent.ask("kube-node", "DEL", conf, container_id=name).code == 0
        assert agent.ask("kube-node", "ADD", b"{", container_id=name).code == 1
        assert agent.ask("kube-node", "ADD", netconf(annotation="none"), container_id=name).code == 1
        assert agent.ask("kube-node", "STATUS", netconf(logfile="/dev/full"), container_id=name).code == 0
        assert agent.ask("kube-node", "ADD", netconf(logfile="/dev/full"), container_id=name).code == 0
        assert agent.ask("kube-node", "DEL", netconf(logfile="/dev/full"), container_id=name).code == 0
        assert agent.ask("another", "ADD", conf, container_id=name).code == 2
        for data, end in ((b"", False), (b"", True), (add[:20], False), (add[:-5], True), (add, False), (b"GET / HTTP/1.1\r\n\r\n", True)):
            send(agent, data, end=end)
        send(agent, add, end=True)
        agent.ask("kube-node", "DEL", conf, container_id=name)

    def work(numbers: range) -> None:
        for number in numbers:
            one(number)

    work(range(2))  # what is opened once
    before = settled(agent)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, [range(start, ROUNDS, 8) for start in range(8)]))
    eventually(lambda: descriptors(agent) == before)
    assert agent.ask("kube-node", "GC", {**conf, "cni.dev/valid-attachments": []}).code == 0
    assert reserved(data_dir / "net") == []


@pytest.mark.parametrize("gone", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_calls_that_are_too_late(hurried_agent: AgentProcess, netconf: NetConfMaker, data_dir: Path, gone: bool) -> None:  # noqa: FBT001 -- a parameter
    """A call that waits for a lock past its time leaves no descriptor open, whether its relay still waits or not."""
    agent = hurried_agent
    assert agent.ask("kube-node", "ADD", netconf(), container_id="before").code == 0
    before = settled(agent)
    waiting: list[Any] = []
    with locked(data_dir / "net"):
        for number in range(20):
            sock = agent.connect()
            sock.sendall(request("kube-node", "ADD", netconf(), container_id=f"c{number}"))
            sock.shutdown(socket.SHUT_WR)
            waiting.append(sock)
        for sock in waiting:
            if gone:
                sock.close()
            else:
                assert sock.recv(1) == b"\x01"
    eventually(lambda: descriptors(agent) == before)
    for sock in waiting:
        sock.close()
    assert len(reserved(data_dir / "net")) == 2
