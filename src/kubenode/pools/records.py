# SPDX-License-Identifier: Apache-2.0
"""PURE. SubnetPool, NodeSubnet and Node as the controller needs them, parsed once from their manifests."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from sys import intern
from typing import TYPE_CHECKING, Any, NamedTuple

from kubenode.ipam.ranges import RangeError, Subnet, parse_subnet
from kubenode.nodes.items import Item, parse
from kubenode.nodes.node import CLOSED
from kubenode.pools.blocks import Block, parse_block

if TYPE_CHECKING:
    from collections.abc import Mapping


IN, NOT_IN, EXISTS, DOES_NOT_EXIST = "In", "NotIn", "Exists", "DoesNotExist"


class SelectorError(ValueError):
    """An invalid selector; the message is for the operator."""


class Requirement(NamedTuple):
    """A requirement of one label."""

    key: str
    operator: str
    values: frozenset[str]

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Say whether a Node's labels fulfil the requirement."""
        value = labels.get(self.key)
        if self.operator == EXISTS:
            return value is not None
        if self.operator == DOES_NOT_EXIST:
            return value is None
        # As in Kubernetes, a missing label is in no list.
        return (value in self.values) == (self.operator == IN)


class Selector(NamedTuple):
    """All requirements together; without any it selects every node."""

    requirements: tuple[Requirement, ...] = ()

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Say whether a Node's labels fulfil all requirements."""
        return all(requirement.matches(labels) for requirement in self.requirements)


def parse_selector(selector: Mapping[str, Any]) -> Selector:
    """Parse `matchLabels` and `matchExpressions`. Raises SelectorError."""
    found = [Requirement(key, IN, frozenset([value])) for key, value in (selector.get("matchLabels") or {}).items()]
    for expression in selector.get("matchExpressions") or ():
        key, operator, values = expression.get("key", ""), expression.get("operator", ""), frozenset(expression.get("values") or ())
        if operator in (IN, NOT_IN) and not values:
            raise SelectorError(f"nodeSelector: {operator} of label {key} needs values")
        if operator in (EXISTS, DOES_NOT_EXIST) and values:
            raise SelectorError(f"nodeSelector: {operator} of label {key} takes no values")
        if operator not in (IN, NOT_IN, EXISTS, DOES_NOT_EXIST):
            raise SelectorError(f"nodeSelector: label {key} has operator {operator!r}; there are In, NotIn, Exists and DoesNotExist")
        found.append(Requirement(key, operator, values))
    return Selector(tuple(found))


GROUP = "kube-node.nordix.org"
API_VERSION = f"{GROUP}/v1alpha1"
RECLAIM_AFTER = 3600.0  # seconds
LARGEST_MIN_FREE = 65536
MAX_BLOCKS, LARGEST_MAX_BLOCKS = 16, 128  # an annotation has at most 256 items
SHRINK_AFTER = 600.0  # seconds
UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
LONGEST_LABEL = 63


class RecordError(ValueError):
    """An invalid manifest; the message is for the operator."""


class NodeMetadata(NamedTuple):
    """The part of a Node's metadata that the controller needs."""

    name: str
    uid: str
    version: str
    labels: Mapping[str, str]
    annotations: Mapping[str, str]


class Growth(NamedTuple):
    """The growth of a node's part of a pool, for each family: a further subnet where fewer than `min_free` addresses are free.

    A subnet that a node has not needed for `shrink_after` seconds is taken back.
    """

    min_free: int = 0
    max_blocks: int = MAX_BLOCKS
    shrink_after: float = SHRINK_AFTER


STATIC = Growth()


class SubnetPool(NamedTuple):
    """Subnets for nodes. `problems`: the reasons why it gives none; `version` and `status` are those of the object when it was read."""

    name: str
    annotation: str
    blocks: tuple[Block, ...]
    selector: Selector = Selector()
    reclaim_after: float = RECLAIM_AFTER
    problems: tuple[str, ...] = ()
    growth: Growth = STATIC
    uid: str = ""
    created: str = ""
    generation: int = 0
    version: str = ""
    status: Mapping[str, Any] = {}

    def serves(self, node: NodeMetadata) -> bool:
        """Say whether the pool is valid and selects a node."""
        return not self.problems and self.selector.matches(node.labels)

    def item(self, subnet: Subnet) -> Item | None:
        """Return the annotation's item for a subnet of this pool."""
        return next((block.item(subnet) for block in self.blocks if block.holds(subnet)), None)

    def same_spec(self, other: SubnetPool) -> bool:
        """Say whether another version of this object has the same spec."""
        return self[:7] == other[:7] and (self.uid, self.created) == (other.uid, other.created)


class NodeSubnet(NamedTuple):
    """A node's claim on a subnet; `released` is the time since when the node lacks it. `uid` is "" until the API server has the claim."""

    subnet: Subnet
    pool: str
    annotation: str
    node: str
    node_uid: str
    adopted: bool = False
    released: float | None = None
    uid: str = ""
    version: str = ""

    @property
    def name(self) -> str:
        """The name of the object."""
        return object_name(self.subnet)

    def manifest(self) -> dict[str, Any]:
        """Return the object for the API server."""
        labels = {f"{GROUP}/pool": self.pool, f"{GROUP}/node": self.node}
        metadata: dict[str, Any] = {
            "name": self.name,
            "labels": {key: value for key, value in labels.items() if len(value) <= LONGEST_LABEL},
        }
        if self.version:
            metadata |= {"uid": self.uid, "resourceVersion": self.version}
        spec: dict[str, Any] = {
            "cidr": str(self.subnet),
            "pool": self.pool,
            "annotation": self.annotation,
            "node": self.node,
            "nodeUID": self.node_uid,
        }
        if self.adopted:
            spec["adopted"] = True
        if self.released is not None:
            spec["releasedAt"] = stamp(self.released)
        return {"apiVersion": API_VERSION, "kind": "NodeSubnet", "metadata": metadata, "spec": spec}


def object_name(subnet: Subnet) -> str:
    """Return the unique name of a subnet's NodeSubnet: RFC 1123 allows neither colons nor slashes."""
    text = str(subnet).replace(":", "-").replace("/", "-")
    return f"0{text}" if text.startswith("-") else text


def parse_claim(manifest: Mapping[str, Any]) -> NodeSubnet:
    """Parse a NodeSubnet. Raises RecordError if its name does not fit its subnet: then it protects nothing."""
    metadata, spec = manifest["metadata"], manifest.get("spec") or {}
    try:
        subnet = parse_subnet(str(spec.get("cidr", "")), 0)  # a block of a shared network may be of any size
        released = unstamp(spec["releasedAt"]) if spec.get("releasedAt") else None
    except ValueError as error:
        raise RecordError(f"NodeSubnet {metadata['name']}: {error}") from None
    if object_name(subnet) != metadata["name"]:
        raise RecordError(f"NodeSubnet {metadata['name']}: its cidr is {subnet}, so it has to be called {object_name(subnet)}")
    return NodeSubnet(
        subnet,
        intern(str(spec.get("pool", ""))),  # many claims have the same
        intern(str(spec.get("annotation", ""))),
        intern(str(spec.get("node", ""))),
        intern(str(spec.get("nodeUID", ""))),
        bool(spec.get("adopted", False)),
        released,
        str(metadata.get("uid", "")),
        str(metadata.get("resourceVersion", "")),
    )


def parse_pool(manifest: Mapping[str, Any]) -> SubnetPool:
    """Parse a SubnetPool; `problems` collects its faults."""
    metadata, spec = manifest["metadata"], manifest.get("spec") or {}
    problems: list[str] = []
    blocks: list[Block] = []
    for entry in spec.get("cidrs") or ():
        try:
            blocks.append(parse_block(entry, blocks))
        except RangeError as error:
            problems.append(str(error))
    if not spec.get("cidrs"):
        problems.append("no cidrs")
    if not spec.get("annotation") and len(metadata["name"]) > LONGEST_LABEL:
        problems.append(f"no annotation has a name of more than {LONGEST_LABEL} characters, as the pool has: set annotation")
    if spec.get("annotation") == CLOSED:
        problems.append(f"annotation {CLOSED} is the controller's own")
    selector, reclaim_after, growth = Selector(), RECLAIM_AFTER, STATIC
    try:
        selector = parse_selector(spec.get("nodeSelector") or {})
        reclaim_after = duration(spec["reclaimAfter"]) if "reclaimAfter" in spec else RECLAIM_AFTER
        growth = _parse_growth(spec)
    except (SelectorError, RecordError) as error:
        problems.append(str(error))
    return SubnetPool(
        metadata["name"],
        spec.get("annotation") or f"{GROUP}/{metadata['name']}",
        tuple(blocks),
        selector,
        reclaim_after,
        tuple(problems),
        growth,
        str(metadata.get("uid", "")),
        str(metadata.get("creationTimestamp", "")),
        int(metadata.get("generation", 0)),
        str(metadata.get("resourceVersion", "")),
        manifest.get("status") or {},
    )


def _parse_growth(spec: Mapping[str, Any]) -> Growth:
    """Parse `minFree`, `maxBlocks` and `shrinkAfter`. Raises RecordError."""
    found = {"minFree": 0, "maxBlocks": MAX_BLOCKS} | {key: spec[key] for key in ("minFree", "maxBlocks") if key in spec}
    for (key, value), least, most in zip(found.items(), (0, 1), (LARGEST_MIN_FREE, LARGEST_MAX_BLOCKS), strict=True):
        if not isinstance(value, int) or not least <= value <= most:
            raise RecordError(f"{key} {value!r} is not a number from {least} to {most}")
    shrink_after = duration(spec["shrinkAfter"]) if "shrinkAfter" in spec else SHRINK_AFTER
    return Growth(found["minFree"], found["maxBlocks"], shrink_after)


def noted(text: str | None) -> tuple[Item, ...]:
    """Parse an annotation like the plugin kube-node does; () if it is missing or blank. Raises RangeError."""
    return parse(text) if text and text.strip() else ()


def duration(text: str) -> float:
    """Parse a duration such as `1h30m` into seconds. Raises RecordError."""
    if not re.fullmatch(r"(\d+(ms|s|m|h))+", str(text)):
        raise RecordError(f"{text!r} is not a duration such as 90s, 30m or 1h30m")
    return sum(int(number) * UNITS[unit] for number, unit in re.findall(r"(\d+)(ms|s|m|h)", text))


def stamp(seconds: float) -> str:
    """Return a time, in seconds since 1970, in the API server's form."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def unstamp(text: str) -> float:
    """Parse a time in the API server's form into seconds since 1970."""
    return datetime.fromisoformat(text).timestamp()
