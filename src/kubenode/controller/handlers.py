"""All that the API server tells, put into the ledger. Older versions than what is known are left out, unless time itself has gone back."""

from __future__ import annotations

from sys import intern
from typing import TYPE_CHECKING, Any

import msgspec

from kubenode.kube.reflector import before
from kubenode.nodes.node import LAST_APPLIED
from kubenode.pools.records import Node, NodeSubnet, RecordError, parse_claim, parse_pool
from kubenode.pools.texts import read

if TYPE_CHECKING:
    from collections.abc import Callable

    from kubenode.base.log import Log
    from kubenode.pools.ledger import Ledger
    from kubenode.pools.records import SubnetPool


class _Meta(msgspec.Struct, rename={"version": "resourceVersion"}):
    name: str
    uid: str = ""
    version: str = ""
    labels: dict[str, str] | None = None
    annotations: dict[str, str] | None = None


class _Object(msgspec.Struct):
    metadata: _Meta


_NODE: msgspec.json.Decoder[_Object] = msgspec.json.Decoder(_Object)
LONGEST = 1024  # characters of an annotation that may be a list of subnets
TOO_LONG = f"(more than {LONGEST} characters)"  # no list of subnets, so that it is left as it is
_NOTHING: dict[str, str] = {}


class Handler:
    """A sink of a list and watch. `heard` is called after each change."""

    def __init__(self, ledger: Ledger, heard: Callable[[], None], log: Log) -> None:
        self._ledger = ledger
        self._heard = heard
        self._log = log


class Nodes(Handler):
    def put(self, manifest: msgspec.Raw, *, replace: bool = False) -> str:
        return self.take(_NODE.decode(manifest), replace=replace).name

    def take(self, told: _Object, *, replace: bool = False) -> Node:
        meta = told.metadata
        # Of thousands of nodes most labels are the same, and most of what they are annotated with is of no use here.
        labels = {intern(key): intern(value) for key, value in (meta.labels or _NOTHING).items()}
        annotations = {
            intern(key): value if len(value) <= LONGEST else _shortened(value)
            for key, value in (meta.annotations or _NOTHING).items()
            if key != LAST_APPLIED
        }
        node = Node(intern(meta.name), intern(meta.uid), meta.version, labels, annotations)
        if replace or is_news(node, self._ledger.nodes.get(node.name)):
            self._ledger.set_node(node)
            self._heard()
        return node

    def take_object(self, manifest: dict[str, Any]) -> Node:
        return self.take(msgspec.convert(manifest, _Object))

    def drop(self, manifest: msgspec.Raw) -> None:
        meta = _NODE.decode(manifest).metadata
        known = self._ledger.nodes.get(meta.name)
        if known is not None and known.uid == meta.uid:
            self._ledger.drop_node(meta.name)
            self._heard()

    def only(self, names: set[str], version: str) -> None:
        for node in [node for node in self._ledger.nodes.values() if node.name not in names and not before(version, node.version)]:
            self._ledger.drop_node(node.name)
        self._heard()


class Claims(Handler):
    def put(self, manifest: msgspec.Raw, *, replace: bool = False) -> str:
        return self.take_object(msgspec.json.decode(manifest), replace=replace)

    def take_object(self, manifest: dict[str, Any], *, replace: bool = False) -> str:
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
        told = msgspec.json.decode(manifest)
        try:
            claim = parse_claim(told)
        except RecordError:
            self._ledger.unbar(told["metadata"]["name"])
            self._heard()
        else:
            self.forget(claim)

    def forget(self, claim: NodeSubnet) -> None:
        """There is no such object any more."""
        known = self._ledger.claims.get(claim.subnet)
        if known is not None and known.uid == claim.uid:
            self._ledger.drop_claim(claim.subnet)
            self._heard()

    def only(self, names: set[str], version: str) -> None:
        gone = [claim for _, claim in self._ledger.claims if claim.uid and claim.name not in names and not before(version, claim.version)]
        for claim in gone:
            self._ledger.drop_claim(claim.subnet)
        for name in self._ledger.blocked.keys() - names:
            self._ledger.unbar(name)
        self._heard()


class Pools(Handler):
    def put(self, manifest: msgspec.Raw, *, replace: bool = False) -> str:
        return self.take_object(msgspec.json.decode(manifest), replace=replace)

    def take_object(self, manifest: dict[str, Any], *, replace: bool = False) -> str:
        pool = parse_pool(manifest)
        if replace or is_news(pool, self._ledger.pools.get(pool.name)):
            self._ledger.set_pool(pool)
            self._heard()
        return pool.name

    def drop(self, manifest: msgspec.Raw) -> None:
        meta = _NODE.decode(manifest).metadata
        known = self._ledger.pools.get(meta.name)
        if known is not None and known.uid == meta.uid:
            self._ledger.drop_pool(meta.name)
            self._heard()

    def only(self, names: set[str], version: str) -> None:
        for pool in [pool for pool in self._ledger.pools.values() if pool.name not in names and not before(version, pool.version)]:
            self._ledger.drop_pool(pool.name)
        self._heard()


def _shortened(text: str) -> str:
    """Return what is kept of a long annotation: its beginning, where that is a list of subnets."""
    beginning = text[:LONGEST].rpartition(",")[0]
    return f"{beginning},{TOO_LONG}" if read(beginning.partition(",")[0]).subnets else TOO_LONG


def is_news(told: Node | NodeSubnet | SubnetPool, known: Node | NodeSubnet | SubnetPool | None) -> bool:
    return known is None or known.uid != told.uid or not before(told.version, known.version)
