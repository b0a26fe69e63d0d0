# SPDX-License-Identifier: Apache-2.0
"""What the agent does apart from any call: reboot, networks that it knows, changes behind its back."""

from __future__ import annotations

import json
import os
import time
from typing import TYPE_CHECKING, Any

import pytest
from agentprocess import AgentProcess, write_node
from callplugin import environment, execute
from patience import PATIENCE, eventually
from rebooting import EARLIER, NextBoot, note, reboot

from kubenode.agent.host import ReadOnlyAgentHost, Stores
from kubenode.agent.housekeeping import Housekeeping
from kubenode.agent.labels import NamespaceLabels
from kubenode.agent.networks import Key, Networks, key_of
from kubenode.agent.ownnode import OwnNode
from kubenode.base.log import INFO, Log
from kubenode.base.workers import Round, Workers
from kubenode.host.attachments import Attachments, Record
from kubenode.host.datadir import DiskStore
from kubenode.host.nodeview import NodeView
from kubenode.host.permitted import Permitted
from kubenode.host.root import HostRoot
from kubenode.ipam.address import Address
from kubenode.ipam.store import DEFAULT_DATA_DIR, Attachment

if TYPE_CHECKING:
    from pathlib import Path

ONE = Attachment("c1", "eth0")


class Place:
    """A housekeeper over real files."""

    def __init__(self, directory: Path, run_dir: Path) -> None:
        self.data_dir = directory / "networks"
        self.config_dir = directory / "net.d"
        self.config_dir.mkdir()
        self.run_dir = run_dir
        self.networks = Networks(Log("agent", INFO))
        self.stores = Stores(HostRoot(), NextBoot(str(run_dir), lambda: "m"))
        log = Log("agent", INFO)
        ask = Round(Workers(), log, 0.5)
        self.ask = ask
        own = OwnNode(NodeView(str(run_dir), "test", log), log)
        self.looking = ReadOnlyAgentHost(HostRoot(), Permitted(HostRoot(), {}), str(run_dir), self.stores, own, NamespaceLabels("", log))
        self.keep = Housekeeping(self.networks, self.stores, ask, None, str(run_dir), str(self.config_dir), log)

    def of_another_boot(self, network: str) -> Path:
        """Reserve an address for each family as an earlier boot has left it; return its directory."""
        store = DiskStore(str(self.data_dir), network)
        with store.lock():
            store.reserve(Address(4, (10 << 24) + 2), ONE)
            store.reserve(Address(6, (0xFD << 120) + 2), ONE)
        (self.data_dir / f".{network}.note").write_text(note("m"))
        return self.data_dir / network


@pytest.fixture
def place(tmp_path: Path, run_dir: Path) -> Place:
    return Place(tmp_path, run_dir)


def lines(capfd: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capfd.readouterr().err.splitlines()]


@pytest.mark.parametrize("known_by", ["record", "call"])
def test_after_a_reboot(place: Place, capfd: pytest.CaptureFixture[str], known_by: str) -> None:
    """Reservations of another boot of a network of ours are released and logged, however it is known that it is ours."""
    directory = place.of_another_boot("net")
    if known_by == "record":
        Attachments(str(place.run_dir), "net").write(Attachment("c2", "eth0"), Record(data_dir=str(place.data_dir)))
    else:
        place.stores.get(str(place.data_dir), "net")
    for _ in range(2):
        place.keep.tidy()
    assert os.listdir(directory) == ["lock"]
    assert [(line["msg"], sorted(line["ips"])) for line in lines(capfd)] == [
        ("reservations of an earlier boot released", ["10.0.0.2", "fd00::2"])
    ]
    assert (place.data_dir / ".net.note").read_text() != note("m")


CONFIGURATIONS: dict[str, dict[str, Any]] = {  # as these programs write them, with a directory of the test's
    "podman": {"cniVersion": "0.4.0", "plugins": [{"type": "bridge", "bridge": "cni-podman0", "isGateway": True, "ipMasq": True}]},
    "nerdctl": {"cniVersion": "1.0.0", "nerdctlID": "17f2", "plugins": [{"type": "bridge", "bridge": "nerdctl0"}, {"type": "portmap"}]},
    "crio": {"cniVersion": "1.0.0", "plugins": [{"type": "bridge", "bridge": "cni0", "isGateway": True, "hairpinMode": True}]},
}


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_a_network_that_is_not_ours(place: Place, cni_bin: Path, capfd: pytest.CaptureFixture[str], name: str) -> None:
    """What the reference has given by a configuration of podman, nerdctl or CRI-O is looked at, and never written to: not even a note.

    Not after a reboot either: its containers may have started before the agent, whatever an earlier use of ours has left there.
    """
    ipam = {"type": "host-local", "dataDir": str(place.data_dir), "ranges": [[{"subnet": "10.88.0.0/16"}]]}
    conf = {"name": name, **CONFIGURATIONS[name]}
    conf["plugins"] = [{**conf["plugins"][0], "ipam": ipam}, *conf["plugins"][1:]]
    (place.config_dir / f"87-{name}.conflist").write_text(json.dumps(conf))
    call = {"cniVersion": conf["cniVersion"], "name": name, **conf["plugins"][0]}
    given = execute(cni_bin / "host-local", call, environment("ADD", path=[cni_bin]))
    assert given.code == 0, given.stdout
    for text in ("", note("m"), EARLIER):
        (place.data_dir / f".{name}.note").write_text(text)
        before = tree(place.data_dir)
        for _ in range(2):
            place.keep.tidy()
            (used,) = place.networks.usages(place.ask, {}, place.looking)
            assert [one.used for one in used[1]] == [1]
        assert tree(place.data_dir) == before
    assert lines(capfd) == []


def tree(top: Path) -> dict[str, tuple[int, int, bytes]]:
    """Return all that is there, with its times and content."""
    found = [top, *top.rglob("*")]
    return {str(path): (path.lstat().st_mtime_ns, path.lstat().st_ctime_ns, b"" if path.is_dir() else path.read_bytes()) for path in found}


def test_a_boot_that_nobody_noted(place: Place) -> None:
    """Without a note of the boot nothing is released: it is noted."""
    directory = place.of_another_boot("net")
    (place.data_dir / ".net.note").unlink()
    place.stores.get(str(place.data_dir), "net")
    place.keep.tidy()
    assert sorted(os.listdir(directory)) == ["10.0.0.2", "fd00::2", "lock"]
    assert (place.data_dir / ".net.note").exists()


@pytest.mark.parametrize("name", ["..", ".", "a/b", "", "None/..", 5, None])
def test_names_that_no_network_has(place: Place, name: object) -> None:
    """What stands as a network's name in some file is never taken for a directory elsewhere."""
    place.of_another_boot("net")
    before = sorted(os.walk(place.data_dir.parent))
    conf = {"name": name, "type": "bridge", "ipam": {"type": "host-local", "dataDir": str(place.data_dir / "net")}}
    (place.config_dir / "10-net.conf").write_text(json.dumps(conf))
    Attachments(str(place.run_dir), "..").write(ONE, Record(data_dir=str(place.data_dir / "net")))
    before = sorted(os.walk(place.data_dir))
    place.keep.tidy()
    assert sorted(os.walk(place.data_dir)) == before


def test_one_broken_directory(place: Place, capfd: pytest.CaptureFixture[str]) -> None:
    """A directory that cannot be looked after is logged with its network, and the others are."""
    directory = place.of_another_boot("net")
    (place.data_dir / "bad").mkdir()
    (place.data_dir / "bad/lock").symlink_to("/nonexistent/x")
    for network in ("bad", "net"):
        place.stores.get(str(place.data_dir), network)
    place.keep.tidy()
    assert os.listdir(directory) == ["lock"]
    told = {line["msg"]: line["network"] for line in lines(capfd)}
    assert told["housekeeping of a data directory failed"] == "bad"


def test_a_held_lock_keeps_no_other_network(place: Place, capfd: pytest.CaptureFixture[str]) -> None:
    """Somebody who holds one network's lock does not keep the others from being looked after."""
    place.of_another_boot("held")
    directory = place.of_another_boot("net")
    for network in ("held", "net"):
        place.stores.get(str(place.data_dir), network)
    with DiskStore(str(place.data_dir), "held").lock():
        begin = time.monotonic()
        place.keep.tidy()
        assert time.monotonic() - begin < PATIENCE
        assert os.listdir(directory) == ["lock"]
        capfd.readouterr()
    eventually(lambda: '"held"' in capfd.readouterr().err, "its turn comes")


def test_a_network_is_one_however_its_directory_is_written() -> None:
    """Without dataDir, and with the default one, it is the same network: one thread, one line of metrics."""
    keys = {key_of({"name": "net", "ipam": ipam}) for ipam in ({}, {"dataDir": ""}, {"dataDir": DEFAULT_DATA_DIR})}
    assert keys == {Key("net", DEFAULT_DATA_DIR)}


@pytest.mark.slow
def test_the_process_after_a_reboot(tmp_path: Path, run_dir: Path) -> None:
    """By the runtime's configuration alone the agent shows a network in its metrics; once it is called for it releases what is dead."""
    place = Place(tmp_path, run_dir)
    directory = place.of_another_boot("net")
    ipam = {"type": "kube-node", "dataDir": str(place.data_dir)}
    conf = {"cniVersion": "1.0.0", "name": "net", "ipam": ipam}
    (place.config_dir / "10-net.conflist").write_text(json.dumps({**conf, "plugins": [{"type": "bridge", "ipam": ipam}]}))
    manifest = write_node(tmp_path / "node.json", "10.0.0.0/24")
    wrap = reboot(place.data_dir / ".net.note")
    with AgentProcess(run_dir, f"--node-file={manifest}", f"--cni-config={place.config_dir}", wrap=wrap) as agent:
        series = f'kubenode_addresses{{data_dir="{place.data_dir}",family="ipv4",network="net"}} 253.0'
        eventually(lambda: series in agent.get("/metrics")[1], "the network is not in the metrics")
        assert len(os.listdir(directory)) == 3
        assert agent.ask("kube-node", "DEL", conf, container_id="other").code == 0
        agent.said("reservations of an earlier boot released")
        assert os.listdir(directory) == ["lock"]
