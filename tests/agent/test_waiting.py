# SPDX-License-Identifier: Apache-2.0
"""A second agent that waits for the first to end, as the new pod of a rollout does: calls are served all the time, by one of them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import threading
from typing import TYPE_CHECKING

import pytest
from agentprocess import AgentProcess
from callplugin import environment
from ourprocess import KUBE_NODE
from patience import PATIENCE, eventually
from wanting import want

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from .conftest import NetConfMaker

IN_A_CONTAINER = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc")


@pytest.fixture
def second(agent: AgentProcess, run_dir: Path, node_file: Path) -> Iterator[AgentProcess]:
    """Return an agent that waits for the first, with its HTTP port, too."""
    second = AgentProcess(run_dir, f"--node-file={node_file}", f"--listen=127.0.0.1:{agent.port}", "--wait")
    second.port = agent.port
    second.launch()
    try:
        second.said("waiting for another agent to end")
        yield second
    finally:
        second.kill()


def test_nothing_is_done_meanwhile(agent: AgentProcess, second: AgentProcess, netconf: NetConfMaker) -> None:
    """It says once whom it waits for, does not miss the port, and SIGTERM ends it; the first one goes on."""
    assert agent.process
    assert agent.add(netconf()) == ["10.1.0.2", "fd01::2"]
    (line,) = second.lines()
    assert line["reason"] == f"another agent, process {agent.process.pid}, serves {agent.socket}"
    assert second.stop() == 0
    assert [line["msg"] for line in second.lines()] == ["waiting for another agent to end", "agent stopped before the other agent ended"]
    assert agent.add(netconf(), "c2") == ["10.1.0.3", "fd01::3"]


@pytest.mark.parametrize("crash", [False, True])
def test_it_takes_over(agent: AgentProcess, second: AgentProcess, netconf: NetConfMaker, *, crash: bool) -> None:
    """However the first one ends, the other has its socket, its port and what it knew."""
    assert agent.add(netconf()) == ["10.1.0.2", "fd01::2"]
    if crash:
        agent.kill()
    else:
        assert agent.stop() == 0
    second.said("agent started")
    assert second.add(netconf(), "c2") == ["10.1.0.3", "fd01::3"]
    eventually(lambda: second.get("/healthz") == (200, "ok\n"), "it does not serve the port")
    assert second.lines("cannot listen on") == []
    assert second.stop() == 0


def test_no_call_is_lost(agent: AgentProcess, second: AgentProcess, netconf: NetConfMaker, built: Path, tmp_path: Path) -> None:
    """Through a relay without standalone each ADD succeeds during the change, and each has an address of its own."""
    relay = shutil.copy(built / "kube-node", tmp_path / "kube-node")
    conf = json.dumps(netconf()).encode()
    found: list[str] = []
    enough, stop = threading.Event(), threading.Event()

    def add() -> None:
        while not stop.is_set():
            environ = {**environment("ADD", container_id=f"c{len(found)}"), "KUBE_NODE_SOCKET": str(agent.socket)}
            done = subprocess.run([relay], input=conf, env=environ, capture_output=True, check=False, timeout=PATIENCE)
            found.append(done.stdout.decode())
            if len(found) % 10 == 0:
                enough.set()

    lane = threading.Thread(target=add)
    lane.start()
    try:
        assert enough.wait(PATIENCE)
        assert agent.stop() == 0
        second.said("agent started")
        enough.clear()
        assert enough.wait(PATIENCE)
    finally:
        stop.set()
        lane.join()
    addresses = [entry["address"] for one in found for entry in json.loads(one)["ips"]]
    assert len(set(addresses)) == 2 * len(found)
    assert second.stop() == 0


def test_a_process_of_another_container_has_no_number(agent: AgentProcess, run_dir: Path, node_file: Path) -> None:
    """Whoever does not see the first one's process is not shown a number that means another."""
    want("the right to mount")
    assert agent.process
    command = [*IN_A_CONTAINER, str(KUBE_NODE), "agent", f"--run-dir={run_dir}", f"--node-file={node_file}", "--listen=none"]
    said = subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE).stderr
    assert f"another agent serves {agent.socket}" in said
    assert ", process " not in said
    status = [*IN_A_CONTAINER, str(KUBE_NODE), "status", f"--run-dir={run_dir}", f"--cni-config={run_dir}"]
    said = subprocess.run(status, capture_output=True, text=True, check=False, timeout=PATIENCE).stdout
    assert "up, a process of another container, answers in" in said
    (run_dir / "agent.sock.lock").write_text(f"{os.getpid()}\n")  # as earlier versions wrote it
    said = subprocess.run(command[len(IN_A_CONTAINER) :], capture_output=True, text=True, check=False, timeout=PATIENCE).stderr
    assert f"another agent serves {agent.socket}" in said
