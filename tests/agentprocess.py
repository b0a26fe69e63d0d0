# SPDX-License-Identifier: Apache-2.0
"""The agent as a process of its own, and the calls that a relay would pass to it."""

from __future__ import annotations

import contextlib
import json
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from callplugin import environment
from ourprocess import OurProcess, free_port
from patience import PATIENCE, eventually
from podnet import Answer

from kubenode.agent import protocol

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

IMPATIENT = [sys.executable, str(Path(__file__).with_name("impatient.py")), "report"]  # as `wrap`: its report waits shorter
HURRIED = [*IMPATIENT[:2], "call"]  # as `wrap`: a call has 4 s


def write_node(path: Path, *pod_cidrs: str, name: str = "node-1", **annotations: str) -> Path:
    """Write a Node manifest; `_` in an annotation's key stands for a slash."""
    metadata = {"name": name, "annotations": {key.replace("_", "/"): value for key, value in annotations.items()}}
    spec = {"podCIDR": pod_cidrs[0], "podCIDRs": pod_cidrs} if pod_cidrs else {}
    path.write_text(json.dumps({"apiVersion": "v1", "kind": "Node", "metadata": metadata, "spec": spec}))
    return path


class AgentProcess(OurProcess):
    """An agent with a run directory of its own."""

    def __init__(
        self, run_dir: Path, *options: str, wrap: Sequence[str] = (), env: Mapping[str, str] | None = None, socket_path: Path | None = None
    ) -> None:
        self.run_dir = run_dir
        self.socket = socket_path or run_dir / "agent.sock"
        port = free_port()
        given = {option.partition("=")[0] for option in options}
        default = {"--run-dir": str(run_dir), "--listen": f"127.0.0.1:{port}", "--cni-config": str(run_dir / "none"), "--every": "0.2"}
        arguments = ["agent", *options, *(f"{key}={value}" for key, value in default.items() if key not in given)]
        super().__init__(arguments, run_dir.parent / f"agent-{port}.log", port, env, wrap=wrap)

    def start(self) -> None:
        """Start it and wait until it serves."""
        self.launch()
        eventually(self._is_up, f"the agent does not come up: {self.log_path}", 4 * PATIENCE)  # it has to import a great deal

    def lines(self, message: str = "") -> list[dict[str, Any]]:
        """Return the log lines so far that contain a text."""
        found = [json.loads(line) for line in self.log().split("\n")[:-1] if line.startswith("{")]
        return [line for line in found if message in line["msg"]]

    def said(self, message: str) -> dict[str, Any]:
        """Wait for a log line, and return the last that has this text."""
        line: dict[str, Any] = eventually(lambda: self.lines(message), f"{message!r} is not in {self.log_path}")[-1]
        return line

    def connect(self, seconds: float = 30) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(seconds)
        sock.connect(str(self.socket))
        return sock

    def ask(self, plugin: str, command: str, netconf: Mapping[str, Any] | bytes, **how: Any) -> Answer:
        """Make a call as a relay does; return status and standard output."""
        with self.connect() as sock:
            with contextlib.suppress(BrokenPipeError):  # it may have answered already
                sock.sendall(request(plugin, command, netconf, **how))
                sock.shutdown(socket.SHUT_WR)
            return answer(sock)

    def call(self, command: str, netconf: Mapping[str, Any], container_id: str = "c1", **how: Any) -> Answer:
        """Make a call of the plugin that a network configuration names."""
        return self.ask(netconf["ipam"]["type"], command, netconf, container_id=container_id, **how)

    def add(self, netconf: Mapping[str, Any], container_id: str = "c1", **how: Any) -> list[str]:
        added = self.call("ADD", netconf, container_id, **how)
        assert added.code == 0, added.stdout
        return added.addresses

    def _is_up(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, self.log()
        try:
            self.connect().close()
        except OSError:
            return False
        return True


def request(plugin: str, command: str, netconf: Mapping[str, Any] | bytes, **how: Any) -> bytes:
    """Return the bytes that a relay sends for a call; `how` as in `callplugin.environment`."""
    environ = {key: value for key, value in environment(command, **how).items() if key.startswith("CNI_")}
    stdin = netconf if isinstance(netconf, bytes) else json.dumps(netconf).encode()
    return protocol.frame(protocol.Asked(plugin, environ, stdin))


def answer(sock: socket.socket) -> Answer:
    """Read an answer to its end, which may be a reset; -1 as its status where none comes."""
    received = bytearray()
    with contextlib.suppress(ConnectionResetError):
        while part := sock.recv(65536):
            received += part
    return Answer(received[0] if received else -1, received[1:].decode(), "")


def pod_args(name: str, namespace: str = "default", uid: str = "") -> str:
    return f"IgnoreUnknown=1;K8S_POD_NAMESPACE={namespace};K8S_POD_NAME={name};K8S_POD_UID={uid}"
