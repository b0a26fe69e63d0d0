# SPDX-License-Identifier: Apache-2.0
"""What a look at a whole cluster costs: `whois`, `doctor --cluster` and `nodes` on thousands of nodes, in seconds, requests and memory.

The API server is a stand-in in a process of its own: TLS, pages of 500 with `continue`, gzip as the real one has it for long answers, and
objects as large as a kubelet's. It makes a page when it is asked for one, so its time is part of the wall clock, as a real one's is.
"""

from __future__ import annotations

import argparse
import copy
import gzip
import json
import multiprocessing
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import parse_qs, urlsplit

import msgspec
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))  # the stand-in is the tests'

from apiserver import base64_text, write_kubeconfig  # noqa: E402 (after the path)
from standin import StandInApiServer, answer, refuse  # noqa: E402

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

    from standin import Handler

KUBE_NODE = Path(sys.executable).parent / "kube-node"
KEY = "kube-node.nordix.org/net1"
SUBNETS = "/apis/kube-node.nordix.org/v1alpha1"
BOOLEANS = {"name": "true", "value": "x" * 40}
NETWORK_STATUS = "k8s.v1.cni.cncf.io/network-status"
EMPTY = {"metadata": {"resourceVersion": "1"}, "items": []}


class Cluster:
    """Objects by their number, made as they are asked for."""

    def __init__(self, nodes: int, pods: int) -> None:
        self.nodes, self.pods = nodes, pods
        self.requests = 0
        self.sent = 0

    def serve(self, handler: Handler) -> None:
        """Answer one request."""
        self.requests += 1
        parts = urlsplit(handler.path)
        query = {key: values[0] for key, values in parse_qs(parts.query).items()}
        kinds = {
            "/api/v1/nodes": (self.nodes, node), "/api/v1/pods": (self.pods, self._pod), f"{SUBNETS}/nodesubnets": (self.nodes, claim),
        }  # fmt: skip
        if parts.path not in kinds:
            (refuse(404, reason="NotFound") if "definitions" in parts.path else answer(EMPTY))(handler)
            return
        count, make = kinds[parts.path]
        begin, limit = int(query.get("continue", "0")), int(query["limit"])
        end = min(begin + limit, count)
        metadata = {"resourceVersion": "1", "continue": str(end) if end < count else ""}
        body = gzip.compress(msgspec.json.encode({"metadata": metadata, "items": [make(number) for number in range(begin, end)]}), 1)
        self.sent += len(body)
        answer(body, headers={"Content-Encoding": "gzip"})(handler)

    def _pod(self, number: int) -> dict[str, Any]:
        return pod(number, number % self.nodes, number // self.nodes + 2)


def node(number: int) -> dict[str, Any]:
    cidrs = [pod_subnet(number), f"fd00:0:{number:x}::/64"]
    images = [{"names": [f"registry.example/team/image-{image}@sha256:{image:064x}"], "sizeBytes": 100_000_000} for image in range(50)]
    return {
        "metadata": {"name": f"node-{number}", "uid": f"{number:032x}", "labels": labels(), "annotations": {KEY: net_subnet(number)}},
        "spec": {"podCIDR": cidrs[0], "podCIDRs": cidrs},
        "status": {
            "addresses": [{"type": "InternalIP", "address": "192.0.2.1"}],
            "images": images,
            "nodeInfo": {"machineID": f"{number:x}"},
        },
    }


def claim(number: int) -> dict[str, Any]:
    cidr = net_subnet(number)
    spec = {"cidr": cidr, "pool": "net1", "annotation": KEY, "node": f"node-{number}", "nodeUID": f"{number:032x}"}
    return {"metadata": {"name": cidr.replace("/", "-")}, "spec": spec}


def pod(number: int, node_number: int, host: int) -> dict[str, Any]:
    """Return a pod with two addresses and one in a secondary network; about 6 kB, as with a probe or two and a service's token."""
    address, second = f"{base('10', node_number)}.{host}", f"{base('172', node_number)}.{host}"
    made = copy.copy(TEMPLATE)
    status = [
        {"name": "k8snet", "interface": "eth0", "ips": [address], "default": True},
        {"name": "default/net1", "interface": "net1", "ips": [second]},
    ]
    made["metadata"] = {
        "name": f"shop-7c5ddbdf54-{number:06}", "namespace": f"team-{number % 100}", "uid": f"{number:032x}", "labels": labels(),
        "annotations": {NETWORK_STATUS: json.dumps(status)},
    }  # fmt: skip
    made["spec"] = {**TEMPLATE["spec"], "nodeName": f"node-{node_number}"}
    ips = [{"ip": address}, {"ip": f"fd00:0:{node_number:x}::{host:x}"}]
    made["status"] = {**TEMPLATE["status"], "podIP": address, "podIPs": ips}
    return made


def base(first: str, number: int) -> str:
    """Return the three numbers that a node's /24 begins with; of 172.16.0.0/12 there are not enough, and nobody minds here."""
    return f"{int(first) + (number >> 16)}.{number >> 8 & 255}.{number & 255}"


def pod_subnet(number: int) -> str:
    return f"{base('10', number)}.0/24"


def net_subnet(number: int) -> str:
    return f"{base('172', number)}.0/24"


def labels() -> dict[str, str]:
    return {f"example.com/label-{number}": "some-value" for number in range(8)}


CONTAINER = {
    "name": "shop", "image": f"registry.example/shop@sha256:{1:064x}", "env": [BOOLEANS] * 20, "ports": [{"containerPort": 8080}] * 3,
    "livenessProbe": {"httpGet": {"path": "/healthz", "port": 8080}},
    "volumeMounts": [{"name": "kube-api-access", "mountPath": "/var/run"}] * 4,
}  # fmt: skip
TEMPLATE: dict[str, Any] = {
    "spec": {"containers": [CONTAINER, CONTAINER], "tolerations": [{"key": "node.kubernetes.io/not-ready", "operator": "Exists"}] * 4},
    "status": {
        "phase": "Running", "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}] * 5,
        "containerStatuses": [{"name": "shop", "containerID": f"containerd://{1:064x}", "imageID": CONTAINER["image"]}] * 2,
    },
}  # fmt: skip


class Row(NamedTuple):
    """One command. `cpu` is its own; memory is its largest resident set."""

    command: str
    seconds: float
    cpu_seconds: float
    requests: int
    megabytes_received: float
    memory_mb: float


def serve(directory: Path, nodes: int, pods: int, pipe: Connection) -> None:
    """Serve in a process of its own; for each line that comes, say what was asked since the last, and end with None."""
    cluster = Cluster(nodes, pods)
    with StandInApiServer(directory, then=cluster.serve) as server:
        pipe.send({"server": server.url, "certificate-authority-data": base64_text(server.authority.certificate)})
        while pipe.recv() is not None:
            pipe.send((cluster.requests, cluster.sent))
            cluster.requests = cluster.sent = 0


def measure(pods: int, nodes: int) -> list[Row]:
    commands = [
        ["whois", f"{base('10', nodes // 2)}.2"],
        ["whois", f"{base('172', nodes // 2)}.2"],
        ["doctor", "--cluster"],
        ["nodes"],
    ]
    ours, theirs = multiprocessing.Pipe()
    with tempfile.TemporaryDirectory() as directory:
        process = multiprocessing.Process(target=serve, args=(Path(directory), nodes, pods, theirs))
        process.start()
        try:
            kubeconfig = write_kubeconfig(Path(directory) / "kubeconfig", ours.recv(), {"token": "t"})
            rows = []
            for command in commands:
                seconds, cpu, memory = call([*command, f"--kubeconfig={kubeconfig}"])
                ours.send("how many")
                requests, sent = ours.recv()
                rows.append(Row(" ".join(command), seconds, cpu, requests, sent / 1e6, memory))
        finally:
            ours.send(None)
            process.join()
    return rows


def call(arguments: list[str]) -> tuple[float, float, float]:
    """Run a command; return seconds by the clock and of CPU, and megabytes of its memory. It has to find nothing wrong."""
    begin = time.perf_counter()
    process = subprocess.Popen([str(KUBE_NODE), *arguments], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"cluster: kube-node {' '.join(arguments)} ended with {process.returncode}")
    return time.perf_counter() - begin, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1000


def machine() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())
    return f"{os.cpu_count()} x {model}, Linux {platform.release()}, Python {platform.python_version()}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, default=5000)
    parser.add_argument("--pods", type=int, default=150_000)
    parser.add_argument("--smoke", action="store_true", help="20 nodes, 1,100 pods: shows only that it runs")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    arguments = parser.parse_args()
    nodes, pods = (20, 1100) if arguments.smoke else (arguments.nodes, arguments.pods)
    rows = measure(pods, nodes)
    if arguments.json:
        print(json.dumps({"machine": machine(), "nodes": nodes, "pods": pods, "rows": [row._asdict() for row in rows]}, indent=2))
        return
    table = Table(title=f"{nodes:,} nodes, {pods:,} pods, on {machine()}")
    for heading in ("command", "s", "CPU s", "requests", "MB received", "MB of memory"):
        table.add_column(heading, justify="left" if heading == "command" else "right")
    for row in rows:
        table.add_row(
            row.command,
            f"{row.seconds:.1f}",
            f"{row.cpu_seconds:.1f}",
            f"{row.requests:,}",
            f"{row.megabytes_received:.0f}",
            f"{row.memory_mb:.0f}",
        )
    Console(width=120, markup=False).print(table)


if __name__ == "__main__":
    main()
