# SPDX-License-Identifier: Apache-2.0
"""PURE. Annotations of a node as the controller reads them: the subnets, the readable part of a broken one, and subnets to adopt."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from kubenode.ipam.ranges import RangeError
from kubenode.nodes.items import Item, parse_item
from kubenode.pools.records import noted

if TYPE_CHECKING:
    from collections.abc import Iterable

    from kubenode.ipam.ranges import Subnet
    from kubenode.pools.records import NodeMetadata, NodeSubnet, SubnetPool
    from kubenode.pools.space import SubnetMap


class Text(NamedTuple):
    """A parsed annotation. `problem`: the error in it; then `items` are the readable part."""

    items: tuple[Item, ...] = ()
    problem: str = ""

    @property
    def subnets(self) -> tuple[Subnet, ...]:
        """The subnets, or blocks, of the items."""
        return tuple(item.block for item in self.items)


def read(text: str | None) -> Text:
    """Parse an annotation, or its readable part."""
    if not text:
        return Text()
    try:
        return Text(noted(text))
    except RangeError as error:
        return Text(_legible(text), str(error))


def is_closing(node: NodeMetadata, key: str) -> bool:
    """Say whether an annotation has a closing item, or may have one because it is unreadable."""
    return "closing" in node.annotations.get(key, "")


def adoptable(node: NodeMetadata, text: Text, pools: Iterable[SubnetPool], claims: SubnetMap[NodeSubnet]) -> dict[Subnet, SubnetPool]:
    """Return the subnets to adopt from an annotation, each with its pool.

    The pool serves the node and would write the same item, and the node has no other subnet of that pool and family.
    """
    if text.problem:
        return {}
    mine = {subnet: claim for subnet in text.subnets if (claim := claims.get(subnet)) and claim.node == node.name}
    taken = {(claim.pool, subnet.version) for subnet, claim in mine.items()}
    found: dict[Subnet, SubnetPool] = {}
    for item in text.items:
        subnet = item.block
        for pool in pools if subnet not in mine else ():
            cut = any(block.cuts(subnet) and block.writes(item) for block in pool.blocks)
            if cut and pool.serves(node) and (pool.name, subnet.version) not in taken:
                found[subnet] = pool
                taken.add((pool.name, subnet.version))
                break
    return found


def _legible(text: str) -> tuple[Item, ...]:
    found: dict[Subnet, Item] = {}
    for part in text.split(","):
        try:
            item = parse_item(part.strip())
        except RangeError:
            continue
        found.setdefault(item.block, item)
    return tuple(found.values())
