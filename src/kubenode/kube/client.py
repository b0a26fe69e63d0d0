"""The API server as plugins and agent need it: a Node or a pod by its name, or all Nodes.

A cold path: importing this takes longer than a warm ADD.
"""

from __future__ import annotations

import queue
import re
import threading
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, TypeVar

import httpx2
import msgspec
from lightkube.config.kubeconfig import KubeConfig
from lightkube.config.models import Cluster, User
from lightkube.core.client import Client
from lightkube.generic_resource import create_global_resource, create_namespaced_resource

from kubenode.cni.errors import TRY_AGAIN_LATER, CNIError
from kubenode.kube.refusal import RefusedError
from kubenode.kube.sources import IN_CONFIGURATION, SERVICE_ACCOUNT, connection
from kubenode.kube.transport import ALL_METADATA, METADATA, Transport
from kubenode.nodes import whose

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

T = TypeVar("T")

NAME = re.compile(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?")  # RFC 1123, which the API server requires of a Node's name
PAGE = 500  # Nodes in one answer to a LIST, as kubectl asks for them
Node = create_global_resource("", "v1", "Node", "nodes")  # a dict as the API server sent it; lightkube's typed one drops unknown keys
SubnetPool = create_global_resource("kube-node.nordix.org", "v1alpha1", "SubnetPool", "subnetpools")
NodeSubnet = create_global_resource("kube-node.nordix.org", "v1alpha1", "NodeSubnet", "nodesubnets")
Lease = create_namespaced_resource("coordination.k8s.io", "v1", "Lease", "leases")
Review = create_global_resource("authorization.k8s.io", "v1", "SelfSubjectAccessReview", "selfsubjectaccessreviews")

WhoAmI = create_global_resource("authentication.k8s.io", "v1", "SelfSubjectReview", "selfsubjectreviews")


class ApiServer:
    """The API server that a kubeconfig names. Each single wait ends after `timeout` seconds; `within` bounds the whole."""

    def __init__(
        self,
        kubeconfig: str | None,
        environ: Mapping[str, str],
        timeout: float,
        service_account: str = SERVICE_ACCOUNT,
        option: str = IN_CONFIGURATION,
    ) -> None:
        found = connection(kubeconfig, environ, service_account, option)
        self._server = found.cluster.server
        self._transport = Transport(found, environ, timeout)
        self._client = Client(
            anonymous(self._server),
            timeout=httpx2.Timeout(timeout),
            trust_env=False,
            transport=self._transport,
        )

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
            answer = self._client.create(WhoAmI())
            return whose.of_review(answer.get("status") or {})
        except RefusedError:  # before Kubernetes 1.28 there is no such review
            return ""
        except (msgspec.MsgspecError, TypeError, ValueError, AttributeError) as error:
            raise self._no_such("SelfSubjectReview", error) from error

    def node(self, name: str) -> dict[str, Any] | None:
        """Return the Node as the API server says it, None if there is none of that name."""
        if not NAME.fullmatch(name):
            return None  # none can be called so, and lightkube would make other requests of `../x` and `x?y`
        return self._there("Node", lambda: dict(self._client.get(Node, name)))

    def pod(self, namespace: str, name: str) -> dict[str, Any] | None:
        """Return a pod's metadata, None if there is none of that name. The rest, with its secrets, is nothing that we have to know."""
        if not NAME.fullmatch(namespace) or not NAME.fullmatch(name):
            return None
        url = f"{self._server.rstrip('/')}/api/v1/namespaces/{namespace}/pods/{name}"
        asked = httpx2.Request("GET", url, headers={"Accept": METADATA})
        return self._there("PartialObjectMetadata", lambda: msgspec.json.decode(self._transport.handle_request(asked).content, type=dict))

    def pods_on(self, node: str) -> list[dict[str, Any]]:
        """Return the metadata of all pods of a Node, in one answer. A kubelet's credentials may ask that of its own, and of no other."""
        if not NAME.fullmatch(node):
            raise self._no_such("Node", f"the name {node!r}")
        url = f"{self._server.rstrip('/')}/api/v1/pods?fieldSelector=spec.nodeName%3D{node}"
        asked = httpx2.Request("GET", url, headers={"Accept": ALL_METADATA})
        kind = "PartialObjectMetadataList"
        found = self._there(kind, lambda: msgspec.json.decode(self._transport.handle_request(asked).content, type=dict))
        # A pod that is missing here is gone: it has to be all of them.
        if found is None or not isinstance(items := found.get("items"), list) or (found.get("metadata") or {}).get("continue"):
            raise self._no_such(kind, "a part of one")
        return items

    def may(self, verb: str, resource: str, name: str = "", of_node: str = "") -> bool:
        """Say whether we have a right to a resource of the core group, by the API server's own word. Raises CNIError.

        `of_node` asks for the pods of one Node; servers before 1.31 take that for all pods.
        """
        only = {"requirements": [{"key": "spec.nodeName", "operator": "In", "values": [of_node]}]}
        asked = {"verb": verb, "resource": resource, **({"name": name} if name else {}), **({"fieldSelector": only} if of_node else {})}
        try:
            answer = self._client.create(Review(spec={"resourceAttributes": asked}))
            return bool((answer.get("status") or {}).get("allowed"))
        except (msgspec.MsgspecError, TypeError, ValueError, AttributeError) as error:
            raise self._no_such("SelfSubjectAccessReview", error) from error

    def found(self, resource: Any, name: str, namespace: str | None = None) -> dict[str, Any] | None:
        """Return an object of another resource, None if there is none of that name, or no such resource."""
        try:
            return dict(self._client.get(resource, name, namespace=namespace) if namespace else self._client.get(resource, name))
        except RefusedError as refused:
            if refused.status == HTTPStatus.NOT_FOUND:
                return None
            raise
        except (msgspec.MsgspecError, TypeError, ValueError) as error:
            raise self._no_such(resource.__name__, error) from error

    def every(self, resource: Any) -> list[dict[str, Any]]:
        """Return all objects of a resource that are few; none where the API server has no such resource."""
        try:
            return [dict(one) for one in self._client.list(resource)]
        except RefusedError as refused:
            if refused.status == HTTPStatus.NOT_FOUND:
                return []
            raise
        except (msgspec.MsgspecError, TypeError, ValueError) as error:
            raise self._no_such(resource.__name__, error) from error

    def _there(self, kind: str, get: Callable[[], dict[str, Any]]) -> dict[str, Any] | None:
        try:
            found = get()
        except RefusedError as refused:
            if refused.status == HTTPStatus.NOT_FOUND and refused.reason == "NotFound":
                return None
            raise
        except (msgspec.MsgspecError, TypeError, ValueError) as error:
            raise self._no_such(kind, error) from error
        if found.get("kind") != kind:
            raise self._no_such(kind, f"a {found.get('kind')}")
        return found

    def nodes(self) -> Iterator[dict[str, Any]]:
        """Yield every Node once, in pages, each as GET has it: a list says kind and version once for all.

        Where a page has expired (410) the list is asked for again, once.
        """
        seen: set[object] = set()
        for last_try in (False, True):
            try:
                for node in self._client.list(Node, chunk_size=PAGE):
                    name = (node.get("metadata") or {}).get("name")
                    if name not in seen:
                        seen.add(name)
                        yield {"kind": "Node", "apiVersion": "v1", **node}
            except RefusedError as refused:
                if refused.status != HTTPStatus.GONE or last_try:
                    raise
            except (msgspec.MsgspecError, TypeError, ValueError, AttributeError) as error:
                raise self._no_such("Node", error) from error
            else:
                return

    def close(self) -> None:
        self._client.close()

    def _no_such(self, kind: str, what: object) -> CNIError:
        advice = "does something between answer in its place?"
        return CNIError(TRY_AGAIN_LATER, f"API server {self._server} sent something other than a {kind}: {what}", advice)


def anonymous(server: str) -> KubeConfig:
    """Return what lightkube has to know of a server: its URL. Our transports do TLS and credentials."""
    # `insecure` keeps lightkube from loading certificates that nothing would use.
    return KubeConfig.from_one(cluster=Cluster(server=server, insecure=True), user=User())


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
