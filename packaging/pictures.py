"""Make docs/images: what the commands print on a node of this script's own, in terminals of 80 and of 200 columns. `./build.sh pictures`.

Root, because the node is a mount and a network namespace in which /etc/cni, /run, /opt and /var/lib are others. The output is the real one,
through a pseudo-terminal; rich draws it.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import io
import json
import os
import pty
import re
import shutil
import struct
import subprocess
import sys
import tempfile
import termios
import time
from pathlib import Path
from typing import Any

from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console
from rich.text import Text

from kubenode.version import VERSION

ROOT = Path(__file__).resolve().parent.parent
IMAGES = ROOT / "docs/images"
COLUMNS, ROWS = (80, 200), 60
KUBE_NODE = Path(sys.executable).parent / "kube-node"
START = 20.0  # seconds for the agent
NODE = {
    "kind": "Node",
    "metadata": {"name": "worker-1", "annotations": {"kube-node.nordix.org/net1": "172.20.2.0/27,fd00::2:0:0/96"}},
    "spec": {"podCIDRs": ["11.0.1.0/24", "1100:0:0:1::/64"]},
}
NETWORKS: dict[str, dict[str, Any]] = {
    "10-k8snet.conflist": {
        "cniVersion": "1.1.0",
        "name": "k8snet",
        "plugins": [{"type": "bridge", "bridge": "cbr0", "isDefaultGateway": True, "ipam": {"type": "kube-node"}}],
    },
    "20-net1.conf": {
        "cniVersion": "1.1.0",
        "name": "net1",
        "type": "bridge",
        "bridge": "br-net1",
        "ipam": {"type": "kube-node", "annotation": "kube-node.nordix.org/net1"},
    },
}
PODS = (
    "kube-system/coredns-5d78c9869d-x2kqp",
    "kube-system/metrics-server-6f6cdbf67d-kb4zw",
    "web/shop-7c5ddbdf54-8hq2m",
    "web/shop-7c5ddbdf54-pl9rt",
    "web/cart-66b6c48dd5-zr7vd",
    "mail/postfix-0",
    "mail/dovecot-0",
    "build/runner-q6n8x",
)
TAKEN = 22  # other addresses of the second network's 29
PICTURES = {
    "help": "--help",
    "status": "status",
    "status-wide": "status -o wide",
    "status-address": "status 11.0.1.4",
    "doctor": "doctor",
    "map": "map 11.0.1.0/24",
    "try-add": "try-add k8snet",
    "version": "version",
}
AFTER_FAULTS = {"doctor-faults": "doctor --quiet", "gc": "gc --dry-run", "status-leak": "status --network=k8snet"}


def main() -> None:
    parser = argparse.ArgumentParser(prog="./build.sh pictures", description="Make docs/images from what the commands print.")
    parser.add_argument("--inside", default="", help=argparse.SUPPRESS)
    inside = parser.parse_args().inside
    if inside:
        draw_all(Path(inside))
        return
    if os.geteuid() != 0:
        sys.exit("pictures: root is needed, for a mount and a network namespace")
    with tempfile.TemporaryDirectory(prefix="kube-node-pictures.") as scratch:
        binaries = os.environ.get("KUBE_NODE_BINARIES")
        if not binaries:
            binaries = f"{scratch}/bin"
            subprocess.run([sys.executable, ROOT / "packaging/binaries.py", f"--output={binaries}", f"--version={VERSION}"], check=True)
        shutil.copytree(binaries, f"{scratch}/opt/cni/bin", symlinks=True)
        shutil.copytree("/etc", f"{scratch}/etc", symlinks=True)
        subprocess.run(["unshare", "--mount", "--net", sys.executable, __file__, f"--inside={scratch}"], check=True)


def draw_all(scratch: Path) -> None:
    """Make all pictures, in namespaces of our own."""
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    for name in ("etc", "run", "opt", "var/lib"):
        (scratch / name).mkdir(parents=True, exist_ok=True)
        subprocess.run(["mount", "--bind", scratch / name, f"/{name}"], check=True)
    node = Node()
    try:
        node.seed()
        IMAGES.mkdir(exist_ok=True)
        for name, line in PICTURES.items():
            draw(name, line)
        node.break_something()
        for name, line in AFTER_FAULTS.items():
            draw(name, line)
    finally:
        node.agent.terminate()
        node.agent.wait()


class Node:
    """The node that is shown: an agent that serves two networks, and pods."""

    def __init__(self) -> None:
        for directory in ("/etc/cni/net.d", "/run/netns", "/run/kube-node", "/var/lib/cni/networks"):
            Path(directory).mkdir(parents=True, exist_ok=True)
        for name, conf in NETWORKS.items():
            Path("/etc/cni/net.d", name).write_text(json.dumps(conf))
        Path("/etc/cni/node.json").write_text(json.dumps(NODE))
        bridge = Path("/opt/cni/bin/bridge")
        if reference := os.environ.get("CNI_TEST_PATH"):
            shutil.copy(Path(reference, "bridge"), bridge)
        elif not bridge.exists():
            bridge.write_text("#!/bin/sh\nexit 1\n")
            bridge.chmod(0o755)
        log = Path("/run/agent.log").open("wb")  # noqa: SIM115 -- the agent's from now on
        command = [str(KUBE_NODE), "agent", "--node-file=/etc/cni/node.json", "--listen=none"]
        self.agent = subprocess.Popen(command, stdout=log, stderr=log)
        end = time.monotonic() + START
        while not (Path("/run/kube-node/agent.sock").exists() and Path("/run/kube-node/node.json").exists()):
            if time.monotonic() > end:
                sys.exit(Path("/run/agent.log").read_text())
            time.sleep(0.05)

    def seed(self) -> None:
        for index, pod in enumerate(PODS):
            self.add("10-k8snet.conflist", identity(f"pod {index}"), pod, 3000 * 4 ** (len(PODS) - index) // 60)
        for index in range(TAKEN):
            self.add("20-net1.conf", identity(f"cache {index}"), f"web/cache-{index}", 300 * (TAKEN - index))

    def add(self, file: str, container_id: str, pod: str, age: int) -> None:
        """Start a pod, `age` seconds ago."""
        content = NETWORKS[file]
        plugin = content["plugins"][0] if "plugins" in content else content
        netconf = {**plugin, "name": content["name"], "cniVersion": content["cniVersion"]}
        netns = Path("/run/netns", f"cni-{container_id[:8]}")
        netns.touch()
        namespace, name = pod.split("/")
        cni = {
            "CNI_COMMAND": "ADD",
            "CNI_CONTAINERID": container_id,
            "CNI_IFNAME": "eth0",
            "CNI_NETNS": str(netns),
            "CNI_PATH": "/opt/cni/bin",
            "CNI_ARGS": f"IgnoreUnknown=1;K8S_POD_NAMESPACE={namespace};K8S_POD_NAME={name}",
        }
        done = subprocess.run(["/opt/cni/bin/kube-node"], input=json.dumps(netconf), env=cni, capture_output=True, text=True, check=False)
        if done.returncode:
            sys.exit(done.stdout)
        when = time.time() - age
        for ip in json.loads(done.stdout)["ips"]:
            os.utime(f"/var/lib/cni/networks/{content['name']}/{ip['address'].partition('/')[0]}", (when, when))

    def break_something(self) -> None:
        """Let a pod leak, tear a file, and take a plugin's right to be executed."""
        Path("/run/netns", f"cni-{identity('pod 3')[:8]}").unlink()
        Path("/var/lib/cni/networks/k8snet/11.0.1.99").touch(0o600)
        Path("/opt/cni/bin/bridge").chmod(0o644)
        for index in range(TAKEN, TAKEN + 3):
            self.add("20-net1.conf", identity(f"cache {index}"), f"web/cache-{index}", 60)


def identity(text: str) -> str:
    """Return what a container could be called, the same each time."""
    return hashlib.sha256(text.encode()).hexdigest()


def draw(name: str, line: str) -> None:
    """Run a command in a terminal of each width, and draw what it shows."""
    for columns in COLUMNS:
        shown = in_terminal([str(KUBE_NODE), *line.split()], columns)
        if too_wide := [text for text in re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", shown).splitlines() if len(text) > columns]:
            sys.exit(f"pictures: kube-node {line} is wider than {columns} columns:\n{too_wide[0]}")
        console = Console(
            record=True, width=columns, file=io.StringIO(), force_terminal=True, color_system="truecolor", legacy_windows=False
        )
        console.print(Text.from_ansi(f"\x1b[1m$ kube-node {line}\x1b[0m\n{shown}"))
        # rich's own would load a font from another host.
        template = re.sub(r"@font-face \{\{.*?\}\}\n", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL)
        template = template.replace("<svg ", '<svg xml:space="preserve" ', 1)  # what is indented stays so in every viewer
        console.save_svg(str(IMAGES / f"{name}-{columns}.svg"), title=f"kube-node {line}", code_format=template, unique_id="kube-node")
        print(f"pictures: docs/images/{name}-{columns}.svg")


def in_terminal(command: list[str], columns: int) -> str:
    """Return what a command writes to a terminal of so many columns."""
    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, columns, 0, 0))
    environ = {key: value for key, value in os.environ.items() if key not in {"COLUMNS", "LINES", "NO_COLOR"}}
    process = subprocess.Popen(
        command, stdin=follower, stdout=follower, stderr=follower, env={**environ, "TERM": "xterm-256color", "LANG": "C.UTF-8"}
    )
    os.close(follower)
    shown = b""
    while True:
        try:
            chunk = os.read(leader, 65536)
        except OSError:  # EIO: nobody writes to it any more
            break
        if not chunk:
            break
        shown += chunk
    process.wait()
    os.close(leader)
    return shown.decode().replace("\r\n", "\n")


if __name__ == "__main__":
    main()
