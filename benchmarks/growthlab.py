# SPDX-License-Identifier: Apache-2.0
"""Growing blocks on a real kube-apiserver: a controller as a process, and stand-ins for the agents of all nodes in this one.

A stand-in decides by the agent's own rules when a report is due, looks each quarter of a second as an agent does, and lets a pod wait for
5 s. It keeps no files, shares one connection pool, and one watch of all Nodes serves all stand-ins.
"""

from __future__ import annotations

import asyncio
import heapq
import random
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))  # the real API server is the tests'

from apiserver import RealApiServer  # noqa: E402 (after the path)
from controller import create_nodes, usage  # noqa: E402
from controllerprocess import ControllerProcess  # noqa: E402
from corner import APIS, GROUP, install_crds  # noqa: E402

from kubenode.agent.nodeaddresses import LOOK, MINUTE  # noqa: E402
from kubenode.agent.settling import SETTLE  # noqa: E402
from kubenode.ipam.store import DEFAULT_DATA_DIR  # noqa: E402
from kubenode.kube.asyncclient import Cluster, Collection  # noqa: E402
from kubenode.kube.refusal import StatusError  # noqa: E402
from kubenode.nodes import addresses  # noqa: E402
from kubenode.nodes.addresses import ItemUse, NetworkUse  # noqa: E402
from kubenode.pools.growth import capacity  # noqa: E402
from kubenode.pools.texts import read  # noqa: E402

if TYPE_CHECKING:
    from kubenode.ipam.ranges import Subnet
    from kubenode.nodes.items import Item

POOL = "flat"
KEY = "kube-node.nordix.org/flat"
PATIENCE = 5.0  # seconds for which an ADD waits for a block
READY = 1800.0  # seconds for the first block of each node
TIMEOUT = 30.0  # seconds of a request
AT_ONCE = 64  # requests of stand-ins


class Load(NamedTuple):
    """Nodes on a network, and their pods: `rate` of them start or stop in a second, `coming` of these start.

    A share `heavy` of the nodes has the share `heavy_pods` of the pods.
    """

    nodes: int
    cidr: str
    prefix: int
    min_free: int
    rate: float
    coming: float
    heavy: float
    heavy_pods: float


class Measured(NamedTuple):
    """One run until a pod is refused while the pool is empty. Waits in seconds: of a node for its next block, and of an ADD."""

    pods: int
    seconds: float
    blocks: list[float]  # from fewer than minFree free addresses to the next block
    adds: int
    waits: list[float]  # of ADDs that waited, and got an address
    late: int  # ADDs refused while the pool still had a block
    writes: Counter[str]  # verb and resource, of the controller
    reports: int
    cpu: float  # seconds of processor, of the controller
    peak_mb: float


class Agent:
    """Stand-in for a node's agent, and the node's pods."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.text = ""
        self.items: tuple[Item, ...] = ()
        self.used: Counter[Subnet] = Counter()
        self.closing: dict[Subnet, float] = {}  # and since when
        self.waiting: list[float] = []  # the begin of each ADD that waits
        self.short: float | None = None  # since when fewer than minFree addresses are free
        self.told: NetworkUse | None = None
        self.told_at = float("-inf")
        self.version = ""
        self.is_busy = False

    def see(self, text: str, now: float) -> None:
        """Take the annotation's text."""
        self.text, self.items = text, read(text).items
        self.closing = {item.block: self.closing.get(item.block, now) for item in self.items if item.closing}

    def take(self) -> bool:
        """Give a pod an address, if one is free."""
        for item in self.items:
            if not item.closing and self.used[item.block] < capacity(item):
                self.used[item.block] += 1
                return True
        return False

    def use(self, now: float) -> NetworkUse:
        """Return what the agent would report."""
        uses = []
        for item in self.items:
            settling = item.closing and now - self.closing[item.block] <= SETTLE
            uses.append(ItemUse(item.block, self.used[item.block], capacity(item), item.closing, settling))
        return NetworkUse(POOL, DEFAULT_DATA_DIR, KEY, self.text, tuple(uses))

    def free(self) -> int:
        return sum(capacity(item) - self.used[item.block] for item in self.items if not item.closing)


class Lab:
    """Stand-ins of all nodes, and their pods."""

    def __init__(self, load: Load, cluster: Cluster, process: ControllerProcess) -> None:
        self.load = load
        self.agents = {name: Agent(name) for name in (f"node-{number:05}" for number in range(load.nodes))}
        self.pods: list[tuple[Agent, Subnet]] = []
        self.blocks: list[float] = []
        self.waits: list[float] = []
        self.adds = self.late = self.reports = 0
        self.is_full = asyncio.Event()
        self._cluster = cluster
        self._process = process
        self._turn = asyncio.Semaphore(AT_ONCE)
        self._stirred: set[Agent] = set(self.agents.values())
        self._due: list[tuple[float, str]] = []
        self._tasks: set[asyncio.Task[None]] = set()

    async def watch(self) -> None:
        """Follow all Nodes."""
        version = "0"
        while True:
            async for event in await self._cluster.watch(Collection("/api/v1/nodes"), version, 1800):
                version = event.version or version
                if event.kind != "BOOKMARK":
                    metadata = msgspec.json.decode(event.object)["metadata"]
                    self._seen(self.agents[metadata["name"]], (metadata.get("annotations") or {}).get(KEY, ""))

    async def report(self) -> None:
        """Write the reports that are due."""
        while True:
            await asyncio.sleep(LOOK)
            now = time.monotonic()
            while self._due and self._due[0][0] <= now:
                self._stirred.add(self.agents[heapq.heappop(self._due)[1]])
            looked_at, self._stirred = self._stirred, set()
            for agent in looked_at:
                if agent.is_busy:
                    self._stirred.add(agent)
                    continue
                use = agent.use(now)
                if agent.told == use:
                    continue
                is_urgent = agent.told is None or addresses.is_urgent([agent.told], [use], {KEY: self.load.min_free})
                if is_urgent or now - agent.told_at >= MINUTE:
                    agent.is_busy = True
                    self._spawn(self._tell(agent, use))
                else:
                    heapq.heappush(self._due, (agent.told_at + MINUTE, agent.name))

    async def live(self, chance: random.Random) -> None:
        """Let pods come and go, until one is refused and the pool has no block left."""
        names = list(self.agents)
        heavy = max(1, int(len(names) * self.load.heavy))
        following = time.monotonic()
        while not self.is_full.is_set():
            following += 1 / self.load.rate
            await asyncio.sleep(max(0.0, following - time.monotonic()))
            if self.pods and chance.random() >= self.load.coming:
                index = chance.randrange(len(self.pods))
                self.pods[index], self.pods[-1] = self.pods[-1], self.pods[index]
                self._stop(*self.pods.pop())
            else:
                some = names[:heavy] if chance.random() < self.load.heavy_pods else names[heavy:]
                self._start(self.agents[chance.choice(some)])

    async def ready(self) -> None:
        """Wait for the first block of each node."""
        deadline = time.monotonic() + READY
        while not all(agent.items and agent.told and agent.told.observed == agent.text for agent in self.agents.values()):
            if time.monotonic() > deadline:
                raise TimeoutError(f"nodes get no first block:\n{self._process.log()[-2000:]}")
            await asyncio.sleep(0.1)

    def _start(self, agent: Agent) -> None:
        self.adds += 1
        before = Counter(agent.used)
        if agent.take():
            self.pods += [(agent, block) for block in agent.used if agent.used[block] > before[block]]
        else:
            began = time.monotonic()
            agent.waiting.append(began)
            asyncio.get_running_loop().call_later(PATIENCE, self._refuse, agent, began)
        self._changed(agent)

    def _stop(self, agent: Agent, block: Subnet) -> None:
        agent.used[block] -= 1
        self._serve(agent)
        self._changed(agent)

    def _serve(self, agent: Agent) -> None:
        """Give those that wait what is free."""
        while agent.waiting:
            before = Counter(agent.used)
            if not agent.take():
                return
            self.pods += [(agent, block) for block in agent.used if agent.used[block] > before[block]]
            self.waits.append(time.monotonic() - agent.waiting.pop(0))

    def _refuse(self, agent: Agent, began: float) -> None:
        if began in agent.waiting:
            agent.waiting.remove(began)
            if _metric(self._process, f'kubenode_controller_subnets_free{{family="ipv4",pool="{POOL}"}}') < 1:
                self.is_full.set()
            else:
                self.late += 1

    def _changed(self, agent: Agent) -> None:
        """Note when an agent lacks addresses, and when it lacks none any more."""
        self._stirred.add(agent)
        if agent.free() >= self.load.min_free:
            agent.short = None
        elif agent.short is None:
            agent.short = time.monotonic()

    def _seen(self, agent: Agent, text: str) -> None:
        if text == agent.text:
            return
        now, before = time.monotonic(), len(agent.items)
        agent.see(text, now)
        if agent.short is not None and before and len(agent.items) > before:
            self.blocks.append(now - agent.short)
        if agent.closing:
            heapq.heappush(self._due, (now + SETTLE + LOOK, agent.name))
        self._serve(agent)
        self._changed(agent)

    async def _tell(self, agent: Agent, use: NetworkUse) -> None:
        path = f"{APIS}/nodeaddresses/{agent.name}"
        status = {"version": "benchmark", "suspectedLeaks": 0, "networks": [use.as_object()]}
        async with self._turn:
            try:
                if not agent.version:
                    agent.version = (await self._cluster.get(path))["metadata"]["resourceVersion"]
                patch = {"metadata": {"resourceVersion": agent.version}, "status": status}
                found = await self._cluster.merge(f"{path}/status", patch)
                agent.version = found["metadata"]["resourceVersion"]
                agent.told, agent.told_at = use, time.monotonic()
                self.reports += 1
            except StatusError as refused:
                if refused.status not in (HTTPStatus.CONFLICT, HTTPStatus.NOT_FOUND):
                    raise
                agent.version = ""  # the controller has written minFree, or has not made the object yet
            finally:
                agent.is_busy = False
                self._stirred.add(agent)

    def _spawn(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _metric(process: ControllerProcess, name: str) -> float:
    lines = process.get("/metrics")[1].splitlines()
    return next((float(line.rpartition(" ")[2]) for line in lines if line.startswith(name)), -1.0)


def measure(assets: Path, load: Load) -> Measured:
    """Run one load on an API server of its own."""
    with tempfile.TemporaryDirectory(prefix="kn-bench.") as scratch:
        server = RealApiServer(assets, Path(scratch))
        try:
            server.start()
            install_crds(server)
            create_nodes(server, load.nodes)
            block = {"cidr": load.cidr, "nodePrefix": load.prefix, "shared": True}
            spec = {"annotation": KEY, "cidrs": [block], "minFree": load.min_free, "maxBlocks": 128}
            pool = {"apiVersion": f"{GROUP}/v1alpha1", "kind": "SubnetPool", "metadata": {"name": POOL}, "spec": spec}
            server.request("POST", f"{APIS}/subnetpools", pool)
            return asyncio.run(_run(server, load))
        finally:
            server.close()


async def _run(server: RealApiServer, load: Load) -> Measured:
    admin = server.kubeconfig(server.directory / "admin", server.certificate_user("controller", "system:masters"))
    agents = server.kubeconfig(server.directory / "agents", server.certificate_user("agents", "system:masters"))
    process = ControllerProcess(admin, server.directory / "controller.log", "--lease=none", fresh=True)
    cluster = Cluster(str(agents), {}, TIMEOUT, lambda *_: None)
    lab = Lab(load, cluster, process)
    process.start()
    tasks = [asyncio.create_task(work) for work in (lab.watch(), lab.report())]
    try:
        await lab.ready()
        before, reports = len(server.asked()), lab.reports
        assert process.process is not None
        _, cpu = usage(process.process.pid)
        began = time.monotonic()
        await lab.live(random.Random(1))
        seconds = time.monotonic() - began
        peak, used = usage(process.process.pid)
        mine = [
            asked
            for asked in server.asked()[before:]
            if asked.user == "controller" and asked.verb in ("create", "update", "patch", "delete")
        ]
        writes = Counter(f"{asked.verb} {asked.resource}" for asked in mine)
        return Measured(len(lab.pods), seconds, lab.blocks, lab.adds, lab.waits, lab.late, writes, lab.reports - reports, used - cpu, peak)
    finally:
        for task in tasks:
            task.cancel()
        with suppress(asyncio.CancelledError):
            await asyncio.gather(*tasks)
        process.kill()
        await cluster.aclose()
