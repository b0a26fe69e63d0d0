# SPDX-License-Identifier: Apache-2.0
"""Networks of all nodes: a pool cuts them into blocks, and each node's annotation says of its block which network and gateway pods get."""

from __future__ import annotations

import json
import os
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
from controllerprocess import until
from hypothesis import given
from hypothesis import strategies as st
from ourprocess import KUBE_NODE
from settled import pool, settle

from kubenode.nodes.items import parse
from kubenode.pools.ledger import Ledger
from kubenode.pools.purge import purge
from kubenode.pools.records import NodeMetadata, NodeSubnet, parse_claim, parse_pool
from kubenode.pools.status import status

if TYPE_CHECKING:
    from pathlib import Path

    from corner import Corner

FLAT = {"cidr": "172.20.0.0/16", "nodePrefix": 28, "shared": True}
FLAT6 = {"cidr": "fd00:20::/64", "nodePrefix": 112, "shared": True}


def ledger_of(*cidrs: dict[str, Any], texts: tuple[str, ...] = (), nodes: int = 1) -> Ledger:
    """Return a ledger with a pool `p`, nodes with these annotations, and some without any."""
    ledger = Ledger()
    ledger.set_pool(parse_pool(pool("p", *cidrs)))
    for number, text in enumerate(texts):
        ledger.set_node(NodeMetadata(f"h{number}", f"u{number}", "1", {}, {"p": text}))
    for number in range(nodes):
        ledger.set_node(NodeMetadata(f"n{number:03}", f"v{number}", "1", {}, {}))
    settle(ledger)
    return ledger


def written(ledger: Ledger, prefix: str = "n") -> list[str]:
    return [node.annotations["p"] for name, node in sorted(ledger.nodes.items()) if name.startswith(prefix) and "p" in node.annotations]


def conflict(ledger: Ledger) -> str:
    return next(str(one["message"]) for one in status(ledger, ledger.pools["p"], 0.0)["conditions"] if one["type"] == "Conflict")


@pytest.mark.parametrize(
    ("cidr", "expected"),
    [
        (FLAT, ["172.20.0.0/28 of 172.20.0.0/16 via 172.20.0.1", "172.20.0.16/28 of 172.20.0.0/16 via 172.20.0.1"]),
        ({**FLAT, "gateway": "last"}, ["172.20.0.0/28 of 172.20.0.0/16 via 172.20.255.254"]),
        ({**FLAT, "gateway": "none"}, ["172.20.0.0/28 of 172.20.0.0/16 via none"]),
        ({**FLAT, "gateway": "172.20.9.9"}, ["172.20.0.0/28 of 172.20.0.0/16 via 172.20.9.9"]),
        ({**FLAT, "nodePrefix": 32}, ["172.20.0.2/32 of 172.20.0.0/16 via 172.20.0.1", "172.20.0.3/32 of 172.20.0.0/16 via 172.20.0.1"]),
        ({**FLAT, "nodePrefix": 31}, ["172.20.0.2/31 of 172.20.0.0/16 via 172.20.0.1"]),
        ({**FLAT, "nodePrefix": 16}, ["172.20.0.0/16"]),
        (FLAT6, ["fd00:20::/112 of fd00:20::/64 via fd00:20::1", "fd00:20::1:0/112 of fd00:20::/64 via fd00:20::1"]),
        ({**FLAT6, "nodePrefix": 128, "gateway": "fe80::1"}, ["fd00:20::1/128 of fd00:20::/64 via fe80::1"]),
        ({"cidr": "172.20.0.0/16", "nodePrefix": 24}, ["172.20.0.0/24", "172.20.1.0/24"]),
        ({"cidr": "172.20.0.0/16", "nodePrefix": 24, "gateway": "last"}, ["172.20.0.0/24 via 172.20.0.254"]),
        ({"cidr": "172.20.0.0/16", "nodePrefix": 24, "gateway": "none"}, ["172.20.0.0/24 via none"]),
    ],
)
def test_what_is_written(cidr: dict[str, Any], expected: list[str]) -> None:
    """A node's annotation has its block, the network of all nodes, and the gateway; a routed subnet is written as ever."""
    ledger = ledger_of(cidr, nodes=2)
    assert written(ledger)[: len(expected)] == expected
    assert conflict(ledger) == "no subnet is in two places"


@given(st.sampled_from([27, 28, 29]), st.integers(0, 3), st.sampled_from(["first", "last", "none", "10.0.0.2", "10.0.0.5", "10.0.0.6"]))
def test_all_that_is_given_is_of_use(prefix: int, more: int, gateway: str) -> None:
    """Each address of a network that may be given is in exactly one node's block, and no node gets a block with nothing in it."""
    cidr = {"cidr": f"10.0.0.0/{prefix}", "nodePrefix": 32 - more, "shared": True, "gateway": gateway}
    ledger = ledger_of(cidr, nodes=40)
    items = [item for text in written(ledger) for item in parse(text)]
    given_ = [number for item in items for number in range(item.start, item.end + 1) if not item.gateway or item.gateway.number != number]
    assert not any(item.is_empty for item in items)
    base, size = 10 << 24, 1 << 32 - prefix
    kept = {"first": 1, "last": size - 2, "none": 0}.get(gateway, int(gateway.rpartition(".")[2]) if "." in gateway else 0)
    assert sorted(given_) == [base + number for number in range(1, size - 1) if number != kept]
    (network,) = status(ledger, ledger.pools["p"], 0.0)["cidrs"]
    assert (network["allocated"], network["free"]) == (len(items), 0)


def test_adoption() -> None:
    """A block by hand is taken over in the pool's own form, however that is written; another gateway or network is a conflict."""
    ledger = ledger_of(FLAT, texts=("172.20.0.16/28  of 172.20.0.0/16",), nodes=1)
    assert [(str(claim.subnet), claim.adopted) for _, claim in sorted(ledger.claims)] == [
        ("172.20.0.0/28", False),
        ("172.20.0.16/28", True),
    ]
    assert written(ledger, "h") == ["172.20.0.16/28  of 172.20.0.0/16"]
    for text in ("172.20.0.16/28", "172.20.0.16/28 of 172.20.0.0/20", "172.20.0.16/28 of 172.20.0.0/16 via 172.20.0.2"):
        ledger = ledger_of(FLAT, texts=(text,), nodes=2)
        assert [str(subnet) for subnet, _ in sorted(ledger.claims)] == ["172.20.0.0/28", "172.20.0.32/28"], (
            "what a node has nobody else gets"
        )
        assert conflict(ledger) == (
            f"'{parse(text)[0]}' in annotation p of Node h0 is '172.20.0.16/28 of 172.20.0.0/16 via 172.20.0.1' by SubnetPool p"
        )


def test_another_gateway() -> None:
    """Nodes with a pool's old gateway are in conflict with the new one. Without its annotation such a node gets the new."""
    ledger = ledger_of(FLAT, nodes=1)
    ledger.set_pool(parse_pool(pool("p", {**FLAT, "gateway": "last"})))
    settle(ledger)
    assert written(ledger) == ["172.20.0.0/28 of 172.20.0.0/16 via 172.20.0.1"]
    assert "is '172.20.0.0/28 of 172.20.0.0/16 via 172.20.255.254' by SubnetPool p" in conflict(ledger)
    ledger.set_node(NodeMetadata("n000", "v0", "2", {}, {}))
    for claim in [claim for _, claim in ledger.claims]:
        ledger.recent_writes.add(claim.subnet, 0.0)
    settle(ledger)
    assert written(ledger) == ["172.20.0.0/28 of 172.20.0.0/16 via 172.20.255.254"]
    assert conflict(ledger) == "no subnet is in two places"


def test_two_pools_of_one_network() -> None:
    """Two pools may have one network in the same form; one that would give what the older keeps gives nothing."""
    for form, ready in (({}, True), ({"gateway": "last"}, False), ({"shared": False}, False), ({"cidr": "172.20.0.0/17"}, False)):
        ledger = ledger_of(FLAT, nodes=0)
        ledger.set_pool(parse_pool(pool("q", {**FLAT, **form}))._replace(created="2026"))
        said = status(ledger, ledger.pools["q"], 0.0)["conditions"][0]
        assert (said["status"] == "True") is ready
        assert ready or "which is older and has another cidr, shared or gateway" in said["message"]


def test_purge() -> None:
    """What a deleted pool has left goes from annotations, and what a person has written stays, gateway and all."""
    ledger = ledger_of(FLAT, FLAT6, nodes=1)
    (node,) = ledger.nodes.values()
    text = f"{node.annotations['p']}, 10.0.0.0/24 via none"
    annotate, delete = purge("p", [claim for _, claim in ledger.claims], {node.name: node._replace(annotations={"p": text})})
    assert [write.values for write in annotate] == [{"p": "10.0.0.0/24 via none"}]
    assert len(delete) == 2


def test_a_claim_of_one_address() -> None:
    """A NodeSubnet may be of one address."""
    for text in ("172.20.0.2/32", "fd00::2/128"):
        claim = NodeSubnet(
            parse(f"{text} of {'fd00::/64' if ':' in text else '172.20.0.0/16'}")[0].block, "p", "k", "n", "u", uid="x", version="7"
        )
        assert parse_claim(claim.manifest()) == claim


@pytest.mark.usefixtures("controller")
def test_by_the_controller(corner: Corner, admin: Path) -> None:
    """Nodes get blocks of one address of both families, each once; `kube-node pools` shows of what, and with which gateway."""
    nodes = [corner.node(name) for name in "ab"]
    block6 = {"cidr": "fd00:20::/64", "nodePrefix": 128, "shared": True, "gateway": "none"}
    pool = corner.pool("net", [{"cidr": "172.20.0.0/16", "nodePrefix": 32, "shared": True, "gateway": "172.20.0.2"}, block6])
    until(lambda: all(corner.annotation(node) for node in nodes))
    assert sorted(str(corner.annotation(node)) for node in nodes) == [
        "172.20.0.1/32 of 172.20.0.0/16 via 172.20.0.2,fd00:20::1/128 of fd00:20::/64 via none",
        "172.20.0.3/32 of 172.20.0.0/16 via 172.20.0.2,fd00:20::2/128 of fd00:20::/64 via none",
    ]
    assert sorted(corner.claims()) == ["172.20.0.1/32", "172.20.0.3/32", "fd00:20::1/128", "fd00:20::2/128"]
    until(lambda: corner.status(pool).get("allocated") == 4)
    command = [str(KUBE_NODE), "pools", f"--kubeconfig={admin}"]
    shown = subprocess.run(command, check=True, capture_output=True, text=True, env={**os.environ, "COLUMNS": "200"}).stdout
    assert "/32 of one network, via 172.20.0.2 " in shown
    assert "/128 of one network, via none " in shown
    found = json.loads(subprocess.run([*command, pool, "-o", "json"], check=True, capture_output=True, text=True).stdout)
    assert [one["gateway"] for one in found["cidrs"]] == ["172.20.0.2", "none"]
