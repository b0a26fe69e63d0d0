# SPDX-License-Identifier: Apache-2.0
"""Proxies: which one the environment names for a server, and requests that go through one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from apiserver import base64_text, write_kubeconfig
from betweens import StandInProxy
from standin import StandInApiServer, answer, node, serve

from kubenode.cni.errors import KUBECONFIG, TRY_AGAIN_LATER, CNIError
from kubenode.kube.client import ApiServer
from kubenode.kube.proxy import proxy_for

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Ask = Callable[..., str]

PROXY = "http://proxy.test:3128"


@pytest.mark.parametrize(
    ("server", "environ", "expected"),
    [
        ("https://10.0.0.1:6443", {}, None),
        ("https://10.0.0.1:6443", {"HTTPS_PROXY": PROXY}, PROXY),
        ("https://10.0.0.1:6443", {"https_proxy": PROXY}, PROXY),
        ("https://10.0.0.1:6443", {"HTTPS_PROXY": PROXY, "https_proxy": "http://other"}, PROXY),
        ("https://10.0.0.1:6443", {"HTTPS_PROXY": "proxy.test:3128"}, PROXY),
        ("https://10.0.0.1:6443", {"HTTP_PROXY": PROXY}, None),
        ("http://10.0.0.1:8080", {"HTTP_PROXY": PROXY}, PROXY),
        ("https://127.0.0.1:6443", {"HTTPS_PROXY": PROXY}, None),
        ("https://[::1]:6443", {"HTTPS_PROXY": PROXY}, None),
        ("https://localhost:6443", {"HTTPS_PROXY": PROXY}, None),
    ],
)
def test_proxy_of_the_environment(server: str, environ: dict[str, str], expected: str | None) -> None:
    """The scheme's variable names the proxy, in capitals first; this machine itself is never reached through one."""
    assert proxy_for(server, environ) == expected


@pytest.mark.parametrize(
    ("server", "no_proxy", "direct"),
    [
        ("https://10.0.0.1:6443", "*", True),
        ("https://10.0.0.1:6443", "10.0.0.1", True),
        ("https://10.0.0.1:6443", "10.0.0.2", False),
        ("https://10.0.0.1:6443", "example.com, 10.0.0.0/8", True),
        ("https://10.0.0.1:6443", "10.0.0.1:6443", True),
        ("https://10.0.0.1:6443", "10.0.0.1:443", False),
        ("https://10.0.0.1", "10.0.0.1:443", True),
        ("https://[fd00::1]:6443", "fd00::/8", True),
        ("https://[fd00::1]:6443", "fd00::1", True),
        ("https://[fd00::1]:6443", "[fd00::1]:6443", True),
        ("https://[fd00::1]:6443", "[fd00::1]", True),
        ("https://[fd00::1]:6443", "10.0.0.0/8", False),
        ("https://api.example.com", "example.com", True),
        ("https://API.Example.com", "EXAMPLE.com", True),
        ("https://api.example.com", ".example.com", True),
        ("https://example.com", ".example.com", False),
        ("https://example.com", "*.example.com", False),
        ("https://notexample.com", "example.com", False),
        ("https://api.example.com", "", False),
        ("https://api.example.com", ",,", False),
        ("https://api.example.com", "fd00::1", False),
    ],
)
def test_no_proxy(server: str, no_proxy: str, direct: bool) -> None:  # noqa: FBT001 (a table's column)
    """NO_PROXY holds addresses, CIDRs and domains, each perhaps with a port; a leading dot means subdomains only."""
    assert (proxy_for(server, {"HTTPS_PROXY": PROXY, "no_proxy": no_proxy}) is None) == direct


def test_request_through_a_proxy(tmp_path: Path) -> None:
    """proxy-url is where the request goes; TLS is still with the API server, under its tls-server-name."""
    with StandInApiServer(tmp_path, answer(node("n1")), names=("kubernetes.test",)) as server, StandInProxy() as proxy:
        cluster = {"server": server.url, "certificate-authority-data": base64_text(server.authority.certificate)}
        through = {"proxy-url": proxy.url, "tls-server-name": "kubernetes.test"}
        kubeconfig = write_kubeconfig(tmp_path / "kube.conf", cluster | through, {"token": "t"})

        assert ApiServer(str(kubeconfig), {"HTTPS_PROXY": "http://192.0.2.1:1"}, 5).node("n1") == node("n1")

        assert proxy.targets == [f"127.0.0.1:{server.port}"]
        assert server.server_names == ["kubernetes.test"]


@pytest.mark.parametrize("name", ["", "kubernetes.test"])
def test_ipv6_server_through_a_proxy(ask: Ask, tmp_path: Path, name: str) -> None:
    """An IPv6 address goes to the proxy in brackets, and without them into the comparison with the certificate."""
    names = (name or "::1",)
    with StandInApiServer(tmp_path, then=serve("n1"), address="::1", names=names) as server, StandInProxy() as proxy:
        cluster = {"server": server.url, "certificate-authority-data": base64_text(server.authority.certificate)}
        through = {"proxy-url": proxy.url, **({"tls-server-name": name} if name else {})}
        kubeconfig = write_kubeconfig(tmp_path / "kube.conf", cluster | through, {"token": "t"})

        assert ask(kubeconfig) == "n1"

        assert proxy.targets == [f"[::1]:{server.port}"]
        assert server.requests[0].headers["Host"] == f"[::1]:{server.port}"
        assert server.server_names == [name or None]


def test_ipv6_server_without_tls_through_a_proxy(ask: Ask, tmp_path: Path) -> None:
    """A proxy is asked for the whole URL of a server without TLS, with the IPv6 address in brackets."""
    with StandInApiServer(tmp_path, then=serve("n1"), tls=False) as proxy:
        kubeconfig = write_kubeconfig(tmp_path / "kube.conf", {"server": "http://[::1]:8080", "proxy-url": proxy.url}, {"token": "t"})

        assert ask(kubeconfig) == "n1"

        assert proxy.requests[0].path.startswith("http://[::1]:8080/api/v1/nodes")


def test_proxy_that_is_down(tmp_path: Path) -> None:
    """A proxy that cannot be reached is an error that names it, without its password, and says to try again."""
    cluster = {"server": "https://192.0.2.1", "proxy-url": "http://jo:secret@127.0.0.1:1"}
    kubeconfig = write_kubeconfig(tmp_path / "kube.conf", cluster, {"token": "t"})

    with pytest.raises(CNIError, match=r"no answer from API server https://192\.0\.2\.1 through proxy http://127\.0\.0\.1:1: ") as caught:
        ApiServer(str(kubeconfig), {}, 5).node("n1")

    assert caught.value.code == TRY_AGAIN_LATER
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("proxy", ["socks5://127.0.0.1:1080", "ftp://x", "http://[::1", "http://x:port"])
def test_unusable_proxy_in_the_environment(tmp_path: Path, proxy: str) -> None:
    """A proxy that we cannot use is an error that shows it."""
    kubeconfig = write_kubeconfig(tmp_path / "kube.conf", {"server": "https://192.0.2.1"}, {"token": "t"})

    with pytest.raises(CNIError, match=r"proxy .* cannot be used") as caught:
        ApiServer(str(kubeconfig), {"HTTPS_PROXY": proxy}, 5)

    assert caught.value.code == KUBECONFIG
    assert proxy in caught.value.msg
