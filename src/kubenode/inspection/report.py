# SPDX-License-Identifier: Apache-2.0
"""The content of `status`, as one record."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from kubenode.base.problem import Problem
from kubenode.inspection import agentprobe
from kubenode.inspection.holders import Holder, HolderFilter, holder_of, holders
from kubenode.inspection.networks import StoredNetwork, find, read_once, unread
from kubenode.inspection.records import Records

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from kubenode.host.nodeview import View
    from kubenode.inspection.agentprobe import AgentStatus
    from kubenode.inspection.locations import Locations
    from kubenode.ipam.address import Address
    from kubenode.ipam.store import Attachment
    from kubenode.nodes.node import Node


class NodeSeen(NamedTuple):
    """The Node view: missing, broken, or its Node."""

    path: str
    view: View | None
    problem: Problem | None

    @property
    def node(self) -> Node | None:
        """The Node, if the view is there and valid."""
        return self.view.node if self.view else None


class NetworkReport(NamedTuple):
    """A network with its holders."""

    network: StoredNetwork
    holders: list[Holder]
    left_out: int  # addresses of further holders

    @property
    def suspects(self) -> list[Holder]:
        return [one for one in self.holders if one.suspected]

    def first(self, count: int) -> NetworkReport:
        """Return the report with only the first holders."""
        rest = sum(len(one.addresses) for one in self.holders[count:])
        return self._replace(holders=self.holders[:count], left_out=self.left_out + rest)


class Report(NamedTuple):
    """The state of this node."""

    node: NodeSeen
    agent: AgentStatus
    networks: list[NetworkReport]
    wanted: HolderFilter
    unread: Sequence[Problem] = ()  # configurations whose networks are missing here

    @property
    def suspects(self) -> set[str]:
        """Pods that may have leaked addresses, each once: their names, or their containers if the ADD named no pod."""
        found = [one for network in self.networks for one in network.suspects]
        return {one.record.pod or (one.attachment.container_id if one.attachment else "") for one in found}


class Other(NamedTuple):
    """Another address of a holder's container."""

    attachment: Attachment
    network: str
    address: Address


class Whose(NamedTuple):
    """An address: its holders, and the networks whose subnets contain it. `others`: further addresses of the holders' containers."""

    address: Address
    holders: list[tuple[StoredNetwork, Holder]]
    networks: list[StoredNetwork]
    others: list[Other]

    def others_of(self, holder: Holder) -> list[Other]:
        """Return the further addresses of a holder's container."""
        return [one for one in self.others if holder.attachment and one.attachment.container_id == holder.attachment.container_id]


def look(locations: Locations, names: Collection[str], wanted: HolderFilter) -> Report:
    """Look at all networks, or at those with the given names. Raises Problem."""
    locations = read_once(locations)
    records = Records(locations)
    try:
        found = find(locations, records)
        chosen = require_known(found, names)
        reports = [NetworkReport(network, *holders(network, records, wanted)) for network in chosen]
        agent = agentprobe.ask(locations)
    except OSError as error:
        raise unreadable(error) from None
    return Report(see_node(locations), agent, reports, wanted, unread(locations))


def require_known(networks: list[StoredNetwork], names: Collection[str]) -> list[StoredNetwork]:
    """Return the networks with the given names, all without names. Raises Problem for an unknown name."""
    if unknown := [name for name in names if name not in {network.name for network in networks}]:
        names_known = sorted({network.name for network in networks})
        known = f"there are: {', '.join(names_known)}" if names_known else "no network is known here"
        problem = f"there is no network {', '.join(unknown)} on this node"
        raise Problem(problem, f"{known}; name its configuration with --config")
    return [network for network in networks if not names or network.name in names]


def look_for(locations: Locations, address: Address) -> Whose:
    """Find the holders of an address on this node. Raises Problem."""
    records = Records(locations)
    try:
        networks = find(locations, None)
        found = _held_in(networks, records, address)
        if not found:  # only now: reading many records takes a while
            networks = find(locations, records)
            found = _held_in(networks, records, address)
        containers = {holder.attachment.container_id for _, holder in found if holder.attachment}
        if records.networks_of(containers) - {network.name for network in networks}:
            networks = find(locations, records)
        others = _beside(networks, containers, address)
    except OSError as error:
        raise unreadable(error) from None
    of = [network for network in networks if any(r.subnet.holds(address) for usage in network.usages for r in usage.range_set.ranges)]
    return Whose(address, found, of, others)


def _held_in(networks: list[StoredNetwork], records: Records, address: Address) -> list[tuple[StoredNetwork, Holder]]:
    return [(network, holder) for network in networks if (holder := holder_of(network, records, address))]


def _beside(networks: list[StoredNetwork], containers: Collection[str], address: Address) -> list[Other]:
    """Return all other addresses of containers. It reads every reservation: nothing else names their containers."""
    if not containers:
        return []
    found = [
        Other(one.attachment, network.name, one.address)
        for network in networks
        for one in network.store.held()
        if one.attachment and one.attachment.container_id in containers and one.address != address
    ]
    return sorted(found)


def see_node(locations: Locations) -> NodeSeen:
    """Read the Node view."""
    path = f"{locations.run_dir}/node.json"
    try:
        return NodeSeen(path, locations.view(), None)
    except Problem as error:
        return NodeSeen(path, None, error)
    except OSError as error:
        return NodeSeen(path, None, unreadable(error))


def unreadable(error: OSError) -> Problem:
    """Return the error for an unreadable file."""
    return Problem(f"{error.filename}: {error.strerror}", "run it as root")
