#!/usr/bin/env python3
"""Two pods on a real one-node cluster get their addresses from kube-node: first handed on to host-local, then given by kube-node itself.

    one_node_cluster.py [--bin=_output/bin]

Root only. KUBE_NODE_TESTBIN names the directory with the `cluster` script, CNI_TEST_PATH one with the reference plugins. Everything
lies in a temporary directory; servers and pods are stopped whatever happens. Takes about a minute.
"""

from __future__ import annotations

import argparse
import ipaddress
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).resolve().parent.parent.parent
NETWORK = "k8snet"

COUNTING = """#!/bin/sh
echo "$CNI_COMMAND" >>"$0.calls"
exec "$0.reference"
"""


class CheckFailedError(Exception):
    """Something is not as it should be; the message says what."""


def run(*command: str | Path, stdin: str | None = None) -> str:
    done = subprocess.run([str(word) for word in command], check=False, capture_output=True, text=True, input=stdin, timeout=300)
    if done.returncode:
        raise CheckFailedError(f"{' '.join(map(str, command))}: {done.stdout}{done.stderr}")
    return done.stdout


def wait(what: str, seconds: float, probe: Callable[[], bool]) -> None:
    end = time.monotonic() + seconds
    while not probe():
        if time.monotonic() > end:
            raise CheckFailedError(f"not within {seconds} s: {what}")
        time.sleep(0.2)


def namespaces() -> set[str]:
    """Return the names of the network namespaces that containerd made."""
    return {line.split()[0] for line in run("ip", "netns").splitlines() if line.startswith("cni-")}


class Lab:
    """The cluster and what is asked of it."""

    def __init__(self, base: Path, cluster: Path) -> None:
        self.cluster = cluster
        self.directory = base / "lab"
        self.data_dir = base / "networks"
        self.run_dir = base / "run"
        self.bridge = f"kn{secrets.token_hex(3)}br"
        self.cni_bin = self.directory / "cni/bin"
        self.namespaces_before = namespaces()

    def up(self) -> None:
        # The kubelet's containerd starts the plugins, with the environment that it has from here.
        os.environ["KUBE_NODE_RUN_DIR"] = str(self.run_dir)
        self.run_dir.mkdir()
        run(self.cluster, "up", self.directory)

    def down(self) -> None:
        if self.directory.exists():
            run(self.cluster, "down", self.directory)
        subprocess.run(["ip", "link", "del", self.bridge], check=False, capture_output=True)
        # Pods that could not be deleted leave theirs behind.
        for name in namespaces() - self.namespaces_before:
            run("ip", "netns", "del", name)

    def kubectl(self, *words: str, stdin: str | None = None) -> str:
        return run("kubectl", "--kubeconfig", self.directory / "admin.conf", *words, stdin=stdin)

    def get(self, *words: str) -> dict[str, Any]:
        value: dict[str, Any] = json.loads(self.kubectl("get", *words, "-o", "json"))
        return value

    def install(self, binaries: Path, reference: Path) -> None:
        shutil.copytree(binaries, self.cni_bin, symlinks=True, dirs_exist_ok=True)
        for plugin in ("bridge", "loopback"):
            shutil.copy(reference / plugin, self.cni_bin)
        # What stands under host-local's name counts its calls: shows who gave the addresses.
        shutil.copy(reference / "host-local", self.cni_bin / "host-local.reference")
        (self.cni_bin / "host-local").write_text(COUNTING)
        (self.cni_bin / "host-local").chmod(0o755)
        ipam = {"type": "kube-node", "kubeconfig": str(self.directory / "node.conf"), "dataDir": str(self.data_dir)}
        bridge = {"type": "bridge", "bridge": self.bridge, "isDefaultGateway": True, "ipMasq": False, "ipam": ipam}
        conflist = json.dumps({"cniVersion": "1.0.0", "name": NETWORK, "plugins": [bridge]})
        (self.directory / "cni/net.d/10-k8snet.conflist").write_text(conflist)

    def kube_node(self, command: str, *words: str, may_fail: bool = False) -> str:
        """Run our own command line on this node."""
        line = [str(self.cni_bin / "kube-node.standalone"), command, f"--cni-config={self.directory}/cni/net.d", *words]
        done = subprocess.run(line, check=False, capture_output=True, text=True, timeout=60)
        if done.returncode and not may_fail:
            raise CheckFailedError(f"{' '.join(line)}: {done.stdout}{done.stderr}")
        return done.stdout

    def without_host_local(self) -> None:
        (self.cni_bin / "host-local").unlink()

    def delegated(self) -> list[str]:
        calls = self.cni_bin / "host-local.calls"
        return calls.read_text().split() if calls.exists() else []

    def reservations(self) -> list[str]:
        names = [file.name for file in (self.data_dir / NETWORK).iterdir()]
        return [name for name in names if not name.startswith("last_reserved_ip.") and (name[0].isdigit() or ":" in name)]

    def trouble(self) -> str:
        """Say what a person would look at first."""
        events = self.kubectl("get", "events", "--sort-by=.lastTimestamp")
        log = self.directory / "log/containerd.log"
        tail = "\n".join(line for line in log.read_text().splitlines() if "error" in line)[-3000:]
        return f"events:\n{events}\nerrors in containerd's log:\n{tail}"


def pod_manifest(name: str) -> str:
    container = {"name": "box", "image": "localhost/busybox:1", "imagePullPolicy": "Never"}
    spec = {"terminationGracePeriodSeconds": 0, "containers": [container]}
    return json.dumps({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec})


def check(lab: Lab, pods: tuple[str, str], pod_cidrs: list[str], show: Callable[[str, str], None]) -> None:
    """Run two pods and delete them again."""
    begin = time.monotonic()
    for name in pods:
        lab.kubectl("apply", "-f", "-", stdin=pod_manifest(name))
    lab.kubectl("wait", "--for=condition=Ready", *(f"pod/{name}" for name in pods), "--timeout=60s")
    show("pods ready", f"{time.monotonic() - begin:.1f} s")

    subnets = [ipaddress.ip_network(cidr) for cidr in pod_cidrs]
    addresses = {name: [item["ip"] for item in lab.get("pod", name)["status"]["podIPs"]] for name in pods}
    for name, found in addresses.items():
        inside = [[ipaddress.ip_address(address) in subnet for subnet in subnets] for address in found]
        if inside != [[True, False], [False, True]]:
            raise CheckFailedError(f"{name} has {found}: not one address of each of {pod_cidrs}")
        show(f"{name}: podIPs", ", ".join(found))

    for address in addresses[pods[1]]:
        family = "-6" if ":" in address else "-4"
        run(lab.cluster, "exec", lab.directory, pods[0], "ping", family, "-c1", "-W5", address)
        show(f"{pods[0]} pings {pods[1]}", address)
    if sorted(lab.reservations()) != sorted(address for found in addresses.values() for address in found):
        raise CheckFailedError(f"reserved: {lab.reservations()}")

    inspect(lab, addresses, show)

    begin = time.monotonic()
    lab.kubectl("delete", "pod", *pods, "--wait")
    wait(f"no reservation left, but {lab.reservations()}", 60, lambda: not lab.reservations())
    show("pods deleted, no reservation left", f"{time.monotonic() - begin:.1f} s")


def inspect(lab: Lab, addresses: dict[str, list[str]], show: Callable[[str, str], None]) -> None:
    """Look at the node with our own command line: whose the addresses are, that all is well, and that gc takes only what is stale."""
    (network,) = json.loads(lab.kube_node("status", "--json"))["networks"]
    seen = {one["pod"]: sorted(one["addresses"]) for one in network["attachments"]}
    if seen != {f"default/{name}": sorted(found) for name, found in addresses.items()}:
        raise CheckFailedError(f"status says {seen}")
    whose = json.loads(lab.kube_node("status", "--json", next(iter(addresses.values()))[0]))["holders"]
    show("status: whose address", whose[0]["pod"])
    checks = json.loads(lab.kube_node("doctor", "--json", f"--bin-dir={lab.cni_bin}", may_fail=True))["checks"]
    # The one thing that is not as it should be: relays are installed, and no agent is.
    if wrong := [f"{one['check']}: {one['what']}" for one in checks if one["state"] != "ok" and one["check"] != "agent"]:
        raise CheckFailedError(f"doctor says {wrong}")
    show("doctor: all is well but for the agent", f"{len(checks)} checks")

    stale = lab.data_dir / NETWORK / "11.0.0.250"
    stale.write_text("gone\r\neth0")
    os.utime(stale, (0, 0))
    released = json.loads(lab.kube_node("gc", "--json", f"--cri-socket={lab.directory}/run/containerd.sock"))["released"]
    if [one["address"] for one in released] != [stale.name]:
        raise CheckFailedError(f"gc has released {released}")
    show("gc by the runtime's sandboxes", f"{stale.name} and nothing else")


def story(lab: Lab, binaries: Path, reference: Path) -> None:
    variant = ""

    def show(what: str, value: str) -> None:
        print(f"{variant:12} {what:36} {value}", flush=True)

    begin = time.monotonic()
    lab.up()
    lab.install(binaries, reference)
    lab.kubectl("wait", "--for=condition=Ready", "node/lab", "--timeout=90s")
    pod_cidrs = lab.get("node", "lab")["spec"]["podCIDRs"]
    show("node ready", f"{time.monotonic() - begin:.1f} s")
    show("spec.podCIDRs", ", ".join(pod_cidrs))

    variant = "host-local"
    check(lab, (f"{variant}-1", f"{variant}-2"), pod_cidrs, show)
    calls = lab.delegated()
    if calls.count("ADD") < 2 or calls.count("DEL") < 2:
        raise CheckFailedError(f"host-local was asked only for {calls}")
    show("asked host-local", f"{calls.count('ADD')} ADD, {calls.count('DEL')} DEL")

    variant = "embedded"
    lab.without_host_local()
    check(lab, (f"{variant}-1", f"{variant}-2"), pod_cidrs, show)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin", type=Path, default=ROOT / "_output/bin", help="what ./build.sh binaries made")
    arguments = parser.parse_args()
    for name in ("KUBE_NODE_TESTBIN", "CNI_TEST_PATH"):
        if name not in os.environ:
            parser.error(f"{name} is not set")
    # Ctrl-C and a job's end both have to pass through the cleaning up below.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with tempfile.TemporaryDirectory(prefix="kn-e2e.") as base:
        lab = Lab(Path(base), Path(os.environ["KUBE_NODE_TESTBIN"], "cluster"))
        try:
            story(lab, arguments.bin, Path(os.environ["CNI_TEST_PATH"]))
        except CheckFailedError as failure:
            sys.exit(f"one_node_cluster: {failure}\n{lab.trouble()}")
        finally:
            lab.down()


if __name__ == "__main__":
    main()
