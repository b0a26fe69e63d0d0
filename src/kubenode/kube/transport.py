"""The way of a request to the API server: TLS, proxy, credentials, and the one second try that a stale token or a busy server deserves.

lightkube speaks through it, because it knows neither exec v1, tokenFile, tls-server-name nor Retry-After.
"""

from __future__ import annotations

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
from kubenode.kube.refusal import refusal
from kubenode.version import VERSION

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kubenode.kube.kubeconfig import Connection

BUSY = (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE)


class Transport(httpx2.BaseTransport):
    """Returns complete answers with status 200; everything else is a CNIError."""

    def __init__(self, connection: Connection, environ: Mapping[str, str], timeout: float) -> None:
        self._connection = connection
        self._environ = environ
        self._timeout = timeout
        self._proxy = connection.cluster.proxy_url or proxy_for(connection.cluster.server, environ)
        try:
            httpx2.URL(connection.cluster.server)
        except httpx2.InvalidURL as error:  # it is stricter than urllib: 10.0.0.01 is no address
            problem = f"server {connection.cluster.server!r} for {connection.origin}: {error}"
            raise CNIError(KUBECONFIG, problem, "give the API server's URL, https://HOST:PORT") from None
        self._sign_on(identify(connection, environ, timeout))

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        deadline = time.monotonic() + self._timeout
        if time.time() >= self._identity.expires:
            self._renew()
        response = self._ask(request)
        if response.status_code == HTTPStatus.UNAUTHORIZED and renewable(self._connection.user):
            self._renew()
            response = self._ask(request)
        elif response.status_code in BUSY:
            pause = retry_after(response)
            if pause is not None and time.monotonic() + pause < deadline:
                time.sleep(pause)
                response = self._ask(request)
        if response.status_code != HTTPStatus.OK:
            raise refusal(self._connection.cluster.server, self._connection.origin, response.status_code, response.content)
        return response

    def close(self) -> None:
        self._wire.close()

    def _sign_on(self, identity: Identity) -> None:
        context = tls.context(self._connection.cluster, identity.certificate, identity.key, self._connection.origin)
        try:
            self._wire = httpx2.HTTPTransport(verify=context, proxy=self._proxy, trust_env=False)
        except (ValueError, ImportError, httpx2.InvalidURL) as error:
            raise CNIError(
                KUBECONFIG, f"proxy {_public(self._proxy)} cannot be used: {error}", "correct proxy-url or HTTPS_PROXY"
            ) from None
        self._identity = identity

    def _renew(self) -> None:
        identity = identify(self._connection, self._environ, self._timeout)
        if (identity.certificate, identity.key) == (self._identity.certificate, self._identity.key):
            self._identity = identity
        else:
            self._wire.close()
            self._sign_on(identity)

    def _ask(self, request: httpx2.Request) -> httpx2.Response:
        request.headers["User-Agent"] = f"kube-node/{VERSION}"
        if self._identity.authorization is not None:
            request.headers["Authorization"] = self._identity.authorization
        if self._connection.cluster.tls_server_name is not None:
            request.extensions["sni_hostname"] = self._connection.cluster.tls_server_name
        try:
            response = self._wire.handle_request(request)
            response.read()
        except httpx2.RequestError as error:
            raise self._no_answer(error) from error
        return response

    def _no_answer(self, error: httpx2.RequestError) -> CNIError:
        cluster = self._connection.cluster
        cause: BaseException | None = error
        while cause is not None:
            if isinstance(cause, ssl.SSLCertVerificationError):
                problem = f"the certificate of API server {cluster.server} does not match: {cause.verify_message}"
                return CNIError(
                    KUBECONFIG, problem, f"correct certificate-authority, server or tls-server-name ({self._connection.origin})"
                )
            cause = cause.__cause__ or cause.__context__
        reason = str(error) or {"ReadTimeout": "it is silent", "ConnectTimeout": "no connection"}.get(type(error).__name__, "")
        way = f" through proxy {_public(self._proxy)}" if self._proxy else ""
        problem = f"no answer from API server {cluster.server}{way}: {reason or type(error).__name__}"
        return CNIError(TRY_AGAIN_LATER, problem, f"is {urlsplit(self._proxy or cluster.server).hostname} reachable from this node?")


def _public(proxy: str | None) -> str:
    """Return a proxy's URL without the user and password that may stand in it."""
    return (proxy or "").rpartition("@")[2]


def retry_after(response: httpx2.Response) -> float | None:
    """Return the pause in seconds that the server asks for. The API server never sends the form with a date."""
    try:
        return max(0.0, float(response.headers["Retry-After"]))
    except (KeyError, ValueError):
        return None
