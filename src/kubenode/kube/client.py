"""The API server as plugins, agent and doctor ask it: a Node or a pod by its name, or all Nodes. All of it blocks and raises CNIError.

A cold path: importing this takes longer than a warm ADD.
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

NAME = re.compile(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?")  # RFC 1123, which the API server requires of a Node's name
PAGE = 500  # objects in one answer to a LIST, as kubectl asks for them
JSON = "application/json"
METADATA = f"{JSON};as=PartialObjectMetadata;g=meta.k8s.io;v=v1"  # of an object nothing but its metadata
METADATA_LIST = METADATA.replace(";g=", "List;g=")  # the same of each
UNDECODABLE = (ValueError, RecursionError)  # no JSON, another shape, no UTF-8; nested too deeply


class ListMeta(msgspec.Struct, rename={"version": "resourceVersion", "more": "continue"}):
    """Metadata of a list. `more` asks for its next page."""

    version: str = ""
    more: str = ""


class _Page(msgspec.Struct):
    metadata: ListMeta
    items: list[msgspec.Raw] | None


class _Reviewed(msgspec.Struct):
    status: dict[str, Any] | None = None


class ApiServer:
    """The API server that a kubeconfig names. Each single wait ends after `timeout` seconds; `within` bounds the whole."""

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
        """Return the name of the Node that our credentials are of, "" where they are of none.

        Only for a token that we cannot read the API server is asked.
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
        except StatusError:  # before Kubernetes 1.28 there is no such review
            return ""
        except (AttributeError, TypeError, ValueError) as error:
            raise self._garbled("SelfSubjectReview", error) from error

    def node(self, name: str) -> dict[str, Any] | None:
        """Return the Node as the API server says it, None if there is none of that name."""
        if not NAME.fullmatch(name):
            return None  # none can be called so, and `../x` or `x?y` would be another request
        return self._named("Node", f"/api/v1/nodes/{name}")

    def pod(self, namespace: str, name: str) -> dict[str, Any] | None:
        """Return a pod's metadata, None if there is none of that name. The rest, with its secrets, is nothing that we have to know."""
        if not NAME.fullmatch(namespace) or not NAME.fullmatch(name):
            return None
        return self._named("PartialObjectMetadata", f"/api/v1/namespaces/{namespace}/pods/{name}", METADATA)

    def pods_on(self, node: str) -> list[dict[str, Any]]:
        """Return the metadata of all pods of a Node, in one answer. A kubelet's credentials may ask that of its own, and of no other."""
        kind = "PartialObjectMetadataList"
        if not NAME.fullmatch(node):
            raise self._garbled("Node", f"the name {node!r}")
        found = self._named(kind, "/api/v1/pods?" + urlencode({"fieldSelector": f"spec.nodeName={node}"}), METADATA_LIST)
        # A pod that is missing here is gone: it has to be all of them.
        if found is None or not isinstance(items := found.get("items"), list) or (found.get("metadata") or {}).get("continue"):
            raise self._garbled(kind, "a part of one")
        return items

    def nodes(self) -> Iterator[dict[str, Any]]:
        """Yield every Node once, in pages, each as GET has it: a list says kind and version once for all.

        The list is asked for again, once, where a page has expired (410).
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
        """Say whether we have a right to a resource of the core group, by the API server's own word.

        `of_node` asks for the pods of one Node; servers before 1.31 take that for all pods.
        """
        only = {"requirements": [{"key": "spec.nodeName", "operator": "In", "values": [of_node]}]}
        asked = {"verb": verb, "resource": resource, **({"name": name} if name else {}), **({"fieldSelector": only} if of_node else {})}
        return bool(self._review("authorization.k8s.io", "SelfSubjectAccessReview", {"resourceAttributes": asked}).get("allowed"))

    def found(self, path: str) -> dict[str, Any] | None:
        """Return the object of a path, None if there is none, or no such resource."""
        try:
            return self._ask("GET", path, path, dict[str, Any])
        except StatusError as refused:
            if refused.status == HTTPStatus.NOT_FOUND:
                return None
            raise

    def every(self, path: str) -> list[dict[str, Any]]:
        """Return all objects of a resource; none where the API server has no such resource."""
        return list(self.each(path, dict[str, Any]))

    def each(self, path: str, type_: type[T], **query: str) -> Iterator[T]:
        """Yield all objects of a resource as their pages come; none where the API server has no such resource.

        A page that has expired is a StatusError with 410.
        """
        try:
            yield from self._pages(path, path, type_, query)
        except StatusError as refused:
            if refused.status != HTTPStatus.NOT_FOUND:
                raise

    def close(self) -> None:
        self._transport.close()

    def _named(self, kind: str, path: str, accept: str = JSON) -> dict[str, Any] | None:
        """Return an object of a kind; None only where the API server itself says that there is none."""
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
        """Return the status of a review, which the API server answers when one is created."""
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
    """Call `function` in a thread of its own and give up after `seconds`.

    Nothing else bounds them all: name resolution, a server that sends a byte now and then, a credential plugin that hangs.
    """
    outcome: queue.SimpleQueue[tuple[T, None] | tuple[None, BaseException]] = queue.SimpleQueue()

    def call() -> None:
        try:
            outcome.put((function(), None))
        except BaseException as error:  # noqa: BLE001 (raised again where it was asked for)
            outcome.put((None, error))

    threading.Thread(target=call, daemon=True).start()
    try:
        result, error = outcome.get(timeout=seconds)
    except queue.Empty:
        problem = f"the API server could not be asked within {seconds:g} s"
        raise CNIError(TRY_AGAIN_LATER, problem, "the name server, the network or a credential plugin is slow") from None
    if error is not None:
        raise error
    return result  # type: ignore[return-value]
