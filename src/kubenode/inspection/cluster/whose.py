# SPDX-License-Identifier: Apache-2.0
"""Owners of an address, among all nodes and pods of the cluster."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from kubenode.inspection.cluster.parts import of_claim, of_node
from kubenode.inspection.cluster.reading import collected
from kubenode.kube.refusal import StatusError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from kubenode.base.problem import Problem
    from kubenode.inspection.cluster.parts import Part
    from kubenode.inspection.cluster.reading import ClusterReader, Interface, Pod
    from kubenode.ipam.address import Address

T = TypeVar("T")


class Has(NamedTuple):
    """A pod that has the address, and its interface with it."""

    pod: Pod
    interface: Interface


class Whois(NamedTuple):
    """All that the API server knows of an address. `nodes`: those with it as their own address; `unseen`: lists that the credentials may
    not read, with the API server's message; `sees_nodes`, `sees_pods`: these were readable.
    """

    address: Address
    parts: list[Part]
    pools: list[str]
    nodes: list[str]
    pods: list[Has]
    unseen: list[Problem]
    sees_nodes: bool
    sees_pods: bool

    @property
    def holders(self) -> list[str]:
        """The pods and nodes that have it, by name."""
        pods = dict.fromkeys(f"pod {has.pod.name}" for has in self.pods if not has.pod.on_host)
        return [*pods, *(f"node {name}" for name in self.nodes)]

    @property
    def where(self) -> list[str]:
        """The nodes with it in a subnet, as own address, or in a pod."""
        return sorted({*(part.node for part in self.parts), *self.nodes, *(has.pod.node for has in self.pods if not has.pod.on_host)})


def find(reader: ClusterReader, address: Address, *, everywhere: bool = True) -> Whois:
    """Look an address up. Raises CNIError if neither nodes nor pods may be listed.

    Without `everywhere` it lists only the pods of nodes with the address in a subnet: a few hundred, in a cluster of any size.
    """
    unseen: list[Problem] = []

    def look(what: Callable[[], list[T]]) -> list[T] | None:
        try:
            return collected(what)
        except StatusError as refused:
            if refused.status != HTTPStatus.FORBIDDEN:
                raise
            unseen.append(refused)
            return None

    seen = look(lambda: [(node, [*of_node(node)]) for node in reader.nodes() if _is_about(node.own, of_node(node), address)])
    parts = [part for _, found in seen or () for part in found if part.subnet.holds(address)]
    parts += look(lambda: [of_claim(one) for one in reader.claims() if one.subnet.holds(address)]) or []
    pools = look(lambda: [pool.name for pool in reader.pools() if any(block.cidr.holds(address) for block in pool.blocks)])
    of = [""] if everywhere else sorted({part.node for part in parts})
    pods = look(lambda: [has for node in of for has in _having(reader.pods(node), address)])
    if seen is None and pods is None:
        raise unseen[0]
    owners = [node.name for node, _ in seen or () if address in node.own]
    return Whois(address, _without_doubles(parts), pools or [], owners, sorted(pods or []), unseen, seen is not None, pods is not None)


def _is_about(own: Iterable[Address], parts: Iterable[Part], address: Address) -> bool:
    return address in own or any(part.subnet.holds(address) for part in parts)


def _having(pods: Iterable[Pod], address: Address) -> Iterable[Has]:
    return (Has(pod, one) for pod in pods for one in pod.interfaces if one.address == address)


def _without_doubles(parts: list[Part]) -> list[Part]:
    """Return each node's subnet once, without the NodeSubnet of a subnet that the annotation has, too."""
    said = {(part.subnet, part.node) for part in parts if not part.is_claim}
    return sorted(part for part in parts if not part.is_claim or (part.subnet, part.node) not in said)
