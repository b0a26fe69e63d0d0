# SPDX-License-Identifier: Apache-2.0
"""PURE. The status of a SubnetPool: the use of its networks, and the conditions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from kubenode.pools.records import stamp

if TYPE_CHECKING:
    from collections.abc import Iterable

    from kubenode.ipam.ranges import Subnet
    from kubenode.pools.blocks import Block
    from kubenode.pools.ledger import Ledger
    from kubenode.pools.records import SubnetPool

LARGEST = (1 << 63) - 1  # the largest int64; an IPv6 network may have more subnets
SHOWN = 3  # faults in a message; the rest is only counted


class Reserved(NamedTuple):
    """A network that pools should not overlap, and its description, such as `the service network`."""

    subnet: Subnet
    what: str


class BlockUsage(NamedTuple):
    """The use of a network of a pool, in subnets."""

    block: Block
    total: int
    allocated: int
    free: int


class Figures(NamedTuple):
    """A pool in numbers."""

    usages: list[BlockUsage]
    waiting: int
    at_most: int  # nodes with maxBlocks that need more
    conflicts: int


def figures(ledger: Ledger, pool: SubnetPool) -> Figures:
    """Count a pool's use, waiting nodes and conflicts."""
    found = [conflict for conflicts in ledger.conflicts.values() for conflict in conflicts]
    waiting = sum(pool.name in pools for pools in ledger.waiting.values())
    at_most = sum(pool.name in pools for pools in ledger.at_most.values())
    return Figures(usages(ledger, pool), waiting, at_most, sum(pool.name in conflict.pools for conflict in found))


def usages(ledger: Ledger, pool: SubnetPool) -> list[BlockUsage]:
    """Return the use of each network of a pool."""
    return [
        BlockUsage(block, block.total, ledger.claims.within(block.cidr), ledger.space.free(pool.annotation, block)) for block in pool.blocks
    ]


def status(
    ledger: Ledger, pool: SubnetPool, now: float, reserved: Iterable[Reserved] = (), counted: Figures | None = None
) -> dict[str, Any]:
    """Return the status that the object should have; equal to `pool.status` if nothing has changed."""
    networks = [
        {"cidr": str(usage.block.cidr), "total": min(usage.total, LARGEST), "allocated": usage.allocated, "free": min(usage.free, LARGEST)}
        for usage in (counted or figures(ledger, pool)).usages
    ]
    conditions = [
        _condition(pool, now, "Ready", *_ready(ledger, pool)),
        _condition(pool, now, "Exhausted", *_exhausted(ledger, pool)),
        _condition(pool, now, "Conflict", *_conflict(ledger, pool, reserved)),
    ]
    return {
        "observedGeneration": pool.generation,
        "cidrs": networks,
        "allocated": sum(network["allocated"] for network in networks if isinstance(network["allocated"], int)),
        "conditions": conditions,
    }


def _ready(ledger: Ledger, pool: SubnetPool) -> tuple[bool, str, str]:
    if pool.problems:
        return False, "Invalid", "; ".join(pool.problems)
    blocked = [why for (name, _), why in ledger.space.blocked.items() if name == pool.name]
    return (False, "Overlap", some(blocked)) if blocked else (True, "Serving", "nodes get subnets of this pool")


def _exhausted(ledger: Ledger, pool: SubnetPool) -> tuple[bool, str, str]:
    waiting = sorted(node for node, pools in ledger.waiting.items() if pool.name in pools)
    if waiting:
        return True, "NodesWaiting", f"nothing is left for {_nodes(waiting)}; add a CIDR"
    at_most = sorted(node for node, pools in ledger.at_most.items() if pool.name in pools)
    if at_most:
        return True, "MaxBlocks", f"maxBlocks, {pool.growth.max_blocks}, is too few for {_nodes(at_most)}; raise it"
    return False, "Enough", "every node that asked has its subnets"


def _nodes(names: list[str]) -> str:
    return f"{len(names)} node{'s' * (len(names) > 1)}: {some(names, ', ')}"


def _conflict(ledger: Ledger, pool: SubnetPool, reserved: Iterable[Reserved]) -> tuple[bool, str, str]:
    """Conflicts of annotations come first, then leftovers of a change of the pool, then possible harm."""
    found = [
        (conflict.reason, conflict.message)
        for _, conflicts in sorted(ledger.conflicts.items())
        for conflict in conflicts
        if pool.name in conflict.pools
    ]
    for subnet in sorted(ledger.outside_pool.get(pool.name, ())):
        claim = ledger.claims.get(subnet)
        if claim is not None:
            found.append(("InTheWay", f"Node {claim.node} has {subnet}, which the pool no longer offers"))
    found += [("PoolOverlap", text) for text in ledger.space.overlaps.get(pool.name, ())]
    found += [
        ("ReservedOverlap", f"{block.cidr} overlaps {other.subnet}, {other.what}")
        for block in pool.blocks
        for other in reserved
        if block.cidr.overlaps(other.subnet)
    ]
    if not found:
        return False, "NoConflict", "no subnet is in two places"
    return True, found[0][0], some([message for _, message in found])


def some(texts: list[str], between: str = "; ") -> str:
    """Return the first of some texts, and the number of the others."""
    more = len(texts) - SHOWN
    return between.join(texts[:SHOWN]) + (f"{between}and {more} more" if more > 0 else "")


def _condition(pool: SubnetPool, now: float, kind: str, holds: bool, reason: str, message: str) -> dict[str, Any]:  # noqa: FBT001
    value = "True" if holds else "False"
    old: dict[str, Any] = next((condition for condition in pool.status.get("conditions") or () if condition.get("type") == kind), {})
    since = old["lastTransitionTime"] if old.get("status") == value and "lastTransitionTime" in old else stamp(now)
    return {
        "type": kind,
        "status": value,
        "observedGeneration": pool.generation,
        "lastTransitionTime": since,
        "reason": reason,
        "message": message,
    }
