# SPDX-License-Identifier: Apache-2.0
"""host-local's configuration schema."""

from __future__ import annotations

from typing import Any

import pytest

from kubenode.cni.errors import CNIError
from kubenode.cni.netconf import NetConf
from kubenode.ipam import config, resolvconf

V4, V6 = {"subnet": "10.0.0.0/24"}, {"subnet": "fd00::/64"}


def load(ipam: dict[str, Any], version: str = "1.1.0", cni_args: dict[str, str] | None = None, **more: Any) -> config.IPAMConfig:
    return config.load(NetConf(version, "net", ipam, {"ipam": ipam, **more}), cni_args or {})


def test_the_order_of_range_sets() -> None:
    """First what the runtime gives, then the inline range, then `ranges`; a set's id is its position."""
    ipam = {"subnet": "10.1.0.0/24", "rangeStart": "10.1.0.9", "ranges": [[V4, {"subnet": "10.0.1.0/24"}], [V6]]}
    found = load(ipam, runtimeConfig={"ipRanges": [[{"subnet": "10.2.0.0/24"}]]})
    assert [(s.id, str(s)) for s in found.sets] == [
        (0, "10.2.0.1-10.2.0.254"),
        (1, "10.1.0.9-10.1.0.254"),
        (2, "10.0.0.1-10.0.0.254,10.0.1.1-10.0.1.254"),
        (3, "fd00::1-fd00::ffff:ffff:ffff:ffff"),
    ]


@pytest.mark.parametrize(
    ("ipam", "message"),
    [
        ({}, "no IP ranges specified"),
        ({"ranges": []}, "no IP ranges specified"),
        ({"ranges": [[]]}, "invalid range set 0: empty range set"),
        ({"ranges": [[V4, V6]]}, "invalid range set 0: mixed address families"),
        ({"ranges": [[V6], [{"subnet": "10.0.0.1/24"}]]}, "invalid range set 1: Network has host bits set."),
        ({"ranges": [[V4], [V6], [V4]]}, "range set 0 overlaps with 2"),
        ({"ranges": {}}, "ranges is a JSON object, not an array"),
        ({"ranges": [V4]}, "invalid range set 0: a JSON object, not an array of ranges"),
        ({"ranges": [[5]]}, "invalid range set 0: a range is a JSON number, not an object"),
        ({"ranges": [[{}]]}, "invalid range set 0: a range without subnet"),
        ({"ranges": [[{**V4, "gateway": "x"}]]}, "invalid range set 0: gateway: invalid IP address x"),
        ({"ranges": [[{**V4, "gateway": []}]]}, "invalid range set 0: gateway is a JSON array, not an address"),
        ({"ranges": [[V4]], "routes": [{}]}, "a route is an object with dst"),
        ({"ranges": [[V4]], "routes": [{"dst": "10.0.0.0/99"}]}, "route: invalid CIDR address: 10.0.0.0/99"),
        ({"ranges": [[V4]], "routes": [{"dst": "10.0.0.0/" + "0" * 5000}]}, "route: invalid CIDR address: 10.0.0.0/000"),
        ({"ranges": [[V4]], "routes": [{"dst": "0.0.0.0/0", "gw": {}}]}, "gw is a JSON object, not an address"),
        ({"ranges": [[V4]], "routes": [{"dst": "10.0.0.0/8", "mtu": "x"}]}, "route 10.0.0.0/8: mtu is a JSON string, not a whole number"),
        ({"ranges": [[V4]], "routes": [{"dst": "10.0.0.0/8", "mtu": 1.0}]}, "route 10.0.0.0/8: mtu is 1.0, not a whole number of 64 bits"),
        (
            {"ranges": [[V4]], "routes": [{"dst": "10.0.0.0/8", "mtu": 1 << 63}]},
            "route 10.0.0.0/8: mtu is 9223372036854775808, not a whole number of 64 bits",
        ),
        ({"ranges": [[V4]], "resolvConf": []}, "resolvConf is a JSON array, not a string"),
        ({"ranges": [[V4]], "exclude": ["10.0.0.0/33"]}, "exclude: '10.0.0.0/33' is neither an address nor a CIDR"),
        ({"ranges": [[V4]], "exclude": ["10.0.0.0/" + "9" * 5000]}, "exclude: '10.0.0.0/999"),
        ({"ranges": [[V4]], "resolvConf": 5}, "resolvConf is a JSON number, not a string"),
        ({"ranges": [[V4]], "resolvConf": "a\0b"}, "resolvConf 'a\\x00b' is not a path"),
        ({"ranges": [[V4]], "resolvConf": "/\ud800"}, "resolvConf '/\\ud800' is not a path"),
    ],
)
def test_what_is_wrong(ipam: dict[str, Any], message: str) -> None:
    """Each fault is error 7, with host-local's words where it has some."""
    with pytest.raises(CNIError) as error:
        load(ipam)
    assert error.value.code == 7
    assert error.value.msg.startswith(message)


def test_two_sets_of_a_family_in_old_versions() -> None:
    """Before 0.3.0 a result has one address a family, and so has a configuration."""
    ipam = {"ranges": [[V4], [{"subnet": "10.0.1.0/24"}]]}
    assert len(load(ipam, "0.3.0").sets) == 2
    with pytest.raises(CNIError, match=r"CNI version 0\.2\.0 does not support more than 1 address per family"):
        load(ipam, "0.2.0")


@pytest.mark.parametrize(
    ("args", "more", "requested"),
    [
        ({}, {}, []),
        ({"IP": "10.0.0.5"}, {}, ["10.0.0.5"]),
        ({"IP": "10.0.0.5/24"}, {}, ["10.0.0.5"]),
        ({"IP": "10.0.0.5"}, {"args": {"cni": {"ips": ["10.0.0.6/16", "fd00::6"]}}}, ["10.0.0.6", "fd00::6"]),
        ({"IP": "10.0.0.5"}, {"runtimeConfig": {"ips": ["fd00::7"]}}, ["10.0.0.5", "fd00::7"]),
        ({}, {"args": {"cni": {"ips": ["10.0.0.6"]}}, "runtimeConfig": {"ips": ["fd00::7/64"]}}, ["10.0.0.6", "fd00::7"]),
    ],
)
def test_requested_addresses(args: dict[str, str], more: dict[str, Any], requested: list[str]) -> None:
    """From all three places, without prefix length; `args` makes CNI_ARGS ignored (CONVENTIONS.md)."""
    assert [str(a) for a in load({"ranges": [[V4]]}, cni_args=args, **more).requested] == requested


@pytest.mark.parametrize(("args", "more", "code"), [({"IP": "x"}, {}, 4), ({}, {"runtimeConfig": {"ips": [5]}}, 7), ({}, {"args": 5}, 7)])
def test_bad_requests(args: dict[str, str], more: dict[str, Any], code: int) -> None:
    """What is no address is an error of who sent it: the environment or the configuration."""
    with pytest.raises(CNIError) as error:
        load({"ranges": [[V4]]}, cni_args=args, **more)
    assert error.value.code == code


def test_routes() -> None:
    """A route keeps its keys; numbers that say nothing are left out, as host-local does."""
    routes = [
        {"dst": "0.0.0.0/0"},
        {"dst": "10.0.0.0/8", "gw": "10.0.0.9", "mtu": 1400, "advmss": 0, "priority": 5, "table": 0, "scope": 0, "other": 1},
    ]
    assert load({"ranges": [[V4]], "routes": routes}).routes == (
        {"dst": "0.0.0.0/0"},
        {"dst": "10.0.0.0/8", "gw": "10.0.0.9", "mtu": 1400, "priority": 5, "table": 0, "scope": 0},
    )


def test_ipv4_written_as_ipv6() -> None:
    """An IPv4-mapped destination or exclusion is the IPv4 one, and so is its prefix length, as host-local has it."""
    mapped = {"::ffff:10.0.0.0/120": "10.0.0.0/24", "::ffff:10.0.0.5/128": "10.0.0.5/32", "::ffff:10.0.0.0/90": "10.0.0.0/0"}
    found = load({"ranges": [[V4]], "routes": [{"dst": dst} for dst in mapped], "exclude": ["::ffff:10.0.0.5", "::ffff:10.0.0.8/125"]})
    assert [route["dst"] for route in found.routes] == list(mapped.values())
    assert [str(subnet) for subnet in found.exclude] == ["10.0.0.5/32", "10.0.0.8/29"]


def test_resolv_conf() -> None:
    """Nameservers, search and options add up over lines, the last domain wins; comments and half lines are nothing."""
    text = "# c\n"
    text += (
        ";d\nnameserver 1.1.1.1 9.9.9.9\n nameserver ::1\t\ndomain a\ndomain b\nsearch x y\nsearch z\noptions a b:1\nnameserver\nfoo bar\n"
    )
    assert resolvconf.parse(text) == {
        "nameservers": ["1.1.1.1", "::1"],
        "domain": "b",
        "search": ["x", "y", "z"],
        "options": ["a", "b:1"],
    }
    assert resolvconf.parse("") == {}
