# SPDX-License-Identifier: Apache-2.0
"""The three ways of running a plugin: relay and agent, the standalone launcher, the console script.

A conftest.py that imports the fixture `binaries` from here lets each test below it run in all three. `@pytest.mark.ways(...)` names those
that a test is about, where it is not about all.
"""

from __future__ import annotations

import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import forked
import pytest
from patience import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Iterator

WAYS = ("relay", "standalone", "console")
DIFFERENT = pytest.mark.ways(*WAYS[:2])  # for what takes long: the console script runs the standalone's code, which other tests show
NAMES = ("kube-node", "node-annotation", "host-local")
SCRIPTS = Path(sys.executable).parent


class ActivatedAgent:
    """An agent that starts with the first relay that connects, with the environment of that moment, as systemd would start it."""

    def __init__(self, run_dir: Path) -> None:
        self._run_dir = run_dir
        self.kubeconfig = ""
        self.log_path = run_dir.parent / "agent.log"
        self.host: list[str] = []  # in front of its command: what takes it to a host of the test's own
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(run_dir / "agent.sock"))
        self._listener.listen(1024)
        self._end, self._ended = os.pipe()
        self.process: subprocess.Popen[bytes] | forked.Forked | None = None
        self._thread = threading.Thread(target=self._wait, daemon=True)
        self._thread.start()

    def _wait(self) -> None:
        ready, _, _ = select.select([self._listener.fileno(), self._end], [], [])
        if self._end in ready:
            return
        arguments = [f"--run-dir={self._run_dir}", "--listen=none", f"--cni-config={self._run_dir}/net.d"]
        usual = self._run_dir.parent / "kubeconfig"
        if kubeconfig := self.kubeconfig or (str(usual) if usual.exists() else ""):
            arguments.append(f"--kubeconfig={kubeconfig}")
        with self.log_path.open("ab") as log, Path(os.devnull).open("rb") as nothing:
            if self.host:
                # The shell's process becomes the agent, so that LISTEN_PID is right.
                script = 'exec 3<&0 </dev/null; LISTEN_PID=$$ LISTEN_FDS=1 exec "$@"'
                command = ["sh", "-c", script, "sh", *self.host, str(SCRIPTS / "kube-node"), "agent", *arguments]
                self.process = subprocess.Popen(command, stdin=self._listener.fileno(), stdout=log, stderr=log)
            else:
                streams = [nothing.fileno(), log.fileno(), log.fileno(), self._listener.fileno()]
                self.process = forked.start(["agent", *arguments], {**os.environ, "LISTEN_FDS": "1"}, streams)

    def close(self) -> None:
        os.close(self._ended)
        self._thread.join()
        os.close(self._end)
        self._listener.close()
        if self.process:
            self.process.terminate()
            code, log = self.process.wait(PATIENCE), self.log_path.read_text()
            # A test may be over before its agent has begun: then the signal itself ends it.
            assert code == 0 or (code == -signal.SIGTERM and not log), (code, log)


def layout(way: str, built: Path, directory: Path) -> Path:
    """Return a directory that has the plugins under their names."""
    directory.mkdir()
    for name in NAMES:
        if way == "relay":
            shutil.copy(built / name, directory / name)
            (directory / f"{name}.standalone").symlink_to(built / f"{name}.standalone")
        else:
            (directory / name).symlink_to(SCRIPTS / name if way == "console" else built / f"{name}.standalone")
    return directory


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Let a test run in the ways that it is marked with, or all."""
    if "binaries" in metafunc.fixturenames:
        marks = [mark.args for mark in metafunc.definition.iter_markers("ways")]
        metafunc.parametrize("way", marks[0] if marks else WAYS)


@pytest.fixture
def activated(way: str, run_dir: Path) -> Iterator[ActivatedAgent | None]:
    """Return the agent that serves relays; None in the other ways."""
    if way != "relay":
        yield None
        return
    agent = ActivatedAgent(run_dir)
    yield agent
    agent.close()


@pytest.fixture
def binaries(way: str, built: Path, tmp_path: Path, activated: ActivatedAgent | None) -> Path:
    """Return a directory with the plugins, run in one of the ways."""
    del activated  # there, that is all
    return layout(way, built, tmp_path / "ways")
