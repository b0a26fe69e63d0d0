# SPDX-License-Identifier: Apache-2.0
"""SIGKILL of the agent before any system call of an ADD and of a DEL: the runtime's DEL, through a new agent, leaves nothing."""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from agentprocess import AgentProcess, answer, request
from patience import PATIENCE, eventually
from podnet import Answer
from wanting import want

if TYPE_CHECKING:
    from .conftest import NetConfMaker

# What only waits, or has to do with memory and threads.
WAITING = {"futex", "poll", "accept4", "epoll_wait", "sched_yield", "rt_sigprocmask", "madvise", "mmap", "munmap", "mprotect", "brk"}


class Traced:
    """An agent that strace may be attached to, while one thread of it waits for a call."""

    def __init__(self, run_dir: Path, node_file: Path, scratch: Path) -> None:
        want("strace")
        self.agent = AgentProcess(run_dir, f"--node-file={node_file}", "--reclaim=off")
        self._strace = ["strace", "-f", "-q", "-s", "300"]
        self._output = scratch / "trace"

    def call(self, data: bytes, *options: str) -> Answer:
        """Make a call under strace; -1 as its status where the agent dies of it."""
        assert self.agent.process
        command = [*self._strace, f"--output={self._output}", *options, f"--attach={self.agent.process.pid}"]
        with subprocess.Popen(command, stderr=subprocess.DEVNULL) as tracer:
            eventually(self._is_traced_or_dead, "strace does not attach")
            try:
                with self.agent.connect(PATIENCE) as sock:
                    sock.sendall(data)
                    sock.shutdown(socket.SHUT_WR)
                    return answer(sock)
            except ConnectionError:
                return Answer(-1, "", "")
            finally:
                time.sleep(0.05)
                self.agent.process.poll()  # a tracer waits for who is dead until somebody has taken note
                tracer.terminate()
                try:
                    tracer.wait(2)  # one that hangs is not waited for
                except subprocess.TimeoutExpired:
                    tracer.kill()

    def _is_traced_or_dead(self) -> bool:
        assert self.agent.process
        if self.agent.process.poll() is not None:  # another thread of it came first to the call that kills
            return True
        try:
            tasks = [(task / "status").read_text() for task in Path(f"/proc/{self.agent.process.pid}/task").iterdir()]
        except (FileNotFoundError, ProcessLookupError):  # a thread has ended
            return False
        return not any("TracerPid:\t0\n" in task for task in tasks)

    def steps(self, data_dir: Path) -> list[tuple[str, int]]:
        """Return name and number of each system call that the thread with the call has made, from its request to its end."""
        lines = self._output.read_text(errors="replace").splitlines()
        thread = next(line.split()[0] for line in lines if str(data_dir) in line and "openat(" in line)
        counts: dict[str, int] = {}
        found: list[tuple[str, int]] = []
        begun = False
        for line in lines:
            match = re.match(rf"{thread} +(\w+)\(", line)
            if match:
                name = match[1]
                counts[name] = counts.get(name, 0) + 1
                begun = begun or name == "recvfrom"
                if begun and name not in WAITING:
                    found.append((name, counts[name]))
        return found


def owners(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir() if path.name[0] in "1f"}


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("command", ["ADD", "DEL"])
def test_killed_at_every_step(run_dir: Path, node_file: Path, netconf: NetConfMaker, data_dir: Path, tmp_path: Path, command: str) -> None:
    """Before each system call once: another pod gets addresses of its own, and after the killed one's DEL nothing of it is left."""
    traced = Traced(run_dir, node_file, tmp_path)
    agent, conf = traced.agent, netconf()
    data = request("kube-node", command, conf, container_id="killed")

    def prepare() -> None:
        agent.kill()
        shutil.rmtree(data_dir, ignore_errors=True)
        shutil.rmtree(run_dir / "attachments", ignore_errors=True)
        agent.start()
        assert agent.ask("kube-node", "ADD", conf, container_id="other").code == 0
        if command == "DEL":
            assert agent.ask("kube-node", "ADD", conf, container_id="killed").code == 0

    try:
        prepare()
        assert traced.call(data).code == 0
        steps = traced.steps(data_dir)
        assert {"flock", "utimensat", "sendto", "openat" if command == "ADD" else "unlink"} <= {name for name, _ in steps}
        kills = 0
        for name, number in steps:
            prepare()
            answered = traced.call(data, "-e", f"inject={name}:signal=KILL:when={number}").code != -1
            assert agent.process is not None
            kills += not answered or agent.process.poll() is not None
            agent.kill()  # also where it lives: the signal may be on its way
            agent.start()
            added = agent.ask("kube-node", "ADD", conf, container_id="next")
            assert added.code == 0, (name, number, added)
            reserved = owners(data_dir / "net")
            assert [reserved[address] for address in added.addresses] == [b"next\r\neth0"] * 2, (name, number)
            assert len([1 for content in reserved.values() if content == b"other\r\neth0"]) == 2
            assert agent.ask("kube-node", "DEL", conf, container_id="killed").code == 0
            assert sorted(owners(data_dir / "net").values()) == [b"next\r\neth0"] * 2 + [b"other\r\neth0"] * 2, (name, number)
            assert sorted(path.name for path in (run_dir / "attachments").iterdir()) == ["net:next:eth0", "net:other:eth0"]
        assert kills >= len(steps) * 0.8, (kills, steps)  # which of two threads that wait has the call is chance
        print(f"{command}: killed {kills} times, at {len(steps)} steps")  # noqa: T201 -- how thorough it was
    finally:
        agent.kill()
