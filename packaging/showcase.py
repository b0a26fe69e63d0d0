# SPDX-License-Identifier: Apache-2.0
"""A node to be shown: two networks, an agent, pods, and an API server with SubnetPools. Its /etc, /run, /opt and /var/lib are others."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from kubenode.ipam.address import BITS
from kubenode.ipam.ranges import parse_subnet
from kubenode.pools.records import GROUP, NodeSubnet

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
from apiserver import base64_text, write_kubeconfig
from standin import Handler, StandInApiServer, answer

if TYPE_CHECKING:
    from collections.abc import Mapping

BINARIES = Path("/opt/kube-node")
START = 30.0  # seconds for the agent
KUBECONFIG = Path("/etc/kubernetes/admin.conf")
NET1 = "kube-node.nordix.org/net1"
NODE = {
    "kind": "Node",
    "metadata": {"name": "worker-1", "annotations": {NET1: "172.20.2.0/27,fd00::2:0:0/96"}},
    "spec": {"podCIDRs": ["10.244.1.0/24", "fd00:10:244:1::/64"]},
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
        "ipam": {"type": "kube-node", "annotation": NET1},
    },
}
FIRST, SECOND = NETWORKS
PODS = (  # with the seconds since their start, and whether they are in the second network, too
    ("kube-system/coredns-5d78c9869d-x2kqp", 3_200_000, False),
    ("kube-system/metrics-server-6f6cdbf67d-kb4zw", 820_000, False),
    ("web/shop-7c5ddbdf54-8hq2m", 204_000, True),
    ("web/shop-7c5ddbdf54-pl9rt", 51_200, True),
    ("web/cart-66b6c48dd5-zr7vd", 12_800, True),
    ("mail/postfix-0", 3_200, False),
    ("mail/dovecot-0", 800, False),
    ("build/runner-q6n8x", 200, False),
)
CACHES = 19  # pods more, in both networks: 22 of the second's 29 addresses are taken
BRIDGE_PLACES = (os.environ.get("CNI_TEST_PATH", ""), "/usr/lib/cni")
WORKERS = {"net1": 40, "net2": 6}  # nodes that have subnets of the pools


class Showcase:
    """All of it. `binaries`: what `./build.sh binaries` made."""

    def __init__(self, binaries: Path) -> None:
        self._stack = ExitStack()
        bridge = shutil.which("bridge", path=":".join(BRIDGE_PLACES))
        if bridge is None:
            sys.exit("showcase: there is no bridge plugin in $CNI_TEST_PATH or /usr/lib/cni (Debian: containernetworking-plugins)")
        for directory in ("/opt/cni/bin", "/etc/cni/net.d", "/etc/kubernetes", "/run/netns", "/run/kube-node", "/var/lib/cni/networks"):
            Path(directory).mkdir(parents=True, exist_ok=True)
        shutil.copy(bridge, "/opt/cni/bin/bridge")
        Path("/etc/kube-node").mkdir()
        Path("/etc/kube-node", FIRST).write_text(json.dumps(NETWORKS[FIRST]))
        # Where a person could have it: its path is shown.
        shutil.copytree(binaries, BINARIES, symlinks=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def bring_up(self) -> None:
        """Install the plugins, start an agent, and let pods come; and an API server with pools."""
        install = [f"{BINARIES}/kube-node", "install", "--node-name=worker-1", f"--conflist=/etc/kube-node/{FIRST}"]
        subprocess.run(install, check=True, capture_output=True)
        Path("/etc/cni/net.d", SECOND).write_text(json.dumps(NETWORKS[SECOND]))
        Path("/etc/cni/node.json").write_text(json.dumps(NODE))
        command = ["/opt/cni/bin/kube-node", "agent", "--node-file=/etc/cni/node.json", "--listen=none"]
        with Path("/run/agent.log").open("wb") as log:
            agent = subprocess.Popen(command, stdout=log, stderr=log)
        self._stack.callback(agent.wait)
        self._stack.callback(agent.terminate)
        end = time.monotonic() + START
        while not (Path("/run/kube-node/agent.sock").exists() and Path("/run/kube-node/node.json").exists()):
            if time.monotonic() > end:
                sys.exit(Path("/run/agent.log").read_text())
            time.sleep(0.05)
        for name, age, both in PODS:
            self._start(name, age, both=both)
        for index in range(CACHES):
            self._start(f"web/cache-{index}", 300 * (CACHES - index), both=True)
        server = self._stack.enter_context(StandInApiServer(Path("/run"), then=_pools))
        said = {"server": server.url, "certificate-authority-data": base64_text(server.authority.certificate)}
        write_kubeconfig(KUBECONFIG, said, {"token": "shown"})

    def break_something(self) -> None:
        """Let a pod leak, tear a file, take a plugin's right to be executed, and fill a network."""
        Path("/run/netns", f"cni-{identity(PODS[3][0])[:8]}").unlink()
        Path("/opt/cni/bin/bridge").chmod(0o644)
        for index in range(CACHES, CACHES + 3):
            self._start(f"web/cache-{index}", 60, both=True)
        torn = Path("/var/lib/cni/networks/k8snet/10.244.1.99")
        torn.touch(0o600)
        os.utime(torn, (time.time() - 90,) * 2)  # nobody is about to write it: the next ADD mends it

    def _start(self, pod: str, age: int, *, both: bool) -> None:
        """Start a pod, `age` seconds ago."""
        netns = Path("/run/netns", f"cni-{identity(pod)[:8]}")
        netns.touch()
        self._add(FIRST, pod, "eth0", netns, age)
        if both:
            self._add(SECOND, pod, "net1", netns, age)

    def _add(self, file: str, pod: str, ifname: str, netns: Path, age: int) -> None:
        content = NETWORKS[file]
        plugin = content["plugins"][0] if "plugins" in content else content
        netconf = {**plugin, "name": content["name"], "cniVersion": content["cniVersion"]}
        namespace, name = pod.split("/")
        cni = {
            "CNI_COMMAND": "ADD",
            "CNI_CONTAINERID": identity(pod),
            "CNI_IFNAME": ifname,
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


def identity(text: str) -> str:
    """Return what a container could be called, the same each time."""
    return hashlib.sha256(text.encode()).hexdigest()


def _pools(handler: Handler) -> None:
    """Answer as an API server in which the controller has served two pools."""
    kind = handler.path.partition("?")[0].rpartition("/")[2]
    items = {"subnetpools": [_pool("net1"), _pool("net2")], "nodesubnets": [one for name in WORKERS for one in _claims(name)]}.get(kind, [])
    answer({"kind": "List", "apiVersion": "v1", "metadata": {"resourceVersion": "1"}, "items": items})(handler)


def _networks(pool: str) -> dict[str, int]:
    """Return a pool's networks, and how many bits its nodes' subnets have more."""
    return {"net1": {"172.20.0.0/18": 6, "fd00:20::/48": 16}, "net2": {"172.21.0.0/22": 3}}[pool]


def _pool(name: str) -> dict[str, Any]:
    used = {cidr: min(WORKERS[name], 1 << bits) for cidr, bits in _networks(name).items()}
    numbers = [
        {"cidr": cidr, "total": 1 << bits, "allocated": used[cidr], "free": (1 << bits) - used[cidr]}
        for cidr, bits in _networks(name).items()
    ]
    cidrs = [{"cidr": cidr, "nodePrefix": parse_subnet(cidr).prefix + bits} for cidr, bits in _networks(name).items()]
    overlap = "172.21.0.0/22 overlaps 172.21.0.0/16, the service network"
    conditions = [
        {"type": "Ready", "status": "True", "reason": "Serving", "message": "nodes get subnets of this pool"},
        {"type": "Conflict", "status": "True", "reason": "ReservedOverlap", "message": overlap},
    ]
    status: Mapping[str, Any] = {"observedGeneration": 1, "cidrs": numbers, "conditions": conditions[: 1 if name == "net1" else 2]}
    metadata = {"name": name, "uid": name, "generation": 1, "resourceVersion": "1", "creationTimestamp": "2025-01-01T00:00:00Z"}
    return {"metadata": metadata, "spec": {"cidrs": cidrs, "annotation": f"{GROUP}/{name}"}, "status": status}


def _claims(pool: str) -> list[dict[str, Any]]:
    """Return what nodes have: the first two by hand before there was a pool, and of net2 one that has lost it."""
    found = []
    for cidr, bits in _networks(pool).items():
        network = parse_subnet(cidr)
        prefix = network.prefix + bits
        for index in range(WORKERS[pool]):
            subnet = network._replace(number=network.number + (index << BITS[network.version] - prefix), prefix=prefix)
            released = time.time() - 1500 if (pool, index) == ("net2", 4) else None
            worker = f"worker-{index + 1}"
            claim = NodeSubnet(subnet, pool, f"{GROUP}/{pool}", worker, worker, index in (0, 1), released, uid="1", version="1")
            found.append(claim.manifest())
    return found
