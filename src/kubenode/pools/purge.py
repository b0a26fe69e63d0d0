# SPDX-License-Identifier: Apache-2.0
"""PURE. Removal of a deleted pool's subnets, at a person's request: nothing else takes a subnet from a node."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kubenode.ipam.ranges import RangeError
from kubenode.nodes.node import CLOSED
from kubenode.pools.records import noted
from kubenode.pools.texts import closed_by_us, written
from kubenode.pools.writes import Annotate, DeleteClaim

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from kubenode.ipam.ranges import Subnet
    from kubenode.pools.records import NodeMetadata, NodeSubnet


def purge(pool: str, claims: Iterable[NodeSubnet], nodes: Mapping[str, NodeMetadata]) -> tuple[list[Annotate], list[DeleteClaim]]:
    """Return the writes that remove a pool's subnets from annotations, and then its claims. Subnets written by hand stay."""
    mine = [claim for claim in claims if claim.pool == pool]
    given: dict[tuple[str, str], set[Subnet]] = {}
    for claim in mine:
        if not claim.adopted:
            given.setdefault((claim.node, claim.annotation), set()).add(claim.subnet)
    values: dict[str, dict[str, str | None]] = {}
    for (name, key), subnets in sorted(given.items()):
        text = nodes[name].annotations.get(key) if name in nodes else None
        try:
            there = noted(text)
        except RangeError:
            continue
        left = [item for item in there if item.block not in subnets]
        if len(left) < len(there):
            values.setdefault(name, {})[key] = ",".join(map(str, left)) or None
    for name, each in values.items():
        ours = closed_by_us(nodes[name])
        if gone := ours & {claim.subnet for claim in mine if claim.node == name}:
            each[CLOSED] = written(ours - gone)
    return [Annotate(nodes[name], each) for name, each in values.items()], [DeleteClaim(claim, orphan=False) for claim in mine]
