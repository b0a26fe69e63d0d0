# SPDX-License-Identifier: Apache-2.0
"""The sums of the cluster: the subnets of its nodes, and the addresses of its pods in them.

Objects pass by one at a time. Pods' names and addresses are kept, to find duplicates; of other objects only counts and a few examples.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from http import HTTPStatus
from typing import TYPE_CHECKING, NamedTuple

from kubenode.inspection.cluster.parts import Part, of_annotation, of_claim, of_node, why_unreadable
from kubenode.ipam.address import BITS
from kubenode.kube.refusal import StatusError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import Any

    from kubenode.inspection.cluster.reading import ClusterNode, ClusterReader, DaemonSet, Definition, Interface, Pod
    from kubenode.inspection.cluster.reports import NodeReport
    from kubenode.ipam.address import Address
    from kubenode.pools.records import NodeSubnet, SubnetPool

EXAMPLES = 20  # kept for a kind of fault
OURS = ("kube-node", "node-annotation")  # the plugins that use a node's own subnets


class Examples(list[str]):
    """The first of many messages, and their number."""

    total = 0

    def note(self, text: str) -> None:
        """Count a message, and keep it if it is among the first."""
        self.total += 1
        if len(self) < EXAMPLES:
            self.append(text)


class SubnetIndex:
    """Subnets by prefix length and number: a look-up takes a step for each length in use."""

    def __init__(self) -> None:
        self._parts: dict[tuple[int, int], dict[int, list[Part]]] = {}

    def add(self, part: Part) -> None:
        subnet = part.subnet
        self._parts.setdefault((subnet.version, subnet.prefix), {}).setdefault(subnet.number, []).append(part)

    def holding(self, address: Address) -> Iterator[Part]:
        """Yield the subnets that contain an address."""
        for (version, prefix), parts in self._parts.items():
            if version == address.version:
                host = BITS[version] - prefix
                yield from parts.get(address.number >> host << host, ())

    def __iter__(self) -> Iterator[Part]:
        return (part for parts in self._parts.values() for same in parts.values() for part in same)


class AgentPod(NamedTuple):
    """An agent's pod."""

    pod: str
    image: str
    ready: bool


class Census:
    """All sums; `unseen`: lists that the credentials may not read, with the API server's message."""

    def __init__(self) -> None:
        self.unseen: dict[str, str] = {}
        self.pools: list[SubnetPool] = []
        self.daemon_sets: list[DaemonSet] = []
        self.keys: dict[str, set[str]] = defaultdict(set)  # annotations in pools, NodeSubnets and definitions, with the plugins
        self.names: dict[str, set[str]] = defaultdict(set)  # by annotation: its pools and definitions
        self.networks: set[str] = set()  # of definitions with our plugins
        self.index = SubnetIndex()
        self.nodes: dict[str, bool] = {}  # whether an agent should run there
        self.readable: Counter[str] = Counter()  # readable annotations, by key
        self.unreadable: dict[str, Examples] = defaultdict(Examples)
        self.pods = 0
        self.used: Counter[Part] = Counter()
        self.inside: Counter[str] = Counter()  # addresses by network
        self.misplaced: dict[str, Examples] = defaultdict(Examples)  # in a subnet of another node
        self.foreign: dict[str, Examples] = defaultdict(Examples)  # in no node's subnet
        self.shared, self.across = Examples(), Examples()  # addresses of two pods, in one network or in two
        self.agents: dict[str, AgentPod] = {}
        self.reports: dict[str, NodeReport] = {}
        self._having: dict[int, str | tuple[str, str]] = {}  # by address: a pod's name, with that of a secondary network

    def add_pool(self, pool: SubnetPool) -> None:
        """Add a SubnetPool."""
        self.pools.append(pool)
        self.keys[pool.annotation].add(OURS[0])
        self.names[pool.annotation].add(pool.name)

    def add_claim(self, claim: NodeSubnet) -> None:
        """Add a NodeSubnet."""
        self.index.add(of_claim(claim))
        self.keys[claim.annotation].add(OURS[0])

    def add_definition(self, one: Definition) -> None:
        """Add a network of a NetworkAttachmentDefinition."""
        if one.plugin in OURS:
            self.networks.add(one.network)
        if one.key:
            self.keys[one.key].add(one.plugin)
            self.names[one.key].add(one.network)

    def add_report(self, report: NodeReport) -> None:
        """Add the report of a node's agent."""
        self.reports[report.node] = report

    def add_node(self, node: ClusterNode) -> None:
        """Add a Node, after all pools, claims, definitions and DaemonSets."""
        self.nodes[node.name] = any(one.selector.items() <= node.labels.items() for one in self.daemon_sets)
        for part in of_node(node):
            self.index.add(part)
        for key, text in node.annotations.items():
            self._add_annotation(node.name, key, text)

    def _add_annotation(self, node: str, key: str, text: str) -> None:
        plugins = self.keys.get(key)
        why = next(filter(None, (why_unreadable(text, plugin) for plugin in plugins or ("",))), "")
        if why:
            self.unreadable[key].note(f"annotation {key} of Node {node}: {why}; the value is {text[:100]!r}")
        elif plugins or of_annotation(text):
            self.readable[key] += 1

    def add_pod(self, pod: Pod) -> None:
        """Add a pod, after all nodes."""
        self.pods += 1
        if pod.agent_image:
            self.agents[pod.node] = AgentPod(pod.name, pod.agent_image, pod.ready)
        if not pod.on_host:
            for interface in pod.interfaces:
                self._add_interface(pod, interface)

    def _add_interface(self, pod: Pod, interface: Interface) -> None:
        address, network, _ = interface
        key = address.number | (address.version == 6) << 128  # noqa: PLR2004 -- the IP version
        other = self._having.setdefault(key, (pod.name, network) if network else pod.name)
        other_name, other_network = other if isinstance(other, tuple) else (other, "")
        if other_name != pod.name:
            said = f"two pods have {address}: {other_name}{_in(other_network)}, and {pod.name} on node {pod.node}{_in(network)}"
            (self.shared if other_network == network else self.across).note(said)
        if not pod.node:
            return
        found = sorted(self.index.holding(address), key=lambda part: part.is_claim)
        own = next((part for part in found if part.node == pod.node), None)
        if own:
            self.used[own] += 1
            self.inside[network] += 1
            return
        what = f"{address} of pod {pod.name}{_in(network)}"
        if found:
            self.misplaced[network].note(f"{what} on node {pod.node} is in {found[0].subnet} of node {found[0].node} ({found[0].source})")
        else:
            self.foreign[network].note(f"{what} is in no subnet of its node {pod.node}")


def take(reader: ClusterReader) -> Census:
    """Read the cluster. Raises CNIError if nodes or pods cannot be listed."""
    census = Census()
    lists: list[tuple[str, Callable[[], Iterable[Any]], Callable[[Any], None]]] = [
        ("subnetpools", reader.pools, census.add_pool),
        ("nodesubnets", reader.claims, census.add_claim),
        ("network-attachment-definitions", reader.definitions, census.add_definition),
        ("nodeaddresses", reader.reports, census.add_report),
        ("daemonsets", reader.daemon_sets, census.daemon_sets.append),
    ]
    for what, read, add in lists:
        try:
            for one in read():
                add(one)
        except StatusError as refused:
            if refused.status != HTTPStatus.FORBIDDEN:
                raise
            census.unseen[what] = refused.msg
    for node in reader.nodes():
        census.add_node(node)
    for pod in reader.pods():
        census.add_pod(pod)
    return census


def _in(network: str) -> str:
    return f" in network {network}" if network else ""
