"""What every way to the API server needs, blocking or not: the proxy, TLS, credentials on a request, and the words for what went wrong.

lightkube knows neither exec v1, tokenFile, tls-server-name nor Retry-After. The sending itself is the transports' business.
"""

from __future__ import annotations

import os
import ssl
import time
from http import HTTPStatus
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import httpx2

from kubenode.cni.errors import KUBECONFIG, TRY_AGAIN_LATER, CNIError
from kubenode.kube import tls
from kubenode.kube.credentials import Identity, identify, renewable
from kubenode.kube.proxy import proxy_for
from kubenode.kube.refusal import RefusedError, refusal
from kubenode.version import VERSION

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import TypeVar

    from kubenode.kube.kubeconfig import Connection

    Wire = TypeVar("Wire")

BUSY = (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE)


class SignOn:
    """Who we are at one API server, and how to get there. Reading credentials blocks: files, or an exec plugin for `timeout` seconds."""

    def __init__(self, connection: Connection, environ: Mapping[str, str], timeout: float) -> None:
        self.server = connection.cluster.server
        self._connection = connection
        self._environ = environ
        self._timeout = timeout
        self._proxy = connection.cluster.proxy_url or proxy_for(self.server, environ)
        try:
            httpx2.URL(self.server)
        except httpx2.InvalidURL as error:  # it is stricter than urllib: 10.0.0.01 is no address
            problem = f"server {self.server!r} for {connection.origin}: {error}"
            raise CNIError(KUBECONFIG, problem, "give the API server's URL, https://HOST:PORT") from None
        self._identity = identify(connection, environ, timeout)

    def wire(self, make: Callable[[ssl.SSLContext, str | None], Wire]) -> Wire:
        """Return what `make` makes of a TLS context and the proxy's URL, for the certificate of now."""
        context = tls.context(self._connection.cluster, self._identity.certificate, self._identity.key, self._connection.origin)
        try:
            return make(context, self._proxy)
        except (ValueError, ImportError, httpx2.InvalidURL) as error:
            raise CNIError(
                KUBECONFIG, f"proxy {_public(self._proxy)} cannot be used: {error}", "correct proxy-url or HTTPS_PROXY"
            ) from None

    @property
    def identity(self) -> Identity:
        """Who we are at present."""
        return self._identity

    @property
    def host(self) -> str:
        """What is connected to: the API server, or the proxy."""
        return urlsplit(self._proxy or self.server).hostname or ""

    def expired(self) -> bool:
        return time.time() >= self._identity.expires

    def renewable_after(self, status: int) -> bool:
        """Tell whether other credentials may be had where these were answered with `status`."""
        return status == HTTPStatus.UNAUTHORIZED and renewable(self._connection.user)

    def renew(self) -> bool:
        """Read the credentials anew; tell whether the certificate is another, so that a new wire is needed."""
        old, self._identity = self._identity, identify(self._connection, self._environ, self._timeout)
        return (old.certificate, old.key) != (self._identity.certificate, self._identity.key)

    def sign(self, request: httpx2.Request) -> None:
        request.headers["User-Agent"] = f"kube-node/{VERSION}"
        if self._identity.authorization is not None:
            request.headers["Authorization"] = self._identity.authorization
        if self._connection.cluster.tls_server_name is not None:
            request.extensions["sni_hostname"] = self._connection.cluster.tls_server_name

    def refused(self, status: int, body: bytes, pause: float | None = None) -> RefusedError:
        """Return the error for an answer that is not what was asked for; `pause` is its Retry-After."""
        return refusal(self.server, self._connection.origin, status, body, pause)

    def no_answer(self, error: Exception) -> CNIError:
        """Return the error for an answer that did not come, or not whole."""
        cause: BaseException | None = error
        reason = str(error)
        while cause is not None:
            if isinstance(cause, ssl.SSLCertVerificationError):
                problem = f"the certificate of API server {self.server} does not match: {cause.verify_message}"
                return CNIError(
                    KUBECONFIG, problem, f"correct certificate-authority, server or tls-server-name ({self._connection.origin})"
                )
            number = cause.errno if isinstance(cause, OSError) and not isinstance(cause, ssl.SSLError) else None
            if number is not None and number > 0:  # below are a resolver's
                reason = f"[Errno {number}] {os.strerror(number)}"  # asyncio hides it behind words of its own
            cause = cause.__cause__ or cause.__context__
        silent = {"ReadTimeout": "it is silent", "ConnectTimeout": "no connection", "TimeoutError": "it is silent"}
        reason = reason or silent.get(type(error).__name__, type(error).__name__)
        way = f" through proxy {_public(self._proxy)}" if self._proxy else ""
        problem = f"no answer from API server {self.server}{way}: {reason}"
        return CNIError(TRY_AGAIN_LATER, problem, f"is {self.host} reachable from this node?")


def _public(proxy: str | None) -> str:
    """Return a proxy's URL without the user and password that may stand in it."""
    return (proxy or "").rpartition("@")[2]


def retry_after(response: httpx2.Response) -> float | None:
    """Return the pause in seconds that the server asks for. The API server never sends the form with a date."""
    try:
        return max(0.0, float(response.headers["Retry-After"]))
    except (KeyError, ValueError):
        return None
