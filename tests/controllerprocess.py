"""The real controller as a process of its own."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Self
from urllib.error import HTTPError

if TYPE_CHECKING:
    from collections.abc import Callable

KUBE_NODE = Path(sys.executable).parent / "kube-node"
PATIENCE = 30.0  # seconds; a machine that runs other tests is slow


class ControllerProcess:
    """A controller. `arguments` are those of `kube-node controller`."""

    def __init__(self, kubeconfig: Path, log_path: Path, *arguments: str) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self._port = free.getsockname()[1]
        self.log_path = log_path
        command = [str(KUBE_NODE), "controller", f"--kubeconfig={kubeconfig}", f"--listen=127.0.0.1:{self._port}", "--loglevel=debug"]
        self._command = [*command, *arguments]
        self.process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def start(self) -> None:
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(self._command, env={**os.environ}, stdout=log, stderr=log)

    def stop(self) -> int:
        """End it as a kubelet does; return its exit code."""
        assert self.process
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(PATIENCE)

    def kill(self) -> None:
        """End it as a crash does."""
        if self.process:
            self.process.kill()
            self.process.wait()
            self.process = None

    def log(self) -> str:
        return self.log_path.read_text()

    def get(self, path: str) -> tuple[int, str]:
        """Return status and text of an HTTP page; 0 where nobody listens."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self._port}{path}", timeout=5) as answer:
                return answer.status, answer.read().decode()
        except HTTPError as error:
            return error.code, error.read().decode()
        except OSError:
            return 0, ""


def until(condition: Callable[[], object], seconds: float = PATIENCE, why: Callable[[], object] = lambda: "") -> float:
    """Wait for something; return how long it took."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < seconds, why()
        time.sleep(0.05)
    return time.monotonic() - began
