# SPDX-License-Identifier: Apache-2.0
"""Pools, NodeSubnets and annotations of the version before, in the hands of today's controller. And the way back."""

from __future__ import annotations

import ipaddress
import json
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from controllerprocess import until
from recordedpools import OTHER_KEY, Cluster, given

if TYPE_CHECKING:
    from collections.abc import Iterator

    from apiserver import ApiServer

SOURCE = Path(__file__).resolve().parent.parent.parent / "src"
BEFORE = json.loads(Path(__file__).with_name("72e61b4-pools.json").read_text())


@pytest.fixture
def cluster(crds: ApiServer) -> Iterator[Cluster]:
    cluster = Cluster(crds)
    yield cluster
    cluster.clear()


def test_an_upgrade(cluster: Cluster, tmp_path: Path) -> None:
    """No subnet moves, none is lost, none is given twice, also to nodes that come now; a node that comes back has what it had."""
    released = cluster.put_back(BEFORE)
    with cluster.controller(SOURCE, tmp_path):
        new = cluster.node("new")
        until(lambda: cluster.has(new))
        now = cluster.taken()
        its = {name for name, claim in now["nodesubnets"].items() if claim["spec"]["node"] == new}
        assert len(its) == 3
        del now["nodes"][new]
        for name in its:
            del now["nodesubnets"][name]
        assert given(now) == given(BEFORE)
        assert {claim["releasedAt"] for claim in cluster.claims().values() if "releasedAt" in claim} == {released}
        subnets = [ipaddress.ip_network(cidr) for cidr in cluster.claims()]
        assert [pair for pair in combinations(subnets, 2) if pair[0].version == pair[1].version and pair[0].overlaps(pair[1])] == []
        gone = cluster.node("gone")
        until(lambda: cluster.has(gone))
        had = {
            (claim["spec"]["annotation"], claim["spec"]["cidr"])
            for claim in BEFORE["nodesubnets"].values()
            if claim["spec"]["node"] == gone
        }
        annotations = cluster.taken()["nodes"][gone]
        assert {(key, cidr) for key in (cluster.key, OTHER_KEY) for cidr in annotations[key].split(",")} == had


def test_the_way_back(cluster: Cluster, tmp_path: Path) -> None:
    """Today's controller leaves what the version before does, word for word: that one finds its own when it comes back."""
    with cluster.controller(SOURCE, tmp_path):
        cluster.leave()
    assert given(cluster.taken()) == given(BEFORE)
