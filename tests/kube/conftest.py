# SPDX-License-Identifier: Apache-2.0
"""The API server that these tests talk to, and who may do what there."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import TYPE_CHECKING, cast

import pytest

from kubenode.kube.asyncclient import Cluster, Collection
from kubenode.kube.client import ApiServer

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from apiserver import RealApiServer

TIMEOUT = 10.0


@pytest.fixture(scope="session")
def reader(api_server: RealApiServer) -> Iterator[str]:
    """Return the name of a user who may `get` nodes and nothing else; Node `n1` is there."""
    api_server.create_node("n1", ["10.0.1.0/24", "fd00:1::/64"], {"kube-node.nordix.org/net1": "172.20.2.0/24"}, "0123")
    api_server.grant("reader", "get")
    yield "reader"
    api_server.delete_node("n1")


@pytest.fixture(scope="session")
def account(api_server: RealApiServer, reader: str) -> str:
    """Return the name of a service account that may do what `reader` may. kube-node is the manifests' own, on the same server."""
    api_server.grant(api_server.service_account("reading-account"), "get")
    return "reading-account"


Ask = Callable[..., str]


def _plugin(kubeconfig: Path, environ: Mapping[str, str] | None = None) -> str:
    server = ApiServer(str(kubeconfig), environ or {}, TIMEOUT)
    try:
        return str((server.node("n1") or {})["metadata"]["name"])
    finally:
        server.close()


def _agent(kubeconfig: Path, environ: Mapping[str, str] | None = None) -> str:
    async def first() -> str:
        cluster = Cluster(str(kubeconfig), environ or {}, TIMEOUT, lambda *_: None)
        try:
            async for event in await cluster.watch(Collection("/api/v1/nodes", name="n1"), "0", 60):
                return str(json.loads(bytes(event.object))["metadata"]["name"])
            return "no event"
        finally:
            await cluster.aclose()

    return asyncio.run(first())


@pytest.fixture(params=[_plugin, _agent], ids=["plugin", "agent"])
def ask(request: pytest.FixtureRequest) -> Ask:
    """Return how a Node's name is asked for, the plugins' way and the agent's: ask(kubeconfig, environ). Raises CNIError."""
    return cast("Ask", request.param)
