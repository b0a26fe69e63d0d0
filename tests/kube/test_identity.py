# SPDX-License-Identifier: Apache-2.0
"""Which Node is ours, and how few requests tell."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from kubenode.cni.errors import CNIError
from kubenode.nodes.identity import Identity, own_node

if TYPE_CHECKING:
    from collections.abc import Iterator


def node(name: str, machine_id: str) -> dict[str, Any]:
    return {"metadata": {"name": name}, "status": {"nodeInfo": {"machineID": machine_id}}}


class Server:
    """Nodes, and what was asked of them; names in `forbidden` may not be read."""

    def __init__(self, *nodes: dict[str, Any], forbidden: tuple[str, ...] = (), said: str = "") -> None:
        self.found = {item["metadata"]["name"]: item for item in nodes}
        self.forbidden = forbidden
        self.said = said  # by the credentials
        self.asked: list[str] = []

    def own_name(self) -> str:
        return self.said

    def node(self, name: str) -> dict[str, Any] | None:
        self.asked.append(f"get {name}")
        if name in self.forbidden:
            raise CNIError(103, "forbidden")
        return self.found.get(name)

    def nodes(self) -> Iterator[dict[str, Any]]:
        self.asked.append("list")
        yield from self.found.values()


NODES = (node("a", "1"), node("b", "2"), node("c", "2"), node("d", "4"))


@pytest.mark.parametrize(
    ("identity", "name", "asked"),
    [
        (Identity("a", "x", ("b",), "4"), "a", ["get a"]),
        (Identity("", "", ("d", "a"), "4"), "d", ["get d"]),
        (Identity("", "", ("a", "d"), "4"), "d", ["get a", "get d"]),
        (Identity("", "", ("none",), "1"), "a", ["get none", "list"]),
        (Identity("", "", (), "4"), "d", ["list"]),
    ],
)
def test_found(identity: Identity, name: str, asked: list[str]) -> None:
    """A given name by one GET; a guess only with our machine-id; a LIST at last."""
    server = Server(*NODES)
    assert own_node(server, identity)["metadata"]["name"] == name
    assert server.asked == asked


def test_by_credentials() -> None:
    """Before any guess the credentials say which Node is ours, unless that has another machine-id: they were copied."""
    server = Server(*NODES, forbidden=("b", "c", "d"), said="a")
    assert own_node(server, Identity("", "", ("b",), "1"))["metadata"]["name"] == "a"
    assert own_node(server, Identity("", "", ("b",), ""))["metadata"]["name"] == "a"
    assert server.asked == ["get a", "get a"]
    assert own_node(Server(*NODES, said="a"), Identity("", "", (), "4"))["metadata"]["name"] == "d"
    with pytest.raises(CNIError, match="there is no Node none"):
        own_node(Server(*NODES, said="none"), Identity("", "", ("a",), "1"))


def test_a_guess_that_may_not_be_read() -> None:
    """Rights may end at our own Node, whose name a guess need not be."""
    server = Server(*NODES, forbidden=("a",))
    assert own_node(server, Identity("", "", ("a",), "4"))["metadata"]["name"] == "d"
    with pytest.raises(CNIError, match="forbidden"):
        own_node(server, Identity("a", "x", (), "4"))


@pytest.mark.parametrize(
    ("identity", "code", "message"),
    [
        (Identity("z", "x", ("a",), "1"), 104, "there is no Node z"),
        (Identity("", "", ("a",), ""), 104, "own Node not found: this host has no /etc/machine-id"),
        (Identity("", "", (), "9"), 104, "own Node not found: no Node has machineID 9"),
        (Identity("", "", (), "2"), 105, "the Nodes b, c have the same machineID 2"),
    ],
)
def test_not_found(identity: Identity, code: int, message: str) -> None:
    """Each way of not finding it has its own message; two are not one."""
    with pytest.raises(CNIError) as error:
        own_node(Server(*NODES), identity)
    assert (error.value.code, error.value.msg) == (code, message)
