# SPDX-License-Identifier: Apache-2.0
"""The use of nodes' subnets: by the reports of their agents, and of other nodes by the pods that the API server knows."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, NamedTuple

from kubenode.inspection.cluster.parts import POD_CIDRS

if TYPE_CHECKING:
    from collections.abc import Collection

    from kubenode.inspection.cluster.census import AgentPod, Census
    from kubenode.inspection.cluster.parts import Part
    from kubenode.inspection.cluster.reports import NodeReport
    from kubenode.ipam.ranges import Subnet

BY_PODS = "pods"  # of the API server, so without leaks
BY_AGENT = "agent"  # of the node: all that is reserved


class NetworkUsage(NamedTuple):
    """One family of a node's network. `names`: a person's names for it; `counted`: the basis of the count."""

    names: tuple[str, ...]
    source: str
    version: int
    subnets: tuple[Subnet, ...]
    used: int
    total: int
    counted: str = BY_PODS

    @property
    def share(self) -> float:
        return self.used / self.total if self.total else 1.0


class NodeUsage(NamedTuple):
    """A node's networks, fullest first; `agent` is None if no agent's pod is there, `report` if no agent reports."""

    node: str
    networks: tuple[NetworkUsage, ...]
    agent: AgentPod | None
    report: NodeReport | None

    @property
    def share(self) -> float:
        """The share in use of its fullest network."""
        return self.networks[0].share if self.networks else 0.0


def usages(census: Census, wanted: Collection[str] = ()) -> list[NodeUsage]:
    """Return all nodes, the fullest first, with all networks or those with the wanted names."""
    parts: dict[str, dict[tuple[str, int], list[Part]]] = {node: defaultdict(list) for node in census.nodes}
    for part in census.index:
        if not part.is_claim and part.node in parts:
            parts[part.node][part.source, part.subnet.version].append(part)
    found = []
    for node, sources in parts.items():
        networks = [_network(census, source, version, same) for (source, version), same in sources.items()]
        networks = [one for one in networks if not wanted or not set(wanted).isdisjoint((*one.names, one.source))]
        networks.sort(key=lambda one: (-one.share, one.source))
        if networks or not wanted:
            found.append(NodeUsage(node, tuple(networks), census.agents.get(node), census.reports.get(node)))
    return sorted(found, key=lambda one: (-one.share, one.node))


def _network(census: Census, source: str, version: int, parts: list[Part]) -> NetworkUsage:
    key = parts[0].key
    names = (*sorted(census.names.get(key, ())), key) if key else (POD_CIDRS.rpartition(".")[2],)
    subnets = tuple(sorted(part.subnet for part in parts))
    report = census.reports.get(parts[0].node)
    if report and (count := report.counts.get((key, version))):
        return NetworkUsage(names, source, version, subnets, *count, BY_AGENT)
    return NetworkUsage(names, source, version, subnets, sum(census.used[part] for part in parts), sum(part.total for part in parts))
