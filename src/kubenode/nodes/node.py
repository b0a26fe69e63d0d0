# SPDX-License-Identifier: Apache-2.0
"""PURE. A Node object: its name and subnets. Errors name the Node, the annotation and the wrong part: their reader has many Nodes."""

from __future__ import annotations

from kubenode.base.jsontext import JSONTextError, loads
from kubenode.base.record import NamedTuple
from kubenode.cni.errors import ANNOTATION_INVALID, ANNOTATION_MISSING, NODE_INVALID, TRY_AGAIN_LATER, CNIError
from kubenode.ipam.ranges import RangeError, Subnet, parse_subnet, require_apart

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from kubenode.nodes.items import Item

ANSWER = "the API server's answer"  # a source of a Node, beside files
ONE_NODE = "it must be one Node object, as `kubectl get node NAME -o json` prints it"
LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"  # a copy of the whole manifest, not needed
# The annotation with the blocks that the controller has closed. One request writes it and the word `closing`, so one is never without the
# other. No pool has this annotation by default, whatever its name, and no network has its subnets from it.
CLOSED = "controller.kube-node.nordix.org/closing"
LEFT_OUT = frozenset([LAST_APPLIED, CLOSED])  # of what plugins see


class Node(NamedTuple):
    """The part of a Node that its plugins need. `version` is its resourceVersion, "" in a manifest that a person wrote.

    `observed`: its annotations as the API server has them, if an agent has changed `annotations` for its calls; else None.
    """

    name: str
    uid: str
    machine_id: str
    pod_cidrs: tuple[str, ...]
    annotations: dict[str, str]
    version: str = ""
    observed: dict[str, str] | None = None

    def manifest(self) -> dict[str, Any]:
        """Return the Node as a manifest that `parse` reads."""
        return {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {"name": self.name, "uid": self.uid, "resourceVersion": self.version, "annotations": self.annotations},
            "spec": {"podCIDRs": list(self.pod_cidrs)},
            "status": {"nodeInfo": {"machineID": self.machine_id}},
        }

    def is_like(self, other: Node | None) -> bool:
        """Say whether another version of a Node tells the plugins the same."""
        return other is not None and self == other._replace(version=self.version)


def decode(text: bytes, path: str) -> dict[str, Any]:
    """Parse a Node manifest, JSON or YAML, from the text of a file. Raises CNIError, which shows nothing of the text."""
    manifest: Any
    try:
        manifest = loads(text)
    except JSONTextError:
        manifest = _decode_yaml(text, path)
    if not isinstance(manifest, dict):
        raise CNIError(NODE_INVALID, f"{path} is not a Node manifest", ONE_NODE)
    return manifest


def _decode_yaml(text: bytes, path: str) -> Any:
    import yaml  # only for a file that a person wrote; it takes ten times as long as an ADD

    from kubenode.base import place

    try:
        return yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506 -- both are safe
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise CNIError(NODE_INVALID, f"{path} is neither JSON nor YAML{place.of(error)}", ONE_NODE) from None


def parse(manifest: dict[str, Any], source: str) -> Node:
    """Return the Node of a manifest. Raises CNIError, which names `source` and shows nothing of a text that may be no Node."""
    if manifest.get("kind", "Node") != "Node":
        raise CNIError(NODE_INVALID, f"{source}: kind is not Node", ONE_NODE)
    metadata, spec = _mapping(manifest, "metadata", source), _mapping(manifest, "spec", source)
    node_info = _mapping(_mapping(manifest, "status", source), "nodeInfo", source)
    name = metadata.get("name")
    if not isinstance(name, str) or not name:
        raise CNIError(NODE_INVALID, f"{source} has no metadata.name", ONE_NODE)
    pod_cidrs = spec.get("podCIDRs") or ([spec["podCIDR"]] if spec.get("podCIDR") else [])
    if not isinstance(pod_cidrs, list) or not all(isinstance(cidr, str) for cidr in pod_cidrs):
        raise CNIError(NODE_INVALID, f"{source}: spec.podCIDRs is not a list of strings", "each is a subnet in CIDR notation")
    annotations = _mapping(metadata, "annotations", source)
    if wrong := [key for key, value in annotations.items() if not isinstance(value, str)]:
        raise CNIError(NODE_INVALID, f"Node {name}: annotation {wrong[0]!r} is not a string", "put the value into quotes")
    return Node(
        name,
        str(metadata.get("uid", "")),
        str(node_info.get("machineID", "")),
        tuple(pod_cidrs),
        {key: value for key, value in annotations.items() if key not in LEFT_OUT},
        str(metadata.get("resourceVersion", "")),
    )


def _mapping(parent: dict[str, Any], key: str, source: str) -> dict[str, Any]:
    child = parent.get(key) or {}
    if not isinstance(child, dict):
        raise CNIError(NODE_INVALID, f"{source}: {key} is not an object", ONE_NODE)
    return child


def pod_subnets(node: Node) -> tuple[Subnet, ...]:
    """Return the subnets of `spec.podCIDRs`. Raises CNIError; 11 while none are assigned."""
    if not node.pod_cidrs:
        raise CNIError(
            TRY_AGAIN_LATER,
            f"Node {node.name} has no spec.podCIDRs yet",
            "the controller manager assigns them (--allocate-node-cidrs=true and --cluster-cidr), or kubeadm's --pod-network-cidr",
        )
    try:
        found = tuple(map(parse_subnet, node.pod_cidrs))
        require_apart(found)
    except RangeError as error:
        raise CNIError(
            NODE_INVALID, f"spec.podCIDRs of Node {node.name}: {error}", "check --cluster-cidr of the controller manager"
        ) from None
    return found


def annotation(node: Node, key: str) -> str:
    """Return an annotation's value. Raises CNIError if it is missing or empty."""
    value = node.annotations.get(key)
    if key == CLOSED:
        raise CNIError(ANNOTATION_MISSING, f"annotation {key} of a Node is the controller's own", "give the network another annotation")
    if value is None:
        raise CNIError(ANNOTATION_MISSING, f"Node {node.name} has no annotation {key}", f"kubectl annotate node {node.name} {key}=VALUE")
    if not value.strip():
        raise CNIError(
            ANNOTATION_INVALID,
            f"annotation {key} of Node {node.name} is empty",
            f"kubectl annotate --overwrite node {node.name} {key}=VALUE",
        )
    return value


def annotated_items(node: Node, key: str) -> tuple[Item, ...]:
    """Return the items of an annotation, parsed by `items`. Raises CNIError."""
    from kubenode.nodes import items  # not needed for podCIDRs

    value = annotation(node, key)
    try:
        return items.parse(value)
    except RangeError as error:
        raise CNIError(
            ANNOTATION_INVALID,
            f"annotation {key} of Node {node.name}: {error}",
            f"the value is {value!r}; it must be subnets separated by commas, such as 172.20.2.0/24,fd00::2:0:0/96, "
            "or blocks of a network of all nodes, such as 172.20.2.0/28 of 172.20.0.0/16",
        ) from None
