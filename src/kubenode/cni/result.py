# SPDX-License-Identifier: Apache-2.0
"""Result of ADD, and its form in each version of the specification (SPEC.md, "Section 5", and older versions of it)."""

from __future__ import annotations

from kubenode.base.record import NamedTuple
from kubenode.cni.errors import INTERNAL, CNIError
from kubenode.cni.versions import at_least

TYPE_CHECKING = False
if TYPE_CHECKING:
    from kubenode.base.jsontext import JSON


class IPConfig(NamedTuple):
    """One address of a pod as text: `address` with its prefix length ("10.1.2.3/24"), and the gateway, "" for none."""

    version: int
    address: str
    gateway: str


class Result(NamedTuple):
    """Result of an IPAM plugin: addresses, routes and DNS settings, no interfaces ("Delegated plugins (IPAM)")."""

    ips: tuple[IPConfig, ...]
    routes: tuple[dict[str, JSON], ...] = ()
    dns: dict[str, JSON] = {}  # noqa: RUF012 -- never changed

    def render(self, cni_version: str) -> dict[str, JSON]:
        """Return the result in the form of a supported version, as host-local prints it."""
        if at_least(cni_version, "1.0.0"):
            return _without_empty(self._since_030(cni_version, with_family=False))
        if at_least(cni_version, "0.3.0"):
            return self._since_030(cni_version, with_family=True)
        return self._before_030(cni_version)

    def _since_030(self, cni_version: str, *, with_family: bool) -> dict[str, JSON]:
        result: dict[str, JSON] = {"cniVersion": cni_version}
        result["ips"] = [
            {**({"version": str(ip.version)} if with_family else {}), "address": ip.address, **_gateway(ip)} for ip in self.ips
        ]
        if self.routes:
            result["routes"] = list(self.routes)
        result["dns"] = self.dns
        return result

    def _before_030(self, cni_version: str) -> dict[str, JSON]:
        """Return at most one address per family; a route goes to its destination's family, with the keys dst and gw only."""
        if not self.ips:
            raise CNIError(INTERNAL, "cannot convert: no valid IP addresses")
        result: dict[str, JSON] = {"cniVersion": cni_version}
        for key, version in (("ip4", 4), ("ip6", 6)):
            ip = next((ip for ip in self.ips if ip.version == version), None)
            if ip is None:
                continue
            result[key] = {"ip": ip.address, **_gateway(ip)}
            routes = [
                {name: route[name] for name in ("dst", "gw") if route.get(name)}
                for route in self.routes
                if (":" in route["dst"]) == (version == 6)  # noqa: PLR2004 -- the IP version
            ]
            if routes:
                result[key]["routes"] = routes
        result["dns"] = self.dns
        return result


def _gateway(ip: IPConfig) -> dict[str, JSON]:
    return {"gateway": ip.gateway} if ip.gateway else {}


def addresses_in(result: JSON) -> list[str]:
    """Return the addresses of a result of any version; [] if it is no result."""
    if not isinstance(result, dict):
        return []
    ips = result.get("ips")
    new = [ip.get("address") for ip in (ips if isinstance(ips, list) else ()) if isinstance(ip, dict)]
    old = [ip.get("ip") for ip in (result.get("ip4"), result.get("ip6")) if isinstance(ip, dict)]
    return [text for text in new + old if isinstance(text, str)]


def _without_empty(result: dict[str, JSON]) -> dict[str, JSON]:
    return {key: value for key, value in result.items() if key != "dns" or value}
