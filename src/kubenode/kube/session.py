# SPDX-License-Identifier: Apache-2.0
"""Common part of all connections to the API server, blocking or not: proxy, TLS, credentials of a request, and error messages.

The transports send the requests.
"""

from __future__ import annotations

import time
from http import HTTPStatus
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import httpx2

from kubenode.cni.errors import KUBECONFIG, CNIError
from kubenode.kube import tls
from kubenode.kube.credentials import Credentials, identify, renewable
from kubenode.kube.noanswer import SIGNATURE_FAILURE, no_answer, refused_certificate
from kubenode.kube.proxy import proxy
from kubenode.kube.refusal import StatusError, refusal
from kubenode.version import VERSION

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterator, Mapping
    from typing import TypeVar

    from kubenode.kube.kubeconfig import Connection

    Wire = TypeVar("Wire")


class _Bracketed(httpx2.URL):
    """URL of an IPv6 host behind a proxy, which httpcore would request as `CONNECT ::1:6443` or `http://::1:8080/`."""

    @property
    def raw_host(self) -> bytes:
        return b"[%b]" % super().raw_host


class Session:
    """Session with one API server: its address, and our credentials. Reading credentials blocks, for at most `timeout` seconds: it reads
    files or runs an exec plugin.
    """

    def __init__(self, connection: Connection, environ: Mapping[str, str], timeout: float) -> None:
        self.server = connection.cluster.server
        self._connection = connection
        self._environ = environ
        self._timeout = timeout
        self._proxy = proxy(connection.cluster, environ)
        try:
            httpx2.URL(self.server)
        except httpx2.InvalidURL as error:  # stricter than urllib: 10.0.0.01 is not an address
            problem = f"server {self.server!r} for {connection.origin}: {error}"
            raise CNIError(KUBECONFIG, problem, "give the API server's URL, https://HOST:PORT") from None
        self._identity = identify(connection, environ, timeout)
        self._anchor: bytes | None = None  # the only trusted certificate; None: all of the kubeconfig

    def wire(self, make: Callable[[ssl.SSLContext, str | None], Wire]) -> Wire:
        """Return the result of `make` on a TLS context and the proxy's URL, with the current certificate."""
        who = self._identity
        context = tls.context(self._connection.cluster, who.certificate, who.key, self._connection.origin, self._anchor)
        try:
            return make(context, self._proxy and self._proxy.url)
        except (ValueError, ImportError, httpx2.InvalidURL) as error:
            assert self._proxy is not None  # noqa: S101 (only its URL is parsed there)
            name = self._proxy.named_by
            problem, advice = str(error), f"correct {name}"
            if self._proxy.url.startswith("socks"):
                problem, advice = "SOCKS is not supported", f"give an HTTP proxy as {name}, or {self._proxy.without(self.server)}"
            raise CNIError(KUBECONFIG, f"proxy {self._proxy.public} cannot be used: {problem}", advice) from None

    def misled(self, error: Exception) -> bool:
        """Say whether a handshake may have failed because of the choice among the trusted certificates.

        If several have the same name, and no key IDs, OpenSSL uses the first one; Go tries them all.
        """
        failed = refused_certificate(error)
        return failed is not None and (failed.verify_code == SIGNATURE_FAILURE or self._anchor is not None)

    def anchors(self) -> Iterator[None]:
        """Trust one certificate alone, then the next; each needs a new wire."""
        for self._anchor in tls.anchors(self._connection.cluster):  # noqa: B020 (the wires use it)
            yield

    @property
    def identity(self) -> Credentials:
        """The current credentials."""
        return self._identity

    @property
    def host(self) -> str:
        """Host at the other end of the connection: the API server, or the proxy."""
        return urlsplit(self._proxy.url if self._proxy else self.server).hostname or ""

    def expired(self) -> bool:
        """Say whether the credentials must be read again."""
        return time.time() >= self._identity.expires

    def renewable_after(self, status: int) -> bool:
        """Say whether new credentials may help after an answer with `status`."""
        return status == HTTPStatus.UNAUTHORIZED and renewable(self._connection.user)

    def renew(self) -> bool:
        """Read the credentials again; return whether the certificate has changed, which needs a new wire."""
        old, self._identity = self._identity, identify(self._connection, self._environ, self._timeout)
        return (old.certificate, old.key) != (self._identity.certificate, self._identity.key)

    def sign(self, request: httpx2.Request) -> None:
        """Add credentials and other headers to a request."""
        request.headers["User-Agent"] = f"kube-node/{VERSION}"
        if self._identity.authorization is not None:
            request.headers["Authorization"] = self._identity.authorization
        if self._connection.cluster.tls_server_name is not None:
            request.extensions["sni_hostname"] = self._connection.cluster.tls_server_name
        if self._proxy and ":" in request.url.host:
            request.extensions.setdefault("sni_hostname", request.url.host)
            request.url = _Bracketed(request.url)

    def refused(self, status: int, body: bytes, pause: float | None = None) -> StatusError:
        """Return the error for an answer other than success; `pause` is its Retry-After."""
        found = refusal(self.server, self._connection.origin, status, body, pause)
        if self._proxy and not found.by_server and urlsplit(self.server).scheme == "http":  # otherwise the proxy sees only CONNECT
            found.msg = f"{found.msg} (through proxy {self._proxy.public})"
            found.details = self._proxy.refusal(self.server, status)
        return found

    def no_answer(self, error: Exception) -> CNIError:
        """Return the error for a missing or incomplete answer."""
        return no_answer(error, self.server, self._connection.origin, self._proxy)


def retry_after(response: httpx2.Response) -> float | None:
    """Return Retry-After in seconds, None if absent. The API server never sends its form with a date."""
    try:
        return max(0.0, float(response.headers["Retry-After"]))
    except (KeyError, ValueError):
        return None
