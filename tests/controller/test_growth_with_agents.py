# SPDX-License-Identifier: Apache-2.0
"""Blocks that grow with use: the real controller, a real agent on each of two nodes, and a real API server."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from agentprocess import IMPATIENT, AgentProcess
from controllerprocess import until
from corner import APIS, GROUP

from kubenode.pools.growth import HOLD

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from controllerprocess import ControllerProcess
    from corner import Corner

# Two blocks for two nodes, and one more, with five, eight and seven addresses for pods.
FLAT = {"cidr": "172.20.0.0/27", "nodePrefix": 29, "shared": True, "exclude": ["172.20.0.24/29"], "gateway": "172.20.0.1"}


class Host:
    """A node with its agent, and pods in one network."""

    def __init__(self, corner: Corner, short: str, directory: Path) -> None:
        self.corner = corner
        self.name = corner.node(short)
        run_dir = directory / short / "run"
        run_dir.mkdir(parents=True)
        user = f"agent-{self.name}"
        corner.server.grant(user, "get", "watch")
        for resource in ("nodeaddresses", "nodeaddresses/status"):
            corner.server.grant(user, "get", "create", "patch", resource=resource, group=GROUP)
        kubeconfig = corner.server.kubeconfig(directory / short / "kubeconfig", user)
        self.agent = AgentProcess(run_dir, f"--kubeconfig={kubeconfig}", "--node-addresses", env={"NODE_NAME": self.name}, wrap=IMPATIENT)
        ipam = {"type": "kube-node", "annotation": corner.key, "dataDir": str(directory / short / "networks")}
        self.conf: dict[str, Any] = {"cniVersion": "1.0.0", "name": "vlan", "type": "macvlan", "ipam": ipam}
        self.pods: dict[str, str] = {}

    def tries(self, pod: str) -> bool:
        """Try to start a pod: one that fails is tried again, as the runtime does."""
        answer = self.agent.call("ADD", self.conf, pod)
        if answer.code == 0:
            (self.pods[pod],) = answer.addresses
        return answer.code == 0

    def delete(self, *pods: str) -> None:
        for pod in pods:
            assert self.agent.call("DEL", self.conf, pod).code == 0
            del self.pods[pod]

    @property
    def blocks(self) -> list[str]:
        """The blocks of the node's annotation that are not closing."""
        text = self.corner.annotation(self.name) or ""
        return [item.split()[0] for item in text.split(",") if item.strip() and not item.endswith("closing")]

    def story(self) -> object:
        """Return all that a failure needs."""
        found = self.corner.server.request("GET", f"{APIS}/nodeaddresses/{self.name}")
        return self.corner.annotation(self.name), self.corner.claims(), found.get("status"), self.agent.log()[-2000:]


@pytest.fixture
def hosts(corner: Corner, tmp_path: Path) -> Iterator[tuple[Host, Host]]:
    found = (Host(corner, "a", tmp_path), Host(corner, "b", tmp_path))
    for host in found:
        host.agent.start()
    yield found
    for host in found:
        host.agent.kill()


@pytest.mark.slow
@pytest.mark.servers("real")
def test_a_block_moves_to_the_node_that_needs_it(corner: Corner, impatient_controller: ControllerProcess, hosts: tuple[Host, Host]) -> None:
    """A node that fills its block gets another one; it empties and gives it back; another node gets it."""
    controller, (a, b) = impatient_controller, hosts
    corner.pool("net", [FLAT], minFree=1, maxBlocks=3, shrinkAfter="1s")
    until(lambda: a.blocks and b.blocks, HOLD + 60, lambda: (a.story(), controller.log()[-2000:]))
    first, second = a.blocks, b.blocks
    assert not set(first) & set(second)
    for number in range(10):
        until(partial(a.tries, f"a{number}"), 120, a.story)  # from the sixth or the ninth on in another block
    (more,) = set(a.blocks) - set(first)
    assert more not in second
    a.delete(*list(a.pods)[1:])
    until(lambda: len(a.blocks) == 1, 120, a.story)
    assert len(set(a.pods.values())) == 1
    until(lambda: len(corner.claims()) == 2, 120, a.story)
    for number in range(10):
        until(partial(b.tries, f"b{number}"), 120, lambda: (b.story(), controller.log()[-2000:]))
    assert set(b.blocks) == {*second, more}
    assert not set(a.pods.values()) & set(b.pods.values())
    until(partial(a.tries, "again"), 120, a.story)
    assert a.pods["again"] not in b.pods.values()
