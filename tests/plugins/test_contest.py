# SPDX-License-Identifier: Apache-2.0
"""Which of two networks is to have a source of addresses that neither has had in this boot."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import pytest

from kubenode.base.log import Log
from kubenode.plugins import kube_node, skel
from kubenode.plugins.standalone import Standalone

if TYPE_CHECKING:
    from pathlib import Path

    from callplugin import NetworkMaker, ViewWriter


class Elsewhere(Standalone):
    """A host whose paths are below a directory."""

    def __init__(self, root: Path) -> None:
        super().__init__(os.environ)
        self._root = root

    def path(self, path: str) -> str:
        return f"{self._root}{path}"


@pytest.mark.parametrize("ipam", [{}, {"annotation": "example.com/a"}])
def test_the_runtimes_configuration_comes_first(tmp_path: Path, view: ViewWriter, ipam: dict[str, Any]) -> None:
    """A NetworkAttachmentDefinition that is asked for before it does not take what a network of /etc/cni/net.d is configured to have."""
    view("10.1.0.0/24", annotations={"example.com/a": "10.2.0.0/24", "example.com/b": "10.3.0.0/24"})
    net_d = tmp_path / "etc/cni/net.d"
    net_d.mkdir(parents=True)

    def conf(name: str, more: dict[str, Any]) -> dict[str, Any]:
        return {"cniVersion": "1.0.0", "name": name, "ipam": {"type": "kube-node", "dataDir": f"{tmp_path}/networks", **more}}

    def add(name: str, more: dict[str, Any]) -> dict[str, Any]:
        environ = {"CNI_COMMAND": "ADD", "CNI_CONTAINERID": f"c-{name}", "CNI_NETNS": "/x", "CNI_IFNAME": "eth0"}
        stdin = json.dumps(conf(name, more)).encode()
        answer: dict[str, Any] = json.loads(
            skel.run(kube_node.COMMANDS, {**os.environ, **environ}, stdin, Log("test"), Elsewhere(tmp_path))[1]
        )
        return answer

    (net_d / "10-cluster.conflist").write_text(
        json.dumps({"name": "cluster", "cniVersion": "1.0.0", "plugins": [{"type": "bridge", **conf("", ipam)}]})
    )
    refused = add("tenant", ipam)
    assert refused["code"] == 121
    assert f"is for network cluster in dataDir {tmp_path}/networks" in refused["msg"]
    assert add("cluster", ipam)["ips"]
    assert add("other", {"annotation": "example.com/b"})["ips"]


@pytest.mark.ways("relay")
def test_the_runtimes_other_directory(embedded: NetworkMaker, view: ViewWriter, run_dir: Path) -> None:
    """An agent that is told of another directory than /etc/cni/net.d takes the runtime's configuration from there."""
    view("10.1.0.0/24")
    net = embedded()
    net_d = run_dir / "net.d"  # the agent's --cni-config
    net_d.mkdir()
    conf = {"name": "cluster", "cniVersion": "1.0.0", "plugins": [{"type": "bridge", "ipam": net.ipam}]}
    (net_d / "10-cluster.conflist").write_text(json.dumps(conf))
    error = net.error()
    assert (error["code"], f"is for network cluster in dataDir {net.ipam['dataDir']}" in error["msg"]) == (121, True)
    net.netconf["name"] = "cluster"
    assert net.add() == ["10.1.0.2"]
