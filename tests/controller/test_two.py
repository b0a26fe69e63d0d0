# SPDX-License-Identifier: Apache-2.0
"""Two controllers at once: with a Lease one works; without it both do, and no subnet is given twice for that."""

from __future__ import annotations

import os
import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from ipaddress import ip_network
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest
from controllerprocess import ControllerProcess, until
from patience import PATIENCE

if TYPE_CHECKING:
    from pathlib import Path

    from corner import Corner

pytestmark = pytest.mark.servers("best")
SECONDS = float(os.environ.get("KUBE_NODE_CHAOS_SECONDS", "20"))
NODES = int(os.environ.get("KUBE_NODE_CHAOS_NODES", "60"))
LEASES = "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases"


def holder(corner: Corner, name: str) -> str:
    for lease in corner.server.request("GET", LEASES)["items"]:
        if lease["metadata"]["name"] == name:
            return str(lease["spec"].get("holderIdentity") or "")
    return ""


def test_the_lease(corner: Corner, admin: Path, tmp_path: Path) -> None:
    """One of two works. When it ends in order the other takes over at once; when it crashes, once the Lease has run out."""
    lease = f"--lease=test-{corner.id}"
    corner.pool("net", [{"cidr": "172.20.0.0/20", "nodePrefix": 24}])
    with ControllerProcess(admin, tmp_path / "one.log", lease) as one:
        until(lambda: holder(corner, lease[8:]))
        with ControllerProcess(admin, tmp_path / "two.log", lease) as two:
            served = corner.node("a")
            until(lambda: corner.annotation(served))
            until(lambda: two.get("/readyz")[0] == 200)
            assert "leads" not in two.log()
            first = holder(corner, lease[8:])
            assert one.stop() == 0
            assert until(lambda: holder(corner, lease[8:]) not in ("", first)) < 12  # it would end after 15
            node = corner.node("b")
            until(lambda: corner.annotation(node))
            one.start()
            until(lambda: one.get("/readyz")[0] == 200)
            two.kill()
            node = corner.node("c")
            assert until(lambda: corner.annotation(node), 40) < 25


class ComeAndGo:
    """Nodes that come, go, and come back under their names, by chance."""

    def __init__(self, corner: Corner, seed: int, over: threading.Event) -> None:
        self.there: list[str] = []
        self._corner = corner
        self._chance = random.Random(seed)
        self._over = over
        self._born = 0

    def begin(self) -> None:
        """Let all of them be there."""
        self._born = NODES
        with ThreadPoolExecutor(8) as pool:
            self.there = list(pool.map(self._corner.node, [f"n{number}" for number in range(1, self._born + 1)]))

    def run(self) -> None:
        while not self._over.wait(0.02):
            if self._chance.random() < (0.7 if len(self.there) < NODES else 0.5):
                self._born += 1
                self.there.append(self._corner.node(f"n{self._born}"))
            elif self.there:
                name = self.there.pop(self._chance.randrange(len(self.there)))
                self._corner.server.delete_node(name)
                if self._chance.random() < 0.3:
                    self.there.append(self._corner.node(name.partition("-")[0]))


def kill_at_random(process: ControllerProcess, chance: random.Random, over: threading.Event) -> None:
    while not over.wait(chance.uniform(1.5, 4) * (1 + NODES / 500)):  # a start takes longer where there are more nodes
        process.kill()
        process.start()


def test_killed_at_random_without_a_lease(corner: Corner, admin: Path, tmp_path: Path) -> None:
    """Two controllers without a Lease are killed at random, nodes come and go: no subnet on two nodes, none lost, all served in the end."""
    corner.pool("a", [{"cidr": "172.20.0.0/16", "nodePrefix": 28}, {"cidr": "fd00:20::/48", "nodePrefix": 64}], reclaimAfter="2s")
    seed = random.randrange(1 << 32)
    over = threading.Event()
    nodes = ComeAndGo(corner, seed, over)
    nodes.begin()
    twice: list[str] = []
    one = ControllerProcess(admin, tmp_path / "one.log", "--lease=none")
    two = ControllerProcess(admin, tmp_path / "two.log", "--lease=none")
    with one, two:
        until(lambda: served(corner), 30 + NODES / 10, one.log)
        threads = [threading.Thread(target=kill_at_random, args=(each, random.Random(seed + i), over)) for i, each in enumerate((one, two))]
        threads.append(threading.Thread(target=nodes.run))
        for thread in threads:
            thread.start()
        end = time.monotonic() + SECONDS
        while time.monotonic() < end:
            time.sleep(0.5)
            twice += doubles(corner)
        over.set()
        for thread in threads:
            thread.join()
        until(lambda: served(corner), PATIENCE, one.log)
        had = texts(corner)
        assert set(had) == set(nodes.there)
        # What is left of claims made in vain, or of nodes that went, is free after reclaimAfter.
        until(lambda: set(corner.claims()) == {each for text in had.values() for each in str(text).split(",")}, 30)
    assert twice == [], f"seed {seed}"
    assert doubles(corner) == [], f"seed {seed}"
    assert texts(corner) == had
    assert all(len(str(text).split(",")) == 2 for text in had.values())
    assert "Traceback" not in one.log() + two.log()


def served(corner: Corner) -> bool:
    return all(text is not None for text in texts(corner).values())


def texts(corner: Corner) -> dict[str, str | None]:
    items = corner.server.request("GET", f"/api/v1/nodes?labelSelector=test={corner.id}")["items"]
    return {item["metadata"]["name"]: item["metadata"].get("annotations", {}).get(corner.key) for item in items}


def doubles(corner: Corner) -> list[str]:
    """Return subnets that two nodes have an address of, as the API server's objects say."""
    networks = sorted(
        ((ip_network(each), name) for name, text in texts(corner).items() for each in (text or "").split(",") if each),
        key=lambda pair: (pair[0].version, int(pair[0].network_address)),
    )
    return [
        f"{one} of {of} and {other} of {whose}"
        for (one, of), (other, whose) in pairwise(networks)
        if one.version == other.version and of != whose and one.overlaps(other)
    ]
