# SPDX-License-Identifier: Apache-2.0
"""Wait after which no call can still take an address of a closing item.

A call takes the Node's text when it begins. So the wait counts from the moment when calls of the agent and of plugins without agent, which
read the Node view, have the same text. It begins again with another text, while the API server is away, and with another agent.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from kubenode.nodes import addresses

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from kubenode.ipam.ranges import Subnet
    from kubenode.nodes.node import Node

# Seconds, longer than any ADD lives. Without agent: 12 for the call, 60 for each of at most two locks, 1.5 for the end. With agent: 12.
# And 60, until this agent has written the view again: an agent that ends may have put an older text into it.
SETTLE = 210.0
WRITING = 0.5  # seconds between looks for a text that the view does not have yet


class Settling:
    """Time since which each annotation with a closing item has had its text."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._since: dict[str, tuple[str, float]] = {}
        self._is_ahead = False
        self._items: dict[str, set[Subnet]] = {}  # by annotation
        self._given_back: dict[str, set[Subnet]] = {}
        self._left: dict[tuple[str, Subnet], float] = {}  # blocks that have left an annotation, and when

    def look(self, texts: Mapping[str, str], written: Mapping[str, str], *, current: bool) -> None:
        """Compare the texts that the agent has with the written ones; `current`: the API server confirms the agent's."""
        now = self._clock()
        self._is_ahead = any(written.get(key) != text for key, text in texts.items())
        same = {key: text for key, text in texts.items() if current and written.get(key) == text}
        kept = {key: self._since.get(key, ("", now)) for key in same}
        self._since = {key: kept[key] if kept[key][0] == text else (text, now) for key, text in same.items()}

    def left_out(self, own: Node) -> dict[str, set[Subnet]]:
        """Return the blocks that have left an annotation so recently that a call may still take an address, unless they were given back."""
        now = self._clock()
        for key in {*own.annotations, *self._items}:
            items = addresses.source_of(own, key).items
            here = {item.block for item in items}
            gone = self._items.get(key, set()) - here - self._given_back.get(key, set())
            self._left.update(dict.fromkeys([(key, block) for block in gone], now))
            self._items[key] = here
        self._left = {one: since for one, since in self._left.items() if now - since <= SETTLE and one[1] not in self._items[one[0]]}
        found: dict[str, set[Subnet]] = {}
        for key, block in self._left:
            found.setdefault(key, set()).add(block)
        return found

    def give_back(self, annotation: str, blocks: set[Subnet]) -> None:
        """Note the closing blocks of an annotation that are given back."""
        self._given_back[annotation] = blocks

    def is_over(self, annotation: str) -> bool:
        """Say whether nobody can take an address any more of the annotation's closing items."""
        since = self._since.get(annotation)
        return since is not None and self._clock() - since[1] > SETTLE

    def left(self) -> float:
        """Return the seconds until the next look: until the text is written, or until the next wait is over; infinite without one."""
        now = self._clock()
        began = [*(since for _, since in self._since.values()), *self._left.values()]
        left = min((since + SETTLE - now for since in began if now - since <= SETTLE), default=float("inf"))
        return min(left, WRITING) if self._is_ahead else left
