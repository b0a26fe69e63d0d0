"""What the agent does apart from any call: reboot, networks that it knows, changes behind its back."""

from __future__ import annotations

import json
import os
import time
from typing import TYPE_CHECKING, Any

import pytest
from agentprocess import AgentProcess, write_node
from patience import PATIENCE, eventually

from kubenode.agent.housekeeping import Housekeeping
from kubenode.agent.networks import Key, Networks, key_of
from kubenode.agent.reach import Stores
from kubenode.agent.workers import Round, Workers
from kubenode.host.attachments import Attachments
from kubenode.host.datadir import DEFAULT_DATA_DIR, DiskStore
from kubenode.host.log import INFO, Log
from kubenode.host.root import HostRoot
from kubenode.ipam.address import Address
from kubenode.ipam.store import Attachment

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
        self.networks = Networks()
        self.stores = Stores(HostRoot())
        log = Log("agent", INFO)
        ask = Round(Workers(), log, 0.5)
        self.keep = Housekeeping(self.networks, self.stores, ask, None, str(run_dir), str(self.config_dir), log)

    def of_another_boot(self, network: str) -> Path:
        """Reserve an address for each family as an earlier boot has left it; return its directory."""
        store = DiskStore(str(self.data_dir), network)
        with store.lock():
            store.reserve(Address(4, (10 << 24) + 2), ONE)
            store.reserve(Address(6, (0xFD << 120) + 2), ONE)
        (self.data_dir / f".{network}.boot").write_text("another")
        return self.data_dir / network


@pytest.fixture
def place(tmp_path: Path, run_dir: Path) -> Place:
    return Place(tmp_path, run_dir)


def lines(capfd: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capfd.readouterr().err.splitlines()]


@pytest.mark.parametrize("known_by", ["configuration", "record", "call"])
def test_after_a_reboot(place: Place, capfd: pytest.CaptureFixture[str], known_by: str) -> None:
    """Reservations of another boot are released and logged, however the network is known: no pod needs to start first."""
    directory = place.of_another_boot("net")
    if known_by == "configuration":
        conf = {"name": "net", "plugins": [{"type": "bridge", "ipam": {"type": "host-local", "dataDir": str(place.data_dir)}}]}
        (place.config_dir / "10-net.conflist").write_text(json.dumps(conf))
    elif known_by == "record":
        Attachments(str(place.run_dir), "net").write(ONE, {"dataDir": str(place.data_dir)})
    else:
        place.stores.get(str(place.data_dir), "net")
    for _ in range(2):
        place.keep.tidy()
    assert os.listdir(directory) == ["lock"]
    assert [(line["msg"], sorted(line["ips"])) for line in lines(capfd)] == [
        ("reservations of an earlier boot released", ["10.0.0.2", "fd00::2"])
    ]
    assert (place.data_dir / ".net.boot").read_bytes() != b"another"


def test_a_boot_that_nobody_noted(place: Place) -> None:
    """Without a note of the boot nothing is released: it is noted."""
    directory = place.of_another_boot("net")
    (place.data_dir / ".net.boot").unlink()
    place.stores.get(str(place.data_dir), "net")
    place.keep.tidy()
    assert sorted(os.listdir(directory)) == ["10.0.0.2", "fd00::2", "lock"]
    assert (place.data_dir / ".net.boot").exists()


@pytest.mark.parametrize("name", ["..", ".", "a/b", "", "None/..", 5, None])
def test_names_that_no_network_has(place: Place, name: object) -> None:
    """What stands as a network's name in some file is never taken for a directory elsewhere."""
    place.of_another_boot("net")
    before = sorted(os.walk(place.data_dir.parent))
    conf = {"name": name, "ipam": {"type": "host-local", "dataDir": str(place.data_dir / "net")}}
    (place.config_dir / "10-net.conf").write_text(json.dumps(conf))
    Attachments(str(place.run_dir), "..").write(ONE, {"dataDir": str(place.data_dir / "net")})
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
    assert told["a data directory cannot be looked after"] == "bad"


def test_a_held_lock_keeps_no_other_network(place: Place) -> None:
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


def test_a_network_is_one_however_its_directory_is_written() -> None:
    """Without dataDir, and with the default one, it is the same network: one thread, one line of metrics."""
    keys = {key_of({"name": "net", "ipam": ipam}) for ipam in ({}, {"dataDir": ""}, {"dataDir": DEFAULT_DATA_DIR})}
    assert keys == {Key("net", DEFAULT_DATA_DIR)}


def test_the_process_after_a_reboot(tmp_path: Path, run_dir: Path) -> None:
    """The agent releases them when it starts, by the runtime's configuration alone, and shows the network in its metrics."""
    place = Place(tmp_path, run_dir)
    directory = place.of_another_boot("net")
    ipam = {"type": "kube-node", "dataDir": str(place.data_dir)}
    (place.config_dir / "10-net.conflist").write_text(json.dumps({"cniVersion": "1.0.0", "name": "net", "plugins": [{"ipam": ipam}]}))
    node = write_node(tmp_path / "node.json", "10.0.0.0/24")
    with AgentProcess(run_dir, f"--node-file={node}", f"--cni-config={place.config_dir}") as agent:
        agent.said("reservations of an earlier boot released")
        assert os.listdir(directory) == ["lock"]
        series = f'kube_node_addresses{{data_dir="{place.data_dir}",family="ipv4",network="net"}} 253.0'
        eventually(lambda: series in agent.get("/metrics")[1], "the network is not in the metrics")
