# SPDX-License-Identifier: Apache-2.0
"""An agent that sees the host under a directory, as in a container: a mount namespace of its own, with real mounts."""

from __future__ import annotations

import json
import subprocess
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from agentprocess import AgentProcess, write_node
from patience import eventually
from rebooting import reboot
from wanting import want

from kubenode.host.boot import BOOT_ID

if TYPE_CHECKING:
    from collections.abc import Sequence

pytestmark = pytest.mark.slow

MOUNTS = ("/var/lib/cni", "/run", "/etc", "/var/log")


def knows(agent: AgentProcess, text: str) -> bool:
    return text in agent.get("/metrics")[1]


class Container:
    """A directory `node` that is the host's /, and one `view` where the agent has mounts of it."""

    def __init__(self, directory: Path) -> None:
        self.node, self.view = directory / "node", directory / "view"
        for path in ("var/lib/cni", "var/log", "run/netns", "etc/cni/net.d", "etc/kubernetes", "data"):
            (self.node / path).mkdir(parents=True)
        self.view.mkdir()
        write_node(self.node / "etc/kubernetes/node.json", "10.8.0.0/24", **{"example.com_net": 'ranges: [[{"subnet": "10.9.0.0/24"}]]'})

    def agent(self, *options: str, mounts: tuple[str, ...] = MOUNTS, after: Sequence[str] = ()) -> AgentProcess:
        for path in mounts:
            (self.view / path[1:]).mkdir(parents=True, exist_ok=True)
        script = "".join(f'mount --bind "{self.node}{path}" "{self.view}{path}" && ' for path in mounts)
        wrap = ["unshare", "--mount", "sh", "-c", f'{script}exec "$@"', "sh", *after]
        more = ["--run-dir=/run/kube-node", "--cni-config=/etc/cni/net.d", "--node-file=/etc/kubernetes/node.json", "--grace=0"]
        run_dir = self.node / "run/kube-node"
        return AgentProcess(run_dir, f"--host-root={self.view}", *more, *options, wrap=wrap)

    def mount(self, agent: AgentProcess, path: str) -> None:
        """Mount one more directory while the agent runs, as propagation from the host does."""
        assert agent.process is not None
        (self.view / path[1:]).mkdir(parents=True, exist_ok=True)
        inside = ["nsenter", f"--mount=/proc/{agent.process.pid}/ns/mnt"]
        subprocess.run([*inside, "mount", "--bind", f"{self.node}{path}", f"{self.view}{path}"], check=True)

    def a_pass(self, agent: AgentProcess) -> None:
        """Wait until the agent has looked for leaks: what is new in the configuration is known from the beginning of a pass."""
        for name in ("before", "after"):
            ranges = [[{"subnet": "10.7.0.0/24"}]]
            text = json.dumps({"cniVersion": "1.0.0", "name": name, "type": "bridge", "ipam": {"type": "host-local", "ranges": ranges}})
            (self.node / f"etc/cni/net.d/{name}.conf").write_text(text)
            eventually(partial(knows, agent, f'network="{name}"'))


@pytest.fixture
def container(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Container:
    monkeypatch.delenv("KUBE_NODE_CONF")  # the host's own, of which there is none, is what counts
    want("the right to mount")
    return Container(tmp_path)


def conf(**ipam: Any) -> dict[str, Any]:
    return {"cniVersion": "1.0.0", "name": "net", "type": "bridge", "ipam": {"type": "kube-node", **ipam}}


def test_everything_lies_on_the_host(container: Container) -> None:
    """Reservations, records, socket, log, resolv.conf and the plugin's own configuration are the host's, by the host's paths."""
    (container.node / "etc/resolv.conf").write_text("nameserver 192.0.2.53\n")
    (container.node / "etc/cni/node-annotation.conf").write_text('{"log": "/var/log/kube-node.log"}')
    with container.agent() as agent:
        answer = agent.call("ADD", conf(resolvConf="/etc/resolv.conf"), netns="/var/run/netns/c1")
        assert answer.json["dns"] == {"nameservers": ["192.0.2.53"]}
        assert answer.addresses == ["10.8.0.2"]
        assert (container.node / "var/lib/cni/networks/net/10.8.0.2").read_bytes() == b"c1\r\neth0"
        record = json.loads((container.node / "run/kube-node/attachments/net:c1:eth0").read_text())
        assert (record["netns"], record["dataDir"]) == ("/var/run/netns/c1", "/var/lib/cni/networks")
        annotated = conf(type="node-annotation", annotation="example.com/net", nodeFile="/etc/kubernetes/node.json")
        assert agent.add({**annotated, "name": "annotated"}) == ["10.9.0.2"]
        log = container.node / "var/log/kube-node.log"
        eventually(lambda: log.exists() and "10.9.0.2" in log.read_text(), "no log")
        assert agent.call("DEL", conf()).code == 0
        assert not (container.node / "var/lib/cni/networks/net/10.8.0.2").exists()
        assert list(container.view.glob("var/lib/cni/*")) == []  # seen from here: nothing went beside the mounts
        assert agent.stop() == 0
    assert not agent.socket.exists()


def test_the_namespace_is_looked_for_on_the_host(container: Container) -> None:
    """A namespace counts as gone when it is gone on the host, through the host's /var/run."""
    for name in ("c1", "c2"):
        (container.node / "run/netns" / name).touch()
    with container.agent() as agent:
        for name in ("c1", "c2"):
            agent.add(conf(), name, netns=f"/var/run/netns/{name}", args="K8S_POD_NAMESPACE=default;K8S_POD_NAME=pod")
        (container.node / "run/netns/c1").unlink()
        assert agent.said("the network namespace is gone")["netns"] == "/var/run/netns/c1"
        assert [line["containerID"] for line in agent.lines("the network namespace is gone")] == ["c1"]


@pytest.mark.parametrize(("mounts", "stay"), [(MOUNTS, ["c1"]), (("/var/lib/cni", "/run/kube-node", "/etc"), ["c1", "c2"])])
def test_gc_looks_for_the_namespace_on_the_host(container: Container, mounts: tuple[str, ...], stay: list[str]) -> None:
    """What GC does not list stays while its network namespace is there on the host, and where that cannot be seen."""
    (container.node / "run/kube-node").mkdir()
    (container.node / "run/netns/c1").touch()
    with container.agent(mounts=mounts) as agent:
        for name in ("c1", "c2"):
            agent.add(conf(), name, netns=f"/var/run/netns/{name}")
        assert agent.call("GC", {**conf(), "cniVersion": "1.1.0", "cni.dev/valid-attachments": []}).code == 0
        reserved = [path.read_text().split()[0] for path in (container.node / "var/lib/cni/networks/net").glob("10*")]
        assert sorted(reserved) == stay


def test_namespaces_that_cannot_be_seen(container: Container) -> None:
    """Where the host's /run/netns is not mounted nothing can be said of it, and no address is suspected."""
    mounts = ("/var/lib/cni", "/run/kube-node", "/etc")
    (container.node / "run/kube-node").mkdir()
    (container.view / "run/netns").mkdir(parents=True)  # the container's own, and empty
    with container.agent(mounts=mounts) as agent:
        agent.add(conf(), netns="/var/run/netns/c1", args="K8S_POD_NAMESPACE=default;K8S_POD_NAME=pod")
        container.a_pass(agent)
        assert agent.lines("the network namespace is gone") == []
        assert "kubenode_leaks_suspected{" not in agent.get("/metrics")[1]


def test_a_directory_that_was_made_anew(container: Container) -> None:
    """A mount of a /run/netns that has been removed and made anew on the host shows an empty directory, which is no evidence."""
    (container.node / "run/kube-node").mkdir()
    mounts = ("/var/lib/cni", "/run/kube-node", "/run/netns", "/etc")
    with container.agent(mounts=mounts) as agent:
        (container.node / "run/netns").rmdir()
        (container.node / "run/netns").mkdir()
        (container.node / "run/netns/c1").touch()
        agent.add(conf(), netns="/var/run/netns/c1", args="K8S_POD_NAMESPACE=default;K8S_POD_NAME=pod")
        container.a_pass(agent)
        assert agent.lines("the network namespace is gone") == []


@pytest.mark.parametrize("data_dir", ["/data/cni", "/link/cni"])
def test_a_mount_that_comes_later(container: Container, data_dir: str) -> None:
    """A data directory that is not mounted is error 118 with the mount's name, and serves as soon as it is mounted."""
    (container.view / "link").symlink_to("/data")
    with container.agent() as agent:
        for command in ("ADD", "DEL"):
            error = agent.call(command, conf(dataDir=data_dir)).json
            assert error["code"] == 118
            assert data_dir in error["msg"]
            assert f"at {container.view}/data" in error["details"]
        assert not (container.view / "data").exists()
        container.mount(agent, "/data")
        assert agent.add(conf(dataDir=data_dir)) == ["10.8.0.2"]
        assert (container.node / "data/cni/net/10.8.0.2").exists()


@pytest.mark.parametrize(("mounts", "missing"), [(("/etc", "/var/lib/cni"), "run directory /run/kube-node"), (("/run", "/etc"), "")])
def test_a_run_directory_that_is_not_mounted(container: Container, mounts: tuple[str, ...], missing: str) -> None:
    """Without the host's run directory the agent does not start: its socket would be where no relay looks."""
    agent = container.agent(mounts=mounts)
    (container.node / "run/kube-node").mkdir()
    if not missing:
        with agent:
            assert agent.call("ADD", conf()).json["code"] == 118
        return
    agent.launch()
    assert agent.process is not None
    assert agent.process.wait(20) == 69
    assert f"{missing} of the host is not mounted" in agent.log()


def test_reboot_under_a_root(container: Container) -> None:
    """What an earlier boot has left is released on the host; which machine that is, a container has from the Node."""
    directory = container.node / "var/lib/cni/networks/net"
    directory.mkdir(parents=True)
    (directory / "10.8.0.9").write_text("old\r\neth0")
    manifest = json.loads((container.node / "etc/kubernetes/node.json").read_text())
    (container.node / "etc/kubernetes/node.json").write_text(json.dumps({**manifest, "status": {"nodeInfo": {"machineID": "m"}}}))
    note = directory.parent / ".net.note"
    with container.agent(after=reboot(note, machine="m")) as agent:
        assert agent.call("DEL", conf()).code == 0
        agent.said("reservations of an earlier boot released")
        assert not (directory / "10.8.0.9").exists()
        assert note.read_text() == f"{Path(BOOT_ID).read_text().strip()} m\n"
