# SPDX-License-Identifier: Apache-2.0
"""What a cluster's operator has to allow: `get` on nodes, and no more."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from apiserver import RealApiServer
    from callplugin import NetworkMaker

pytestmark = pytest.mark.ways("standalone", "console")  # how the agent asks is in tests/agent


@pytest.mark.parametrize("plugin", ["kube-node", "node-annotation"])
def test_get_on_nodes_is_enough(
    network: NetworkMaker, api_server: RealApiServer, node: str, kubeconfig: str, get_nodes: str, plugin: str
) -> None:
    """With the Node's name known, every command works for a user who may `get` nodes and nothing else."""
    api_server.annotate(node, {"example.com/ranges": 'ranges: [[{"subnet": "172.16.5.0/24"}]]'})
    ipam = {"annotation": "example.com/ranges"} if plugin == "node-annotation" else {}
    net = network(plugin, kubeconfig=kubeconfig, **ipam)
    before = len(api_server.asked())
    answer = net.call("ADD")
    assert answer.code == 0
    net.ok("CHECK", prevResult=answer.json)
    net.ok("STATUS")
    net.gc("c1")
    assert net.reserved()
    net.ok("DEL")
    assert net.reserved() == []
    assert [(asked.user, asked.verb, asked.resource, asked.name) for asked in api_server.asked()[before:]] == [
        (get_nodes, "get", "nodes", node)
    ]


@pytest.mark.parametrize(("named", "verb"), [(True, "get"), (False, "list")])
@pytest.mark.usefixtures("machine_id")  # without one nothing is listed
def test_without_a_right(embedded: NetworkMaker, api_server: RealApiServer, tmp_path: Path, verb: str, *, named: bool) -> None:
    """A right that is missing is an error with the verb, the resource, the user and the rule to bind."""
    user = f"nobody-{secrets.token_hex(4)}"
    env = {"NODE_NAME": "any"} if named else {}
    error = embedded(kubeconfig=str(api_server.kubeconfig(tmp_path / "nobody", user))).error(env=env)
    assert error["code"] == 103
    for part in (verb, "nodes", user):
        assert part in error["msg"]
    assert f'verbs: ["{verb}"]' in error["details"]


def test_a_token_that_is_not_accepted(embedded: NetworkMaker, api_server: RealApiServer, tmp_path: Path) -> None:
    """Credentials that the API server refuses are an error of its own."""
    user: dict[str, Any] = {"token": "wrong"}
    path = api_server.kubeconfig(tmp_path / "wrong", user)
    error = embedded(kubeconfig=str(path)).error(env={"NODE_NAME": "any"})
    assert error["code"] == 102
    assert str(path) in error["details"]
