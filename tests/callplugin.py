# SPDX-License-Identifier: Apache-2.0
"""Plugins run as a container runtime runs them: one process a call, environment and standard input in, standard output out."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

from podnet import Answer

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    NetworkMaker = Callable[..., "Network"]  # of a plugin's name, `version`, and keys of `ipam`
    ViewWriter = Callable[..., None]  # of podCIDRs, and `annotations`

OURS = ("lock", "last_reserved_ip.")  # files of a store that are no reservations


def environment(
    command: str,
    *,
    container_id: str = "c1",
    ifname: str = "eth0",
    netns: str = "/var/run/netns/none",
    args: str = "",
    path: Sequence[Path | str] = (),
) -> dict[str, str]:
    """Return what a runtime says of a call, on top of this process's environment."""
    return {
        **os.environ,
        "CNI_COMMAND": command,
        "CNI_CONTAINERID": container_id,
        "CNI_IFNAME": ifname,
        "CNI_NETNS": netns,
        "CNI_ARGS": args,
        "CNI_PATH": ":".join(map(str, path)),
    }


def execute(executable: Path, netconf: Mapping[str, Any] | bytes, environ: Mapping[str, str]) -> Answer:
    """Run a plugin in exactly this environment."""
    stdin = netconf if isinstance(netconf, bytes) else json.dumps(netconf).encode()
    done = subprocess.run([executable], input=stdin, env=environ, check=False, capture_output=True, timeout=60)
    return Answer(done.returncode, done.stdout.decode(), done.stderr.decode())


def hurried(path: Path, seconds: float) -> Path:
    """Write the standalone plugin that a file is named after, but that a call has so many seconds, and not 12."""
    function = path.name.partition(".")[0].replace("-", "_")
    path.unlink(missing_ok=True)
    path.write_text(f"#!{sys.executable}\nfrom kubenode import launcher\nlauncher.DEADLINE = {seconds}\nlauncher.{function}()\n")
    path.chmod(0o755)
    return path


def outdate(run_dir: Path, seconds: float) -> None:
    """Make the Node view older by so much."""
    path = run_dir / "node.json"
    view = json.loads(path.read_text())
    view["kube-node.nordix.org/view"]["fetched"] -= seconds
    path.write_text(json.dumps(view))


class Network:
    """A network of one plugin: its configuration, where it keeps reservations, and calls for it."""

    def __init__(
        self, executable: Path, directory: Path, ipam: Mapping[str, Any], path: Sequence[Path | str] = (), version: str = "1.1.0"
    ) -> None:
        self.executable = executable
        self.path = list(path)
        self.ipam: dict[str, Any] = {"type": executable.name.removesuffix(".standalone"), "dataDir": str(directory), **ipam}
        self.netconf: dict[str, Any] = {"cniVersion": version, "name": "net", "type": "bridge"}
        self.directory = directory / "net"

    def call(
        self, command: str, container_id: str = "c1", *, namespace: str = "default", env: Mapping[str, str] | None = None, **more: Any
    ) -> Answer:
        """Call the plugin; `more` goes into the network configuration."""
        args = f"IgnoreUnknown=1;K8S_POD_NAMESPACE={namespace};K8S_POD_NAME=pod" if namespace else ""
        environ = {**environment(command, container_id=container_id, args=args, path=self.path), **(env or {})}
        return execute(self.executable, {**self.netconf, "ipam": self.ipam, **more}, environ)

    def add(self, container_id: str = "c1", **how: Any) -> list[str]:
        """ADD, which has to succeed; return the addresses."""
        answer = self.call("ADD", container_id, **how)
        assert answer.code == 0, answer.stdout
        return answer.addresses

    def error(self, command: str = "ADD", container_id: str = "c1", **how: Any) -> dict[str, Any]:
        """Call the plugin, which has to fail, with nothing but an error object; return that."""
        answer = self.call(command, container_id, **how)
        assert answer.code == 1, answer.stdout
        error = answer.json
        assert error["cniVersion"] == self.netconf["cniVersion"]
        assert "Traceback" not in answer.stdout + answer.stderr
        return error

    def ok(self, command: str, container_id: str = "c1", **how: Any) -> None:
        """Call the plugin, which has to succeed and to say nothing."""
        answer = self.call(command, container_id, **how)
        assert (answer.code, answer.stdout) == (0, "")

    def gc(self, *containers: str) -> None:
        """GC, with eth0 of these containers valid and nothing else."""
        more: dict[str, Any] = {"cni.dev/valid-attachments": [{"containerID": name, "ifname": "eth0"} for name in containers]}
        self.ok("GC", **more)

    def reserved(self) -> list[str]:
        """Return what is reserved."""
        names = [file.name for file in self.directory.iterdir()] if self.directory.is_dir() else []
        return sorted(name for name in names if not name.startswith(OURS))
