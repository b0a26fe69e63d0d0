# SPDX-License-Identifier: Apache-2.0
"""A network of all nodes, of which this one has a block, as `status`, `map` and `doctor` show it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from node import SeededNode

KEY = "example.com/net1"
BLOCKS = "172.20.2.0/28 of 172.20.0.0/16 via 172.20.0.1, 172.20.200.0/30 of 172.20.0.0/16, fd00:20::2:0/112 of fd00:20::/64 via none"


@pytest.fixture
def flat(seeded: SeededNode) -> dict[str, Any]:
    """Return the configuration of a network with two blocks, a pod in the first, which is closing then."""
    seeded.view(["10.1.0.0/24"], {KEY: BLOCKS})
    conf = seeded.conf("net1", "macvlan", annotation=KEY)
    seeded.configure(conf, "20-net1.conf")
    assert seeded.add(conf, "c1", "web/shop") == ["172.20.2.0", "fd00:20::2:0"]
    seeded.view(["10.1.0.0/24"], {KEY: BLOCKS.replace("172.20.0.1,", "172.20.0.1 closing,")})
    return conf


@pytest.mark.usefixtures("flat")
def test_status(seeded: SeededNode) -> None:
    """The node's blocks are shown as such, with the network that they are of; what is closing says so, and does not count as free."""
    shown = seeded.run_command("status", env={"COLUMNS": "120"}).stdout
    for line in ("172.20.2.0-172.20.2.15 of 172.20.0.0/16, closing", "172.20.200.0-172.20.200.3 of 172.20.0.0/16", "0 of 4"):
        assert line in shown
    (network,) = json.loads(seeded.run_command("status", "-o", "json").stdout)["networks"]
    assert [(one["closing"], one["total"], one["used"]) for one in network["rangeSets"]] == [
        (["172.20.2.0-172.20.2.15"], 4, 0),
        ([], 65536, 1),
    ]


@pytest.mark.usefixtures("flat")
@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("172.20.2.7", "it is closing"),
        ("172.20.200.3", "which may give it"),
        ("172.20.0.1", "whose gateway it is"),
        ("172.20.9.9", "outside of its ranges"),
    ],
)
def test_whose(seeded: SeededNode, address: str, said: str) -> None:
    """An address that nobody here has is another node's, the gateway's, or one that is given, or not any more."""
    assert said in seeded.run_command("status", address, env={"COLUMNS": "200"}).stdout


@pytest.mark.usefixtures("flat")
@pytest.mark.parametrize("target", ["net1", "172.20.0.0/16"])
def test_map(seeded: SeededNode, target: str) -> None:
    """Each block has a picture of its own: of a large network most is other nodes'."""
    drawn = seeded.run_command("map", target, "-o", "json").json["maps"]
    found = {one["subnet"]: {cell["kind"] for cell in one["cells"]} for one in drawn}
    expected = {"172.20.2.0/28": {"held", "not to be given"}, "172.20.200.0/30": set(), "fd00:20::2:0/112": {"held"}}
    assert found == {subnet: kinds for subnet, kinds in expected.items() if target == "net1" or "." in subnet}


@pytest.mark.usefixtures("flat")
def test_doctor(seeded: SeededNode) -> None:
    """Doctor names the blocks; where all of a family is closing it says that no address is left."""
    checks = seeded.run_command("doctor", "-o", "json").json["checks"]
    assert "172.20.200.0-172.20.200.3 of 172.20.0.0/16" in json.dumps(checks)
    assert [one["what"] for one in checks if one["check"] == "exhaustion" and one["state"] == "failure"] == []
    seeded.view(["10.1.0.0/24"], {KEY: "172.20.2.0/28 of 172.20.0.0/16 closing"})
    checks = seeded.run_command("doctor", "-o", "json").json["checks"]
    (wrong,) = [one for one in checks if one["check"] == "exhaustion"]
    assert "all of it is closing or excluded" in json.dumps(wrong)


@pytest.mark.parametrize(
    ("text", "kind", "said"),
    [
        ("172.20.2.0/28 of 172.20.0.0/16", {"isGateway": True}, "takes its router's address 172.20.0.1 on each node"),
        (
            "172.20.2.0/24 via none",
            {"isDefaultGateway": True},
            "172.20.2.0/24 has no gateway, and a bridge with isGateway takes its first address",
        ),
        ("172.20.2.0/24 via 172.20.2.9", {"isGateway": True}, ""),
        ("172.20.2.0/28 of 172.20.0.0/16", {}, ""),
    ],
)
def test_a_bridge_with_the_gateways_address(seeded: SeededNode, text: str, kind: dict[str, bool], said: str) -> None:
    """A bridge that would take a pod's address, or the address of the one router on each node, is found."""
    seeded.view(["10.1.0.0/24"], {KEY: text})
    seeded.configure(seeded.conf("net1", annotation=KEY), "20-net1.conf", **kind)
    found = [one for one in seeded.run_command("doctor", "-o", "json").json["checks"] if one["check"] == "gateways"]
    assert [one["state"] for one in found] == ["failure" if said else "ok"]
    assert said in found[0]["what"]
