# SPDX-License-Identifier: Apache-2.0
"""Blocks that came with a Node of the past: etcd was restored, and another node may have got them since.

The agent gives none of their addresses for a while. Meanwhile the agents of both nodes report what they use, and the controller closes the
block on the node that has it no more.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from kubenode.ipam.ranges import RangeError
from kubenode.kube.reflector import before
from kubenode.nodes import items

if TYPE_CHECKING:
    from collections.abc import Callable

    from kubenode.ipam.ranges import Subnet
    from kubenode.nodes.items import Item
    from kubenode.nodes.node import Node

LENGTH = 300.0  # seconds; a controller gives nothing for the first 60 of them, and closes such a block soon after


class Quarantine:
    """The Node of the API server, with the blocks closed that are not trusted yet."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._until: dict[tuple[str, Subnet], float] = {}  # by annotation and block
        self._received = ""  # version of the last Node
        self._newest = ""  # version of the Node before it went back

    def take(self, new: Node, known: Node | None) -> Node:
        """Return a received Node as calls may use it. `known`: the one that they use now."""
        now = self._clock()
        if known is not None and known.uid == new.uid and before(new.version, self._received or known.version):
            self._newest = known.version
            for key in new.annotations:
                trusted = {item.block for item in _items(known, key) if not item.closing}
                doubtful = [(key, item.block) for item in _items(new, key) if item.block not in trusted]
                self._until.update({one: self._until.get(one, now + LENGTH) for one in doubtful})
        self._received = new.version
        return self.look(new)

    def look(self, own: Node) -> Node:
        """Return the Node of the API server as calls may use it now."""
        now = self._clock()
        self._until = {
            (key, block): until
            for (key, block), until in self._until.items()
            if now < until and any(item.block == block and not item.closing for item in _items(own, key))
        }
        if not self._until:
            return own
        closed = {key: ", ".join(str(self._closed(key, item)) for item in _items(own, key)) for key, _ in self._until}
        # An agent that starts from this view has to find that the Node has gone back.
        return own._replace(annotations={**own.annotations, **closed}, observed=own.annotations, version=self._newest)

    def _closed(self, key: str, item: Item) -> Item:
        return item._replace(closing=True) if (key, item.block) in self._until else item


def _items(own: Node, key: str) -> tuple[Item, ...]:
    try:
        return items.parse(own.annotations[key]) if own.annotations.get(key, "").strip() else ()
    except RangeError:
        return ()  # no subnets, or none that a plugin takes
