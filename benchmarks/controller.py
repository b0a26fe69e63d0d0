# SPDX-License-Identifier: Apache-2.0
"""What the controller costs: nodes, two pools of two families each, from nothing, and a restart with all in place.

A real kube-apiserver and etcd (from KUBEBUILDER_ASSETS) on this machine, and the controller as a process. Requests are counted in the API
server's audit log, so that nothing is missed. Server and controller share the machine's processors.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import platform
import re
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))  # the real API server is the tests'

from apiserver import RealApiServer  # noqa: E402 (after the path)
from controllerprocess import ControllerProcess, until  # noqa: E402
from corner import APIS, GROUP, install_crds  # noqa: E402

PATIENCE = 1800.0  # seconds for the slowest of machines
CONNECTIONS = 16  # that create nodes at once
FILLER = "x" * 1500  # an annotation; a Node has some of no interest here


class Row(NamedTuple):
    """One number of nodes. Seconds from the process's start until all is written; requests by verb and resource."""

    nodes: int
    first_seconds: float
    first_requests: dict[str, int]
    first_mb: float
    first_cpu: float
    restart_seconds: float
    restart_requests: dict[str, int]
    restart_mb: float
    restart_cpu: float


def create_nodes(server: RealApiServer, count: int) -> None:
    def create(some: range) -> None:
        connection = http.client.HTTPSConnection("127.0.0.1", int(server.url.rpartition(":")[2]), context=server._admin, timeout=60)  # noqa: SLF001
        for number in some:
            name = f"node-{number:05}"
            metadata = {
                "name": name,
                "labels": {"kubernetes.io/hostname": name, "topology.kubernetes.io/zone": f"z{number % 3}", "kubernetes.io/os": "linux"},
                "annotations": {"example.com/filler": FILLER},
            }
            body = json.dumps({"apiVersion": "v1", "kind": "Node", "metadata": metadata})
            connection.request("POST", "/api/v1/nodes", body, {"Content-Type": "application/json", "User-Agent": "benchmark"})
            answer = connection.getresponse()
            text = answer.read()
            if answer.status != 201:
                raise RuntimeError(text.decode())

    with ThreadPoolExecutor(CONNECTIONS) as pool:
        list(pool.map(create, [range(part, count, CONNECTIONS) for part in range(CONNECTIONS)]))


def create_pools(server: RealApiServer) -> None:
    for number in (1, 2):
        cidrs = [{"cidr": f"10.{64 * number}.0.0/11", "nodePrefix": 26}, {"cidr": f"fd00:{number}::/48", "nodePrefix": 64}]
        manifest = {"apiVersion": f"{GROUP}/v1alpha1", "kind": "SubnetPool", "metadata": {"name": f"net{number}"}, "spec": {"cidrs": cidrs}}
        server.request("POST", f"{APIS}/subnetpools", manifest)


def measure(server: RealApiServer, directory: Path, nodes: int) -> Row:
    kubeconfig = server.kubeconfig(directory / "admin", server.certificate_user("controller", "system:masters"))
    create_pools(server)
    process = ControllerProcess(kubeconfig, directory / f"controller-{nodes}.log", "--lease=none", fresh=True)

    def run(served: int) -> tuple[float, dict[str, int], float, float]:
        before = len(server.asked())
        began = time.monotonic()
        process.start()
        until(lambda: settled(process, nodes, served), PATIENCE, process.log)
        seconds = time.monotonic() - began
        time.sleep(2)  # what comes late, counts
        requests = Counter(f"{asked.verb} {asked.resource}" for asked in server.asked()[before:])
        assert process.process is not None
        memory, cpu = usage(process.process.pid)
        process.stop()
        return seconds, dict(sorted(requests.items())), memory, cpu

    try:
        return Row(nodes, *run(nodes), *run(0))
    finally:
        process.kill()


def settled(process: ControllerProcess, nodes: int, served: int) -> bool:
    _, text = process.get("/metrics")
    found = dict(re.findall(r"^(\S+) (\S+)$", text, re.MULTILINE))
    allocated = sum(float(value) for name, value in found.items() if name.startswith("kubenode_controller_subnets_allocated"))
    done = float(found.get("kubenode_controller_allocation_duration_seconds_count", -1))
    return (
        allocated == nodes * 4
        and done == served
        and float(found.get("kubenode_controller_queue_depth", 1)) == 0
        and "caches synced" in process.log()
    )


def usage(pid: int) -> tuple[float, float]:
    """Return peak resident memory in MB and seconds of processor."""
    peak = re.search(r"VmHWM:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    assert peak
    return int(peak[1]) / 1024, (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, nargs="+", default=[1000, 5000, 15000], help="how many nodes, one run each")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--smoke", action="store_true", help="a few nodes, to see that it runs")
    arguments = parser.parse_args()
    assets = os.environ.get("KUBEBUILDER_ASSETS")
    if not assets:
        parser.error("set KUBEBUILDER_ASSETS to a directory with etcd and kube-apiserver")
    rows: list[Row] = []
    console = Console(stderr=True)
    for nodes in [30] if arguments.smoke else arguments.nodes:
        console.print(f"{nodes} nodes …")
        with tempfile.TemporaryDirectory() as directory:
            server = RealApiServer(Path(assets), Path(directory))
            try:
                server.start()
                install_crds(server)
                create_nodes(server, nodes)
                rows.append(measure(server, Path(directory), nodes))
            finally:
                server.close()
        console.print(rows[-1])
    if arguments.json:
        print(json.dumps({"machine": machine(), "rows": [row._asdict() for row in rows]}, indent=2))
    else:
        show(rows)


def machine() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())
    return f"{os.cpu_count()} x {model}, Linux {platform.release()}, Python {platform.python_version()}"


def show(rows: list[Row]) -> None:
    table = Table("", *(f"{row.nodes} nodes" for row in rows), title=f"2 pools of 2 families each, on {machine()}")
    table.add_row("from nothing: seconds", *(f"{row.first_seconds:.1f}" for row in rows))
    for verb in sorted({verb for row in rows for verb in row.first_requests}):
        table.add_row(f"  {verb}", *(str(row.first_requests.get(verb, 0)) for row in rows))
    table.add_row("  peak memory, MB", *(f"{row.first_mb:.0f}" for row in rows))
    table.add_row("  processor, seconds", *(f"{row.first_cpu:.1f}" for row in rows))
    table.add_section()
    table.add_row("restart: seconds", *(f"{row.restart_seconds:.1f}" for row in rows))
    for verb in sorted({verb for row in rows for verb in row.restart_requests}):
        table.add_row(f"  {verb}", *(str(row.restart_requests.get(verb, 0)) for row in rows))
    table.add_row("  peak memory, MB", *(f"{row.restart_mb:.0f}" for row in rows))
    table.add_row("  processor, seconds", *(f"{row.restart_cpu:.1f}" for row in rows))
    # Wide enough also where there is no terminal.
    Console(width=120, markup=False).print(table)


if __name__ == "__main__":
    main()
