# SPDX-License-Identifier: Apache-2.0
"""The subnets of nodes, by source: podCIDRs, annotations, NodeSubnets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from kubenode.ipam.ranges import RangeError, Subnet, parse_subnet
from kubenode.nodes import annotation
from kubenode.nodes.annotation import AnnotationTextError
from kubenode.nodes.items import Item, first_address
from kubenode.pools.records import noted

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kubenode.inspection.cluster.reading import ClusterNode
    from kubenode.pools.records import NodeSubnet

POD_CIDRS, CLAIM = "spec.podCIDRs", "NodeSubnet "


class Part(NamedTuple):
    """A subnet of a node; `source` names its source, `key` is the annotation if that is the source, else "".

    `total`: the number of addresses for pods; 0 if the subnet is closing, or if another part counts them.
    """

    subnet: Subnet
    node: str
    source: str
    key: str = ""
    total: int = 0

    @property
    def is_claim(self) -> bool:
        """Whether the source is a NodeSubnet: the Node itself may not have the subnet yet, or no longer."""
        return self.source.startswith(CLAIM)


def of_node(node: ClusterNode) -> Iterator[Part]:
    """Yield the subnets of a Node, without unreadable ones."""
    for text in node.pod_cidrs:
        try:
            item = _whole(parse_subnet(text))
            yield Part(item.block, node.name, POD_CIDRS, total=_total(item))
        except RangeError:
            pass
    for key, text in node.annotations.items():
        try:
            found = of_annotation(text)
        except ValueError:
            continue
        for item in found:
            yield Part(item.block, node.name, f"annotation {key}", key, _total(item))


def of_claim(claim: NodeSubnet) -> Part:
    """Return the subnet of a NodeSubnet."""
    return Part(claim.subnet, claim.node, CLAIM + claim.name, claim.annotation)


def of_annotation(text: str) -> tuple[Item, ...]:
    """Parse an annotation like kube-node or node-annotation: subnets, or host-local's keys. Raises ValueError."""
    if "subnet" not in text:
        return noted(text)
    return tuple(_whole(subnet) for subnet in _declared(annotation.parse(text)))


def why_unreadable(text: str, plugin: str) -> str:
    """Return the reason why a plugin cannot read an annotation; "" if it can. `plugin` is "" if unknown."""
    try:
        if plugin == "node-annotation":
            annotation.parse(text)
        elif plugin == "kube-node":
            found = noted(text)
            return "" if found else "it is empty"
        elif not of_annotation(text):
            return "it is empty"
    except (RangeError, AnnotationTextError) as error:
        return str(error)
    return ""


def _declared(ipam: dict[str, Any]) -> Iterator[Subnet]:
    """Yield the subnets of host-local's keys. Raises RangeError."""
    sets = ipam.get("ranges")
    ranges = [one for each in sets if isinstance(each, list) for one in each] if isinstance(sets, list) else []
    for one in [ipam, *ranges]:
        if isinstance(one, dict) and isinstance(text := one.get("subnet"), str):
            yield parse_subnet(text)


def _whole(subnet: Subnet) -> Item:
    """Return a subnet as a network of its own."""
    return Item(subnet, subnet, first_address(subnet))


def _total(item: Item) -> int:
    if item.closing:
        return 0
    gateway = item.gateway and item.version == item.gateway.version and item.start <= item.gateway.number <= item.end
    return item.end - item.start + (0 if gateway else 1)
