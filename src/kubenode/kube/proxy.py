# SPDX-License-Identifier: Apache-2.0
"""PURE. The proxy before an API server, from kubeconfig or environment, and advice for its refusals."""

from __future__ import annotations

from http import HTTPStatus
from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kubenode.kube.kubeconfig import KubeconfigCluster

DEFAULT_PORTS = {"http": 80, "https": 443}


class Proxy(NamedTuple):
    """Proxy, and the setting that names it: proxy-url or the environment's HTTPS_PROXY."""

    url: str
    named_by: str

    @property
    def public(self) -> str:
        """The URL without user and password."""
        scheme, slashes, rest = self.url.partition("//")
        return f"{scheme}{slashes}{rest.rpartition('@')[2]}"

    def without(self, server: str) -> str:
        """Return the advice to connect without it."""
        return "remove proxy-url" if self.named_by == "proxy-url" else f"name {urlsplit(server).hostname} in NO_PROXY"

    def refusal(self, server: str, status: int) -> str:
        """Return the advice for an answer of the proxy instead of the server."""
        if status == HTTPStatus.PROXY_AUTHENTICATION_REQUIRED:
            return f"the proxy wants a user and a password: write {self.named_by} as http://USER:PASSWORD@HOST:PORT"
        netloc = urlsplit(server).netloc.rpartition("@")[2]
        if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            return f"is {netloc} reachable from the proxy? If only from this node, {self.without(server)}"
        return f"allow {netloc} at the proxy, or {self.without(server)}"


def proxy(cluster: KubeconfigCluster, environ: Mapping[str, str]) -> Proxy | None:
    """Return the proxy of a cluster, None for a direct connection."""
    if cluster.proxy_url:
        return Proxy(cluster.proxy_url, "proxy-url")
    url = proxy_for(cluster.server, environ)
    return Proxy(url, f"{urlsplit(cluster.server).scheme.upper()}_PROXY") if url else None


def proxy_for(server: str, environ: Mapping[str, str]) -> str | None:
    """Return the proxy's URL for a server's URL by the rules of Go's `http.ProxyFromEnvironment`, as in kubectl."""
    parts = urlsplit(server)
    name = f"{parts.scheme}_proxy"
    proxy = environ.get(name.upper()) or environ.get(name)
    if not proxy or not parts.hostname:
        return None
    port = parts.port or DEFAULT_PORTS[parts.scheme]
    excluded = environ.get("NO_PROXY") or environ.get("no_proxy") or ""
    if _is_local(parts.hostname) or any(_matches(pattern.strip().lower(), parts.hostname, port) for pattern in excluded.split(",")):
        return None
    return proxy if "://" in proxy else f"http://{proxy}"


def _is_local(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _matches(pattern: str, host: str, port: int) -> bool:
    """Say whether an item of NO_PROXY (address, CIDR, domain or `*`, optionally with a port) matches this host."""
    if pattern in ("", "*"):
        return pattern == "*"
    try:
        return ip_address(host) in ip_network(pattern, strict=False)
    except ValueError:
        pass  # host or pattern is a name or has a port
    name, colon, wanted = pattern.rpartition(":")
    if colon and wanted.isdecimal():
        if int(wanted) != port:
            return False
        pattern = name
    pattern = pattern.removeprefix("[").removesuffix("]")
    if pattern.startswith((".", "*.")):
        return host.endswith(pattern.removeprefix("*"))
    return host == pattern or host.endswith(f".{pattern}")
