# SPDX-License-Identifier: Apache-2.0
"""A model of a node's agent and plugins, as far as growth concerns them: what they see, give, count and report. No I/O."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from kubenode.ipam.address import BITS, Address
from kubenode.ipam.ranges import Subnet
from kubenode.nodes.addresses import ItemUse
from kubenode.pools.reports import ReportedNetwork
from kubenode.pools.texts import read

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kubenode.nodes.items import Item
    from kubenode.pools.records import NodeMetadata

CALL = 15.0  # seconds that a call lives at most
WAIT = 20.0  # seconds until the agent counts a block of which nothing new is given
QUARANTINE = 300.0  # seconds for which an agent does not trust a block that came with a Node of the past


class Call(NamedTuple):
    """A call in progress: the blocks that it saw, and when it began."""

    key: str
    items: tuple[Item, ...]
    began: float


class Message(NamedTuple):
    """A patch of the status, good for one version of the object."""

    version: str
    uses: tuple[ReportedNetwork, ...]


class Agent:
    """An agent, and the pods of its node. `used` and `view` are on disk; the rest is in the memory of a process."""

    def __init__(self, name: str, keys: list[str]) -> None:
        self.name = name
        self.keys = keys
        self.view: dict[str, str] = {}
        self.used: set[tuple[str, Address]] = set()
        self.news: list[NodeMetadata] = []
        self.outbox: list[Message] = []
        self.known = ""  # version of the NodeAddresses object
        self.calls: list[Call] = []
        self._since: dict[tuple[str, Subnet], float] = {}  # since when nothing new of a block is given
        self._distrusted: dict[tuple[str, Subnet], float] = {}  # until when

    def items(self, key: str) -> tuple[Item, ...]:
        return read(self.view.get(key)).items

    def see(self, node: NodeMetadata, now: float, *, past: bool = False) -> None:
        """Take a Node; `past`: etcd was restored, and this is a Node of the past."""
        for key in self.keys:
            before = {item.block: item for item in self.items(key)}
            self.view[key] = node.annotations.get(key, "").strip()
            after = {item.block: item for item in self.items(key)}
            for block, item in before.items():
                if not item.closing and (block not in after or after[block].closing):
                    self._since[key, block] = now
            for block, item in after.items():
                if not item.closing:
                    self._since.pop((key, block), None)
                    if past and (block not in before or before[block].closing):
                        self._distrusted[key, block] = now + QUARANTINE
                else:
                    self._since.setdefault((key, block), now)

    def restart(self, now: float) -> None:
        """Crash. All calls end; the wait for closing blocks begins again."""
        self.calls.clear()
        self._since = {(key, item.block): now for key in self.keys for item in self.items(key) if item.closing}

    def begin(self, key: str, now: float) -> None:
        self.calls.append(Call(key, tuple(item for item in self.items(key) if self._gives(key, item, now)), now))

    def end(self, call: Call) -> None:
        """Let a call reserve the first address that is free on this node."""
        self.calls.remove(call)
        for item in call.items:
            for address in addresses(item):
                if (call.key, address) not in self.used:
                    self.used.add((call.key, address))
                    return

    def write_report(self, now: float) -> None:
        self.outbox.append(
            Message(self.known, tuple(ReportedNetwork(key, self.view.get(key, ""), tuple(self._counts(key, now))) for key in self.keys))
        )

    def lacks(self, key: str, version: int, min_free: int) -> bool:
        """Say whether fewer addresses are free than there should be."""
        free = sum(count.free for count in self._counts(key, 0.0) if count.subnet.version == version)
        return free < min_free

    def _gives(self, key: str, item: Item, now: float) -> bool:
        return not item.closing and now >= self._distrusted.get((key, item.block), 0.0)

    def _counts(self, key: str, now: float) -> Iterator[ItemUse]:
        mine = {address for of, address in self.used if of == key}
        items = self.items(key)
        for item in items:
            inside = {address for address in mine if item.block.holds(address)}
            settling = item.closing and now < self._since.get((key, item.block), 0.0) + WAIT
            yield ItemUse(item.block, len(inside), len(list(addresses(item))), item.closing, settling)
            mine -= inside
        there = {item.block for item in items}
        for (of, block), since in self._since.items():
            if of == key and block not in there and now < since + WAIT:
                yield ItemUse(block, 0, 0, settling=True, outside=True)
        for address in sorted(mine):
            yield ItemUse(address_subnet(address), 1, 1, outside=True)


def addresses(item: Item) -> Iterator[Address]:
    for number in range(item.start, item.end + 1):
        if Address(item.version, number) != item.gateway:
            yield Address(item.version, number)


def address_subnet(address: Address) -> Subnet:
    return Subnet(address.version, address.number, BITS[address.version])
