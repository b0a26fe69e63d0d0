# SPDX-License-Identifier: Apache-2.0
"""From a pool to a pod: the second interface of a pod, as Multus would have it made, out of what the controller gave to the node."""

from __future__ import annotations

from ipaddress import ip_interface, ip_network
from typing import TYPE_CHECKING, Any

import pytest
from controllerprocess import until

if TYPE_CHECKING:
    from pathlib import Path

    from corner import Corner
    from podnet import PodNet

NET = {"cidr": "172.20.0.0/20", "nodePrefix": 24, "exclude": ["172.20.0.0/24"]}


@pytest.mark.usefixtures("controller")
@pytest.mark.parametrize("plugin", ["bridge", "macvlan"])
def test_a_second_interface(
    corner: Corner, podnet: PodNet, admin: Path, cni_bin: Path, binaries: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, plugin: str
) -> None:
    """A pod's second interface gets an address of the node's subnet; a family that the pool gains is there at the next ADD."""
    node = corner.node("a")
    monkeypatch.setenv("NODE_NAME", node)
    corner.pool("net", [NET])
    until(lambda: corner.annotation(node) == "172.20.1.0/24")
    where = {"bridge": podnet.bridge} if plugin == "bridge" else {"master": podnet.uplink()}
    ipam = {
        "type": "kube-node",
        "annotation": corner.key,
        "kubeconfig": str(admin),
        "dataDir": str(tmp_path / "networks"),
        "refreshAfter": 0,
    }
    netconf: dict[str, Any] = {"cniVersion": "1.0.0", "name": "net1", "type": plugin, **where, "ipam": ipam}
    search = f"{binaries}:{cni_bin}"
    first = podnet.add(netconf, podnet.pod(), ifname="net1", cni_path=search)
    (address,) = [item["address"] for item in first.json["ips"]]
    assert ip_interface(address) in ip_network("172.20.1.0/24")
    corner.pool("net", [NET, {"cidr": "fd00:20::/60", "nodePrefix": 64}])
    until(lambda: corner.annotation(node) == "172.20.1.0/24,fd00:20::/64")
    second = podnet.add(netconf, podnet.pod(), ifname="net1", cni_path=search)
    four, six = [ip_interface(item["address"]) for item in second.json["ips"]]
    assert four in ip_network("172.20.1.0/24")
    assert six in ip_network("fd00:20::/64")
