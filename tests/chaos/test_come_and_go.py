# SPDX-License-Identifier: Apache-2.0
"""Networks that come and go beside housekeeping, called for by many paths: no address twice, and in the end nothing of them is kept.

KUBE_NODE_CHAOS_SECONDS: how long. KUBE_NODE_CHAOS_SEED: what is random.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import random
import shutil
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from agentprocess import AgentProcess, write_node
from flocks import locked
from patience import eventually

from kubenode.agent.host import Stores
from kubenode.agent.housekeeping import Housekeeping
from kubenode.agent.networks import Networks
from kubenode.base import workers
from kubenode.base.log import ERROR, Log
from kubenode.base.workers import Round, Workers
from kubenode.cni.netconf import NetConf
from kubenode.host.datadir import DiskStore
from kubenode.host.root import HostRoot
from kubenode.ipam import allocator, config
from kubenode.ipam.store import Attachment

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from kubenode.host.indexed import IndexedStore, Memory

SECONDS = float(os.environ.get("KUBE_NODE_CHAOS_SECONDS") or 8)
SEED = int(os.environ.get("KUBE_NODE_CHAOS_SEED") or random.randrange(1 << 32))
CALLERS = 12
LIVE = 8  # networks at a time
LIFE = 0.4  # seconds
MARGIN = 5.0
RANGES = [[{"subnet": "10.4.0.0/27"}]]  # few addresses: each is given again soon
MEGABYTES = 20.0  # of an agent's growth; it is 1 to 5


class Lease(NamedTuple):
    """Address of a pod."""

    network: str
    container: str
    address: str


class World:
    """Pods in networks that live for a moment. `add` returns a pod's addresses, None for none."""

    def __init__(self, top: Path, add: Callable[[str, str, str], list[str] | None], delete: Callable[[str, str, str], bool]) -> None:
        self.data_dir = top / "networks"
        self.data_dir.mkdir()
        (top / "link").symlink_to(self.data_dir)
        self.paths = [str(self.data_dir), f"{self.data_dir}/", f"{top}//networks/.", f"{top}/link", f"{top}/link/../link"]
        self.add, self.delete = add, delete
        self.wrong: list[str] = []
        self.given = self.removed = 0
        self._mutex = threading.Lock()
        self._held: dict[tuple[str, str], str] = {}  # container by network and address
        self._end = time.monotonic() + SECONDS

    def run(self, *others: Callable[[random.Random], None]) -> None:
        """Let pods and networks come and go."""
        jobs = [self._pods] * CALLERS + [self._remove, *others]
        threads = [threading.Thread(target=self._work, args=(job, SEED + number)) for number, job in enumerate(jobs)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert self.wrong == [], f"seed {SEED}"
        assert self.given > 10 * SECONDS, f"seed {SEED}"
        assert self.removed > SECONDS, f"seed {SEED}"

    def _work(self, job: Callable[[random.Random], None], seed: int) -> None:
        chance = random.Random(seed)
        try:
            while time.monotonic() < self._end and not self.wrong:
                job(chance)
        except BaseException as error:
            self.wrong.append(repr(error))
            raise

    def network(self, chance: random.Random, ago: int = 0) -> str:
        return f"net{int(time.monotonic() / LIFE) - ago}-{chance.randrange(LIVE)}"

    def _pods(self, chance: random.Random) -> None:
        network, leases = self.network(chance), []
        for _ in range(chance.randrange(1, 4)):
            container = f"c{chance.randrange(1 << 40):x}"
            for address in self.add(chance.choice(self.paths), network, container) or ():
                leases.append(Lease(network, container, address))
                self._note(leases[-1])
        if chance.random() < 0.3:
            time.sleep(chance.random() * LIFE)
        for lease in leases:
            with self._mutex:
                del self._held[network, lease.address]
            # Its answer may be late: then it may be done, and may be done again.
            while not self.delete(chance.choice(self.paths), network, lease.container):
                pass
        self.delete(chance.choice(self.paths), f"made-up-{chance.randrange(1 << 40)}", "c")

    def _note(self, lease: Lease) -> None:
        with self._mutex:
            other = self._held.setdefault((lease.network, lease.address), lease.container)
            self.given += 1
            if other != lease.container:
                self.wrong.append(f"{lease} also has {other}")

    def _remove(self, chance: random.Random) -> None:
        """Remove the directories without a reservation, as a person does who takes the lock first; also those that are in use."""
        time.sleep(0.02)
        for directory in list(self.data_dir.iterdir()):
            if directory.is_dir() and chance.random() < 0.5:
                store = DiskStore(str(self.data_dir), directory.name)
                with store.lock():
                    if not any(entry.address for entry in store.reservations()):
                        shutil.rmtree(directory, ignore_errors=True)
                        self.removed += 1


@pytest.mark.timeout(120 + 3 * SECONDS)
def test_stores(tmp_path: Path, run_dir: Path, record_property: Any) -> None:
    """In one process, whose memory can be looked at: no network is kept, no question is open, and the threads are few."""
    log = Log("agent", ERROR)
    stores, ask = Stores(HostRoot()), Round(Workers(), log, 1.0)
    keep = Housekeeping(Networks(log), stores, ask, None, str(run_dir), str(tmp_path / "none"), log)
    sets = config.load(NetConf("net", "1.0.0", {"ranges": RANGES}, {}), {}).sets
    before = threading.active_count()
    most = [0]
    mutex = threading.Lock()
    calls: dict[str, list[Memory]] = {}

    @contextlib.contextmanager
    def store_of(data_dir: str, network: str, *, keep: bool = False) -> Iterator[IndexedStore]:
        """Use a store; all calls of a network have the same memory at a time."""
        store = stores.get(data_dir, network, keep=keep)
        with mutex:
            calls.setdefault(network, []).append(store._memory)
            if len(set(map(id, calls[network]))) > 1:
                world.wrong.append(f"{network} has several memories")
        try:
            yield store
        finally:
            store.leave()
            with mutex:
                calls[network].remove(store._memory)

    def add(data_dir: str, network: str, container: str) -> list[str] | None:
        with store_of(data_dir, network, keep=hash(container) % 2 == 0) as store, store.lock():
            return [str(one.address) for one in allocator.allocate(store, sets, Attachment(container, "eth0")).given]

    def delete(data_dir: str, network: str, container: str) -> bool:
        with store_of(data_dir, network) as store:
            if store.is_there():
                with store.lock():
                    allocator.release(store, Attachment(container, "eth0"))
        return True

    def tidy(_: random.Random) -> None:
        keep.tidy()
        most[0] = max(most[0], threading.active_count() - before)

    world = World(tmp_path, add, delete)
    world.run(tidy, tidy)
    record_property("given", world.given)
    record_property("removed", world.removed)
    record_property("threads", most[0])
    calls.clear()
    eventually(lambda: not ask._asked, "a question is open")
    keep.tidy()
    gc.collect()
    assert (stores.known(), len(stores._used), ask._asked) == ([], 0, {}), f"seed {SEED}"
    assert most[0] <= CALLERS + 3 + 2 * workers.MOST


def memory(pid: int) -> float:
    """Return a process's resident memory in megabytes."""
    (line,) = [line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmRSS")]
    return int(line.split()[1]) / 1024


@pytest.mark.timeout(120 + 3 * SECONDS)
def test_agent(tmp_path: Path, run_dir: Path, record_property: Any) -> None:
    """An agent whose housekeeping hardly pauses, while somebody holds locks and scrapes: it keeps few threads and its memory."""
    manifest = write_node(tmp_path / "node.json", "10.0.0.0/24")
    with AgentProcess(run_dir, f"--node-file={manifest}", "--every=0.1") as agent:
        assert agent.process
        pid = agent.process.pid

        def conf(data_dir: str, network: str) -> dict[str, Any]:
            ipam = {"type": "host-local", "dataDir": data_dir, "ranges": RANGES}
            return {"cniVersion": "1.0.0", "name": network, "type": "bridge", "ipam": ipam}

        def add(data_dir: str, network: str, container: str) -> list[str] | None:
            added = agent.call("ADD", conf(data_dir, network), container)
            assert added.code in {0, 1}, added
            if added.code == 0:
                return added.addresses
            assert added.json["code"] in {11, 110}, added  # full, or somebody has the lock for too long
            agent.call("DEL", conf(data_dir, network), container)
            return None

        def delete(data_dir: str, network: str, container: str) -> bool:
            return agent.call("DEL", conf(data_dir, network), container).code == 0

        world = World(tmp_path, add, delete)

        def hold(chance: random.Random) -> None:
            """Hold a network's lock for so long that its pods wait."""
            directory = world.data_dir / world.network(chance)
            with contextlib.suppress(FileNotFoundError), locked(directory):
                time.sleep(0.3)
            assert agent.get("/metrics")[0] == 200
            time.sleep(0.1)

        for number in range(50):
            delete(str(world.data_dir), f"before-{number}", "c")
        before = memory(pid)
        world.run(hold)
        threads = eventually(lambda: found if (found := len(os.listdir(f"/proc/{pid}/task"))) < 30 else 0, "its threads stay")
        growth = memory(pid) - before
        for name, value in (("given", world.given), ("removed", world.removed), ("threads", threads), ("growth in MB", growth)):
            record_property(name, value)
        assert growth < MEGABYTES
        assert [line for line in agent.log().splitlines() if json.loads(line)["level"] == "error"] == []
        assert not any(path.name.startswith("made-up") for path in world.data_dir.iterdir())
