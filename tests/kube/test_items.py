# SPDX-License-Identifier: Apache-2.0
"""The items of a kube-node annotation: which addresses a node gives, with which prefix length and gateway, and what is refused."""

from __future__ import annotations

import json
import subprocess
import tempfile
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import TYPE_CHECKING, NamedTuple

import locked
import pytest
from callplugin import environment
from counting import calls_of
from effort import examples
from hypothesis import event, given, settings
from hypothesis import strategies as st
from memorystore import MemoryStore

from kubenode.cni import netconf
from kubenode.cni.errors import RANGE_FULL, CNIError
from kubenode.ipam import allocator, config
from kubenode.ipam.ranges import MOST_SUBNETS, RangeError
from kubenode.ipam.store import Attachment
from kubenode.nodes.items import parse

if TYPE_CHECKING:
    from pathlib import Path

    from kubenode.base.jsontext import JSON

    Network = IPv4Network | IPv6Network
    Given = tuple[str, int, str]  # an address, its prefix length, and the gateway or ""

SHARED = "172.20.2.0/28 of 172.20.0.0/16 via 172.20.0.1"


def ranges(text: str) -> list[list[JSON]]:
    """Return the range sets of an annotation, as they are handed on."""
    by_family: dict[int, list[JSON]] = {}
    for item in parse(text):
        by_family.setdefault(item.version, []).append(item.as_range())
    return list(by_family.values())


def everything(text: str) -> list[Given]:
    """Let the embedded allocator give all that it has, one pod after the other."""
    conf = netconf.parse(netconf.decode(json.dumps({"cniVersion": "1.1.0", "name": "n", "ipam": {"ranges": ranges(text)}}).encode()))
    found: list[Given] = []
    for one in config.load(conf, {}).sets:
        store = MemoryStore()
        while True:
            try:
                (got,) = locked.allocate(store, [one], Attachment(f"c{len(store.files)}", "eth0")).given
            except CNIError as error:
                assert error.code == RANGE_FULL
                break
            found.append((str(got.address), got.range.subnet.prefix, str(got.range.gateway or "")))
        with store.lock():
            (usage,) = allocator.usage(store, [one])
        assert usage.used == usage.total == len(store.files)
    return found


@pytest.mark.parametrize(
    ("text", "canonical", "expected"),
    [
        ("172.20.2.0/24", "172.20.2.0/24", [{"subnet": "172.20.2.0/24"}]),
        ("172.20.2.0/24 via 172.20.2.1", "172.20.2.0/24", [{"subnet": "172.20.2.0/24"}]),
        ("172.20.2.0/24  via\t172.20.2.254", "172.20.2.0/24 via 172.20.2.254", [{"subnet": "172.20.2.0/24", "gateway": "172.20.2.254"}]),
        ("172.20.2.0/24 via none", "172.20.2.0/24 via none", [{"subnet": "172.20.2.0/24", "gateway": "none"}]),
        ("172.20.2.0/24 closing", "172.20.2.0/24 closing", [{"subnet": "172.20.2.0/24", "closing": True}]),
        (SHARED, SHARED, [{"subnet": "172.20.0.0/16", "rangeStart": "172.20.2.0", "rangeEnd": "172.20.2.15"}]),
        ("172.20.2.0/28 of 172.20.0.0/16", SHARED, [{"subnet": "172.20.0.0/16", "rangeStart": "172.20.2.0", "rangeEnd": "172.20.2.15"}]),
        (
            "172.20.0.0/28 of 172.20.0.0/16 via none closing",
            "172.20.0.0/28 of 172.20.0.0/16 via none closing",
            [{"subnet": "172.20.0.0/16", "rangeStart": "172.20.0.1", "rangeEnd": "172.20.0.15", "gateway": "none", "closing": True}],
        ),
        (
            "172.20.255.254/31 of 172.20.0.0/16",
            "172.20.255.254/31 of 172.20.0.0/16 via 172.20.0.1",
            [{"subnet": "172.20.0.0/16", "rangeStart": "172.20.255.254", "rangeEnd": "172.20.255.254"}],
        ),
        (
            "fd00::2:0/124 of fd00::/64 via fe80::1",
            "fd00::2:0/124 of fd00::/64 via fe80::1",
            [{"subnet": "fd00::/64", "rangeStart": "fd00::2:0", "rangeEnd": "fd00::2:f", "gateway": "fe80::1"}],
        ),
        (
            "fd00::ffff:ffff:ffff:ffff/128 of fd00::/64",
            "fd00::ffff:ffff:ffff:ffff/128 of fd00::/64 via fd00::1",
            [{"subnet": "fd00::/64", "rangeStart": "fd00::ffff:ffff:ffff:ffff", "rangeEnd": "fd00::ffff:ffff:ffff:ffff"}],
        ),
        ("10.0.0.0/24 of 10.0.0.0/24", "10.0.0.0/24", [{"subnet": "10.0.0.0/24"}]),
    ],
)
def test_an_item(text: str, canonical: str, expected: list[JSON]) -> None:
    """An item is written in one way, and handed on in host-local's words; a plain subnet as ever."""
    assert ([str(item) for item in parse(text)], ranges(text)) == ([canonical], [expected])
    assert parse(canonical) == parse(text)


def test_blocks_of_a_network_are_one_set() -> None:
    """All items of a family are one range set, in their order."""
    text = f"{SHARED}, fd00::/64, 172.20.9.0/28 of 172.20.0.0/16,10.0.0.0/24"
    assert [[one["subnet"] for one in found] for found in ranges(text)] == [["172.20.0.0/16"] * 2 + ["10.0.0.0/24"], ["fd00::/64"]]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("172.20.2.0/28 of", "'172.20.2.0/28 of' is not CIDR [of NETWORK] [via ADDRESS|none] [closing]"),
        ("172.20.2.0/28 in 172.20.0.0/16", "is not CIDR [of NETWORK]"),
        ("172.20.2.0/24 via none of 172.20.0.0/16", "is not CIDR [of NETWORK]"),
        ("172.20.2.0/24 closing via none", "is not CIDR [of NETWORK]"),
        ("172.20.2.0/24 CLOSING", "is not CIDR [of NETWORK]"),
        ("172.20.2.0/24 172.20.3.0/24", "is not CIDR [of NETWORK]"),
        ("172.20.2.0/28 of 172.21.0.0/16", "172.20.2.0/28 is not in 172.21.0.0/16"),
        ("172.20.0.0/15 of 172.20.0.0/16", "172.20.0.0/15 is not in 172.20.0.0/16"),
        ("fd00::/64 of 172.20.0.0/16", "fd00::/64 is not in 172.20.0.0/16"),
        ("172.20.2.1/28 of 172.20.0.0/16", "the network address is 172.20.2.0"),
        ("172.20.2.0/28 of 172.20.0.1/16", "the network address is 172.20.0.0"),
        ("172.20.2.0/32 of 172.20.2.0/31", "Network 172.20.2.0/31 too small to allocate from"),
        ("172.20.2.0/31", "Network 172.20.2.0/31 too small to allocate from"),
        ("172.20.0.1/32 of 172.20.0.0/16", "172.20.0.1/32 has no address to give"),
        ("172.20.0.0/31 of 172.20.0.0/16", "172.20.0.0/31 has no address to give"),
        ("172.20.255.255/32 of 172.20.0.0/16", "172.20.255.255/32 has no address to give"),
        ("fd00::/128 of fd00::/64 via none", "fd00::/128 has no address to give"),
        ("172.20.2.0/24 via 172.20.3.1", "gateway 172.20.3.1 is not in 172.20.2.0/24"),
        ("172.20.2.0/24 via fe80::1", "gateway fe80::1 is not of the family of 172.20.2.0/24"),
        ("172.20.2.0/24 via nobody", "gateway 'nobody' of 172.20.2.0/24 is neither an address nor none"),
        ("172.20.2.0/28 of 172.20.0.0/16 via 172.20.255.255", "is the first or the broadcast address of 172.20.0.0/16"),
        (f"{SHARED},172.20.2.8/29 of 172.20.0.0/16", "subnets 172.20.2.0/28 and 172.20.2.8/29 overlap"),
        (f"{SHARED},172.20.3.0/28 of 172.20.0.0/16 via 172.20.2.9", "172.20.2.0/28 would give 172.20.2.9, the gateway of 172.20.3.0/28"),
        ("10.1.0.0/28 of 10.0.0.0/8,10.1.0.16/28 of 10.1.0.0/16", "10.1.0.0/28 would give 10.1.0.0, the first address of 10.1.0.0/16"),
        (",".join(f"10.{number >> 8}.{number & 255}.0/24" for number in range(257)), "more than 256 subnets"),
    ],
)
def test_what_is_no_item(text: str, problem: str) -> None:
    """What cannot be right is refused, with the part and the reason: no guess would be better than none."""
    with pytest.raises(RangeError, match=r".*") as error:
        parse(text)
    assert problem in str(error.value)


# Random items, against a model that shares nothing with the code: it looks at each address of a small network.


class Drawn(NamedTuple):
    """An item as a person would think of it; `gateway`: "" for none."""

    block: Network
    network: Network
    gateway: str
    closing: bool

    def text(self) -> str:
        of = f" of {self.network}" if self.network != self.block else ""
        return f"{self.block}{of} via {self.gateway or 'none'}{' closing' if self.closing else ''}"

    def never(self) -> set[str]:
        """Return what pods never get of the network."""
        last = {str(self.network[-1])} if self.network.version == 4 else set()
        return {str(self.network[0]), self.gateway} | last

    def gives(self) -> set[str]:
        return {str(address) for address in self.block} - self.never()


NETWORKS: list[Network] = [ip_network("10.0.0.0/27"), ip_network("10.0.0.32/28"), ip_network("fd00::/123"), ip_network("fd00::20/124")]


@st.composite
def drawn(draw: st.DrawFn) -> Drawn:
    network = draw(st.sampled_from(NETWORKS))
    prefix = draw(st.integers(network.prefixlen, network.max_prefixlen))
    blocks: list[Network] = list(network.subnets(new_prefix=prefix))
    block = draw(st.sampled_from(blocks))
    inner = list(network)[1:-1]
    gateway = draw(st.sampled_from(["", str(network[1]), str(inner[-1]), str(draw(st.sampled_from(inner)))]))
    return Drawn(block, network, gateway, draw(st.booleans()) and draw(st.booleans()))


def is_wrong(items: list[Drawn]) -> bool:
    """Tell whether the text has to be refused: it would give nothing, one address twice, or somebody's gateway."""
    owned = [str(address) for item in items for address in item.block]
    return (
        any(not item.gives() for item in items)
        or len(set(owned)) < len(owned)
        or any(other.gateway in item.gives() for item in items for other in items)
    )


texts = st.lists(drawn(), min_size=1, max_size=6)


def allowed(items: list[Drawn]) -> list[Given]:
    return sorted((one, item.network.prefixlen, item.gateway) for item in items if not item.closing for one in item.gives())


@settings(max_examples=examples(500), deadline=None)
@given(texts)
def test_exactly_what_the_text_allows_is_given(items: list[Drawn]) -> None:
    """Of random items each allowed address is given once, with its network's prefix length and gateway, and no other."""
    text = ", ".join(item.text() for item in items)
    if is_wrong(items):
        event("refused")
        with pytest.raises(RangeError):
            parse(text)
        return
    event("given")
    assert sorted(everything(text)) == allowed(items)


@settings(max_examples=examples(12), deadline=None)
@given(texts=texts.filter(lambda items: not is_wrong(items) and all(item.gateway and not item.closing for item in items)))
def test_the_reference_gives_the_same(cni_bin: Path, texts: list[Drawn]) -> None:
    """What can be said in host-local's words the reference understands as we do: it gives the same addresses, and none outside of them."""
    sets = ranges(",".join(item.text() for item in texts))
    found: list[Given] = []
    for one in sets:
        with tempfile.TemporaryDirectory() as directory:
            ipam = {"type": "host-local", "dataDir": directory, "ranges": [one]}
            stdin = json.dumps({"cniVersion": "1.0.0", "name": "n", "ipam": ipam})
            for number in range(100):
                environ = environment("ADD", container_id=f"c{number}", path=[cni_bin])
                done = subprocess.run([cni_bin / "host-local"], input=stdin, env=environ, text=True, capture_output=True, check=False)
                if done.returncode:
                    assert "no IP addresses available in range set" in done.stdout
                    break
                (ip,) = json.loads(done.stdout)["ips"]
                address, _, prefix = ip["address"].partition("/")
                found.append((address, int(prefix), ip["gateway"]))
    assert sorted(found) == allowed(texts)


def test_many_networks() -> None:
    """As many items as there may be, each of a network of its own, cost little more to read than plain ones: each ADD reads them."""
    plain = ",".join(f"10.{number}.0.0/24" for number in range(MOST_SUBNETS))
    blocks = ",".join(f"10.{number}.0.8/29 of 10.{number}.0.0/24 via 10.{number}.0.200" for number in range(MOST_SUBNETS))
    assert calls_of(lambda: parse(blocks)) < 2 * calls_of(lambda: parse(plain))
