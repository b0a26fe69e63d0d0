# SPDX-License-Identifier: Apache-2.0
"""A node in a directory of its own, with networks and pods that real ADDs have made, to be looked at by the command line."""

from __future__ import annotations

import json
import re
import subprocess
from typing import TYPE_CHECKING, Any

import forked
from callplugin import environment
from ourprocess import KUBE_NODE
from podnet import Answer

from kubenode.host.attachments import Attachments, Record
from kubenode.ipam.store import Attachment

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

COLOUR = re.compile(r"\x1b\[[0-9;]*m")


class SeededNode:
    """Directories, a Node view, configurations. Its pods' network namespaces are empty files."""

    def __init__(self, directory: Path, run_dir: Path) -> None:
        self.directory, self.run = directory, run_dir
        self.net, self.netns, self.networks, self.bin = (directory / name for name in ("net.d", "netns", "networks", "bin"))
        for made in (self.net, self.netns, self.bin):
            made.mkdir(parents=True)
        self.view(["10.1.0.0/24", "fd01::/64"])

    def view(self, pod_cidrs: Sequence[str], annotations: Mapping[str, str] | None = None, name: str = "worker-1") -> None:
        manifest = {"kind": "Node", "metadata": {"name": name, "annotations": annotations or {}}, "spec": {"podCIDRs": pod_cidrs}}
        (self.run / "node.json").write_text(json.dumps(manifest))

    def conf(self, name: str = "k8snet", plugin: str = "bridge", /, **ipam: Any) -> dict[str, Any]:
        """Return a network's configuration; `ipam` goes there, with _ for -."""
        said = {key.replace("_", "-"): value for key, value in ipam.items()}
        return {
            "cniVersion": "1.1.0",
            "name": name,
            "type": plugin,
            "ipam": {"type": "kube-node", "dataDir": str(self.networks), "delegate": "embedded", **said},
        }

    def configure(self, conf: dict[str, Any], file: str = "10-k8snet.conflist", **top: Any) -> Path:
        """Write a configuration as the runtime reads it."""
        path = self.net / file
        conf = {**conf, **top}
        if file.endswith("conflist"):
            common = {key: conf[key] for key in ("cniVersion", "name")}
            conf = {**common, "plugins": [{key: value for key, value in conf.items() if key not in common}]}
        path.write_text(json.dumps(conf))
        return path

    def add(
        self, conf: Mapping[str, Any], container_id: str, pod: str = "", *, command: str = "ADD", netns: str = "", ifname: str = "eth0"
    ) -> list[str]:
        """Let the plugin give a pod addresses. Its network namespace is called like the container."""
        path = self.netns / (netns or container_id)
        path.touch()
        args = "IgnoreUnknown=1;K8S_POD_NAMESPACE={};K8S_POD_NAME={}".format(*pod.split("/")) if pod else ""
        environ = environment(command, container_id=container_id, ifname=ifname, netns=str(path), args=args)
        done = subprocess.run([KUBE_NODE], input=json.dumps(conf), env=environ, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return Answer(0, done.stdout, "").addresses if command == "ADD" else []

    def hold(self, network: str, count: int, *, since: int = 2, records: bool = False) -> None:
        """Reserve so many IPv4 addresses of 10.1.0.0/16 at once, without ADDs."""
        directory = self.networks / network
        directory.mkdir(parents=True, exist_ok=True)
        (self.netns / "held").touch()
        noted = Attachments(str(self.run), network)
        for number in range(since, since + count):
            address, container_id = f"10.1.{number >> 8}.{number & 255}", f"held{number:060}"
            (directory / address).write_text(f"{container_id}\r\neth0")
            if records:
                pod = ("many", f"p{number}", "")
                record = Record(str(self.netns / "held"), *pod, str(self.networks), ipam={"type": "host-local"})
                noted.write(Attachment(container_id, "eth0"), record)

    def run_command(self, *arguments: str, env: Mapping[str, str] | None = None, stdin: str = "", wrap: Sequence[str] = ()) -> Answer:
        """Run `kube-node COMMAND …` on this node; what it prints is without colour. `wrap` stands in front of the command."""
        where = [f"--cni-config={self.net}"] if arguments[0] in {"status", "doctor", "gc", "release", "map", "try-add"} else []
        done = forked.run([arguments[0], *where, *arguments[1:]], env, stdin, wrap)
        assert "Traceback" not in done.stderr, done.stderr
        assert " \n" not in done.stdout, done.stdout  # which rich fills tables up with
        return Answer(done.code, COLOUR.sub("", done.stdout), COLOUR.sub("", done.stderr))

    def snapshot(self) -> dict[str, tuple[int, bytes]]:
        """Return every file and directory here, with its time and content."""
        found = {}
        for top in (self.directory, self.run):
            for path in (top, *top.rglob("*")):
                content = path.read_bytes() if path.is_file() else b""
                found[str(path)] = (path.lstat().st_mtime_ns, content)
        return found
