# SPDX-License-Identifier: Apache-2.0
"""PURE. Addresses that a node's agent reports, and that the node was not given: after a restore, or by an agent that is wrong.

All of them are kept from other nodes, however many they are: what a truthful agent reports is in use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kubenode.pools.status import some
from kubenode.pools.writes import REPORTED, Conflict

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from kubenode.ipam.ranges import Subnet
    from kubenode.pools.ledger import Ledger
    from kubenode.pools.records import NodeMetadata


def beside(ledger: Ledger, name: str) -> Iterator[tuple[Subnet, str, bool]]:
    """Yield what a node reports and none of its claims covers, each with its annotation; True where it is outside of the items."""
    report = ledger.reports.get(name)
    for subnet, key, is_outside in report.held() if report else ():
        mine = (held for held, claim in ledger.claims.overlapping(subnet) if claim.node == name)
        if not any(held.prefix <= subnet.prefix for held in mine):
            yield subnet, key, is_outside


def reported(ledger: Ledger, node: NodeMetadata, has: Collection[Subnet]) -> Iterator[Conflict]:
    """Yield a conflict for each annotation of whose pools the node holds more than it was given. `has`: what its annotations have."""
    found: dict[str, set[Subnet]] = {}
    for subnet, key, _ in beside(ledger, node.name):
        if not any(mine.prefix <= subnet.prefix and mine.overlaps(subnet) for mine in has):  # another conflict, or nearly taken over
            found.setdefault(key, set()).add(subnet)
    for key, subnets in found.items():
        blocks = {(pool.name, block) for pool in ledger.by_key.get(key, ()) for block in pool.blocks}
        held = {(name, block.around(subnet)) for name, block in blocks for subnet in subnets if block.cidr.overlaps(subnet)}
        if held:
            text = some([_described(ledger, one) for one in sorted({one for _, one in held})], ", ")
            said = f"the agent of Node {node.name} reports addresses of {text}, which the node was not given"
            names = tuple(sorted({name for name, _ in held}))
            yield Conflict(node.name, node.uid, key, REPORTED, f"{said}: no other node gets them until it reports them no more", names)


def _described(ledger: Ledger, subnet: Subnet) -> str:
    claim = ledger.claims.get(subnet)
    return f"{subnet} of Node {claim.node}" if claim else str(subnet)
