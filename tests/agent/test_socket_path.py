# SPDX-License-Identifier: Apache-2.0
"""The socket's path, or its directory, removed by somebody; and no file descriptor for whoever comes by it."""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import signal
import socket
import subprocess
import time
from typing import TYPE_CHECKING

import pytest
from agentprocess import AgentProcess, answer, request
from ourprocess import KUBE_NODE, free_port
from patience import eventually

from kubenode.agent.service import LOOK
from kubenode.plugins import skel

from .test_server import activate

if TYPE_CHECKING:
    from pathlib import Path

    from .conftest import NetConfMaker

pytestmark = pytest.mark.slow


def is_reachable(agent: AgentProcess) -> bool:
    try:
        return agent.ask("kube-node", "VERSION", b"").code == 0
    except OSError:
        return False


def test_a_directory_where_the_socket_belongs(run_dir: Path) -> None:
    """A directory at the socket's path is named, with what to do; `status` says so, too."""
    path = run_dir / "agent.sock"
    path.mkdir(parents=True)
    command = [str(KUBE_NODE), "agent", f"--run-dir={run_dir}", "--node-file=none", "--listen=none"]
    said = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60).stderr
    assert f"Is a directory: {path}" in said
    assert f"rmdir {path}" in said
    assert "never awaited" not in said
    status = subprocess.run([str(KUBE_NODE), "status", f"--run-dir={run_dir}"], capture_output=True, text=True, check=False, timeout=60)
    assert "it is a directory" in " ".join(status.stdout.split())


@pytest.mark.parametrize("what", ["socket", "another's socket", "directory", "directory moved away"])
def test_it_listens_again(agent: AgentProcess, run_dir: Path, netconf: NetConfMaker, what: str) -> None:
    """Whatever was removed, the agent is there again within seconds, alone, and ends as ever."""
    assert agent.add(netconf()) == ["10.1.0.2", "fd01::2"]
    if what == "directory":
        shutil.rmtree(run_dir, ignore_errors=True)  # the agent may write there meanwhile
        run_dir.mkdir(exist_ok=True)
    elif what == "directory moved away":
        run_dir.rename(run_dir.with_name("before"))
    else:
        agent.socket.unlink()
    with socket.socket(socket.AF_UNIX) as another:
        if what == "another's socket":
            another.bind(str(agent.socket))  # and does not listen
        for number in range(3):
            eventually(lambda: is_reachable(agent), "it does not listen again")
            assert len(agent.add(netconf(), f"c{number + 2}")) == 2
    assert agent.socket.stat().st_mode & 0o777 == 0o600
    second = [str(KUBE_NODE), "agent", f"--run-dir={run_dir}", "--node-file=none", "--listen=none"]
    assert "another agent" in subprocess.run(second, capture_output=True, text=True, check=False).stderr
    assert agent.get("/healthz") == (200, "ok\n")
    assert agent.stop() == 0
    assert not agent.socket.exists()


def test_calls_under_way(agent: AgentProcess, netconf: NetConfMaker) -> None:
    """Who had connected before the path was removed gets his answer."""
    with agent.connect() as early:
        asked = request("kube-node", "ADD", netconf())
        early.sendall(asked[:10])
        agent.socket.unlink()
        agent.said("socket recreated")
        early.sendall(asked[10:])
        early.shutdown(socket.SHUT_WR)
        assert answer(early).addresses == ["10.1.0.2", "fd01::2"]


def test_calls_that_nobody_has_accepted(agent: AgentProcess, netconf: NetConfMaker) -> None:
    """So does who had connected, and had not been accepted yet."""
    assert agent.process
    agent.process.send_signal(signal.SIGSTOP)
    with contextlib.ExitStack() as stack:
        early = [stack.enter_context(agent.connect()) for _ in range(40)]
        for number, sock in enumerate(early):
            sock.sendall(request("kube-node", "ADD", netconf(), container_id=f"c{number}"))
            sock.shutdown(socket.SHUT_WR)
        agent.socket.unlink()
        time.sleep(LOOK + 0.5)  # it then looks first of all
        agent.process.send_signal(signal.SIGCONT)
        assert len({address for sock in early for address in answer(sock).addresses}) == 2 * len(early)


def test_where_it_cannot(agent: AgentProcess, run_dir: Path) -> None:
    """Where the path cannot be made /healthz says so and why, and the log once; then it is there again."""
    run_dir.rename(run_dir.with_name("before"))
    run_dir.write_text("")
    status, text = eventually(lambda: told if (told := agent.get("/healthz"))[0] == 503 else None, "it does not say that it is ill")
    assert status == 503
    assert f"{agent.socket} was removed, and cannot be created again" in text
    run_dir.unlink()
    eventually(lambda: agent.get("/healthz") == (200, "ok\n"), "it does not get well")
    eventually(lambda: is_reachable(agent), "relays do not reach it")
    assert len(agent.lines("socket unreachable for relays")) == 1


def test_a_socket_that_was_passed_on(run_dir: Path, node_file: Path) -> None:
    """A socket of systemd's is systemd's to make again: /healthz says so, with the command."""
    agent = AgentProcess(run_dir)
    agent.port = free_port()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(agent.socket))
        listener.listen(16)
        agent.process = activate(listener, f"--run-dir={run_dir}", f"--node-file={node_file}", f"--listen=127.0.0.1:{agent.port}")
        eventually(lambda: agent.get("/healthz") == (200, "ok\n"), "it does not come up")
        agent.socket.unlink()
        _, text = eventually(lambda: told if (told := agent.get("/healthz"))[0] == 503 else None, "it does not say that it is ill")
        assert "systemctl restart kube-node-agent.socket" in text
        assert agent.stop() == 0


def test_no_file_descriptor_to_be_had(agent: AgentProcess, netconf: NetConfMaker) -> None:
    """Without a descriptor a call is left to the standalone plugin at once, a scraper waits; with one both are served as ever."""
    assert agent.process
    assert agent.add(netconf()) == ["10.1.0.2", "fd01::2"]
    pid = agent.process.pid
    limits = resource.prlimit(pid, resource.RLIMIT_NOFILE)

    def is_turned_away(asked: bytes) -> bool:
        here = {int(name) for name in os.listdir(f"/proc/{pid}/fd")}  # some of them for a moment only
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (min(set(range(len(here) + 1)) - here), limits[1]))
        return status_of(agent, asked) == skel.NOT_HERE

    scraper = socket.create_connection(("127.0.0.1", agent.port), 30)
    scraper.sendall(b"GET /healthz HTTP/1.0\r\n\r\n")
    # A descriptor that something else in the agent has just closed lets one in, who then lacks the next.
    add, remove = (request("kube-node", command, netconf(), container_id="c2") for command in ("ADD", "DEL"))
    eventually(lambda: is_turned_away(add), "nobody is turned away")
    assert status_of(agent, remove) in {0, skel.NOT_HERE}  # what is known to be nothing takes no descriptor
    resource.prlimit(pid, resource.RLIMIT_NOFILE, limits)
    # A thread that is about to turn one away does so once more.
    added = eventually(lambda: (one := agent.call("ADD", netconf(), "c3")).code != skel.NOT_HERE and one)
    assert added.addresses == ["10.1.0.3", "fd01::3"], added
    assert scraper.recv(12) == b"HTTP/1.0 200"
    assert [line for line in agent.log().splitlines() if not line.startswith("{")] == []


def status_of(agent: AgentProcess, asked: bytes) -> int:
    with agent.connect() as sock:
        with contextlib.suppress(BrokenPipeError):  # it may have answered already
            sock.sendall(asked)
            sock.shutdown(socket.SHUT_WR)
        return sock.recv(1)[0]
