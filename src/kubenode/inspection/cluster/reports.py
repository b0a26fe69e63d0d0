# SPDX-License-Identifier: Apache-2.0
"""Reports of nodes' agents, as NodeAddresses has them: every address that is reserved, also one that no pod has any more."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from kubenode.ipam.ranges import RangeError, parse_subnet

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


class Count(NamedTuple):
    """Used and all addresses of one family of a source: an annotation, or "" for podCIDRs."""

    used: int
    total: int


class NodeReport(NamedTuple):
    """A node's report; `grows`: annotations of which the node gets further blocks with use."""

    node: str
    version: str
    time: str
    leaks: int
    counts: Mapping[tuple[str, int], Count]
    grows: frozenset[str]


def parse(manifest: Mapping[str, Any]) -> NodeReport | None:
    """Parse a NodeAddresses object; None if its agent has not reported."""
    status = manifest.get("status") or {}
    if not status.get("time"):
        return None
    counts: dict[tuple[str, int], Count] = {}
    for network in status.get("networks") or ():
        for key, count in _counts(network):
            before = counts.get(key, Count(0, 0))  # of a network that was renamed
            counts[key] = Count(before.used + count.used, max(before.total, count.total))
    wanted = (manifest.get("spec") or {}).get("minFree") or {}
    version, leaks = str(status.get("version") or ""), int(status.get("suspectedLeaks") or 0)
    return NodeReport(manifest["metadata"]["name"], version, str(status["time"]), leaks, counts, frozenset(wanted))


def _counts(network: Mapping[str, Any]) -> Iterator[tuple[tuple[str, int], Count]]:
    """Yield the sums of a network's items by family; closing ones give no address, and others' are outside."""
    found: dict[int, Count] = {}
    for item in network.get("items") or ():
        try:
            version = parse_subnet(str(item.get("cidr")), 0).version
        except RangeError:
            continue
        if not item.get("outside"):
            before = found.get(version, Count(0, 0))
            total = 0 if item.get("closing") else int(item.get("total") or 0)
            found[version] = Count(before.used + int(item.get("used") or 0), before.total + total)
    return ((((network.get("annotation") or ""), version), count) for version, count in found.items())
