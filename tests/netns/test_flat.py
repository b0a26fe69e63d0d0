# SPDX-License-Identifier: Apache-2.0
"""A network of all nodes: two nodes on one VLAN under the reference macvlan, each with a block of it, and a router."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from podnet import Pod, PodNet, ip
from wanting import want

if TYPE_CHECKING:
    from collections.abc import Iterator

    from podnet import Answer

pytestmark = pytest.mark.ways("standalone")  # a node here has no agent
PAGE = Path(__file__).resolve().parents[2] / "docs/how-to/flat-network.md"
MASTER = "eth1"
ROUTER = ("172.30.0.1/16", "fd00:30::1/64")
MULTUS = "IgnoreUnknown=true;K8S_POD_NAMESPACE=default;K8S_POD_NAME={0};K8S_POD_INFRA_CONTAINER_ID={0};K8S_POD_UID=u-{0}"


class Vlan:
    """A bridge that stands for the VLAN, and the router on it, in a network namespace of its own."""

    def __init__(self, podnet: PodNet) -> None:
        self.bridge = podnet.bridge
        ip("link", "add", self.bridge, "type", "bridge")
        ip("link", "set", self.bridge, "up")
        self.router = podnet.pod()
        self._count = 0
        self.connect(self.router)
        for address in (*ROUTER, "fe80::1/64"):
            ip("-n", self.router.name, "addr", "add", address, "dev", MASTER, *(["nodad"] if ":" in address else []))

    def connect(self, host: Pod) -> None:
        """Give a host an interface on the VLAN."""
        self._count += 1
        port = f"{self.bridge[:8]}p{self._count}"
        ip("link", "add", port, "type", "veth", "peer", "name", MASTER, "netns", host.name)
        ip("link", "set", port, "master", self.bridge, "up")
        ip("-n", host.name, "link", "set", MASTER, "up")


class VlanNode:
    """A node: where its plugins run, what its Node says, and where it keeps what it gives."""

    def __init__(self, podnet: PodNet, vlan: Vlan, directory: Path, annotation: str) -> None:
        self.podnet, self._run = podnet, directory / "run"
        self._run.mkdir(parents=True)
        (directory / "var-lib").mkdir()
        vlan.connect(podnet.own_host(directory / "var-lib"))
        podnet.data_dir = directory / "var-lib/cni/networks"
        manifest = {"kind": "Node", "metadata": {"name": directory.name, "annotations": {"kube-node.nordix.org/vlan30": annotation}}}
        (self._run / "node.json").write_text(json.dumps(manifest))

    def call(self, command: str, conf: str, pod: Pod, path: str) -> Answer:
        """Call the network's plugin as Multus does."""
        how: dict[str, Any] = {"ifname": "net1", "args": MULTUS.format(pod.name), "cni_path": path}
        answer = self.podnet.call(command, conf, pod, **how, environment={"KUBE_NODE_RUN_DIR": str(self._run)})
        assert answer.code == 0, answer.stdout + answer.stderr
        return answer


@pytest.fixture
def nodes(podnet: PodNet, cni_bin: Path, tmp_path: Path) -> Iterator[tuple[Vlan, PodNet, PodNet]]:
    """Return a VLAN, and two places for nodes."""
    want("network namespaces", "ping")
    vlan = Vlan(podnet)
    with PodNet(cni_bin, tmp_path / "one") as one, PodNet(cni_bin, tmp_path / "two") as two:
        yield vlan, one, two


def definition(**ipam: str) -> str:
    """Return the configuration of the page's NetworkAttachmentDefinition, as Multus hands it on."""
    (text,) = re.findall(r"  config: \|\n((?:    .*\n)+)", PAGE.read_text())
    conf = json.loads(text)
    return json.dumps({**conf, "ipam": {**conf["ipam"], **ipam}})


@pytest.mark.parametrize("delegate", ["embedded", "host-local"])
def test_pods_of_two_nodes(nodes: tuple[Vlan, PodNet, PodNet], binaries: Path, cni_bin: Path, tmp_path: Path, delegate: str) -> None:
    """Pods of two nodes reach each other and the router over both families, as each has the network's prefix length."""
    vlan, *places = nodes
    conf, path = definition(delegate=delegate), f"{cni_bin}:{binaries}"
    blocks = [
        "172.30.0.0/28 of 172.30.0.0/16 via 172.30.0.1, fd00:30::2:0/112 of fd00:30::/64 via fe80::1",
        "172.30.200.0/32 of 172.30.0.0/16 via 172.30.0.1, fd00:30::3:0/128 of fd00:30::/64 via fe80::1",
    ]
    found = [VlanNode(place, vlan, tmp_path / f"node-{number}", blocks[number]) for number, place in enumerate(places)]
    pods = [node.podnet.pod() for node in found]
    answers = [node.call("ADD", conf, pod, path) for node, pod in zip(found, pods, strict=True)]
    assert [[(one["address"], one["gateway"]) for one in answer.json["ips"]] for answer in answers] == [
        [("172.30.0.2/16", "172.30.0.1"), ("fd00:30::2:0/64", "fe80::1")],
        [("172.30.200.0/16", "172.30.0.1"), ("fd00:30::3:0/64", "fe80::1")],
    ]
    addresses = [places[0].addresses(pod, "net1") for pod in pods]
    assert addresses == [answer.addresses for answer in answers]
    for pod, others in zip(pods, reversed(addresses), strict=True):
        for address in (*others, *(text.partition("/")[0] for text in ROUTER)):
            places[0].ping(pod, address)
    for address in (*addresses[0], *addresses[1]):
        places[0].ping(vlan.router, address)
    for node, pod, answer in zip(found, pods, answers, strict=True):
        node.call("CHECK", json.dumps({**json.loads(conf), "prevResult": answer.json}), pod, path)
        node.call("DEL", conf, pod, path)
        assert node.podnet.reservations("vlan30") == []


def test_without_a_router(nodes: tuple[Vlan, PodNet, PodNet], binaries: Path, cni_bin: Path, tmp_path: Path) -> None:
    """With `via none` a pod has no gateway, and may have the address that would be one."""
    vlan, one, _ = nodes
    ip("-n", vlan.router.name, "addr", "flush", "dev", MASTER)
    node = VlanNode(one, vlan, tmp_path / "node", "172.30.0.0/31 of 172.30.0.0/16 via none, fd00:30::1/128 of fd00:30::/64 via none")
    pod = one.pod()
    answer = node.call("ADD", definition(), pod, f"{cni_bin}:{binaries}")
    assert [sorted(each) for each in answer.json["ips"]] == [["address", "interface"]] * 2
    assert one.addresses(pod, "net1") == ["172.30.0.1", "fd00:30::1"]
    node.call("DEL", definition(), pod, f"{cni_bin}:{binaries}")
