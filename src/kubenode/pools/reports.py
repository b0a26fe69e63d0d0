# SPDX-License-Identifier: Apache-2.0
"""PURE. Reports of nodes' agents, parsed once from NodeAddresses: the addresses in use, and the annotation that each agent acts on."""

from __future__ import annotations

from sys import intern
from typing import TYPE_CHECKING, Any, NamedTuple

from kubenode.ipam.ranges import RangeError, Subnet, parse_subnet
from kubenode.nodes.addresses import ItemUse
from kubenode.pools.records import API_VERSION

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from kubenode.pools.records import NodeMetadata

LARGEST = 4096  # items of a report; an agent writes some hundreds, and each costs time
UNREADABLE = "\0"  # instead of a text of an annotation: it equals none


class ReportedNetwork(NamedTuple):
    """The addresses of one network. `observed`: the annotation's text that the agent acts on."""

    annotation: str
    observed: str
    counts: tuple[ItemUse, ...] = ()

    def item(self, subnet: Subnet) -> ItemUse | None:
        """Return the count of an item."""
        return next((count for count in self.counts if count.subnet == subnet and not count.outside), None)


class AgentReport(NamedTuple):
    """A NodeAddresses object. `node_uid`: the Node that it belongs to, "" if unknown; `min_free`: by annotation, as we wrote it."""

    node: str
    node_uid: str = ""
    min_free: Mapping[str, int] = {}
    uses: tuple[ReportedNetwork, ...] = ()
    uid: str = ""
    version: str = ""

    def of(self, key: str) -> tuple[ReportedNetwork, ...]:
        """Return the networks that have their subnets from an annotation."""
        return tuple(use for use in self.uses if use.annotation == key)

    def agreed(self, node: NodeMetadata, key: str) -> tuple[ReportedNetwork, ...]:
        """Return the networks of an annotation if the agent acts on its present text in all of them; else none."""
        if self.node_uid not in ("", node.uid):
            return ()
        text = node.annotations.get(key, "").strip()
        uses = self.of(key)
        return uses if all(use.observed == text for use in uses) else ()

    def holds(self, subnet: Subnet) -> bool:
        """Say whether the node may have an address of a subnet."""
        return any(count.subnet.overlaps(subnet) for use in self.uses for count in use.counts)

    def held(self) -> Iterator[tuple[Subnet, str, bool]]:
        """Yield the reported subnets, each with its annotation; True where it is outside of the items."""
        return ((count.subnet, use.annotation, count.outside) for use in self.uses for count in use.counts)

    def is_in_use(self, subnet: Subnet, key: str) -> bool:
        """Say whether pods of the node have an address of a subnet, from an annotation."""
        return any(count.used and count.subnet.overlaps(subnet) for use in self.of(key) for count in use.counts)


def parse_report(manifest: Mapping[str, Any]) -> AgentReport:
    """Parse a NodeAddresses object. Networks of podCIDRs are left out: no pool gives these."""
    metadata = manifest["metadata"]
    owners = [owner.get("uid", "") for owner in metadata.get("ownerReferences") or () if owner.get("kind") == "Node"]
    wanted = (manifest.get("spec") or {}).get("minFree") or {}
    networks = (manifest.get("status") or {}).get("networks") or ()
    uses = tuple(_parse_use(network) for network in networks if network.get("annotation"))
    if sum(len(use.counts) for use in uses) > LARGEST:
        uses = _shortened(uses)
    return AgentReport(
        intern(str(metadata["name"])),
        intern(str(owners[0])) if owners else "",
        {intern(str(key)): value for key, value in wanted.items() if isinstance(value, int)},
        uses,
        str(metadata.get("uid", "")),
        str(metadata.get("resourceVersion", "")),
    )


def _parse_use(network: Mapping[str, Any]) -> ReportedNetwork:
    """Parse a network. One with an unreadable item agrees to nothing; what can be read is held."""
    counts: list[ItemUse] = []
    observed = str(network.get("observed", "")).strip()
    for item in network.get("items") or ():
        try:
            flags = [bool(item.get(flag)) for flag in ("closing", "settling", "outside")]
            counts.append(ItemUse(parse_subnet(str(item["cidr"]), 0), int(item["used"]), int(item["total"]), *flags))
        except (RangeError, KeyError, TypeError, ValueError):
            observed = UNREADABLE
    return ReportedNetwork(intern(str(network["annotation"])), observed, tuple(counts))


def _shortened(uses: Iterable[ReportedNetwork]) -> tuple[ReportedNetwork, ...]:
    """Return the first LARGEST items, which agree to nothing."""
    found, left = [], LARGEST
    for use in uses:
        found.append(ReportedNetwork(use.annotation, UNREADABLE, use.counts[:left]))
        left -= len(found[-1].counts)
    return tuple(found)


def manifest_of(node: NodeMetadata, min_free: Mapping[str, int]) -> dict[str, Any]:
    """Return the object for a Node that has none. It goes with the Node."""
    owner = {"apiVersion": "v1", "kind": "Node", "name": node.name, "uid": node.uid}
    metadata = {"name": node.name, "ownerReferences": [owner]}
    return {"apiVersion": API_VERSION, "kind": "NodeAddresses", "metadata": metadata, "spec": {"minFree": dict(min_free)}}
