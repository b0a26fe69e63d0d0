# SPDX-License-Identifier: Apache-2.0
"""The check of the controller's work for this node: its annotations against SubnetPools and NodeSubnets."""

from __future__ import annotations

import time
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from kubenode.cni.errors import FORBIDDEN, CNIError
from kubenode.inspection.doctor.finding import State, failure, of_error, ok, skipped, warning
from kubenode.ipam.ranges import RangeError
from kubenode.pools.records import NodeMetadata, NodeSubnet, RecordError, SubnetPool, noted, object_name, parse_claim, parse_pool

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kubenode.inspection.doctor.facts import Facts
    from kubenode.inspection.doctor.finding import Finding
    from kubenode.ipam.ranges import Subnet
    from kubenode.kube.client import ApiServer
    from kubenode.nodes.items import Item

LEASE = ("kube-system", "kube-node-controller")  # the controller's by default
LEASE_PATH = f"/apis/coordination.k8s.io/v1/namespaces/{LEASE[0]}/leases/{LEASE[1]}"
SILENT = 60.0  # seconds without renewal, which is due every two; clocks may differ
BAD = {"Ready": "False", "Exhausted": "True", "Conflict": "True"}


class _Told(NamedTuple):
    """The answers of the API server. `claims`: by the node's subnets, without those that we may not read."""

    pools: list[SubnetPool]
    node: NodeMetadata
    claims: dict[Subnet, NodeSubnet | None]
    lease: dict[str, Any]


def pools(facts: Facts) -> Iterator[Finding]:
    """Check that the annotations of networks agree with the pools."""
    keys = sorted({str(one.ipam["annotation"]) for one in facts.configured if facts.asks(one) and one.ipam.get("annotation")})
    if not keys or facts.why_no_api:
        yield skipped(facts.why_no_api or "no network takes its subnets from an annotation")
        return
    for kubeconfig, answer in facts.asked.items():
        if isinstance(answer, CNIError):
            yield skipped("the API server has not answered, see api-server")
            continue
        name = answer.name
        try:
            told = facts.ask(kubeconfig, lambda server, name=name: _ask(server, name, keys))  # type: ignore[misc] # a default
        except CNIError as error:
            yield skipped("no right to list subnetpools") if error.code == FORBIDDEN else of_error(error, State.WARNING)
            continue
        if not told.pools:
            yield ok("there is no SubnetPool")
            continue
        for key in keys:
            yield from _annotation(told, key)
        yield from _controller(told)


def _ask(server: ApiServer, name: str, keys: list[str]) -> _Told:
    from kubenode.controller.reconcile import CLAIMS, POOLS

    manifest = server.node(name) or {}
    metadata = manifest.get("metadata") or {}
    node = NodeMetadata(name, "", "", metadata.get("labels") or {}, metadata.get("annotations") or {})
    found = [parse_pool(pool) for pool in server.every(POOLS)]
    claims: dict[Subnet, NodeSubnet | None] = {}
    lease: dict[str, Any] = {}
    if found:
        try:
            for subnet in {item.block for key in keys for item in _noted(node, key)}:
                claim = server.found(f"{CLAIMS}/{object_name(subnet)}")
                claims[subnet] = parse_claim(claim) if claim else None
            lease = (server.found(LEASE_PATH) or {}).get("spec") or {}
        except RecordError:
            pass  # it protects nothing, and the controller logs it
        except CNIError as error:
            if error.code != FORBIDDEN:
                raise
    return _Told(found, node, claims, lease)


def _noted(node: NodeMetadata, key: str) -> tuple[Item, ...]:
    try:
        return noted(node.annotations.get(key))
    except RangeError:
        return ()  # `networks` reports it


def _annotation(told: _Told, key: str) -> Iterator[Finding]:
    """Compare one annotation with the pools that write it."""
    mine = [pool for pool in told.pools if pool.annotation == key]
    names = ", ".join(pool.name for pool in mine)
    items = _noted(told.node, key)
    serving = [pool for pool in mine if pool.selector.matches(told.node.labels)]
    if not items and not serving:
        what = f"none of the SubnetPools {names} with annotation {key} selects" if mine else f"no SubnetPool has annotation {key} for"
        advice = "label the Node to match a nodeSelector" if mine else "create one, or annotate the Node by hand"
        yield failure(f"{what} Node {told.node.name}, which has none", advice)
    for item in items:
        yield from _item(told, key, item, mine)
    for pool in mine:
        for condition in pool.status.get("conditions") or ():
            if condition.get("status") == BAD.get(str(condition.get("type"))):
                yield warning(
                    f"SubnetPool {pool.name}: {condition.get('reason')}: {condition.get('message')}",
                    f"see kubectl describe subnetpool {pool.name}, and the conditions in docs/reference/controller.md",
                )


def _item(told: _Told, key: str, item: Item, mine: list[SubnetPool]) -> Iterator[Finding]:
    """Compare an item of an annotation with the pools that write it, or with the pool that wrote it."""
    subnet = item.block
    anew = f"remove the annotation, and the Node gets another: kubectl annotate node {told.node.name} {key}-"
    names, claim = ", ".join(pool.name for pool in mine), told.claims.get(subnet)
    if not mine:
        for pool in [pool for pool in told.pools if claim and pool.name == claim.pool]:
            yield warning(
                f"{subnet} in annotation {key} belongs to SubnetPool {pool.name}, which writes annotation {pool.annotation} now",
                f"let the network read that annotation, and then remove this one: kubectl annotate node {told.node.name} {key}-",
            )
    elif not any(block.offers(subnet) for pool in mine for block in pool.blocks):
        yield warning(f"{subnet} in annotation {key} is not offered by SubnetPool {names}", f"add it to the pool's cidrs, or {anew}")
    elif subnet in told.claims and claim is None and not any(pool.serves(told.node) and _cuts(pool, item) for pool in mine):
        yield warning(f"{subnet} in annotation {key} is not what SubnetPool {names} gives to this Node, so it is not taken over", anew)
    elif subnet in told.claims and claim is None:
        yield warning(
            f"{subnet} in annotation {key} has no NodeSubnet, so another node may get it",
            "is a controller running? kubectl -n kube-system get deployment kube-node-controller",
        )
    elif claim is not None and claim.node != told.node.name:
        yield failure(f"{subnet} in annotation {key} belongs to Node {claim.node} by NodeSubnet {claim.name}", anew)
    elif not any(block.writes(item) for pool in mine for block in pool.blocks):
        said = next(f"'{found}'" for pool in mine if (found := pool.item(subnet)))
        yield warning(f"'{item}' in annotation {key} is {said} by SubnetPool {names}", f"new pods get what the annotation says; {anew}")
    else:
        yield ok(f"{subnet} of SubnetPool {names}")


def _cuts(pool: SubnetPool, item: Item) -> bool:
    return any(block.cuts(item.block) and block.writes(item) for block in pool.blocks)


def _controller(told: _Told) -> Iterator[Finding]:
    """Check that a controller renews the Lease, if there is one."""
    if renewed := told.lease.get("renewTime"):
        silent = time.time() - datetime.fromisoformat(renewed).timestamp()
        if silent > SILENT:
            yield warning(
                f"no controller works: Lease {'/'.join(LEASE)} was renewed {silent:.0f} s ago",
                "kubectl -n kube-system get pods -l app.kubernetes.io/name=kube-node-controller, and their logs",
            )
