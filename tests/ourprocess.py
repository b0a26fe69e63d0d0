# SPDX-License-Identifier: Apache-2.0
"""A long-running command of ours as a process of its own: started, ended as the kubelet or a crash does, and asked over HTTP."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Self

import forked
from patience import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

KUBE_NODE = Path(sys.executable).with_name("kube-node")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


class OurProcess:
    """A process that writes its log to a file and has its HTTP pages on a port.

    `wrap`: what to run it under. `fresh`: by an interpreter of its own also where none is needed, for who measures it.
    """

    def __init__(
        self,
        arguments: Sequence[str],
        log_path: Path,
        port: int,
        env: Mapping[str, str] | None = None,
        *,
        wrap: Sequence[str] = (),
        fresh: bool = False,
    ) -> None:
        self.arguments = list(arguments)
        self.wrap = list(wrap)
        self.fresh = fresh
        self.log_path = log_path
        self.port = port
        self.environ = {**os.environ, **(env or {})}
        self.process: subprocess.Popen[bytes] | forked.Forked | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def start(self) -> None:
        self.launch()

    def launch(self) -> None:
        """Start it, whatever becomes of it."""
        with self.log_path.open("ab") as log, Path(os.devnull).open("rb") as nothing:
            if self.wrap or self.fresh:
                command = [*self.wrap, str(KUBE_NODE), *self.arguments]
                self.process = subprocess.Popen(command, stdout=log, stderr=log, stdin=nothing, env=self.environ)
            else:
                self.process = forked.start(self.arguments, self.environ, [nothing.fileno(), log.fileno(), log.fileno()])

    def stop(self) -> int:
        """End it by SIGTERM; return its exit code."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(PATIENCE)

    def kill(self) -> None:
        """End it as a crash does."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def log(self) -> str:
        return self.log_path.read_text()

    def get(self, path: str) -> tuple[int, str]:
        """Return status and text of an HTTP page; 0 where nobody answers."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=15) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except OSError:
            return 0, ""
