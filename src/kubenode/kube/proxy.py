"""PURE. Which proxy a request goes through, by the environment (the rules of Go's `http.ProxyFromEnvironment`, which kubectl follows)."""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Mapping

DEFAULT_PORTS = {"http": 80, "https": 443}


def proxy_for(server: str, environ: Mapping[str, str]) -> str | None:
    """Return the proxy's URL for a server's URL, None for a direct connection."""
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
    """Tell whether one item of NO_PROXY (an address, a CIDR, a domain or `*`, perhaps with a port) means this host."""
    if pattern in ("", "*"):
        return pattern == "*"
    try:
        return ip_address(host) in ip_network(pattern, strict=False)
    except ValueError:
        pass  # the host, or the pattern, is a name or has a port
    name, colon, wanted = pattern.rpartition(":")
    if colon and wanted.isdecimal():
        if int(wanted) != port:
            return False
        pattern = name
    pattern = pattern.removeprefix("[").removesuffix("]")
    if pattern.startswith((".", "*.")):
        return host.endswith(pattern.removeprefix("*"))
    return host == pattern or host.endswith(f".{pattern}")
