# SPDX-License-Identifier: Apache-2.0
"""What the watches of a cluster's agents cost its API server: requests for their start, none for a change, and how soon it is seen.

A real kube-apiserver and etcd (from KUBEBUILDER_ASSETS) on this machine; N agents' watches as tasks in a few processes, each of its own
Node. Requests are counted in the API server's audit log, so that nothing is missed. Server and agents share the machine's processors.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import os
import platform
import resource
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))  # the real API server is the tests'

from apiserver import RealApiServer  # noqa: E402 (after the path)

from kubenode.agent.watch import OwnNodeSource  # noqa: E402
from kubenode.base.log import Log  # noqa: E402
from kubenode.kube import asyncclient  # noqa: E402
from kubenode.kube.client import ApiServer  # noqa: E402
from kubenode.kube.reflector import Reflector  # noqa: E402
from kubenode.nodes import node  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable
    from multiprocessing.connection import Connection

    from kubenode.nodes.node import Node

NOTE = "kube-node.nordix.org/benchmark"
USER = "agents"
TIMEOUT = 60.0  # seconds: five hundred starts at once on two processors
IDLE = 5.0  # seconds for which nothing happens


class Row(NamedTuple):
    """One number of agents. Times in seconds; CPU: user and system."""

    agents: int
    start_requests: dict[str, int]
    start_seconds: float
    idle_requests: int
    changes: int
    change_requests: int
    seen_median_ms: float
    seen_p99_ms: float
    seen_worst_ms: float
    start_agents_cpu: float
    start_server_cpu: float
    change_agents_cpu: float
    change_server_cpu: float
    idle_agents_cpu: float
    restart_requests: dict[str, int]  # after the API server has come back
    restart_seconds: float  # from then until all watch again
    agents_mb: float  # resident memory of their processes, an agent


def work(kubeconfig: str, names: list[str], pipe: Connection) -> None:
    """Run watches in this process and answer the parent's questions."""
    asyncio.run(Agents(kubeconfig, names, pipe).run())


class Agents:
    """The watches of one process."""

    def __init__(self, kubeconfig: str, names: list[str], pipe: Connection) -> None:
        self._kubeconfig = kubeconfig
        self._names = names
        self._pipe = pipe
        self._seen: dict[int, float] = {}
        # Agents of a real cluster have a processor each; here a thread for each start at once would only be in the others' way.
        self._turn = threading.BoundedSemaphore(8)

    async def run(self) -> None:
        watches = [self._watch(name) for name in self._names]
        tasks = [asyncio.create_task(watch.run()) for watch in watches]
        while any(watch.failure for watch in watches):  # noqa: ASYNC110 (a watch has no event to wait for)
            await asyncio.sleep(0.02)
        self._pipe.send(time.monotonic())
        while (question := await asyncio.to_thread(self._pipe.recv)) != "end":
            if question == "cpu":
                used = resource.getrusage(resource.RUSAGE_SELF)
                self._pipe.send(used.ru_utime + used.ru_stime)
            elif question == "watching":
                self._pipe.send(not any(watch.failure for watch in watches))
            elif question == "memory":
                self._pipe.send(resident_mb())
            else:
                self._pipe.send(dict(self._seen))
        for task in tasks:
            task.cancel()

    def _watch(self, name: str) -> Reflector:
        def find() -> Node:
            with self._turn:
                server = ApiServer(self._kubeconfig, {}, TIMEOUT)
                try:
                    manifest = server.node(name)
                finally:
                    server.close()
            assert manifest is not None
            return node.parse(manifest, node.ANSWER)

        def connect() -> asyncclient.Cluster:
            with self._turn:
                return asyncclient.Cluster(self._kubeconfig, {}, TIMEOUT, lambda *_: None)

        log = Log("benchmark")
        log.configure(os.devnull, "info")  # the API server's end is wanted here
        return Reflector(OwnNodeSource(find, connect, self._publish, log, lambda *_: None), log, lambda _: None)

    def _publish(self, own: Node | None) -> None:
        if own is not None and (note := own.annotations.get(NOTE)):
            self._seen[int(note)] = time.monotonic()


class Cluster(NamedTuple):
    """An API server, and the processes with the agents of its Nodes."""

    server: RealApiServer
    pipes: list[Connection]

    def ask(self, question: str) -> list[Any]:
        for pipe in self.pipes:
            pipe.send(question)
        return [pipe.recv() for pipe in self.pipes]

    def agents_cpu(self) -> float:
        return float(sum(self.ask("cpu")))

    def server_cpu(self) -> float:
        return sum(cpu_of(process.pid) for process in (self.server._etcd, self.server._process) if process)  # noqa: SLF001

    def requests(self) -> Counter[str]:
        return Counter(asked.verb for asked in self.server.asked())


def cpu_of(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident_mb() -> float:
    return int(Path("/proc/self/status").read_text().partition("VmRSS:")[2].split()[0]) / 1024


def measure(assets: Path, agents: int, changes: int, processes: int) -> Row:
    """Start a cluster, then its agents, then change their Nodes."""
    with tempfile.TemporaryDirectory(prefix="kn-bench.") as scratch:
        server = RealApiServer(assets, Path(scratch))
        try:
            server.start()
            return measure_at(server, agents, changes, processes)
        finally:
            server.close()


def measure_at(server: RealApiServer, agents: int, changes: int, processes: int) -> Row:
    names = [f"n{number}" for number in range(agents)]
    for number, name in enumerate(names):
        server.create_node(name, [f"10.{number // 256}.{number % 256}.0/24"], {NOTE: "0"}, machine_id=f"{number:032}")
    server.grant(USER, "get", "watch")
    kubeconfig = str(server.kubeconfig(server.directory / "kube.conf", USER))
    cluster, workers = Cluster(server, []), []
    server_cpu, before = cluster.server_cpu(), cluster.requests()
    began = time.monotonic()
    context = multiprocessing.get_context("spawn")
    for part in range(processes):
        ours, theirs = context.Pipe()
        worker = context.Process(target=work, args=(kubeconfig, names[part::processes], theirs))
        worker.start()
        workers.append(worker)
        cluster.pipes.append(ours)
    try:
        start_seconds = max(pipe.recv() for pipe in cluster.pipes) - began
        started, start_server_cpu, start_agents_cpu = cluster.requests(), cluster.server_cpu() - server_cpu, cluster.agents_cpu()
        time.sleep(IDLE)
        idle, idle_agents_cpu, server_cpu = cluster.requests(), cluster.agents_cpu(), cluster.server_cpu()
        sent = {}
        for change in range(1, changes + 1):
            sent[change] = time.monotonic()
            server.annotate(names[change % agents], {NOTE: str(change)})
        seen = all_seen(cluster, sent)
        took = sorted(1000 * (seen[change] - at) for change, at in sent.items())
        changed, change_agents_cpu, change_server_cpu = cluster.requests(), cluster.agents_cpu(), cluster.server_cpu()
        server.stop()
        server.start()
        back = time.monotonic()
        wait_for(lambda: all(cluster.ask("watching")), "agents do not watch again")
        restart_seconds = time.monotonic() - back
        return Row(
            agents=agents,
            start_requests=dict(started - before),
            start_seconds=start_seconds,
            idle_requests=(idle - started).total(),
            changes=changes,
            change_requests=(changed - idle).total(),
            seen_median_ms=statistics.median(took),
            seen_p99_ms=took[int(len(took) * 0.99)],
            seen_worst_ms=took[-1],
            start_agents_cpu=start_agents_cpu,
            start_server_cpu=start_server_cpu,
            change_agents_cpu=change_agents_cpu - idle_agents_cpu,
            change_server_cpu=change_server_cpu - server_cpu,
            idle_agents_cpu=idle_agents_cpu - start_agents_cpu,
            restart_requests=dict(cluster.requests() - changed),
            restart_seconds=restart_seconds,
            agents_mb=sum(cluster.ask("memory")) / agents,
        )
    finally:
        for pipe in cluster.pipes:
            pipe.send("end")
        for worker in workers:
            worker.join(10)
            worker.kill()


def all_seen(cluster: Cluster, sent: dict[int, float]) -> dict[int, float]:
    """Return when each change was seen."""
    seen: dict[int, float] = {}

    def complete() -> bool:
        for part in cluster.ask("seen"):
            seen.update(part)
        return sent.keys() <= seen.keys()

    wait_for(complete, "changes were not seen")
    return seen


def wait_for(condition: Callable[[], bool], complaint: str) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(complaint)
        time.sleep(0.05)


def machine() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())
    return f"{os.cpu_count()} x {model}, Linux {platform.release()}, Python {platform.python_version()}"


def show(rows: list[Row]) -> None:
    table = Table(
        title=f"agents that watch their own Nodes, on {machine()}", caption="CPU: user and system, of all agents / API server and etcd"
    )
    table.add_column("")
    for row in rows:
        table.add_column(f"{row.agents} agents", justify="right")
    for heading, say in ROWS:
        table.add_row(heading, *map(say, rows))
    # Wide enough also where there is no terminal.
    Console(width=120, markup=False).print(table)


def by_verb(requests: dict[str, int]) -> str:
    return ", ".join(f"{count} {verb}" for verb, count in sorted(requests.items()))


ROWS: list[tuple[str, Callable[[Row], str]]] = [
    ("start of all: requests", lambda row: by_verb(row.start_requests)),
    ("  until all watch, s", lambda row: f"{row.start_seconds:.1f}"),
    ("  CPU s", lambda row: f"{row.start_agents_cpu:.1f} / {row.start_server_cpu:.1f}"),
    (f"nothing changes for {IDLE:g} s: requests", lambda row: str(row.idle_requests)),
    ("  agents' CPU s", lambda row: f"{row.idle_agents_cpu:.3f}"),
    ("changes of annotations", lambda row: str(row.changes)),
    ("  requests", lambda row: str(row.change_requests)),
    ("  seen after ms: median, 99 %, worst", lambda row: f"{row.seen_median_ms:.0f}, {row.seen_p99_ms:.0f}, {row.seen_worst_ms:.0f}"),
    ("  CPU s", lambda row: f"{row.change_agents_cpu:.1f} / {row.change_server_cpu:.1f}"),
    ("API server started anew: requests", lambda row: by_verb(row.restart_requests)),
    ("  from then until all watch, s", lambda row: f"{row.restart_seconds:.1f}"),
    ("memory an agent, shared interpreters, MB", lambda row: f"{row.agents_mb:.2f}"),
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--agents", type=int, nargs="+", default=[100, 200, 500])
    parser.add_argument("--changes", type=int, default=1000)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--smoke", action="store_true", help="5 agents, 20 changes: shows only that it runs")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    arguments = parser.parse_args()
    assets = os.environ.get("KUBEBUILDER_ASSETS")
    if not assets:
        parser.error("set KUBEBUILDER_ASSETS to a directory with etcd and kube-apiserver")
    counts, changes = ([5], 20) if arguments.smoke else (arguments.agents, arguments.changes)
    rows = [measure(Path(assets), count, changes, min(arguments.processes, count)) for count in counts]
    if arguments.json:
        print(json.dumps({"machine": machine(), "rows": [row._asdict() for row in rows]}, indent=2))
    else:
        show(rows)


if __name__ == "__main__":
    main()
