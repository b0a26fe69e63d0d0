# SPDX-License-Identifier: Apache-2.0
"""What a node costs the API server."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING

import pytest
from callplugin import Network, environment

if TYPE_CHECKING:
    from pathlib import Path

    from apiserver import RealApiServer
    from callplugin import NetworkMaker

pytestmark = pytest.mark.ways("standalone", "console")  # how the agent asks is in tests/agent


PODS = 100


def test_of_a_hundred_plugins_one_asks(binaries: Path, tmp_path: Path, api_server: RealApiServer, node: str, kubeconfig: str) -> None:
    """100 plugins that start at once with no view send one request, and each gets addresses of its own."""
    ipam = {"type": "kube-node", "dataDir": str(tmp_path / "networks"), "kubeconfig": kubeconfig}
    stdin = tmp_path / "stdin.json"
    stdin.write_text(json.dumps({"cniVersion": "1.0.0", "name": "net", "type": "bridge", "ipam": ipam}))
    before = len(api_server.asked())
    running = []
    for number in range(PODS):
        with stdin.open() as config:
            running.append(
                subprocess.Popen(
                    [binaries / "kube-node"], stdin=config, stdout=subprocess.PIPE, env=environment("ADD", container_id=f"c{number}")
                )
            )
    answers = [json.loads(process.communicate(timeout=60)[0]) for process in running]
    assert [process.returncode for process in running] == [0] * PODS
    addresses = [ip["address"] for answer in answers for ip in answer["ips"]]
    assert len(addresses) == len(set(addresses)) == 2 * PODS
    assert [(asked.verb, asked.name) for asked in api_server.asked()[before:]] == [("get", node)]


def test_of_plugins_that_fail_together_one_asks(binaries: Path, tmp_path: Path, api_server: RealApiServer, kubeconfig: str) -> None:
    """When the one that asks is refused, the others that waited for it take its error and do not ask again."""
    ipam = {"type": "kube-node", "dataDir": str(tmp_path / "networks"), "kubeconfig": kubeconfig}
    stdin = json.dumps({"cniVersion": "1.0.0", "name": "net", "type": "bridge", "ipam": ipam}).encode()
    before = len(api_server.asked())
    running = [
        subprocess.Popen(
            [binaries / "kube-node"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**environment("ADD", container_id=f"c{number}"), "NODE_NAME": "nobody"},
        )
        for number in range(20)
    ]
    for process in running:  # all wait for their configuration, so all begin now
        assert process.stdin
        process.stdin.write(stdin)
        process.stdin.close()
    codes = []
    for process in running:
        assert process.stdout
        codes.append(json.loads(process.stdout.read())["code"])
        process.wait(60)
    assert codes == [104] * 20
    # A plugin that began after the first one had its answer asks for itself.
    assert len(api_server.asked()) - before <= 5


def test_a_full_pool_does_not_drop_the_view(network: NetworkMaker, api_server: RealApiServer, node: str, kubeconfig: str) -> None:
    """Pods that find no address cost the API server nothing."""
    api_server.annotate(node, {"example.com/small": "10.47.0.0/30"})
    net = network(kubeconfig=kubeconfig, annotation="example.com/small")
    net.add("c0")
    before = len(api_server.asked())
    for number in range(1, 6):
        assert "no IP addresses available" in net.error(container_id=f"c{number}")["msg"]
    assert len(api_server.asked()) == before


@pytest.mark.usefixtures("node")
def test_a_failing_delegate_does_not_drop_the_view(
    binaries: Path, tmp_path: Path, api_server: RealApiServer, kubeconfig: str, run_dir: Path
) -> None:
    """A delegate that fails costs the API server nothing, and the view stays as it is."""
    failing = tmp_path / "delegates/host-local"
    failing.parent.mkdir()
    failing.write_text('#!/bin/sh\necho \'{"code": 777, "msg": "no luck"}\'\nexit 1\n')
    failing.chmod(0o755)
    net = Network(binaries / "kube-node", tmp_path / "networks", {"kubeconfig": kubeconfig, "delegate": "host-local"}, [failing.parent])
    assert net.error()["code"] == 777
    view = (run_dir / "node.json").read_bytes()
    before = len(api_server.asked())
    for number in range(5):
        assert net.error(container_id=f"c{number}")["code"] == 777
    assert len(api_server.asked()) == before
    assert (run_dir / "node.json").read_bytes() == view
