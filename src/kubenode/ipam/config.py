# SPDX-License-Identifier: Apache-2.0
"""Configuration schema of host-local (its `config.go`): range sets, requested addresses, routes, with its order and messages."""

from __future__ import annotations

from kubenode.base.jsontext import dumps
from kubenode.base.record import NamedTuple
from kubenode.cni.errors import INVALID_ENVIRONMENT, CNIError
from kubenode.cni.netconf import invalid, is_path, json_type
from kubenode.cni.versions import at_least
from kubenode.ipam.address import BITS, Address, parse_address, parse_cidr
from kubenode.ipam.ranges import (
    NO_GATEWAY,
    Range,
    RangeError,
    RangeSet,
    Subnet,
    UnreadableError,
    check_overlap,
    make_range,
    make_set,
    parse_subnet,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from kubenode.base.jsontext import JSON
    from kubenode.cni.netconf import NetConf

NUMBERS_OF_ROUTE = ("mtu", "advmss", "priority", "table", "scope")
LARGEST = 1 << 63  # one more than the largest signed 64-bit number
NO_ADDRESS = "cannot understand ip: IP <nil> not v4 nor v6"  # the reference's message
MOST_RANGES = 256  # of all range sets together; all pairs are compared
MOST = 1000  # entries of any other list
READY, ERROR = "ready", "error"  # answers of STATUS without a free address
ALWAYS_SHOWN = frozenset(["table", "scope"])  # 0 has a meaning for these; for the others it means absent


class IPAMConfig(NamedTuple):
    """Validated configuration."""

    sets: tuple[RangeSet, ...]
    requested: tuple[Address, ...]
    routes: tuple[dict[str, JSON], ...]
    resolv_conf: str
    exclude: tuple[Subnet, ...]
    full_is_error: bool


def load(netconf: NetConf, args: Mapping[str, str]) -> IPAMConfig:
    """Parse the configuration of an ADD; `args` are the pairs of CNI_ARGS. Raises CNIError 7, or 4 for CNI_ARGS."""
    ipam = netconf.ipam
    try:
        sets = _range_sets(netconf)
        routes = tuple(_route(route) for route in _array(ipam, "routes"))
        exclude = exclusions(ipam)
    except RangeError as error:
        raise invalid([str(error)], error.reference) from None
    if not sets:
        raise invalid(["no IP ranges specified"])
    versions = [range_set.version for range_set in sets]
    if len(set(versions)) < len(versions) and not at_least(netconf.cni_version, "0.3.0"):
        raise invalid([f"CNI version {netconf.cni_version} does not support more than 1 address per family"])
    try:
        check_overlap(sets)
    except RangeError as error:
        raise invalid([str(error)]) from None
    resolv_conf = "" if ipam.get("resolvConf") is None else ipam["resolvConf"]
    if not isinstance(resolv_conf, str):
        raise invalid([f"resolvConf is a JSON {json_type(resolv_conf)}, not a string"])
    if not is_path(resolv_conf):
        raise invalid([f"resolvConf {resolv_conf!r} is not a path"])
    when_full = ipam.get("statusWhenFull") or READY
    if when_full not in (READY, ERROR):
        raise invalid([f"statusWhenFull is {when_full!r}, neither {READY!r} nor {ERROR!r}"])
    if (sticky_for := ipam.get("stickyFor")) is not None:
        from kubenode.ipam.resting import seconds  # few configurations have it

        if seconds(sticky_for) is None:
            raise invalid([f"stickyFor is {sticky_for!r}, neither a number of seconds nor a text such as 90s, 1h or 1h30m"])
    return IPAMConfig(sets, _requested(netconf, args), routes, resolv_conf, exclude, when_full == ERROR)


def exclusions(ipam: Mapping[str, JSON]) -> tuple[Subnet, ...]:
    """Parse the networks that are never assigned. Raises RangeError, CNIError."""
    return tuple(_exclusion(text) for text in _array(ipam, "exclude"))


def _range_sets(netconf: NetConf) -> tuple[RangeSet, ...]:
    """Return all range sets in host-local's order: the runtime's, the inline range, `ranges`."""
    ipam = netconf.ipam
    found: list[JSON] = list(_array(_object(netconf.raw, "runtimeConfig"), "ipRanges"))
    if ipam.get("subnet"):
        found.append([ipam])
    found += _array(ipam, "ranges")
    if (count := sum(len(ranges) if isinstance(ranges, list) else 1 for ranges in found)) > MOST_RANGES:
        raise RangeError(f"{count} ranges, more than {MOST_RANGES}")
    sets = []
    for index, ranges in enumerate(found):
        if not isinstance(ranges, list):
            raise RangeError(f"invalid range set {index}: a JSON {json_type(ranges)}, not an array of ranges")
        try:
            sets.append(make_set(index, [_range(value) for value in ranges]))
        except RangeError as error:
            raise error.within(f"invalid range set {index}") from None
    return tuple(sets)


def _range(value: JSON) -> Range:
    if not isinstance(value, dict):
        raise RangeError(f"a range is a JSON {json_type(value)}, not an object")
    subnet = value.get("subnet")
    if subnet is None:
        raise RangeError("a range without subnet", "IP <nil> not v4 nor v6")
    if not isinstance(subnet, str):
        raise RangeError(f"subnet is a JSON {json_type(subnet)}, not a string")
    closing = value.get("closing", False)
    if not isinstance(closing, bool):
        raise RangeError(f"closing is a JSON {json_type(closing)}, not a boolean")
    has_gateway = value.get("gateway") != NO_GATEWAY
    keys = ("rangeStart", "rangeEnd", "gateway") if has_gateway else ("rangeStart", "rangeEnd")
    found = make_range(parse_subnet(subnet), *[_optional_address(value, key) for key in keys])
    if has_gateway and not closing:
        return found
    return found._replace(gateway=found.gateway if has_gateway else None, closing=closing)


def _optional_address(value: Mapping[str, JSON], key: str) -> Address | None:
    return None if value.get(key) in (None, "") else _address(value[key], key)


def _address(text: JSON, key: str) -> Address:
    if not isinstance(text, str):
        raise RangeError(f"{key} is a JSON {json_type(text)}, not an address")
    address = parse_address(text)
    if address is None:
        raise UnreadableError(f"{key}: invalid IP address {text}", f"invalid IP address: {text}")
    return address


def _requested(netconf: NetConf, args: Mapping[str, str]) -> tuple[Address, ...]:
    """Return the requested addresses; a prefix length is ignored. `args` comes before CNI_ARGS (CONVENTIONS.md)."""
    texts = list(_array(_object(_object(netconf.raw, "args"), "cni"), "ips"))
    try:
        if not texts and args.get("IP"):
            texts = [str(_requested_address(args["IP"]))]
    except RangeError as error:
        reference = f"ARGS: error parsing value of pair {dumps('IP=' + args['IP'])}: {error.reference}"
        raise CNIError(INVALID_ENVIRONMENT, f"CNI_ARGS: {error}", "IP is one address to give to the pod", reference) from None
    texts += _array(_object(netconf.raw, "runtimeConfig"), "ips")
    try:
        return tuple(_requested_address(text) for text in texts)
    except RangeError as error:
        raise invalid([f"requested ips: {error}"], error.reference) from None


def _requested_address(value: JSON) -> Address:
    """Parse an address with or without prefix length. Raises RangeError."""
    if not isinstance(value, str):
        raise RangeError(f"a JSON {json_type(value)} is no address")
    found = (parse_cidr(value) or (None,))[0] if "/" in value else parse_address(value)
    if found is None:
        raise UnreadableError(f"invalid IP address {value}", f"invalid IP address {value}" if value else NO_ADDRESS)
    return found


def _route(value: JSON) -> dict[str, JSON]:
    if not isinstance(value, dict) or not isinstance(value.get("dst"), str):
        raise RangeError("a route is an object with dst, a string in CIDR notation")
    dst = parse_cidr(value["dst"])
    if dst is None:
        raise UnreadableError(f"route: invalid CIDR address: {value['dst']}", f"invalid CIDR address: {value['dst']}")
    route: dict[str, JSON] = {"dst": f"{dst[0]}/{dst[1]}"}
    if gateway := _optional_address(value, "gw"):
        route["gw"] = str(gateway)
    for key in NUMBERS_OF_ROUTE:
        number = value.get(key)
        if number is not None and (not isinstance(number, int) or isinstance(number, bool) or not -LARGEST <= number < LARGEST):
            found = repr(number) if json_type(number) == "number" else f"a JSON {json_type(number)}"
            raise RangeError(f"route {value['dst']}: {key} is {found}, not a whole number of 64 bits")
        if number or (number is not None and key in ALWAYS_SHOWN):
            route[key] = number
    return route


def _exclusion(value: JSON) -> Subnet:
    """Parse an address or CIDR that is never assigned; unlike a subnet it may be a single address."""
    text = value if isinstance(value, str) else ""
    single = parse_address(text)
    found = (single, BITS[single.version]) if single else parse_cidr(text)
    if found is None:
        raise RangeError(f"exclude: {value!r} is neither an address nor a CIDR")
    address, prefix = found
    host_bits = BITS[address.version] - prefix
    return Subnet(address.version, address.number >> host_bits << host_bits, prefix)


def _array(parent: Mapping[str, JSON], key: str) -> list[JSON]:
    value = parent.get(key)
    if value is None:
        return []
    if not isinstance(value, list):
        raise invalid([f"{key} is a JSON {json_type(value)}, not an array"])
    if len(value) > MOST:
        raise invalid([f"{key} has {len(value)} entries, more than {MOST}"])
    return value


def _object(parent: Mapping[str, JSON], key: str) -> dict[str, JSON]:
    value = parent.get(key)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise invalid([f"{key} is a JSON {json_type(value)}, not an object"])
    return value
