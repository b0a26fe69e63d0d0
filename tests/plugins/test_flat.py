# SPDX-License-Identifier: Apache-2.0
"""Networks of all nodes: the annotation gives a node a block of one, by hand or by a controller."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from callplugin import Network, NetworkMaker, ViewWriter

KEY = "kube-node.nordix.org/net1"
BLOCK = "172.20.2.4/30 of 172.20.0.0/16 via 172.20.0.1"


def write(directory: Path, text: str) -> None:
    (directory / "node.json").write_text(json.dumps({"kind": "Node", "metadata": {"name": "n", "annotations": {KEY: text}}}))


def addresses(net: Network, **how: Any) -> list[dict[str, Any]]:
    answer = net.call("ADD", **how)
    assert answer.code == 0, answer.stdout
    ips: list[dict[str, Any]] = answer.json["ips"]
    return ips


def test_a_block(network: NetworkMaker, view: ViewWriter) -> None:
    """A pod gets an address of the block, with the network's prefix length and gateway; the next block serves when the first is full."""
    view(annotations={KEY: f"{BLOCK}, fd00:20::2:0/112 of fd00:20::/64, 172.20.9.0/32 of 172.20.0.0/16"})
    net = network(annotation=KEY)
    found = [addresses(net, container_id=f"c{number}") for number in range(5)]
    assert found[0] == [
        {"address": "172.20.2.4/16", "gateway": "172.20.0.1"},
        {"address": "fd00:20::2:0/64", "gateway": "fd00:20::1"},
    ]
    assert [ips[0]["address"] for ips in found] == [*(f"172.20.2.{n}/16" for n in range(4, 8)), "172.20.9.0/16"]
    error = net.error(container_id="c5")
    assert "no IP addresses available in range set: 172.20.2.4-172.20.2.7,172.20.9.0-172.20.9.0" in error["msg"]
    net.ok("DEL", "c4")
    assert addresses(net, container_id="c5")[0]["address"] == "172.20.9.0/16"


def test_another_gateway(network: NetworkMaker, view: ViewWriter) -> None:
    """A routed subnet may have another gateway than its first address, which is then a pod's."""
    view(annotations={KEY: "172.20.2.0/30 via 172.20.2.2"})
    assert addresses(network(annotation=KEY)) == [{"address": "172.20.2.1/30", "gateway": "172.20.2.2"}]


@pytest.mark.parametrize(
    ("version", "text", "expected"),
    [
        ("1.1.0", "172.20.2.0/30 via none", {"ips": [{"address": "172.20.2.1/30"}]}),
        ("1.0.0", "172.20.0.0/31 of 172.20.0.0/16 via none", {"ips": [{"address": "172.20.0.1/16"}]}),
        ("0.4.0", "fd00::/64 via none", {"ips": [{"version": "6", "address": "fd00::1/64"}], "dns": {}}),
        ("0.2.0", "172.20.2.0/30 via none", {"ip4": {"ip": "172.20.2.1/30"}, "dns": {}}),
    ],
)
def test_without_a_gateway(embedded: NetworkMaker, view: ViewWriter, version: str, text: str, expected: dict[str, Any]) -> None:
    """With `via none` the result has no gateway, in each version, and no address is kept for one."""
    view(annotations={KEY: text})
    assert embedded("kube-node", version, annotation=KEY).call("ADD").json == {"cniVersion": version, **expected}


def test_a_delegate_always_has_a_gateway(network: NetworkMaker, view: ViewWriter) -> None:
    """The reference host-local cannot do without a gateway: `via none` is refused with it, and nothing is reserved."""
    view(annotations={KEY: "172.20.2.0/24 via none"})
    net = network(annotation=KEY, delegate="host-local")
    error = net.error()
    assert (error["code"], error["msg"]) == (
        7,
        "a range without a gateway (via none) is not known to delegate host-local; it needs embedded",
    )
    assert net.reserved() == []


def test_closing(network: NetworkMaker, tmp_path: Path) -> None:
    """Of a block that is closing nothing new is given, whatever a pod asks for; what is there is checked, kept by GC, and released."""
    write(tmp_path, f"{BLOCK}, 172.20.9.0/30 of 172.20.0.0/16")
    net = network(annotation=KEY, nodeFile=f"{tmp_path}/node.json")
    assert [net.add(f"c{number}") for number in range(2)] == [["172.20.2.4"], ["172.20.2.5"]]
    write(tmp_path, f"{BLOCK} closing, 172.20.9.0/30 of 172.20.0.0/16")
    assert [net.add(f"c{number}") for number in range(2, 6)] == [[f"172.20.9.{number}"] for number in range(4)]
    assert net.error(container_id="c6")["code"] != 0
    assert net.error(container_id="c0")["code"] in {110, 111}  # a second ADD
    net.ok("CHECK", "c0")
    net.gc("c0", "c1", "c2", "c3", "c4")
    net.ok("STATUS")
    assert net.reserved() == ["172.20.2.4", "172.20.2.5", "172.20.9.0", "172.20.9.1", "172.20.9.2"]
    net.ok("DEL", "c0")
    assert net.error(container_id="c7", args={"cni": {"ips": ["172.20.2.4"]}})["code"] != 0
    assert net.add("c7") == ["172.20.9.3"]


def test_a_request_of_what_is_closing(embedded: NetworkMaker, tmp_path: Path) -> None:
    """A pod that asks for an address of a closing block is told why it does not get it; the second ADD of one that has one is an error."""
    write(tmp_path, BLOCK)
    net = embedded(annotation=KEY, nodeFile=f"{tmp_path}/node.json")
    net.add()
    write(tmp_path, f"{BLOCK} closing,172.20.9.0/30 of 172.20.0.0/16")
    error = net.error(container_id="c2", args={"cni": {"ips": ["172.20.2.5"]}})
    assert (error["code"], error["msg"].rpartition(": ")[2]) == (112, "requested ip 172.20.2.5 is in a closing subnet")
    assert net.error()["code"] == 111
    assert net.reserved() == ["172.20.2.4"]


def test_everything_is_closing(network: NetworkMaker, view: ViewWriter) -> None:
    """Where all subnets of a family are closing an ADD fails and says so; no pod starts with the other family alone."""
    view(annotations={KEY: f"fd00::/64, {BLOCK} closing"})
    net = network(annotation=KEY)
    error = net.error()
    assert error["code"] == 110
    assert "no new address is given of 172.20.2.4" in error["msg"]
    assert "closing" in error["msg"]
    assert "take the word closing out of its annotation" in error["details"]
    assert net.reserved() == []
    net.ok("STATUS")
    net.ipam["statusWhenFull"] = "error"
    error = net.error("STATUS")
    assert (error["code"], error["msg"].rpartition(": ")[2]) == (50, "all of it is closing or excluded")
