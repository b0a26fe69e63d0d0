# SPDX-License-Identifier: Apache-2.0
"""Memory and threads of an agent whose networks come and go: it keeps nothing for a network without reservations."""

from __future__ import annotations

import gc
import json
import os
import shutil
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
from agentprocess import AgentProcess, write_node
from patience import PATIENCE, eventually
from rebooting import NextBoot

from kubenode.agent import networks
from kubenode.agent.host import Stores
from kubenode.agent.housekeeping import Housekeeping
from kubenode.agent.networks import Key, Networks
from kubenode.base import workers
from kubenode.base.log import INFO, Log
from kubenode.base.workers import Round, Workers
from kubenode.host.attachments import Attachments, Record
from kubenode.host.root import HostRoot
from kubenode.ipam import allocator
from kubenode.ipam.address import Address
from kubenode.ipam.store import Attachment

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from kubenode.host.indexed import IndexedStore
    from kubenode.ipam.store import Reservation

ONE = Attachment("c1", "eth0")
FIRST = Address(4, (10 << 24) + 2)
MANY = 2000  # networks


class Keeper:
    """Housekeeping without a process."""

    def __init__(self, directory: Path, run_dir: Path) -> None:
        log = Log("agent", INFO)
        self.data_dir = str(directory / "networks")
        self.run_dir = str(run_dir)
        self.config_dir = directory / "net.d"
        self.networks = Networks(log)
        self.stores = Stores(HostRoot(), NextBoot(str(run_dir), lambda: "m"))
        self.ask = Round(Workers(), log, PATIENCE)
        self.keep = Housekeeping(self.networks, self.stores, self.ask, None, str(run_dir), str(self.config_dir), log)

    def add(self, network: str, address: Address = FIRST) -> None:
        store = self.stores.get(self.data_dir, network)
        with store.lock():
            assert store.reserve(address, ONE)

    def delete(self, network: str) -> None:
        store = self.stores.get(self.data_dir, network)
        with store.lock():
            for entry in store.index():
                store.release(entry)

    def memories(self) -> int:
        """Return the number of networks of which anything is in memory."""
        gc.collect()
        return len(self.stores._used)


@pytest.fixture
def keeper(tmp_path: Path, run_dir: Path) -> Keeper:
    return Keeper(tmp_path, run_dir)


@contextmanager
def few_threads(most: int) -> Iterator[None]:
    """Fail if there are ever more further threads than `most`, as each thread that starts sees."""
    before, seen, original = threading.active_count(), [0], threading.Thread.start

    def start(thread: threading.Thread) -> None:
        original(thread)
        seen.append(threading.active_count() - before)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(threading.Thread, "start", start)
        yield
    assert max(seen) <= most


def test_names_without_a_directory(keeper: Keeper) -> None:
    """Calls of networks that do not exist leave neither memory nor threads, and their directories are not created."""
    with few_threads(workers.AT_ONCE):
        for number in range(MANY):
            store = keeper.stores.get(keeper.data_dir, f"made-up-{number}")
            assert not store.is_there()
            if number % (MANY // 4) == 0:
                keeper.keep.tidy()
        del store
        keeper.keep.tidy()
    assert (keeper.stores.known(), keeper.memories()) == ([], 0)
    assert not keeper.ask._asked
    assert not os.path.exists(keeper.data_dir)


def test_data_directories_without_a_network() -> None:
    """A path that a call has named is not remembered for ever, only because it is on a mounted file system."""
    root = HostRoot("/")
    stores = Stores(root)
    for number in range(MANY):
        stores.get(f"/made-up/{number}", "net")
    assert len(root._seen) <= MANY // 2


def test_networks_that_come_and_go(keeper: Keeper) -> None:
    """The directories of deleted networks stay, as with host-local; they cost neither memory nor threads."""
    with few_threads(workers.MOST):
        for number in range(MANY // 4):
            keeper.add(f"net{number}")
        for _ in range(2):
            keeper.keep.tidy()
        assert len(keeper.stores.known()) == keeper.memories() == MANY // 4
        for number in range(MANY // 4):
            keeper.delete(f"net{number}")
        keeper.keep.tidy()
    assert len(os.listdir(keeper.data_dir)) >= MANY // 4
    assert (keeper.stores.known(), keeper.memories()) == ([], 0)
    keeper.add("net7")
    assert keeper.stores.known() == [(keeper.data_dir, "net7")]


@pytest.mark.parametrize("is_recorded", [False, True])
def test_a_directory_that_goes(keeper: Keeper, is_recorded: bool) -> None:  # noqa: FBT001 -- a parameter of the test
    """A network whose directory is removed is dropped, also with records of its attachments; a new directory starts anew."""
    keeper.add("net")
    if is_recorded:
        Attachments(keeper.run_dir, "net").write(ONE, Record(data_dir=keeper.data_dir))
    keeper.keep.tidy()
    assert keeper.stores.known() == [(keeper.data_dir, "net")]
    shutil.rmtree(keeper.data_dir)
    keeper.keep.tidy()
    assert (keeper.stores.known(), keeper.memories()) == ([], 0)
    keeper.add("net")  # and not "reserved already", as the index before said


def test_a_directory_that_goes_during_a_pass(keeper: Keeper, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    """A directory that somebody removes while housekeeping looks after it is no error: nothing is kept of it, and nothing is logged."""
    original = allocator.release_from_earlier_boot

    def lose(store: IndexedStore) -> list[Reservation]:
        shutil.rmtree(store.directory)
        return original(store)

    keeper.add("net")
    monkeypatch.setattr(allocator, "release_from_earlier_boot", lose)
    keeper.keep.tidy()
    assert (keeper.stores.known(), keeper.memories()) == ([], 0)
    assert capfd.readouterr().err == ""


def test_a_call_in_flight(keeper: Keeper) -> None:
    """A call keeps its network's memory for all others, also while the directory goes and comes: one waits for the other."""
    early = keeper.stores.get(keeper.data_dir, "net", keep=True)
    with early.lock():
        assert early.reserve(FIRST, ONE)
    shutil.rmtree(keeper.data_dir)
    Attachments(keeper.run_dir, "net").write(ONE, Record(data_dir=keeper.data_dir))
    keeper.keep._look_after(Key("net", keeper.data_dir))
    assert keeper.stores.known() == []
    late = keeper.stores.get(keeper.data_dir, "net")
    assert late._memory is early._memory
    early.leave()
    with late.lock():
        assert list(late.index()) == []
        assert late.reserve(FIRST, Attachment("c2", "eth0"))
    assert keeper.stores.known() == [(keeper.data_dir, "net")]
    assert [entry.attachment for entry in late.index()] == [Attachment("c2", "eth0")]


def test_a_directory_by_many_paths(keeper: Keeper, tmp_path: Path) -> None:
    """However a configuration writes a directory's path, the network is in memory once."""
    keeper.add("net")
    (tmp_path / "link").symlink_to(keeper.data_dir)
    ways = ["/", "//", "/.", "/../networks", *("/../link" * number for number in range(1, 5))]
    memories = {id(keeper.stores.get(keeper.data_dir + way, "net")._memory) for way in ways}
    assert len(memories) == 1
    assert keeper.stores.known() == [(keeper.data_dir, "net")]


def test_a_reboot_of_many_networks(keeper: Keeper) -> None:
    """All networks are looked after, by few threads."""
    for number in range(MANY // 4):
        keeper.add(f"net{number}")
    with few_threads(workers.MOST):
        keeper.keep.tidy()
    notes = [name for name in os.listdir(keeper.data_dir) if name.endswith(".note")]
    assert len(notes) == MANY // 4


def configuration(keeper: Keeper, name: str, **more: object) -> bytes:
    return json.dumps({"name": name, "ipam": {"type": "kube-node", "dataDir": keeper.data_dir}, **more}).encode()


def test_networks_that_nobody_uses(keeper: Keeper) -> None:
    """A network without a directory is forgotten after two passes; not one that is recorded, configured, or was used in between."""
    keeper.config_dir.mkdir()
    ipam = {"type": "kube-node", "dataDir": keeper.data_dir}
    conf = {"cniVersion": "1.0.0", "name": "configured", "plugins": [{"type": "bridge", "ipam": ipam}]}
    (keeper.config_dir / "10-net.conflist").write_text(json.dumps(conf))
    Attachments(keeper.run_dir, "recorded").write(ONE, Record(data_dir="/elsewhere"))  # an annotation may say so
    keeper.add("reserved")
    os.makedirs(f"{keeper.data_dir}/empty")
    for name in ("gone", "used", "configured", "recorded", "reserved", "empty"):
        keeper.networks.met("kube-node", configuration(keeper, name))
    keeper.keep.tidy()
    assert len(keeper.networks.known()) == 6
    keeper.networks.met("kube-node", configuration(keeper, "used"))
    keeper.keep.tidy()
    assert {key.network for key in keeper.networks.known()} == {"used", "configured", "recorded", "reserved", "empty"}
    for _ in range(2):
        shutil.rmtree(keeper.data_dir, ignore_errors=True)
        keeper.keep.tidy()
    keeper.keep.tidy()
    assert {key.network for key in keeper.networks.known()} == {"configured", "recorded"}


@pytest.mark.parametrize("padding", [0, 60 << 10])
def test_more_networks_than_are_kept(keeper: Keeper, capfd: pytest.CaptureFixture[str], padding: int) -> None:
    """A new network is known even if there are too many: the one that was not used for longest is left out, and the log says so once."""
    names = [f"net{number}" for number in range(networks.MOST + 20)]
    for name in names:
        keeper.networks.met("kube-node", configuration(keeper, name, mtu="1" * padding))
        keeper.networks.met("kube-node", configuration(keeper, "busy"))
    known = {key.network for key in keeper.networks.known()}
    assert {names[-1], "busy"} <= known
    assert names[0] not in known
    assert len(known) <= networks.MOST
    assert sum(len(stdin) for _, _, stdin in keeper.networks.configurations()) <= networks.MOST_BYTES
    (line,) = [json.loads(line) for line in capfd.readouterr().err.splitlines()]
    assert (line["level"], line["network"]) == ("warning", names[0] if not padding else line["network"])


@pytest.mark.slow
def test_the_process(tmp_path: Path, run_dir: Path) -> None:
    """An agent that was called for networks that do not exist has as many threads as before, and serves."""
    manifest = write_node(tmp_path / "node.json", "10.0.0.0/24")
    ipam = {"type": "kube-node", "dataDir": str(tmp_path / "networks")}

    def conf(name: str) -> dict[str, object]:
        return {"cniVersion": "1.0.0", "name": name, "ipam": ipam}

    with AgentProcess(run_dir, f"--node-file={manifest}") as agent:
        assert agent.process
        for number in range(300):
            assert agent.ask("kube-node", "DEL", conf(f"made-up-{number}")).code == 0
        # A pass that began later than all calls: it says so of a network that is broken.
        (tmp_path / "networks/broken").mkdir(parents=True)
        (tmp_path / "networks/broken/lock").symlink_to("/nonexistent/x")
        agent.ask("kube-node", "DEL", conf("broken"))
        for _ in range(2):
            before = len(agent.lines("housekeeping of a data directory failed"))
            eventually(lambda n=before: len(agent.lines("housekeeping of a data directory failed")) > n, "no pass")  # type: ignore[misc]
        threads = len(os.listdir(f"/proc/{agent.process.pid}/task"))
        assert threads < 30
        assert agent.add(conf("net")) == ["10.0.0.2"]
