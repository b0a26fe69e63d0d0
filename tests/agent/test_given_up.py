# SPDX-License-Identifier: Apache-2.0
"""Calls that are given up while somebody holds a network's lock: the agent has nothing left of them."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING

import pytest
from agentprocess import request as question
from flocks import locked, until_waited_for
from patience import eventually

from .test_server import reserved

if TYPE_CHECKING:
    from pathlib import Path

    from agentprocess import AgentProcess

    from .conftest import NetConfMaker

CALLS = {"gone": 150, "late": 60}
FEW = 30  # threads of an agent that has little to do


def threads(agent: AgentProcess) -> int:
    assert agent.process
    return len(os.listdir(f"/proc/{agent.process.pid}/task"))


@pytest.mark.parametrize("command", ["ADD", "DEL"])
@pytest.mark.parametrize("end", ["gone", pytest.param("late", marks=pytest.mark.slow)])
def test_no_thread_stays(request: pytest.FixtureRequest, netconf: NetConfMaker, data_dir: Path, command: str, end: str) -> None:
    """A call whose relay is gone, or that was answered as too late, keeps no thread, though the lock is still held; then others work."""
    agent: AgentProcess = request.getfixturevalue("agent" if end == "gone" else "hurried_agent")
    assert agent.ask("kube-node", "ADD", netconf(), container_id="c0").code == 0
    with locked(data_dir / "net"):
        waiting: list[socket.socket] = []
        for number in range(CALLS[end]):
            sock = agent.connect()
            sock.sendall(question("kube-node", command, netconf(), container_id=f"c{number}"))
            sock.shutdown(socket.SHUT_WR)
            waiting.append(sock)
        eventually(lambda: threads(agent) > CALLS[end], "they do not wait")
        for sock in waiting:
            if end == "gone":
                sock.close()
            else:
                assert sock.recv(1) == b"\x01"
        eventually(lambda: threads(agent) < FEW, lambda: f"{threads(agent)} threads stay")
        assert agent.ask("kube-node", "ADD", netconf(name="other", annotation="other")).code == 0
    assert agent.ask("kube-node", "ADD", netconf(), container_id="after").code == 0
    assert len(reserved(data_dir / "net")) == 4
    for sock in waiting:
        sock.close()


def test_the_call_after_those_that_gave_up(agent: AgentProcess, netconf: NetConfMaker, data_dir: Path) -> None:
    """Who comes next has the lock as soon as it is free, and nothing is reserved for those that have given up."""
    with locked(data_dir / "net"):
        for number in range(2):
            with agent.connect() as sock:
                sock.sendall(question("kube-node", "ADD", netconf(), container_id=f"given-up-{number}"))
                sock.shutdown(socket.SHUT_WR)
                until_waited_for(data_dir / "net")
    assert agent.ask("kube-node", "ADD", netconf(), container_id="next").code == 0
    assert {path.read_bytes() for path in (data_dir / "net").iterdir() if path.name[0].isdigit()} == {b"next\r\neth0"}
