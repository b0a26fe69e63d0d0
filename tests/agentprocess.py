"""The real agent as a process of its own, and calls to it as a relay makes them."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from callplugin import environment
from podnet import Answer

from kubenode.agent import protocol

if TYPE_CHECKING:
    from collections.abc import Mapping

KUBE_NODE = Path(sys.executable).parent / "kube-node"
START = 20.0  # seconds; a machine that runs other tests is slow


class AgentProcess:
    """An agent that serves a run directory. `arguments` are those of `kube-node agent`."""

    def __init__(self, run_dir: Path, *arguments: str, environ: Mapping[str, str] | None = None) -> None:
        self.socket = run_dir / "agent.sock"
        self.log_path = run_dir.parent / f"{run_dir.name}.agent.log"
        self._command = [str(KUBE_NODE), "agent", f"--run-dir={run_dir}", "--listen=none", f"--cni-config={run_dir}/net.d", *arguments]
        self._environ = {**os.environ, **(environ or {})}
        self.process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def start(self) -> None:
        """Start it and wait until it serves."""
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(self._command, env=self._environ, stdout=log, stderr=log)
        end = time.monotonic() + START
        while not self.serves():
            assert self.process.poll() is None, self.log()
            assert time.monotonic() < end, self.log()
            time.sleep(0.02)

    def serves(self) -> bool:
        try:
            with socket.socket(socket.AF_UNIX) as sock:
                sock.connect(str(self.socket))
        except OSError:
            return False
        return True

    def stop(self) -> int:
        """End it as systemd does; return its exit code."""
        assert self.process
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(30)

    def kill(self) -> None:
        """End it as a crash does."""
        if self.process:
            self.process.kill()
            self.process.wait()
            self.process = None

    def log(self) -> str:
        return self.log_path.read_text()

    def connect(self, seconds: float = 30) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(seconds)
        sock.connect(str(self.socket))
        return sock

    def ask(self, plugin: str, command: str, netconf: Mapping[str, Any] | bytes, **how: Any) -> Answer:
        """Make a call as a relay does; return status and standard output."""
        with self.connect() as sock:
            sock.sendall(request(plugin, command, netconf, **how))
            sock.shutdown(socket.SHUT_WR)
            return answer(sock)


def request(plugin: str, command: str, netconf: Mapping[str, Any] | bytes, **how: Any) -> bytes:
    """Return the bytes that a relay sends for a call; `how` as in `callplugin.environment`."""
    environ = {key: value for key, value in environment(command, **how).items() if key.startswith("CNI_")}
    stdin = netconf if isinstance(netconf, bytes) else json.dumps(netconf).encode()
    return protocol.frame(protocol.Asked(plugin, environ, stdin))


def answer(sock: socket.socket) -> Answer:
    """Read an answer to its end; -1 as its status where none comes."""
    received = b""
    while chunk := sock.recv(65536):
        received += chunk
    return Answer(received[0] if received else -1, received[1:].decode(), "")
