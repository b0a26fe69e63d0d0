# SPDX-License-Identifier: Apache-2.0
"""What a version of ours leaves on a node: the same calls for the same pods, by the code of any source tree.

`python tests/recording.py SRC OUTPUT` makes tests/upgrade's files out of a checkout of the version that names them. What differs
from run to run has a word in its place: paths, this boot, this machine, times, the version.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

NODE = {
    "apiVersion": "v1",
    "kind": "Node",
    "metadata": {"name": "worker-1", "uid": "u-1", "resourceVersion": "7", "annotations": {"example.com/net1": "172.20.1.0/24"}},
    "spec": {"podCIDR": "10.1.1.0/24", "podCIDRs": ["10.1.1.0/24", "fd01:0:0:1::/64"]},
}
PODS = {"c1": "db-0", "c2": "web-1", "c3": "job-2"}  # c1 by an agent, c2 too and gone, c3 by a plugin that runs alone
START = "import sys; sys.path.insert(0, sys.argv.pop(1)); from kubenode.{module} import kube_node; sys.exit(kube_node())"
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
PATIENCE = 60.0  # seconds


class Version:
    """The programs of a source tree, on a node in a directory."""

    def __init__(self, source: Path, base: Path) -> None:
        self.base, self.run, self.networks = base, base / "run", base / "networks"
        module = "cli.entry" if "def kube_node" in _text(source / "kubenode/cli/entry.py") else "launcher"
        self.command = [sys.executable, "-c", START.format(module=module), str(source)]
        self.environ = {key: value for key, value in os.environ.items() if not key.startswith(("CNI_", "KUBE", "NODE_"))}
        self.environ |= {"KUBE_NODE_RUN_DIR": str(self.run), "KUBE_NODE_CONF": str(base / "conf"), "NODE_NAME": "worker-1"}

    def prepare(self) -> None:
        """Make the host's directories, a Node manifest, and pods' network namespaces."""
        self.run.mkdir()
        (self.base / "node.json").write_text(json.dumps(NODE))
        (self.base / "conf").write_text(json.dumps({"allow": {"nodeFile": [str(self.base)]}}))
        (self.base / "conf").chmod(0o600)
        for container in PODS:
            (self.base / container).touch()

    def environment(self, command: str, container: str) -> dict[str, str]:
        args = f"IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME={PODS.get(container, container)};K8S_POD_UID=uid-{container}"
        return {
            "CNI_COMMAND": command, "CNI_CONTAINERID": container, "CNI_IFNAME": "eth0", "CNI_NETNS": str(self.base / container),
            "CNI_ARGS": args, "CNI_PATH": "/none",
        }  # fmt: skip

    def conf(self, **more: Any) -> bytes:
        ipam = {"type": "kube-node", "dataDir": str(self.networks), "delegate": "embedded"}
        return json.dumps({"cniVersion": "1.0.0", "name": "net", "type": "bridge", "ipam": ipam, **more}).encode()

    def agent(self) -> subprocess.Popen[bytes]:
        """Start an agent with the Node manifest, and wait until it serves."""
        options = [f"--node-file={self.base}/node.json", f"--run-dir={self.run}", "--listen=none", f"--cni-config={self.base}/none"]
        process = subprocess.Popen([*self.command, "agent", *options], env=self.environ, stderr=(self.base / "log").open("ab"))
        end = time.monotonic() + PATIENCE
        while not ((self.run / "agent.sock").exists() and (self.run / "node.json").exists()):
            if process.poll() is not None or time.monotonic() > end:
                process.kill()
                raise TimeoutError(_text(self.base / "log"))
            time.sleep(0.05)
        return process

    def ask(self, command: str, container: str = "", **more: Any) -> tuple[int, str]:
        """Make a call as a relay does."""
        texts = ["kn1", "kube-node", *(f"{key}={value}" for key, value in self.environment(command, container).items()), ""]
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(PATIENCE)
            sock.connect(str(self.run / "agent.sock"))
            sock.sendall("".join(text + "\0" for text in texts).encode() + self.conf(**more))
            sock.shutdown(socket.SHUT_WR)
            said = b"".join(iter(lambda: sock.recv(65536), b""))
        return said[0], said[1:].decode()

    def call(self, command: str, container: str = "", **more: Any) -> tuple[int, str]:
        """Make a call as a runtime does where there is no agent."""
        environ = {**self.environ, **self.environment(command, container)}
        done = subprocess.run(self.command, input=self.conf(**more), env=environ, check=False, capture_output=True, timeout=PATIENCE)
        return done.returncode, done.stdout.decode()


def leave(version: Version) -> None:
    """Let pods come and go, by an agent and without one."""
    version.prepare()
    agent = version.agent()
    try:
        for command, container in (("ADD", "c1"), ("ADD", "c2"), ("DEL", "c2")):
            code, said = version.ask(command, container)
            assert code == 0, said
    finally:
        agent.terminate()
        agent.wait(PATIENCE)
    code, said = version.call("ADD", "c3")
    assert code == 0, said


def words(base: Path) -> Mapping[str, str]:
    """Return what differs from run to run, and the words in its place."""
    return {str(base): "@BASE@", BOOT_ID.read_text().strip(): "@BOOT@", Path("/etc/machine-id").read_text().strip(): "@MACHINE@"}


def taken(base: Path) -> dict[str, str]:
    """Return the files of a node, by path, with words in place of what differs. Times and versions are the Node view's."""
    found = {}
    for path in sorted([*(base / "run").rglob("*"), *(base / "networks").rglob("*")]):
        if path.is_file() and not path.name.endswith(("agent.sock.lock", "node.json.lock")):
            text = path.read_bytes().decode()
            for value, word in words(base).items():
                text = text.replace(value, word)
            text = re.sub(r'("fetched": ?)[0-9.]+', r"\g<1>0", text)
            found[str(path.relative_to(base))] = re.sub(r'("by": ?)"[^"]*"', r'\g<1>"a version"', text)
    return found


def put_back(files: Mapping[str, str], base: Path) -> None:
    """Write files that were taken, for this boot, machine and directory; the Node view is as if it had just been written."""
    for name, content in files.items():
        path, text = base / name, content
        path.parent.mkdir(parents=True, exist_ok=True)
        for value, word in words(base).items():
            text = text.replace(word, value)
        path.write_bytes(re.sub(r'("fetched": ?)0', rf"\g<1>{time.time()}", text).encode())


def _text(path: Path) -> str:
    return path.read_text() if path.exists() else ""


if __name__ == "__main__":
    directory = Path(tempfile.mkdtemp(prefix="recording."))
    try:
        leave(Version(Path(sys.argv[1]), directory))
        Path(sys.argv[2]).write_text(json.dumps(taken(directory), indent=1) + "\n")
    finally:
        shutil.rmtree(directory)
