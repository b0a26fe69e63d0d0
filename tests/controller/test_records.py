# SPDX-License-Identifier: Apache-2.0
"""What SubnetPools, NodeSubnets and selectors mean."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubenode.ipam.ranges import Subnet, parse_subnet
from kubenode.pools.records import (
    Growth,
    NodeSubnet,
    RecordError,
    duration,
    object_name,
    parse_claim,
    parse_pool,
    parse_selector,
    stamp,
    unstamp,
)
from kubenode.pools.space import SubnetMap

NET = {"cidr": "172.20.0.0/16", "nodePrefix": 24}
DNS_1123 = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")


@st.composite
def subnets(draw: st.DrawFn) -> Subnet:
    version = draw(st.sampled_from([4, 6]))
    bits = 32 if version == 4 else 128
    prefix = draw(st.integers(0, bits - 2))
    number = draw(st.integers(0, (1 << bits) - 1)) >> bits - prefix << bits - prefix
    return parse_subnet(str(Subnet(4, number & 0xFFFFFFFF, prefix))) if version == 4 else Subnet(6, number, prefix)


@given(subnets(), subnets())
def test_names(one: Subnet, other: Subnet) -> None:
    """A NodeSubnet's name is one that the API server takes, and no two subnets have the same."""
    assert DNS_1123.fullmatch(object_name(one))
    assert (object_name(one) == object_name(other)) == (one == other)


def test_names_can_be_read() -> None:
    """The name is the subnet with the two characters replaced that a name cannot have."""
    texts = ("172.20.2.0/24", "fd00:20::/64", "::/96", "fd00::2:0:0/96")
    assert [object_name(parse_subnet(text)) for text in texts] == ["172.20.2.0-24", "fd00-20---64", "0---96", "fd00--2-0-0-96"]


def test_a_claim_comes_back() -> None:
    """What is written is read again as it was."""
    claim = NodeSubnet(parse_subnet("fd00::/64"), "p", "k", "n", "u", adopted=True, released=1700000000.0, uid="x", version="7")
    assert parse_claim(claim.manifest()) == claim


def test_a_claim_under_a_wrong_name() -> None:
    """A NodeSubnet whose name is not its subnet's protects nothing, and says how it has to be called."""
    manifest = NodeSubnet(parse_subnet("10.0.0.0/24"), "p", "k", "n", "u").manifest()
    manifest["metadata"]["name"] = "10.0.1.0-24"
    with pytest.raises(RecordError, match=r"has to be called 10\.0\.0\.0-24"):
        parse_claim(manifest)


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("1h30m", 5400), ("0s", 0), ("500ms", 0.5)])
def test_durations(text: str, seconds: float) -> None:
    """A duration is written as Kubernetes writes it."""
    assert duration(text) == seconds


@pytest.mark.parametrize("text", ["", "1", "1d", "-1s", "1 h", "h"])
def test_no_durations(text: str) -> None:
    """What is no duration is an error that shows some."""
    with pytest.raises(RecordError, match="not a duration such as"):
        duration(text)


@pytest.mark.parametrize(
    ("spec", "growth"),
    [
        ({}, Growth(0, 16, 600)),
        ({"minFree": 8}, Growth(8, 16, 600)),
        ({"minFree": 65536, "maxBlocks": 128, "shrinkAfter": "1h30m"}, Growth(65536, 128, 5400)),
    ],
)
def test_growth(spec: dict[str, object], growth: Growth) -> None:
    """Without minFree a node's part does not grow."""
    pool = parse_pool({"metadata": {"name": "p"}, "spec": {"cidrs": [NET], **spec}})
    assert (pool.growth, pool.problems) == (growth, ())


@pytest.mark.parametrize(
    ("spec", "problem"),
    [
        ({"minFree": -1}, "minFree -1 is not a number from 0 to 65536"),
        ({"minFree": "8"}, "minFree '8' is not a number from 0 to 65536"),
        ({"maxBlocks": 0}, "maxBlocks 0 is not a number from 1 to 128"),
        ({"shrinkAfter": "10"}, "'10' is not a duration such as 90s, 30m or 1h30m"),
    ],
)
def test_no_growth(spec: dict[str, object], problem: str) -> None:
    """A pool whose growth means nothing says so, and gives nothing."""
    assert parse_pool({"metadata": {"name": "p"}, "spec": {"cidrs": [NET], **spec}}).problems == (problem,)


def test_another_growth_is_another_spec() -> None:
    """A change of minFree alone is a change of the pool."""
    one, other = (parse_pool({"metadata": {"name": "p"}, "spec": {"cidrs": [NET], "minFree": free}}) for free in (0, 1))
    assert not one.same_spec(other)


def test_stamps() -> None:
    """A time is written as Kubernetes does, in whole seconds, and never later than it was."""
    assert stamp(1700000000.9) == "2023-11-14T22:13:20Z"
    assert unstamp(stamp(1700000000.9)) == 1700000000


@pytest.mark.parametrize(
    ("expression", "labels", "matches"),
    [
        ({"operator": "In", "values": ["a", "b"]}, {"k": "a"}, True),
        ({"operator": "In", "values": ["a", "b"]}, {"k": "c"}, False),
        ({"operator": "In", "values": ["a"]}, {}, False),
        ({"operator": "NotIn", "values": ["a"]}, {"k": "a"}, False),
        ({"operator": "NotIn", "values": ["a"]}, {}, True),
        ({"operator": "Exists"}, {"k": ""}, True),
        ({"operator": "Exists"}, {}, False),
        ({"operator": "DoesNotExist"}, {"k": ""}, False),
        ({"operator": "DoesNotExist"}, {}, True),
    ],
)
def test_selectors(expression: dict[str, object], labels: dict[str, str], *, matches: bool) -> None:
    """A selector selects as Kubernetes' do."""
    assert parse_selector({"matchExpressions": [{"key": "k", **expression}]}).matches(labels) is matches
    assert parse_selector({"matchLabels": {"x": "1"}, "matchExpressions": [{"key": "k", **expression}]}).matches(labels) is False


small = st.builds(lambda prefix, number: Subnet(4, number >> 32 - prefix << 32 - prefix, prefix), st.integers(24, 30), st.integers(0, 1023))


@given(st.lists(st.tuples(small, st.booleans())), small)
def test_held(changes: list[tuple[Subnet, bool]], asked: Subnet) -> None:
    """What overlaps, and what lies inside, is found as by looking at each."""
    held: SubnetMap[int] = SubnetMap()
    model: dict[Subnet, int] = {}
    for value, (subnet, put) in enumerate(changes):
        if put:
            held.put(subnet, value)
            model[subnet] = value
        else:
            assert held.remove(subnet) == model.pop(subnet, None)
    assert dict(held) == model
    assert len(held) == len(model)
    assert held.get(asked) == model.get(asked)
    assert dict(held.overlapping(asked)) == {subnet: value for subnet, value in model.items() if subnet.overlaps(asked)}
    assert held.within(asked) == sum(subnet.overlaps(asked) and subnet.prefix >= asked.prefix for subnet in model)
