"""PURE. Annotations of a node as the controller reads them: the subnets, what can be read of a broken one, and what is to be taken over."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from kubenode.ipam.ranges import RangeError
from kubenode.nodes.items import Item, parse_item
from kubenode.pools.records import noted

if TYPE_CHECKING:
    from collections.abc import Iterable

    from kubenode.ipam.ranges import Subnet
    from kubenode.pools.records import Node, NodeSubnet, SubnetPool
    from kubenode.pools.space import SubnetMap


class Text(NamedTuple):
    """An annotation. `problem`: why it cannot be read; then `items` are what can be read of it."""

    items: tuple[Item, ...] = ()
    problem: str = ""

    @property
    def subnets(self) -> tuple[Subnet, ...]:
        return tuple(item.block for item in self.items)


def read(text: str | None) -> Text:
    """Read an annotation, or what can be read of it."""
    if not text:
        return Text()
    try:
        return Text(noted(text))
    except RangeError as error:
        return Text(_legible(text), str(error))


def adoptable(node: Node, text: Text, pools: Iterable[SubnetPool], claims: SubnetMap[NodeSubnet]) -> dict[Subnet, SubnetPool]:
    """Return what is to be taken over from an annotation, and the pool that it is of.

    The pool serves the node and would give it a subnet of that size, in the same words, and the node has no other of that pool and family.
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
