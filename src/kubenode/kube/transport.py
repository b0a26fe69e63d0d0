# SPDX-License-Identifier: Apache-2.0
"""Requests of a plugin to the API server, repeated once after a stale token or for a busy server."""

from __future__ import annotations

import time
from http import HTTPStatus
from typing import TYPE_CHECKING

import httpx2

from kubenode.kube.session import Session, retry_after

if TYPE_CHECKING:
    import ssl
    from collections.abc import Mapping

    from kubenode.kube.credentials import Credentials
    from kubenode.kube.kubeconfig import Connection

BUSY = (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE)
ANSWERS = (HTTPStatus.OK, HTTPStatus.CREATED)


class Transport:
    """Sends requests; each single wait ends after `timeout` seconds."""

    def __init__(self, connection: Connection, environ: Mapping[str, str], timeout: float) -> None:
        self._timeout = timeout
        self._session = Session(connection, environ, timeout)
        self._wire = self._session.wire(_wire)

    def send(self, request: httpx2.Request) -> httpx2.Response:
        """Return a complete answer with status 200 or 201. Raises CNIError for any other."""
        request.extensions["timeout"] = httpx2.Timeout(self._timeout).as_dict()
        deadline = time.monotonic() + self._timeout
        if self._session.expired():
            self._renew()
        response = self._ask(request)
        if self._session.renewable_after(response.status_code):
            self._renew()
            response = self._ask(request)
        elif response.status_code in BUSY:
            pause = retry_after(response)
            if pause is not None and time.monotonic() + pause < deadline:
                time.sleep(pause)
                response = self._ask(request)
        if response.status_code not in ANSWERS:
            raise self._session.refused(response.status_code, response.content, retry_after(response))
        return response

    @property
    def identity(self) -> Credentials:
        """The current credentials."""
        return self._session.identity

    def close(self) -> None:
        """Close all connections."""
        self._wire.close()

    def _renew(self) -> None:
        if self._session.renew():
            self._rewire()

    def _rewire(self) -> None:
        self._wire.close()
        self._wire = self._session.wire(_wire)

    def _ask(self, request: httpx2.Request) -> httpx2.Response:
        self._session.sign(request)
        try:
            return self._answer(request)
        except httpx2.RequestError as error:
            failure = error
        if self._session.misled(failure):
            for _ in self._session.anchors():
                self._rewire()
                try:
                    return self._answer(request)
                except httpx2.RequestError:
                    pass
        raise self._session.no_answer(failure) from failure

    def _answer(self, request: httpx2.Request) -> httpx2.Response:
        response = self._wire.handle_request(request)
        response.read()
        return response


def _wire(context: ssl.SSLContext, proxy: str | None) -> httpx2.HTTPTransport:
    return httpx2.HTTPTransport(verify=context, proxy=proxy, trust_env=False)
