# SPDX-License-Identifier: Apache-2.0
"""`kube-node map POOL`: each node's subnet, or each block of them, in its cell."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from typing import TYPE_CHECKING, Any

import pytest
from corner import APIS, Corner

from kubenode.inspection.mapping import Kind, draw_pool
from kubenode.ipam.address import parse_address
from kubenode.ipam.ranges import parse_subnet
from kubenode.pools.ledger import Ledger
from kubenode.pools.records import NodeMetadata, NodeSubnet, parse_pool

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from apiserver import ApiServer
    from node import SeededNode

SVG = "{http://www.w3.org/2000/svg}"


def ledger_of(cidr: str, node_prefix: int, claims: dict[str, float | None], exclude: tuple[str, ...] = (), by_hand: str = "") -> Ledger:
    """Return a ledger with a pool and claims, each with the time when it was released."""
    ledger = Ledger()
    block = {"cidr": cidr, "nodePrefix": node_prefix, "exclude": exclude}
    ledger.set_pool(parse_pool({"metadata": {"name": "p"}, "spec": {"annotation": "k", "cidrs": [block]}}))
    for number, (text, released) in enumerate(claims.items()):
        ledger.set_claim(NodeSubnet(parse_subnet(text), "p", "k", f"n{number}", "u", released=released, uid="c", version="1"))
    if by_hand:
        ledger.set_node(NodeMetadata("hand", "u", "1", {}, {"k": by_hand}))
    return ledger


def test_what_a_cell_is() -> None:
    """A subnet is free, given, excluded, waits to be free, or is in conflict, and it is told whose it is."""
    claims = {"10.0.0.0/28": None, "10.0.0.16/28": 5.0, "10.0.0.240/28": None}
    ledger = ledger_of("10.0.0.0/24", 28, claims, ("10.0.0.192/26", "10.0.0.40"), by_hand="10.0.0.64/27")
    picture, names = draw_pool(ledger, ledger.pools["p"], ledger.pools["p"].blocks[0], 1024)
    kinds = {cell.first.number & 255: cell.kind for cell in picture.cells if cell.kind is not Kind.FREE}
    assert kinds == {
        0: Kind.HELD, 16: Kind.RELEASED, 32: Kind.EXCLUDED, 64: Kind.CONFLICT, 80: Kind.CONFLICT,
        192: Kind.EXCLUDED, 208: Kind.EXCLUDED, 224: Kind.EXCLUDED, 240: Kind.CONFLICT,
    }  # fmt: skip
    assert (len(picture.cells), picture.block, picture.total) == (16, 1, 11)
    first, waiting = parse_address("10.0.0.0"), parse_address("10.0.0.16")
    assert first
    assert waiting
    assert names[first] == "10.0.0.0/28 of Node n0"
    assert names[waiting] == "10.0.0.16/28 of Node n1, which no longer has it"


@pytest.mark.parametrize(
    ("cidr", "node_prefix", "claims", "shown", "block", "cells"),
    [
        ("10.0.0.0/16", 24, ["10.0.3.0/24"], "10.0.0.0/16", 1, 256),
        ("fd00::/48", 64, ["fd00:0:0:3::/64"], "fd00::/56", 1, 256),
        ("fd00::/48", 64, ["fd00:0:0:3::/64", "fd00:0:0:ffff::/64"], "fd00::/48", 64, 1024),
        ("fd00::/8", 126, ["fd00::4/126"], "fd00::/118", 1, 256),
    ],
)
def test_what_is_shown(cidr: str, node_prefix: int, claims: list[str], shown: str, block: int, cells: int) -> None:
    """All that is given is shown, also of a network with more subnets than anybody counts, even if a part that large is excluded."""
    version_of = parse_subnet(cidr)
    exclude = ("fdff::/16",) if version_of.prefix == 8 else ()
    ledger = ledger_of(cidr, node_prefix, dict.fromkeys(claims), exclude)
    picture, _ = draw_pool(ledger, ledger.pools["p"], ledger.pools["p"].blocks[0], 1024)
    assert (str(picture.shown), picture.block, len(picture.cells)) == (shown, block, cells)
    assert sum(cell.held for cell in picture.cells) == len(claims)


@pytest.fixture
def pool(crds: ApiServer) -> Iterator[tuple[Corner, str]]:
    """Return a pool of which one subnet is given."""
    corner = Corner(crds)
    name = corner.pool("net", [{"cidr": "172.20.0.0/16", "nodePrefix": 24}])
    spec: dict[str, Any] = {"cidr": "172.20.3.0/24", "pool": name, "annotation": corner.key, "node": "worker-1", "nodeUID": "u"}
    claim = {"apiVersion": "kube-node.nordix.org/v1alpha1", "kind": "NodeSubnet", "metadata": {"name": "172.20.3.0-24"}, "spec": spec}
    crds.request("POST", f"{APIS}/nodesubnets", claim)
    yield corner, name
    corner.clear()


def test_the_command(pool: tuple[Corner, str], seeded: SeededNode, tmp_path: Path) -> None:
    """A pool is drawn in the terminal, as SVG and as JSON; one that is not there is named, with those that are."""
    corner, name = pool
    admin = corner.server.kubeconfig(tmp_path / "admin", corner.server.certificate_user("admin", "system:masters"))
    where = f"--kubeconfig={admin}"
    drawn = seeded.run_command("map", f"pool/{name}", where)
    lines = drawn.stdout.splitlines()
    assert lines[0].split() == [f"pool/{name}", "172.20.0.0/16"]
    assert "1 of 256 held, a cell is a node's subnet" in lines[1]
    assert lines[2].split()[1].startswith("···█·")
    assert seeded.run_command("map", name, where).stdout == drawn.stdout
    (picture,) = seeded.run_command("map", f"pool/{name}", where, "-o", "json").json["maps"]
    assert picture["cells"] == [{"first": "172.20.3.0", "kind": "held", "held": 1, "size": 1}]
    titles = [found.text for found in ET.fromstring(seeded.run_command("map", f"pool/{name}", where, "--svg=-").stdout).iter(f"{SVG}title")]
    assert "172.20.3.0: 172.20.3.0/24 of Node worker-1" in titles
    missing = seeded.run_command("map", "pool/nowhere", where)
    assert missing.code
    assert "there is no SubnetPool nowhere" in missing.stderr
    assert name in missing.stderr
