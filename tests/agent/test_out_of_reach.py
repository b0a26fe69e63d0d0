# SPDX-License-Identifier: Apache-2.0
"""What an agent cannot reach or open is no end of a call: the runtime's own plugin does it, and without one the error says why."""

from __future__ import annotations

import json
import os
import resource
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import pytest
from administrator import allow
from agentprocess import AgentProcess, write_node
from callplugin import environment, execute
from patience import eventually
from wanting import want
from ways import layout

if TYPE_CHECKING:
    from collections.abc import Iterator

    from podnet import Answer

READ_ONLY = ["unshare", "--mount", "sh", "-c", 'mount --bind "$0" "$0" && mount -o remount,bind,ro "$0" && exec "$@"']
NO_CAPABILITIES = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"]


class Node:
    """Relay and standalone plugin as a runtime runs them, and an agent to which something is closed."""

    def __init__(self, binaries: Path, run_dir: Path, data_dir: Path) -> None:
        self.relay = binaries / "kube-node"
        self.data_dir = data_dir
        self.node_file = write_node(run_dir.parent / "n.json", "10.8.0.0/24")
        self.conf = {"cniVersion": "1.1.0", "name": "net", "type": "bridge"}
        self.ipam = {"type": "kube-node", "dataDir": str(data_dir), "nodeFile": str(self.node_file)}

    def call(self, command: str, container_id: str = "c1", **more: Any) -> Answer:
        return execute(self.relay, {**self.conf, "ipam": self.ipam, **more}, environment(command, container_id=container_id))

    def reserved(self) -> list[str]:
        names = os.listdir(self.data_dir / "net") if (self.data_dir / "net").is_dir() else []
        return sorted(name for name in names if name.startswith("10."))

    def is_served(self) -> None:
        """See a pod's life through: given, checked, collected and released, though the agent can do none of it."""
        added = self.call("ADD")
        assert (added.code, added.addresses) == (0, ["10.8.0.2"]), added
        for command in ("STATUS", "CHECK"):
            assert self.call(command, prevResult=added.json).code == 0
        assert self.call("ADD", "c2").addresses == ["10.8.0.3"]
        valid: dict[str, Any] = {"cni.dev/valid-attachments": [{"containerID": "c1", "ifname": "eth0"}]}
        assert self.call("GC", **valid).code == 0
        assert self.reserved() == ["10.8.0.2"]
        assert self.call("DEL")[:2] == (0, "")
        assert self.reserved() == []


@pytest.fixture
def node(built: Path, tmp_path: Path, run_dir: Path) -> Node:
    want("the right to mount", "setpriv")
    return Node(layout("relay", built, tmp_path / "ways"), run_dir, tmp_path / "networks")


@pytest.mark.parametrize("how", ["read-only", "not permitted"])
def test_a_directory_that_is_closed_to_the_agent(node: Node, run_dir: Path, how: str) -> None:
    """A dataDir that is read-only to the agent (ProtectSystem=strict), or not its user's, serves through the standalone plugin."""
    node.data_dir.mkdir(mode=0o700)
    wrap = [*READ_ONLY, str(node.data_dir)] if how == "read-only" else NO_CAPABILITIES
    if how == "not permitted":
        os.chown(node.data_dir, 65534, 65534)
    with AgentProcess(run_dir, f"--node-file={node.node_file}", wrap=wrap) as agent:
        node.is_served()
        assert node.call("ADD").code == 0
        refused = agent.ask("kube-node", "DEL", {**node.conf, "ipam": node.ipam})
        assert (refused.code, refused.json["code"]) == (2, 5)
        (node.relay.parent / "kube-node.standalone").unlink()
        told = node.call("DEL")
        assert (told.code, told.json) == (1, refused.json)


@pytest.fixture
def view() -> Iterator[Path]:
    """Return a directory with a short path: a socket's may have 107 bytes (unix(7)), and there are two paths in this one."""
    with TemporaryDirectory(prefix="kn") as directory:
        yield Path(directory)


def test_a_directory_that_is_not_mounted(node: Node, run_dir: Path, view: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A dataDir of the host that an agent in a container has no mount of serves through the standalone plugin; without one it is 118."""
    (view / str(run_dir)[1:]).mkdir(parents=True)
    script = f'mount --bind {run_dir} {view}{run_dir} && exec "$@"'
    node.ipam["nodeFile"] = str(shutil.copy(node.node_file, run_dir))
    monkeypatch.setenv("KUBE_NODE_CONF", str(allow(run_dir / "kube-node.conf", nodeFile=["/"])))  # there it is seen by both
    options = [f"--host-root={view}", f"--node-file={run_dir}/n.json", f"--run-dir={run_dir}"]
    with AgentProcess(run_dir, *options, wrap=["unshare", "--mount", "sh", "-c", script, "sh"]):
        node.is_served()
        (node.relay.parent / "kube-node.standalone").unlink()
        told = {command: node.call(command).json["code"] for command in ("ADD", "DEL", "STATUS")}
        assert told == {"ADD": 118, "DEL": 118, "STATUS": 50}
        assert "mount the host's" in node.call("DEL").json["details"]
    assert not (view / str(node.data_dir)[1:]).exists()


def test_an_agent_without_descriptors(node: Node, run_dir: Path) -> None:
    """An agent that can take a call but open no file (EMFILE) leaves it to the standalone plugin, also the DEL of what it gave itself."""
    elsewhere = {**node.ipam, "type": "node-annotation", "annotation": "example.com/net"}
    write_node(
        node.node_file, "10.8.0.0/24", **{"example.com_net": f'ranges: [[{{"subnet": "10.9.0.0/24"}}]], dataDir: "{node.data_dir}/own"'}
    )
    with AgentProcess(run_dir, f"--node-file={node.node_file}") as agent:
        assert node.call("ADD", "first").code == 0
        annotated = {**node.conf, "name": "annotated", "ipam": elsewhere}
        execute(node.relay.parent / "node-annotation", annotated, environment("ADD"))
        assert (node.data_dir / "own/annotated/10.9.0.2").exists()
        assert agent.process
        pid = agent.process.pid
        limits = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        opened = {int(name) for name in os.listdir(f"/proc/{pid}/fd")}
        highest = max(opened)
        free = highest + 1 - len(opened)  # below the highest; of all that are free then, connections take all but one
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (highest + (1 if free else 2), limits[1]))
        held = [agent.connect() for _ in range(free - 1)]
        eventually(lambda: len(os.listdir(f"/proc/{pid}/fd")) == len(opened) + len(held))
        try:
            assert json.loads(execute(node.relay.parent / "node-annotation", annotated, environment("DEL")).stdout or "{}") == {}
        finally:
            resource.prlimit(pid, resource.RLIMIT_NOFILE, limits)
            for sock in held:
                sock.close()
        assert not (node.data_dir / "own/annotated/10.9.0.2").exists()
