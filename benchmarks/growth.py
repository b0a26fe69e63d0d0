# SPDX-License-Identifier: Apache-2.0
"""Use of a flat network whose blocks grow, when the first pod is refused, beside a fixed block for each node.

A simulation with the real planner: pods come and go at 50 a second, unevenly, and become more until one gets no address. Reports and writes
take no time in it, so it says how many addresses are lost to blocks and how often the controller writes, not how long a pod waits.

With --cluster the same on a real kube-apiserver and etcd (from KUBEBUILDER_ASSETS) and with a real controller: how long a node waits for
its next block, and an ADD for an address. This takes about twelve minutes.
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import growthlab

from kubenode.ipam.ranges import Subnet, parse_subnet
from kubenode.nodes.addresses import ItemUse
from kubenode.pools.blocks import Block
from kubenode.pools.growth import capacity
from kubenode.pools.ledger import Ledger
from kubenode.pools.records import Growth, NodeMetadata, Selector, SubnetPool
from kubenode.pools.reports import AgentReport, ReportedNetwork
from kubenode.pools.texts import read
from kubenode.pools.timing import Now
from kubenode.pools.writes import Annotate, CreateClaim, DeleteClaim, UpdateClaim

if TYPE_CHECKING:
    from kubenode.nodes.items import Item

RATE = 50  # pods that start or stop in a second
COMING = 0.7  # of these, so the pods become more
HEAVY, SHARE = 0.1, 0.6  # a tenth of the nodes has six tenths of the pods
WAIT = 20.0  # seconds until an agent says that a closing block is empty
MINUTE = 60.0
KEY = "net"


class Result(NamedTuple):
    """One run: the share of the network in use at the first refusal, in percent; writes of the controller a second."""

    use: float
    pods: int
    writes: float
    annotations: float
    most_blocks: int


class Nodes:
    """The nodes, their agents and pods, and a controller."""

    def __init__(self, count: int, cidr: str, prefix: int, min_free: int) -> None:
        self.ledger = Ledger()
        block = Block(parse_subnet(cidr), prefix, shared=True).without_empty()
        self.ledger.set_pool(SubnetPool(KEY, KEY, (block,), Selector(), MINUTE, (), Growth(min_free, 128, 600.0)))
        self.used: dict[str, Counter[Subnet]] = {}
        self.now = 0.0
        self.writes: Counter[str] = Counter()
        self._reported: dict[str, tuple[str, int, float]] = {}  # text, free addresses and time of the last report
        self._closed: dict[Subnet, float] = {}
        for number in range(count):
            self.ledger.set_node(NodeMetadata(f"n{number:05}", f"u{number}", "1", {}, {}))
            self.used[f"n{number:05}"] = Counter()
        self.settle()

    def start(self, name: str) -> bool:
        """Give a pod an address of its node; False if there is none."""
        for item in self.items(name):
            if not item.closing and self.used[name][item.block] < capacity(item):
                self.used[name][item.block] += 1
                self.look_at(name)
                return True
        return False

    def stop(self, name: str, block: Subnet) -> None:
        self.used[name][block] -= 1
        self.look_at(name)

    def items(self, name: str) -> tuple[Item, ...]:
        return read(self.ledger.nodes[name].annotations.get(KEY)).items

    def look_at(self, name: str) -> None:
        """Let the agent report where a line is crossed or a minute is over, until the controller has nothing to change."""
        while True:
            text, items = self.ledger.nodes[name].annotations.get(KEY, ""), self.items(name)
            counts = []
            for item in items:
                book = self._closed.setdefault if item.closing else self._closed.pop
                since = book(item.block, self.now)
                settling = item.closing and self.now < since + WAIT
                counts.append(ItemUse(item.block, self.used[name][item.block], capacity(item), item.closing, settling))
            free = sum(count.free for count in counts)
            old_text, old_free, when = self._reported.get(name, ("", -1, -MINUTE))
            crossed = free.bit_length() < old_free.bit_length()
            empty = any(count.is_given_back for count in counts)
            if text == old_text and not crossed and not empty and self.now < when + MINUTE:
                return
            self._reported[name] = (text, free, self.now)
            self.ledger.set_report(AgentReport(name, "", {KEY: 1}, (ReportedNetwork(KEY, text, tuple(counts)),), "r", str(self.now)))
            self.settle()
            if self.ledger.nodes[name].annotations.get(KEY, "") == text:
                return

    def settle(self) -> None:
        while self.ledger.changed:
            name = min(self.ledger.changed)
            self.ledger.changed.discard(name)
            for write in self.ledger.plan(name, Now(self.now, self.now)).writes:
                self.writes[type(write).__name__] += 1
                if isinstance(write, Annotate):
                    values = {key: value for key, value in {**write.node.annotations, **write.values}.items() if value is not None}
                    self.ledger.set_node(write.node._replace(annotations=values))
                elif isinstance(write, DeleteClaim):
                    self.ledger.drop_claim(write.claim.subnet)
                elif isinstance(write, (CreateClaim, UpdateClaim)):
                    self.ledger.set_claim(write.claim._replace(uid="c", version=str(sum(self.writes.values()))))
                    self.ledger.recent_writes.add(write.claim.subnet, self.now)


def grow(count: int, cidr: str, prefix: int, min_free: int, seed: int) -> Result:
    """Let pods become more until one is refused."""
    chance = random.Random(seed)
    nodes = Nodes(count, cidr, prefix, min_free)
    names = list(nodes.used)
    begun = Counter(nodes.writes)
    pods: list[tuple[str, Subnet]] = []
    while True:
        nodes.now += 1 / RATE
        if not pods or chance.random() < COMING:
            name = choose(chance, names)
            before = Counter(nodes.used[name])
            if not nodes.start(name):
                break
            pods += [(name, block) for block in nodes.used[name] if nodes.used[name][block] > before[block]]
        else:
            index = chance.randrange(len(pods))
            pods[index], pods[-1] = pods[-1], pods[index]
            nodes.stop(*pods.pop())
    writes = nodes.writes - begun
    most = max(len(nodes.items(name)) for name in names)
    total = sum(writes.values())
    return Result(100 * len(pods) / size(cidr), len(pods), total / nodes.now, writes["Annotate"] / nodes.now, most)


def fixed(count: int, cidr: str, prefix: int, seed: int) -> Result:
    """Do the same with one block of a fixed size for each node."""
    chance = random.Random(seed)
    names = [f"n{number:05}" for number in range(count)]
    room = 1 << 32 - prefix
    used: Counter[str] = Counter()
    pods: list[str] = []
    while True:
        if not pods or chance.random() < COMING:
            name = choose(chance, names)
            if used[name] == room:
                return Result(100 * len(pods) / size(cidr), len(pods), 0.0, 0.0, 1)
            used[name] += 1
            pods.append(name)
        else:
            index = chance.randrange(len(pods))
            pods[index], pods[-1] = pods[-1], pods[index]
            used[pods.pop()] -= 1


def choose(chance: random.Random, names: list[str]) -> str:
    heavy = max(1, int(len(names) * HEAVY))
    return chance.choice(names[:heavy] if chance.random() < SHARE else names[heavy:])


def size(cidr: str) -> int:
    subnet = parse_subnet(cidr)
    return subnet.last - subnet.number + 1 - 3  # network, gateway and broadcast address


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--smoke", action="store_true", help="a few nodes, to see that it runs")
    parser.add_argument("--cluster", action="store_true", help="also on a real API server, from $KUBEBUILDER_ASSETS")
    parser.add_argument("--min-free", type=int, default=2, help="of the nodes there")
    arguments = parser.parse_args()
    assets = os.environ.get("KUBEBUILDER_ASSETS")
    if arguments.cluster and not assets:
        parser.error("set KUBEBUILDER_ASSETS to a directory with etcd and kube-apiserver")
    count, cidr, prefix = (30, "10.0.0.0/23", 28) if arguments.smoke else (1000, "10.0.0.0/18", 28)
    print(f"{count} nodes on {cidr}; a tenth of them has six tenths of the pods; {RATE} pods a second start or stop")
    print("blocks            in use at the first refusal     pods   writes/s   annotations/s   most blocks")
    for name, result in [
        (f"fixed /{prefix}", fixed(count, cidr, prefix, 1)),
        *((f"/{size_}, minFree {free}", grow(count, cidr, size_, free, 1)) for size_, free in ((29, 1), (29, 2), (30, 1), (31, 1))),
    ]:
        print(f"{name:17} {result.use:26.1f} % {result.pods:8} {result.writes:10.2f} {result.annotations:15.2f} {result.most_blocks:13}")
    if arguments.cluster and assets:
        load = growthlab.Load(count, cidr, 29, arguments.min_free, RATE * (4 if arguments.smoke else 1), COMING, HEAVY, SHARE)
        show(growthlab.measure(Path(assets), load), load)
    if arguments.smoke:
        print("it runs")


def show(run: growthlab.Measured, load: growthlab.Load) -> None:
    print(f"\non a real API server, /{load.prefix}, minFree {load.min_free}: the first pod without an address after {run.seconds:.0f} s")
    print(f"  in use: {100 * run.pods / size(load.cidr):.1f} %, {run.pods} pods")
    print(f"  from fewer than minFree free addresses to the next block: {len(run.blocks)} times, {times(run.blocks)}")
    print(f"  ADDs that waited for a block and got an address: {len(run.waits)} of {run.adds}, {times(run.waits)}")
    print(f"  ADDs refused after {growthlab.PATIENCE:g} s while the pool had a block: {run.late}")
    writes = ", ".join(f"{count / run.seconds:.2f} {name}" for name, count in sorted(run.writes.items()))
    print(f"  writes a second of the controller: {writes}; reports a second of the agents: {run.reports / run.seconds:.2f}")
    print(f"  the controller's processor: {100 * run.cpu / run.seconds:.1f} %, peak memory {run.peak_mb:.0f} MB")


def times(seconds: list[float]) -> str:
    """Describe some durations."""
    if not seconds:
        return "no duration"
    ordered = sorted(1000 * one for one in seconds)
    return f"median {statistics.median(ordered):.0f} ms, 99 % {ordered[int(len(ordered) * 0.99)]:.0f} ms, worst {ordered[-1]:.0f} ms"


if __name__ == "__main__":
    main()
