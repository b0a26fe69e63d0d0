# SPDX-License-Identifier: Apache-2.0
"""Handlers of watched objects: they update the ledger. An older version than the known one is ignored, unless etcd went back in time."""

from __future__ import annotations

import time
from math import inf
from sys import intern
from typing import TYPE_CHECKING, Any

import msgspec

from kubenode.kube.client import ObjectMeta
from kubenode.kube.reflector import before
from kubenode.nodes.node import CLOSED, LAST_APPLIED
from kubenode.pools.records import NodeMetadata, NodeSubnet, RecordError, parse_claim, parse_pool
from kubenode.pools.reports import AgentReport, parse_report
from kubenode.pools.texts import read

if TYPE_CHECKING:
    from collections.abc import Callable

    from kubenode.base.log import Log
    from kubenode.pools.ledger import Ledger
    from kubenode.pools.records import SubnetPool


class _Object(msgspec.Struct):
    metadata: ObjectMeta


_NODE: msgspec.json.Decoder[_Object] = msgspec.json.Decoder(_Object)
LONGEST = 1024  # characters of an annotation that is kept whatever it is
LONGEST_LIST = 32768  # characters of the longest annotation read as a list of subnets
TOO_LONG = f"(more than {LONGEST_LIST} characters)"  # not a list of subnets, so the annotation stays unchanged
_NOTHING: dict[str, str] = {}


class Handler:
    """Handler of one kind's list and watch. `heard` is called after each change."""

    def __init__(self, ledger: Ledger, heard: Callable[[], None], log: Log) -> None:
        self._ledger = ledger
        self._heard = heard
        self._log = log

    def _listed(self, version: str) -> None:
        """Handle the end of a list. "" as its version: etcd was restored, and nodes may use subnets that no object names."""
        if not version and self._ledger.growth.reporting:
            self._ledger.growth.pause(time.monotonic())
            self._ledger.changed.update(self._ledger.nodes)
        self._heard()


class Nodes(Handler):
    """Handler of Nodes."""

    def put(self, manifest: msgspec.Raw, *, replace: bool = False) -> str:
        """Take a Node's current metadata; return its name. `replace`: also an older version."""
        return self.take(_NODE.decode(manifest), replace=replace).name

    def take(self, told: _Object, *, replace: bool = False) -> NodeMetadata:
        """Take a Node, and return it."""
        meta = told.metadata
        # Thousands of nodes share most labels, and most annotations are of no use here.
        labels = {intern(key): intern(value) for key, value in (meta.labels or _NOTHING).items()}
        annotations = {
            intern(key): value if len(value) <= LONGEST else value[:LONGEST_LIST] if key == CLOSED else _shortened(value)
            for key, value in (meta.annotations or _NOTHING).items()
            if key != LAST_APPLIED
        }
        node = NodeMetadata(intern(meta.name), intern(meta.uid), meta.version, labels, annotations)
        if replace or is_news(node, self._ledger.nodes.get(node.name)):
            self._ledger.set_node(node)
            self._heard()
        return node

    def take_object(self, manifest: dict[str, Any]) -> NodeMetadata:
        """Take a Node's manifest from an answer."""
        return self.take(msgspec.convert(manifest, _Object))

    def drop(self, manifest: msgspec.Raw) -> None:
        """Drop a deleted object."""
        meta = _NODE.decode(manifest).metadata
        known = self._ledger.nodes.get(meta.name)
        if known is not None and known.uid == meta.uid:
            self._ledger.drop_node(meta.name)
            self._heard()

    def only(self, names: set[str], version: str) -> None:
        """Drop all objects that a list at this version lacks."""
        for node in [node for node in self._ledger.nodes.values() if node.name not in names and not before(version, node.version)]:
            self._ledger.drop_node(node.name)
        self._listed(version)


class Claims(Handler):
    """Handler of NodeSubnets."""

    def put(self, manifest: msgspec.Raw, *, replace: bool = False) -> str:
        """Take an object as listed or watched; return its name. `replace`: also an older version."""
        return self.take_object(msgspec.json.decode(manifest), replace=replace)

    def take_object(self, manifest: dict[str, Any], *, replace: bool = False) -> str:
        """Take a NodeSubnet; return its name. An invalid one is only logged."""
        try:
            claim = parse_claim(manifest)
        except RecordError as error:
            self._log.warning("invalid NodeSubnet", error=str(error))
            return str(manifest["metadata"]["name"])
        if replace or is_news(claim, self._ledger.claims.get(claim.subnet)):
            self._ledger.set_claim(claim)
            self._ledger.unbar(claim.name)
            self._heard()
        return claim.name

    def drop(self, manifest: msgspec.Raw) -> None:
        """Drop a deleted object."""
        told = msgspec.json.decode(manifest)
        try:
            claim = parse_claim(told)
        except RecordError:
            self._ledger.unbar(told["metadata"]["name"])
            self._heard()
        else:
            self.forget(claim)

    def forget(self, claim: NodeSubnet) -> None:
        """Drop a claim whose object is gone."""
        known = self._ledger.claims.get(claim.subnet)
        if known is not None and known.uid == claim.uid:
            self._ledger.drop_claim(claim.subnet)
            self._heard()

    def only(self, names: set[str], version: str) -> None:
        """Drop all objects that a list at this version lacks."""
        gone = [claim for _, claim in self._ledger.claims if claim.uid and claim.name not in names and not before(version, claim.version)]
        for claim in gone:
            self._ledger.drop_claim(claim.subnet)
        for name in self._ledger.blocked.keys() - names:
            self._ledger.unbar(name)
        self._listed(version)


class Pools(Handler):
    """Handler of SubnetPools."""

    def put(self, manifest: msgspec.Raw, *, replace: bool = False) -> str:
        """Take an object as listed or watched; return its name. `replace`: also an older version."""
        return self.take_object(msgspec.json.decode(manifest), replace=replace)

    def take_object(self, manifest: dict[str, Any], *, replace: bool = False) -> str:
        """Take a SubnetPool; return its name."""
        pool = parse_pool(manifest)
        if replace or is_news(pool, self._ledger.pools.get(pool.name)):
            self._ledger.set_pool(pool)
            self._heard()
        return pool.name

    def drop(self, manifest: msgspec.Raw) -> None:
        """Drop a deleted object."""
        meta = _NODE.decode(manifest).metadata
        known = self._ledger.pools.get(meta.name)
        if known is not None and known.uid == meta.uid:
            self._ledger.drop_pool(meta.name)
            self._heard()

    def only(self, names: set[str], version: str) -> None:
        """Drop all objects that a list at this version lacks."""
        for pool in [pool for pool in self._ledger.pools.values() if pool.name not in names and not before(version, pool.version)]:
            self._ledger.drop_pool(pool.name)
        self._listed(version)


class Reports(Handler):
    """Handler of NodeAddresses."""

    def put(self, manifest: msgspec.Raw, *, replace: bool = False) -> str:
        """Take an object as listed or watched; return its name. `replace`: also an older version."""
        return self.take_object(msgspec.json.decode(manifest), replace=replace).node

    def take_object(self, manifest: dict[str, Any], *, replace: bool = False) -> AgentReport:
        """Take a NodeAddresses object; return the report in it."""
        report = parse_report(manifest)
        if replace or is_news(report, self._ledger.reports.get(report.node)):
            self._ledger.set_report(report)
            self._heard()
        return report

    def drop(self, manifest: msgspec.Raw) -> None:
        """Drop a deleted object."""
        meta = _NODE.decode(manifest).metadata
        known = self._ledger.reports.get(meta.name)
        if known is not None and known.uid == meta.uid:
            self._ledger.drop_report(meta.name)
            self._heard()

    def only(self, names: set[str], version: str) -> None:
        """Drop all objects that a list at this version lacks."""
        for report in [each for each in self._ledger.reports.values() if each.node not in names and not before(version, each.version)]:
            self._ledger.drop_report(report.node)
        begins = not self._ledger.growth.reporting
        self._ledger.growth.reporting = True
        self._listed("" if begins else version)

    def absent(self) -> None:
        """Go on without reports: the API server does not know NodeAddresses. Pools that should grow do not."""
        if self._ledger.growth.open_at == inf:
            self._log.warning("pools do not grow: the API server has no CustomResourceDefinition of NodeAddresses")
            self._ledger.growth.open_at = 0.0
            self._ledger.changed.update(self._ledger.nodes)
            self._heard()


def _shortened(text: str) -> str:
    """Return a long annotation, or its beginning with TOO_LONG at the end, if it is a list of subnets; otherwise only TOO_LONG."""
    if not read(text[:LONGEST].partition(",")[0]).subnets:
        return TOO_LONG
    return text if len(text) <= LONGEST_LIST else f"{text[:LONGEST_LIST].rpartition(',')[0]},{TOO_LONG}"


def is_news(
    told: NodeMetadata | NodeSubnet | SubnetPool | AgentReport, known: NodeMetadata | NodeSubnet | SubnetPool | AgentReport | None
) -> bool:
    """Say whether a received object is not older than the known one."""
    return known is None or known.uid != told.uid or not before(told.version, known.version)
