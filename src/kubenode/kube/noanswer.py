# SPDX-License-Identifier: Apache-2.0
"""Missing or incomplete answers of the API server: each exception as a CNIError with advice for an operator."""

from __future__ import annotations

import os
import ssl
from datetime import UTC, datetime
from http import HTTPStatus
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import httpx2

from kubenode.cni.errors import KUBECONFIG, TRY_AGAIN_LATER, CNIError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kubenode.kube.proxy import Proxy

# X509_V_ERR_… in OpenSSL's x509_vfy.h
SIGNATURE_FAILURE = 7
NOT_YET_VALID, EXPIRED = 9, 10
ANOTHER_NAME = (62, 63, 64)
WEAK = (66, 67, 68)
NO_TLS = ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "PACKET_LENGTH_TOO_LONG")  # the peer does not speak TLS
SILENT = {"ReadTimeout": "it is silent", "ConnectTimeout": "no connection", "TimeoutError": "it is silent"}


def no_answer(error: Exception, server: str, origin: str, proxy: Proxy | None) -> CNIError:
    """Return the error for a missing answer; `origin` names the source of the credentials."""
    host = urlsplit(proxy.url if proxy else server).hostname or ""
    reason, advice = str(error), f"is {host} reachable from this node?"
    for cause in _causes(error):
        if isinstance(cause, ssl.SSLCertVerificationError):
            return _refused_certificate(cause, server, origin)
        if isinstance(cause, httpx2.ProxyError) and proxy:
            return _refused_by_proxy(cause, server, proxy)
        if isinstance(cause, ssl.SSLError):
            advice = _tls_advice(cause.reason or "", server, origin) or advice
        elif isinstance(cause, OSError) and cause.errno is not None and cause.errno > 0:  # negative ones are a resolver's
            reason = f"[Errno {cause.errno}] {os.strerror(cause.errno)}"  # asyncio replaces the message by its own
    reason = reason or SILENT.get(type(error).__name__, type(error).__name__)
    way = f" through proxy {proxy.public}" if proxy else ""
    return CNIError(TRY_AGAIN_LATER, f"no answer from API server {server}{way}: {reason}", advice)


def refused_certificate(error: Exception) -> ssl.SSLCertVerificationError | None:
    """Return the verification error if the server's certificate was refused, None otherwise."""
    return next((cause for cause in _causes(error) if isinstance(cause, ssl.SSLCertVerificationError)), None)


def _causes(error: BaseException) -> Iterator[BaseException]:
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__ or cause.__context__


def _refused_certificate(cause: ssl.SSLCertVerificationError, server: str, origin: str) -> CNIError:
    clock = f"this node's clock says {datetime.now(UTC):%Y-%m-%dT%H:%MZ}"
    verb, advice = "is not accepted", f"correct certificate-authority ({origin}): it must contain the CA of the server's certificate"
    if cause.verify_code == NOT_YET_VALID:
        advice = f"{clock}: correct it, or wait until the certificate is valid"
    elif cause.verify_code == EXPIRED:
        advice = f"renew the server's certificate, or its CA's; {clock}: correct it if it is wrong"
    elif cause.verify_code in ANOTHER_NAME:
        verb, advice = "does not match", f"correct server or tls-server-name ({origin})"
    elif cause.verify_code in WEAK:
        advice = "OpenSSL's security level on this node is higher: renew it with RSA of 2048 bits or P-256, and SHA-256"
    return CNIError(KUBECONFIG, f"the certificate of API server {server} {verb}: {cause.verify_message}", advice)


def _refused_by_proxy(cause: httpx2.ProxyError, server: str, proxy: Proxy) -> CNIError:
    said = str(cause).strip()  # "403 Forbidden"
    status = int(said[:3]) if said[:3].isdecimal() else 0
    code = TRY_AGAIN_LATER if status >= HTTPStatus.INTERNAL_SERVER_ERROR else KUBECONFIG
    return CNIError(code, f"proxy {proxy.public} answered {said} for API server {server}", proxy.refusal(server, status))


def _tls_advice(reason: str, server: str, origin: str) -> str:
    if reason in NO_TLS:
        return f"does {urlsplit(server).netloc} speak TLS? If not, server is http://, or another port"
    if "ALERT" in reason:
        return f"the API server, or a load balancer before it, refuses TLS with the client certificate of {origin}: has it expired?"
    return ""
