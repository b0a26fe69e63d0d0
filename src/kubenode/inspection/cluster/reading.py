# SPDX-License-Identifier: Apache-2.0
"""Nodes, pods and the sources of nodes' subnets, read from the API server in pages, one object at a time, only the needed fields.

A list that expires during the reading is read once more (`collected`), from its begin.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import msgspec

from kubenode.base.problem import Problem
from kubenode.controller.reconcile import CLAIMS, NODES, POOLS
from kubenode.inspection import named
from kubenode.inspection.cluster import reports
from kubenode.ipam.address import parse_address
from kubenode.kube.client import ApiServer, ObjectMeta
from kubenode.kube.loadingrules import COMMANDS
from kubenode.kube.refusal import StatusError, for_a_person
from kubenode.nodes.node import CLOSED
from kubenode.pools.records import RecordError, parse_claim, parse_pool

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from kubenode.inspection.cluster.reports import NodeReport
    from kubenode.inspection.locations import Locations
    from kubenode.ipam.address import Address
    from kubenode.pools.records import NodeSubnet, SubnetPool

T = TypeVar("T")

TIMEOUT = 30.0  # seconds for one page
PODS = "/api/v1/pods"
ADDRESSES = "/apis/kube-node.nordix.org/v1alpha1/nodeaddresses"
DAEMONSETS = "/apis/apps/v1/daemonsets"
DEFINITIONS = "/apis/k8s.cni.cncf.io/v1/network-attachment-definitions"
NETWORK_STATUS = ("k8s.v1.cni.cncf.io/network-status", "k8s.v1.cni.cncf.io/networks-status")  # Multus' keys; the second before 3.7
ENDED = ("Succeeded", "Failed")  # phases of pods whose addresses are released
NOT_ENDED = ",".join(f"status.phase!={phase}" for phase in ENDED)
AGENT = {"app.kubernetes.io/name": "kube-node", "app.kubernetes.io/component": "agent"}  # the labels of deploy/ and the chart


class _At(msgspec.Struct):
    type: str = ""
    address: str = ""
    status: str = ""


class _NodeSpec(msgspec.Struct, rename={"cidr": "podCIDR", "cidrs": "podCIDRs"}):
    cidr: str = ""
    cidrs: list[str] | None = None


class _NodeStatus(msgspec.Struct):
    addresses: list[_At] | None = None


class _Node(msgspec.Struct):
    metadata: ObjectMeta
    spec: _NodeSpec = msgspec.field(default_factory=_NodeSpec)
    status: _NodeStatus = msgspec.field(default_factory=_NodeStatus)


class _Container(msgspec.Struct):
    image: str = ""


class _PodSpec(msgspec.Struct, rename="camel"):
    node_name: str = ""
    host_network: bool = False
    containers: list[_Container] | None = None


class _PodIP(msgspec.Struct):
    ip: str = ""


class _PodStatus(msgspec.Struct, rename={"pod_ip": "podIP", "pod_ips": "podIPs"}):
    phase: str = ""
    pod_ip: str = ""
    pod_ips: list[_PodIP] | None = None
    conditions: list[_At] | None = None


class _Pod(msgspec.Struct):
    metadata: ObjectMeta
    spec: _PodSpec = msgspec.field(default_factory=_PodSpec)
    status: _PodStatus = msgspec.field(default_factory=_PodStatus)


class _NetworkStatus(msgspec.Struct):
    name: str = ""
    interface: str = ""
    ips: list[str] | None = None
    default: bool = False


_STATUSES: msgspec.json.Decoder[list[_NetworkStatus]] = msgspec.json.Decoder(list[_NetworkStatus])


class ClusterNode(NamedTuple):
    """A Node: the sources of its subnets, and its own addresses."""

    name: str
    labels: Mapping[str, str]
    annotations: Mapping[str, str]
    pod_cidrs: tuple[str, ...]
    own: tuple[Address, ...]


class Interface(NamedTuple):
    """An address of a pod, and its network: "" is the pods' own; `ifname` is "" if unknown."""

    address: Address
    network: str
    ifname: str


class Pod(NamedTuple):
    """A pod that runs, or will; `on_host`: it has its node's address. `agent_image` is "" unless the pod is an agent."""

    name: str
    node: str
    on_host: bool
    interfaces: tuple[Interface, ...]
    agent_image: str
    ready: bool


class DaemonSet(NamedTuple):
    """An agent's DaemonSet: its image, and its nodeSelector."""

    name: str
    image: str
    selector: Mapping[str, str]


class Definition(NamedTuple):
    """A network of a NetworkAttachmentDefinition with our plugin; `key` is its annotation, "" if it uses podCIDRs or its own ranges."""

    network: str
    plugin: str
    key: str


class ClusterReader:
    """Lists from the API server that a kubeconfig and a context name. All methods raise CNIError."""

    def __init__(self, locations: Locations, namespace: str = "") -> None:
        self._server = ApiServer(locations.kubeconfig or None, locations.environ, TIMEOUT, option=COMMANDS, context=locations.context)
        self._pods = f"/api/v1/namespaces/{namespace}/pods" if namespace else PODS

    def close(self) -> None:
        self._server.close()

    def _each(self, path: str, kind: type[T], **query: str) -> Iterator[T]:
        try:
            yield from self._server.each(path, kind, **query)
        except StatusError as refused:
            raise for_a_person(refused) from None

    def nodes(self) -> Iterator[ClusterNode]:
        """Yield all Nodes."""
        return map(_node, self._each(NODES, _Node))

    def pods(self, node: str = "") -> Iterator[Pod]:
        """Yield the pods of all nodes, or of one."""
        selector = NOT_ENDED + (f",spec.nodeName={node}" if node else "")
        return (_pod(pod) for pod in self._each(self._pods, _Pod, fieldSelector=selector) if pod.status.phase not in ENDED)

    def claims(self) -> Iterator[NodeSubnet]:
        """Yield all valid NodeSubnets."""
        for manifest in self._each(CLAIMS, dict[str, Any]):
            try:
                yield parse_claim(manifest)
            except RecordError:  # it protects nothing, and the controller logs it
                pass

    def pools(self) -> list[SubnetPool]:
        """Return all SubnetPools."""
        return [parse_pool(manifest) for manifest in self._each(POOLS, dict[str, Any])]

    def reports(self) -> Iterator[NodeReport]:
        """Yield the reports of agents."""
        return filter(None, map(reports.parse, self._each(ADDRESSES, dict[str, Any])))

    def daemon_sets(self) -> list[DaemonSet]:
        """Return the agents' DaemonSets."""
        labels = ",".join(f"{key}={value}" for key, value in AGENT.items())
        return [*map(_daemon_set, self._each(DAEMONSETS, dict[str, Any], labelSelector=labels))]

    def definitions(self) -> Iterator[Definition]:
        """Yield the networks of Multus with our plugins; an invalid definition is its owner's problem."""
        for manifest in self._each(DEFINITIONS, dict[str, Any]):
            metadata = manifest.get("metadata") or {}
            name = f"{metadata.get('namespace', '')}/{metadata.get('name', '')}"
            try:
                found = named.networks(name, {**manifest, "kind": named.DEFINITION})
            except Problem:
                continue
            for one in found:
                yield Definition(name, str(one.ipam.get("type", "")), str(one.ipam.get("annotation") or ""))


def collected(collect: Callable[[], T]) -> T:
    """Call `collect`, which reads lists, and once again if a list has expired at the API server (410)."""
    try:
        return collect()
    except StatusError as refused:
        if refused.status != HTTPStatus.GONE:
            raise
    return collect()


def _node(found: _Node) -> ClusterNode:
    metadata, spec = found.metadata, found.spec
    own = [parse_address(one.address) for one in found.status.addresses or () if one.type.endswith("IP")]
    cidrs = tuple(spec.cidrs or ([spec.cidr] if spec.cidr else ()))
    annotations = {key: text for key, text in (metadata.annotations or {}).items() if key != CLOSED}  # no subnets beside the others
    return ClusterNode(metadata.name, metadata.labels or {}, annotations, cidrs, tuple(filter(None, own)))


def _pod(found: _Pod) -> Pod:
    metadata, spec, status = found.metadata, found.spec, found.status
    labels, texts = metadata.labels or {}, [one.ip for one in status.pod_ips or ()] or [status.pod_ip]
    interfaces = [Interface(address, "", "") for text in texts if (address := parse_address(text))]
    said = next((text for key in NETWORK_STATUS if (text := (metadata.annotations or {}).get(key))), "")
    if said and not spec.host_network:
        interfaces = _named(interfaces, said)
    is_agent = AGENT.items() <= labels.items()
    image = spec.containers[0].image if is_agent and spec.containers else ""
    ready = is_agent and any((one.type, one.status) == ("Ready", "True") for one in status.conditions or ())
    return Pod(f"{metadata.namespace}/{metadata.name}", spec.node_name, spec.host_network, tuple(interfaces), image, ready)


def _named(interfaces: list[Interface], text: str) -> list[Interface]:
    """Return a pod's interfaces with Multus' data, if that is valid: anybody may write annotations."""
    try:
        statuses = _STATUSES.decode(text)
    except (ValueError, RecursionError):
        return interfaces
    found = {one.address: one for one in interfaces}
    for status in statuses:
        for ip in status.ips or ():
            address = parse_address(ip.partition("/")[0])
            if address is None:
                continue
            # Addresses in podIPs belong to the pods' own network, under any name.
            network = "" if status.default or (address in found and not found[address].network) else status.name
            found[address] = Interface(address, network, status.interface)
    return list(found.values())


def _daemon_set(manifest: Mapping[str, Any]) -> DaemonSet:
    metadata, template = manifest["metadata"], ((manifest.get("spec") or {}).get("template") or {}).get("spec") or {}
    containers = template.get("containers") or [{}]
    name = f"{metadata.get('namespace', '')}/{metadata['name']}"
    return DaemonSet(name, str(containers[0].get("image", "")), template.get("nodeSelector") or {})
