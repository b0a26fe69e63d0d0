# SPDX-License-Identifier: Apache-2.0
"""PURE. Annotations of a node as the controller reads them: the subnets, also of a broken one, those to adopt, and those it has closed."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from kubenode.ipam.ranges import RangeError, parse_subnet
from kubenode.nodes.items import Item, parse_item
from kubenode.nodes.node import CLOSED
from kubenode.pools.records import noted

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

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


def text_of(node: NodeMetadata, key: str) -> Text:
    """Parse an annotation of a node. The controller's own has no subnets, also if a pool names it."""
    return Text() if key == CLOSED else read(node.annotations.get(key))


def closed_by_us(node: NodeMetadata) -> set[Subnet]:
    """Return the blocks that the controller has closed. The word is a person's at other closing items."""
    found: set[Subnet] = set()
    for part in set(node.annotations[CLOSED].split(",")) if CLOSED in node.annotations else ():
        with suppress(RangeError):
            found.add(parse_subnet(part.strip(), 0))
    return found


def note_closed(node: NodeMetadata, texts: Mapping[str, Text], kept: Mapping[str, tuple[Item, ...]]) -> dict[str, str | None]:
    """Return the value that CLOSED has to get, if it has another one. `kept`: the new items of the annotations that change with it."""
    had = node.annotations.get(CLOSED)
    before = {item.block for text in texts.values() for item in text.items if item.closing}
    after = {item.block for key, text in texts.items() for item in kept.get(key, text.items) if item.closing}
    noted_before = closed_by_us(node)
    blocks = after - before | noted_before & (after | _closing_elsewhere(node, texts))
    if any(text.problem for text in texts.values()):  # what is in no other one may be closing there
        blocks |= noted_before - {subnet for text in texts.values() if not text.problem for subnet in text.subnets}
    now = written(blocks)
    return {} if now == had else {CLOSED: now}


def _closing_elsewhere(node: NodeMetadata, texts: Mapping[str, Text]) -> set[Subnet]:
    """Return the closing blocks in other annotations: their pool, or its subnets, may be known in a moment."""
    others = (text for key, text in node.annotations.items() if "closing" in text and key not in {*texts, CLOSED})
    return {item.block for text in others for item in read(text).items if item.closing}


def written(blocks: Iterable[Subnet]) -> str | None:
    """Return the text of CLOSED; None to remove it."""
    return ",".join(map(str, sorted(blocks))) or None


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
