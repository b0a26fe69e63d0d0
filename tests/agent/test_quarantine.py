# SPDX-License-Identifier: Apache-2.0
"""A Node that goes back in time, as after a restored backup of etcd: its blocks may be another node's by now."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from kubenode.agent.ownnode import OwnNode
from kubenode.agent.quarantine import LENGTH, Quarantine
from kubenode.base.log import Log
from kubenode.host.nodeview import NodeView
from kubenode.nodes import addresses
from kubenode.nodes.node import Node

if TYPE_CHECKING:
    from pathlib import Path

A, B, C = (f"172.20.0.{number}/29 of 172.20.0.0/24 via none" for number in (8, 16, 24))
KEY = "flat"


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def node(version: int, *blocks: str, uid: str = "u") -> Node:
    return Node("n", uid, "", (), {KEY: ", ".join(blocks), "other": "{}"}, str(version))


def opened(own: Node) -> list[str]:
    return [str(item) for item in addresses.source_of(own, KEY).items if not item.closing]


def test_a_block_of_the_past() -> None:
    """A block that the newer Node did not have is closed for a while; the report has the API server's text."""
    clock = Clock()
    quarantine = Quarantine(clock)
    known = quarantine.take(node(10, A, f"{C} closing"), None)
    own = quarantine.take(node(5, A, B, C), known)
    assert opened(own) == [A]
    assert addresses.source_of(own, KEY).text == f"{A}, {B}, {C}"
    assert own.version == "10"
    clock.now += LENGTH - 1
    assert opened(quarantine.look(node(5, A, B, C))) == [A]
    clock.now += 1
    assert quarantine.look(node(5, A, B, C)) == node(5, A, B, C)


def test_what_comes_after_the_restore() -> None:
    """A block that the controller gives after the restore is open at once; one that it closes and opens again, too."""
    clock = Clock()
    quarantine = Quarantine(clock)
    own = quarantine.take(node(5, A, B), quarantine.take(node(10, A), None))
    own = quarantine.take(node(6, A, B, C), own)
    assert opened(own) == [A, C]
    own = quarantine.take(node(7, A, f"{B} closing", C), own)
    assert own.observed is None
    assert opened(quarantine.take(node(8, A, B, C), own)) == [A, B, C]


@pytest.mark.parametrize("new", [node(11, A, B), node(5, A, B, uid="v"), node(5, A)])
def test_what_is_no_past(new: Node) -> None:
    """A newer Node, another one of the name, and one with the same blocks are as received."""
    quarantine = Quarantine(Clock())
    assert quarantine.take(new, quarantine.take(node(10, A), None)) is new


def test_an_agent_that_starts_again(run_dir: Path) -> None:
    """The view has the block closed, and so has an agent that starts from it and then receives the Node of the past."""
    log = Log("test")
    view = NodeView(str(run_dir), "test", log)
    first = OwnNode(view, log)
    first.publish(node(10, A))
    first.publish(node(5, A, B))
    assert first.node is not None
    assert opened(first.node) == [A]
    view.put(first.node)
    second = OwnNode(view, log)
    assert not second.start_from_view()
    assert second.node is not None
    assert opened(second.node) == [A]
    second.publish(node(5, A, B))
    assert opened(second.node) == [A]
