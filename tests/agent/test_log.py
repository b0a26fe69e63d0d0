# SPDX-License-Identifier: Apache-2.0
"""A log that cannot be written keeps nobody waiting, in the agent and without it."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import time
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

import pytest
from agentprocess import AgentProcess
from callplugin import environment
from ourprocess import KUBE_NODE
from patience import eventually

from kubenode.base import logqueue

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from .conftest import NetConfMaker

pytestmark = pytest.mark.slow

SOON = 10.0  # seconds; a call's deadline is 12
DROPPED = "kubenode_log_lines_dropped_total"


@contextmanager
def stuck(path: Path) -> Iterator[int]:
    """Make a pipe that is full, and that nobody reads but who has the descriptor."""
    os.mkfifo(path)
    fd = os.open(path, os.O_RDWR | os.O_NONBLOCK)
    try:
        for size in (4096, 1):
            try:
                while True:
                    os.write(fd, b"\n" * size)
            except BlockingIOError:
                pass
        yield fd
    finally:
        os.close(fd)


def logging_to(fifo: Path, run_dir: Path, node_file: Path) -> AgentProcess:
    return AgentProcess(run_dir, f"--node-file={node_file}", wrap=("sh", "-c", 'exec "$@" 2>"$0"', str(fifo)))


def dropped(agent: AgentProcess) -> float:
    text = agent.get("/metrics")[1]
    return next((float(line.split()[1]) for line in text.splitlines() if line.startswith(DROPPED)), -1.0)


def serves(agent: AgentProcess, netconf: NetConfMaker, data_dir: Path) -> None:
    """See that a pod's life goes on within a call's deadline, and that others can have the lock."""
    for command in ("ADD", "DEL"):
        assert agent.ask("kube-node", command, netconf()).code == 0
        with (data_dir / "net/lock").open() as lock:
            eventually(partial(has, lock.fileno()), "the lock is held", SOON)


def has(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def test_a_reader_that_is_stuck(tmp_path: Path, run_dir: Path, node_file: Path, netconf: NetConfMaker, data_dir: Path) -> None:
    """The reader of stderr reads no more: calls go on, lines beyond a limit are dropped and counted, and the agent ends when it is to."""
    with stuck(tmp_path / "fifo") as pipe, logging_to(tmp_path / "fifo", run_dir, node_file) as agent:
        serves(agent, netconf, data_dir)
        long = "x" * 200_000
        for _ in range(logqueue.LIMIT // len(long) + 2):
            assert agent.ask("kube-node", "ADD", netconf(annotation=long)).json["code"] == 107
        assert dropped(agent) > 0
        serves(agent, netconf, data_dir)
        assert b"agent started" in b"".join(read(pipe, 1 << 17))  # it goes on where there is somebody to read
        assert agent.stop() == 0


def read(fd: int, size: int) -> Iterator[bytes]:
    """Read a pipe until there was as much as this."""
    end = time.monotonic() + SOON
    while size > 0 and time.monotonic() < end:
        try:
            chunk = os.read(fd, 65536)
        except BlockingIOError:
            time.sleep(0.01)
        else:
            size -= len(chunk)
            yield chunk


def test_a_reader_that_is_gone(tmp_path: Path, run_dir: Path, node_file: Path, netconf: NetConfMaker, data_dir: Path) -> None:
    """The reader of stderr has died: calls go on, and each line is counted."""
    os.mkfifo(tmp_path / "fifo")
    reader = os.open(tmp_path / "fifo", os.O_RDONLY | os.O_NONBLOCK)
    with logging_to(tmp_path / "fifo", run_dir, node_file) as agent:
        os.close(reader)
        serves(agent, netconf, data_dir)
        eventually(lambda: dropped(agent) > 1, "nothing is counted")
        assert agent.get("/healthz") == (200, "ok\n")
        assert agent.stop() == 0


@pytest.mark.parametrize("how", ["stuck", "gone", "closed", "full"])
def test_without_an_agent(tmp_path: Path, run_dir: Path, node_file: Path, netconf: NetConfMaker, data_dir: Path, how: str) -> None:
    """A plugin whose stderr cannot be written has the same result, the same errors and the same exit codes."""
    (run_dir / "node.json").write_text(node_file.read_text())
    readers, writer = os.pipe()
    if how == "gone":
        os.close(readers)
    os.set_blocking(writer, False)
    try:
        while how == "stuck":
            os.write(writer, b"\n")
    except BlockingIOError:
        pass
    os.set_blocking(writer, True)
    redirection = {"closed": "2>&-", "full": "2>/dev/full"}.get(how, "")

    def call(command: str, **ipam: str) -> tuple[int, dict[str, object]]:
        # Info lines, which go to stderr as there is no such directory.
        stdin = json.dumps(netconf(**{"logfile": str(tmp_path / "none/log"), **ipam})).encode()
        shell = ["sh", "-c", f'exec "$0" {redirection}', str(KUBE_NODE)]
        done = subprocess.run(shell, input=stdin, env=environment(command), stdout=subprocess.PIPE, stderr=writer, check=False, timeout=60)
        return done.returncode, json.loads(done.stdout or b"{}")

    exit_code, result = call("ADD")
    assert (exit_code, len(result.get("ips", ()))) == (0, 2)  # type: ignore[arg-type]
    exit_code, error = call("ADD", annotation="none")
    assert (exit_code, error["code"]) == (1, 107)
    assert call("DEL") == (0, {})
    assert [path.name for path in (data_dir / "net").iterdir() if path.name[0].isdigit()] == []
    os.close(writer)
    if how != "gone":
        os.close(readers)


def test_a_delegate_that_says_much(tmp_path: Path, run_dir: Path, node_file: Path, netconf: NetConfMaker) -> None:
    """What another plugin says on stderr is passed on as far as somebody reads it, and never keeps it from giving its answer."""
    (run_dir / "node.json").write_text(node_file.read_text())
    delegate = tmp_path / "talker"
    delegate.write_text("#!/bin/sh\nhead -c 1000000 /dev/zero | tr '\\0' x >&2\necho '{}'\n")
    delegate.chmod(0o755)
    environ = environment("ADD", path=[tmp_path])
    for reads in (True, False):
        process = subprocess.Popen([KUBE_NODE], env=environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert process.stdin
        assert process.stdout
        assert process.stderr
        process.stdin.write(json.dumps(netconf(delegate="talker")).encode())
        process.stdin.close()
        if reads:
            assert process.stderr.read().startswith(b"xxxx")
        assert (process.stdout.read(), process.wait(60)) == (b"{}\n", 0)
        process.stdout.close()
        process.stderr.close()
