# SPDX-License-Identifier: Apache-2.0
"""The advice of an error fits its cause: a clock, a name, a key's length, a proxy."""

from __future__ import annotations

import datetime as dt
import functools
from typing import TYPE_CHECKING, Any

import pytest
from apiserver import base64_text, write_kubeconfig
from authority import DAY, Authority, KeyPair
from betweens import StandInProxy
from cryptography.hazmat.primitives.asymmetric import rsa
from standin import StandInApiServer, answer, refuse, serve

from kubenode.cni.errors import FORBIDDEN, KUBECONFIG, TRY_AGAIN_LATER, CNIError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from standin import Step

    Ask = Callable[..., str]

HOST = "127.0.0.1"
AFAR = "https://api.test:6443"  # this machine itself is never reached through a proxy of the environment


def complaint(ask: Ask, kubeconfig: Path, environ: dict[str, str] | None = None) -> CNIError:
    with pytest.raises(CNIError) as caught:
        ask(kubeconfig, environ)
    return caught.value


def early(authority: Authority) -> KeyPair:
    return authority.server(HOST, start=DAY / 2)


def late(authority: Authority) -> KeyPair:
    return authority.server(HOST, lifetime=-DAY / 2)


@functools.cache
def short_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, 1024)


def weak(authority: Authority) -> KeyPair:
    return authority.server(HOST, key=short_key())


def renamed(authority: Authority) -> KeyPair:
    return authority.server("api.test")


@pytest.mark.parametrize(
    ("make", "says", "advice"),
    [
        (early, "is not accepted: certificate is not yet valid", "this node's clock says {today}"),
        (late, "is not accepted: certificate has expired", "renew the server's certificate"),
        (late, "is not accepted: certificate has expired", "this node's clock says {today}"),
        (weak, "is not accepted: EE certificate key too weak", "renew it with RSA of 2048 bits or P-256"),
        (renamed, "does not match: ", "correct server or tls-server-name (user 'test' of kubeconfig"),
    ],
)
def test_certificate(ask: Ask, tmp_path: Path, make: Callable[[Authority], KeyPair], says: str, advice: str) -> None:
    """A certificate that is refused for its dates, its key or its name is no reason to look at certificate-authority."""
    authority = Authority()
    with StandInApiServer(tmp_path, then=serve("n1"), pair=make(authority)) as server:
        cluster = {"server": server.url, "certificate-authority-data": base64_text(authority.certificate)}

        error = complaint(ask, write_kubeconfig(tmp_path / "kube.conf", cluster, {"token": "t"}))

    assert error.code == KUBECONFIG
    assert f"the certificate of API server {server.url} {says}" in error.msg
    assert advice.format(today=f"{dt.datetime.now(dt.UTC):%Y-%m-%d}") in error.details
    assert "certificate-authority" not in error.details


def test_server_without_tls(ask: Ask, tmp_path: Path) -> None:
    """https:// for a server without TLS says that it speaks none."""
    with StandInApiServer(tmp_path, tls=False) as server:
        cluster = {"server": server.url.replace("http", "https"), "insecure-skip-tls-verify": True}

        error = complaint(ask, write_kubeconfig(tmp_path / "kube.conf", cluster, {"token": "t"}))

    assert error.code == TRY_AGAIN_LATER
    assert f"does 127.0.0.1:{server.port} speak TLS?" in error.details


def test_short_client_key(ask: Ask, tmp_path: Path) -> None:
    """A client's RSA key of 1024 bits, which kubectl takes, is an error that says why it is not taken here, and what to do."""
    authority = Authority()
    pair = authority.client("jo", key=short_key())
    user = {"client-certificate-data": base64_text(pair.certificate), "client-key-data": base64_text(pair.key)}
    cluster = {"server": "https://127.0.0.1:1", "certificate-authority-data": base64_text(authority.certificate)}

    error = complaint(ask, write_kubeconfig(tmp_path / "kube.conf", cluster, user))

    assert error.code == KUBECONFIG
    assert error.msg.endswith("cannot be used: ee key too small")
    assert error.details == "kubectl takes such a short key, OpenSSL's security level does not: issue one of RSA 2048 or P-256"


@pytest.mark.parametrize("by", ["proxy-url", "HTTPS_PROXY"])
@pytest.mark.parametrize(
    ("status", "code", "advice"),
    [
        ("403 Forbidden", KUBECONFIG, "allow api.test:6443 at the proxy, or {without}"),
        ("405 Method Not Allowed", KUBECONFIG, "allow api.test:6443 at the proxy, or {without}"),
        ("407 Proxy Authentication Required", KUBECONFIG, "the proxy wants a user and a password: write {by} as http://USER:PASSWORD@"),
        ("502 Bad Gateway", TRY_AGAIN_LATER, "is api.test:6443 reachable from the proxy? If only from this node, {without}"),
        ("503 Service Unavailable", TRY_AGAIN_LATER, "is api.test:6443 reachable from the proxy? If only from this node, {without}"),
    ],
)
def test_proxy_refuses(ask: Ask, tmp_path: Path, by: str, status: str, code: int, advice: str) -> None:
    """A proxy that refuses is named, without its password, and the advice is about the proxy."""
    with StandInProxy(status) as proxy:
        url = proxy.url.replace("http://", "http://jo:secret@")
        cluster: dict[str, Any] = {"server": AFAR, "insecure-skip-tls-verify": True}
        environ = {"HTTPS_PROXY": url}
        if by == "proxy-url":
            cluster, environ = cluster | {"proxy-url": url}, {}

        error = complaint(ask, write_kubeconfig(tmp_path / "kube.conf", cluster, {"token": "t"}), environ)

    without = "remove proxy-url" if by == "proxy-url" else "name api.test in NO_PROXY"
    assert (error.code, error.msg) == (code, f"proxy {proxy.url} answered {status} for API server {AFAR}")
    assert error.details.startswith(advice.format(by=by, without=without))
    assert "secret" not in str(error)


@pytest.mark.parametrize(
    ("step", "by_proxy", "code"),
    [
        (answer(b"<html>", 403), True, FORBIDDEN),
        (answer(b"", 407), True, KUBECONFIG),
        (answer(b"<html>", 503), True, TRY_AGAIN_LATER),
        (refuse(403, "no"), False, FORBIDDEN),
        (refuse(503, "starting"), False, TRY_AGAIN_LATER),
    ],
)
def test_proxy_of_a_server_without_tls(ask: Ask, tmp_path: Path, step: Step, by_proxy: bool, code: int) -> None:  # noqa: FBT001
    """For a server without TLS the proxy answers in its place: it is named unless the answer is an API server's."""
    with StandInApiServer(tmp_path, then=step, tls=False) as proxy:
        kubeconfig = write_kubeconfig(tmp_path / "kube.conf", {"server": "http://api.test:8080", "proxy-url": proxy.url}, {"token": "t"})

        error = complaint(ask, kubeconfig)

    assert error.code == code
    assert (f"(through proxy {proxy.url})" in error.msg) == by_proxy
    assert ("proxy" in error.details) == by_proxy


@pytest.mark.parametrize(
    ("cluster", "environ", "advice"),
    [
        ({"proxy-url": "socks5://127.0.0.1:1080"}, {}, "give an HTTP proxy as proxy-url, or remove it if "),
        ({}, {"HTTPS_PROXY": "socks5://127.0.0.1:1080"}, "give an HTTP proxy as HTTPS_PROXY, or name api.test in NO_PROXY"),
    ],
)
def test_socks(ask: Ask, tmp_path: Path, cluster: dict[str, str], environ: dict[str, str], advice: str) -> None:
    """A SOCKS proxy is an error that says so, and what to give instead."""
    error = complaint(ask, write_kubeconfig(tmp_path / "kube.conf", {"server": AFAR} | cluster, {"token": "t"}), environ)

    assert error.code == KUBECONFIG
    assert "SOCKS" in error.msg
    assert error.details.startswith(advice)
