"""The API server that these tests talk to, and who may do what there."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from apiserver import RealApiServer


@pytest.fixture(scope="session")
def reader(api_server: RealApiServer) -> Iterator[str]:
    """Return the name of a user who may `get` nodes and nothing else; Node `n1` is there."""
    api_server.create_node("n1", ["10.0.1.0/24", "fd00:1::/64"], {"kube-node.nordix.org/net1": "172.20.2.0/24"}, "0123")
    api_server.grant("reader", "get")
    yield "reader"
    api_server.delete_node("n1")


@pytest.fixture(scope="session")
def account(api_server: RealApiServer, reader: str) -> str:
    """Return the name of a service account that may do what `reader` may."""
    api_server.grant(api_server.service_account("kube-node"), "get")
    return "kube-node"
