# SPDX-License-Identifier: Apache-2.0
"""Blocking client of the API server, for plugins, agent and doctor: a Node or pod by name, or all Nodes. Raises CNIError.

A cold path: importing it takes longer than a warm ADD.
"""

from __future__ import annotations

import queue
import re
import threading
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlencode

import httpx2
import msgspec

from kubenode.cni.errors import TRY_AGAIN_LATER, CNIError
from kubenode.kube.loadingrules import IN_CONFIGURATION, SERVICE_ACCOUNT, connection
from kubenode.kube.refusal import StatusError, garbled
from kubenode.kube.transport import Transport
from kubenode.nodes import whose

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

T = TypeVar("T")

NAME = re.compile(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?")  # RFC 1123, as required for a Node's name
PAGE = 500  # objects in one answer to a LIST, as in kubectl
JSON = "application/json"
METADATA = f"{JSON};as=PartialObjectMetadata;g=meta.k8s.io;v=v1"  # an object's metadata only
METADATA_LIST = METADATA.replace(";g=", "List;g=")  # the same for a list
UNDECODABLE = (ValueError, RecursionError)  # not JSON, other types, not UTF-8; nested too deeply


class ListMeta(msgspec.Struct, rename={"version": "resourceVersion", "more": "continue"}):
    """Metadata of a list. `more` is the token of its next page."""

    version: str = ""
    more: str = ""


class ObjectMeta(msgspec.Struct, rename={"version": "resourceVersion"}):
    """Metadata of an object, as much of it as kube-node reads."""

    name: str
    namespace: str = ""
    uid: str = ""
    version: str = ""
    labels: dict[str, str] | None = None
    annotations: dict[str, str] | None = None


class _Page(msgspec.Struct):
    metadata: ListMeta
    items: list[msgspec.Raw] | None


class _Reviewed(msgspec.Struct):
    status: dict[str, Any] | None = None


class ApiServer:
    """API server of a kubeconfig. Each single wait ends after `timeout` seconds; `within` limits the whole call."""

    def __init__(
        self,
        kubeconfig: str | None,
        environ: Mapping[str, str],
        timeout: float,
        service_account: str = SERVICE_ACCOUNT,
        option: str = IN_CONFIGURATION,
        context: str = "",
    ) -> None:
        found = connection(kubeconfig, environ, service_account, option, context)
        self._server = found.cluster.server
        self._transport = Transport(found, environ, timeout)

    def own_name(self) -> str:
        """Return the name of the Node that owns our credentials, "" if they belong to no Node.

        Asks the API server only for a token that we cannot parse.
        """
        me = self._transport.identity
        if me.certificate:
            return whose.of_certificate(me.certificate)
        kind, _, token = (me.authorization or "").partition(" ")
        name = whose.of_token(token) if kind == "Bearer" else ""
        if name is not None:
            return name
        try:
            return whose.of_review(self._review("authentication.k8s.io", "SelfSubjectReview"))
        except StatusError:  # Kubernetes before 1.28 lacks this review
            return ""
        except (AttributeError, TypeError, ValueError) as error:
            raise self._garbled("SelfSubjectReview", error) from error

    def node(self, name: str) -> dict[str, Any] | None:
        """Return a Node's manifest, None if there is no such Node."""
        if not NAME.fullmatch(name):
            return None  # no valid name: `../x` or `x?y` would be another request
        return self._named("Node", f"/api/v1/nodes/{name}")

    def pod(self, namespace: str, name: str) -> dict[str, Any] | None:
        """Return a pod's metadata, None if there is no such pod. We do not need the rest, which may contain secrets."""
        if not NAME.fullmatch(namespace) or not NAME.fullmatch(name):
            return None
        return self._named("PartialObjectMetadata", f"/api/v1/namespaces/{namespace}/pods/{name}", METADATA)

    def pods_on(self, node: str) -> list[dict[str, Any]]:
        """Return the metadata of all pods on a Node, in one answer. A kubelet's credentials allow that only for its own Node."""
        kind = "PartialObjectMetadataList"
        if not NAME.fullmatch(node):
            raise self._garbled("Node", f"the name {node!r}")
        found = self._named(kind, "/api/v1/pods?" + urlencode({"fieldSelector": f"spec.nodeName={node}"}), METADATA_LIST)
        # The caller takes a missing pod as gone, so the list must be complete.
        if found is None or not isinstance(items := found.get("items"), list) or (found.get("metadata") or {}).get("continue"):
            raise self._garbled(kind, "a part of one")
        return items

    def nodes(self) -> Iterator[dict[str, Any]]:
        """Yield every Node once, in pages, each with kind and apiVersion like from a GET: a list has them only once.

        An expired page (410) restarts the list, once.
        """
        seen: set[object] = set()
        for last_try in (False, True):
            try:
                for node in self._pages("/api/v1/nodes", "Node", dict[str, Any]):
                    metadata = node.get("metadata")
                    if not isinstance(metadata, dict):
                        raise self._garbled("Node", "one without metadata")
                    if (name := metadata.get("name")) not in seen:
                        seen.add(name)
                        yield {"kind": "Node", "apiVersion": "v1", **node}
            except StatusError as refused:
                if refused.status != HTTPStatus.GONE or last_try:
                    raise
            else:
                return

    def may(self, verb: str, resource: str, name: str = "", of_node: str = "") -> bool:
        """Say whether the API server grants us a right to a resource of the core group.

        `of_node` asks for the pods of one Node; servers before 1.31 take that as all pods.
        """
        only = {"requirements": [{"key": "spec.nodeName", "operator": "In", "values": [of_node]}]}
        asked = {"verb": verb, "resource": resource, **({"name": name} if name else {}), **({"fieldSelector": only} if of_node else {})}
        return bool(self._review("authorization.k8s.io", "SelfSubjectAccessReview", {"resourceAttributes": asked}).get("allowed"))

    def found(self, path: str) -> dict[str, Any] | None:
        """Return the object at a path, None if there is no such object or resource."""
        try:
            return self._ask("GET", path, path, dict[str, Any])
        except StatusError as refused:
            if refused.status == HTTPStatus.NOT_FOUND:
                return None
            raise

    def every(self, path: str) -> list[dict[str, Any]]:
        """Return all objects of a resource; [] if the API server lacks the resource."""
        return list(self.each(path, dict[str, Any]))

    def each(self, path: str, type_: type[T], **query: str) -> Iterator[T]:
        """Yield all objects of a resource, page by page; none if the API server lacks the resource.

        An expired page raises StatusError 410.
        """
        try:
            yield from self._pages(path, path, type_, query)
        except StatusError as refused:
            if refused.status != HTTPStatus.NOT_FOUND:
                raise

    def close(self) -> None:
        """Close all connections."""
        self._transport.close()

    def _named(self, kind: str, path: str, accept: str = JSON) -> dict[str, Any] | None:
        """Return an object of a kind; None only if the API server itself says that it does not exist."""
        try:
            found = self._ask("GET", path, kind, dict[str, Any], accept=accept)
        except StatusError as refused:
            if refused.status == HTTPStatus.NOT_FOUND and refused.reason == "NotFound":
                return None
            raise
        if found.get("kind") != kind:
            raise self._garbled(kind, f"a {found.get('kind')}")
        return found

    def _pages(self, path: str, kind: str, type_: type[T], wanted: Mapping[str, str] | None = None) -> Iterator[T]:
        query, decoder = {"limit": str(PAGE), **(wanted or {})}, msgspec.json.Decoder(type_)
        while True:
            page = self._ask("GET", f"{path}?{urlencode(query)}", kind, _Page)
            for item in page.items or ():
                try:
                    found = decoder.decode(item)
                except UNDECODABLE as error:
                    raise self._garbled(kind, error) from error
                yield found
            if not page.metadata.more:
                return
            query["continue"] = page.metadata.more

    def _review(self, group: str, kind: str, spec: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Return the status of a review, which the API server fills when we create one."""
        manifest = {"apiVersion": f"{group}/v1", "kind": kind, "metadata": {}, **({"spec": spec} if spec else {})}
        return self._ask("POST", f"/apis/{group}/v1/{kind.lower()}s", kind, _Reviewed, manifest=manifest).status or {}

    def _ask(
        self, method: str, path: str, kind: str, type_: type[T], *, accept: str = JSON, manifest: Mapping[str, Any] | None = None
    ) -> T:
        content = None if manifest is None else msgspec.json.encode(manifest)
        headers = {"Accept": accept, "Accept-Encoding": "gzip", **({} if content is None else {"Content-Type": JSON})}
        answer = self._transport.send(httpx2.Request(method, self._server.rstrip("/") + path, content=content, headers=headers))
        try:
            return msgspec.json.decode(answer.content, type=type_)
        except UNDECODABLE as error:
            raise self._garbled(kind, error) from error

    def _garbled(self, kind: str, found: object) -> CNIError:
        return garbled(self._server, f"a {kind}", found)


def within(seconds: float, function: Callable[[], T]) -> T:
    """Call `function` in its own thread and give up after `seconds`.

    Nothing else limits the sum of name resolution, a server that sends a byte now and then, and a credential plugin that hangs.
    """
    outcome: queue.SimpleQueue[tuple[T, None] | tuple[None, BaseException]] = queue.SimpleQueue()

    def call() -> None:
        try:
            outcome.put((function(), None))
        except BaseException as error:  # noqa: BLE001 (raised again by the caller's thread)
            outcome.put((None, error))

    threading.Thread(target=call, daemon=True).start()
    try:
        result, error = outcome.get(timeout=seconds)
    except queue.Empty:
        problem = f"the request to the API server was not done within {seconds:g} s"
        raise CNIError(TRY_AGAIN_LATER, problem, "the name server, the network or a credential plugin is slow") from None
    if error is not None:
        raise error
    return result  # type: ignore[return-value]
