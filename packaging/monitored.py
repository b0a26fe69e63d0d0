# SPDX-License-Identifier: Apache-2.0
"""Agents and a controller with work to do, and a Prometheus that scrapes them as deploy/monitoring says: for the dashboard and its test."""

from __future__ import annotations

import json
import math
import random
import re
import subprocess
import sys
import threading
import time
import urllib.parse
import urllib.request
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import yaml

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
from agentprocess import AgentProcess, pod_args
from controllerprocess import ControllerProcess
from corner import APIS, GROUP, install_crds
from ourprocess import free_port
from patience import eventually

if TYPE_CHECKING:
    from apiserver import RealApiServer

MONITORING = Path(__file__).resolve().parent.parent / "deploy/monitoring"
NET1 = "kube-node.nordix.org/net1"
PORT = 19090  # which the scrape job names
SCRAPE, RATE = 1, "8s"  # seconds between two, and what Grafana would put for $__rate_interval: four of them, and more on a slow machine
TICK = 0.2  # seconds between two pods of a node


class Series(NamedTuple):
    """A line of a panel: its legend, and values by time."""

    legend: str
    values: list[tuple[float, float]]


class Worker:
    """A node: an agent, and pods that come and go."""

    def __init__(self, number: int, directory: Path, server: RealApiServer) -> None:
        name = f"worker-{number}"
        server.create_node(name, [f"10.244.{number}.0/26", f"fd00:10:244:{number}::/64"], {NET1: f"172.20.{number}.0/27"})
        server.grant(name, "get", "list", "watch")
        server.grant(name, "get", resource="pods")
        self.name, self.address, self._number = name, f"127.0.1.{number}", number
        self.directory = directory / name
        (self.directory / "run").mkdir(parents=True)
        kubeconfig = server.kubeconfig(self.directory / "kubeconfig", name)
        options = [f"--kubeconfig={kubeconfig}", f"--listen={self.address}:{PORT}", "--grace=6", "--every=1"]
        self.agent = AgentProcess(self.directory / "run", *options, env={"NODE_NAME": name})
        self.confs = [self._conf("k8snet"), self._conf("net1", annotation=NET1)]
        self._alive: list[str] = []
        self._came = self.went = 0

    def _conf(self, network: str, **ipam: str) -> dict[str, Any]:
        ipam = {"type": "kube-node", "dataDir": str(self.directory / "networks"), **ipam}
        return {"cniVersion": "1.1.0", "name": network, "type": "bridge", "ipam": ipam}

    def work(self, now: float) -> None:
        """Let a pod come or go: up and down like a day, and of the last node's second network more than there are."""
        wanted = int(16 + 3 * self._number + 10 * math.sin(now / 20 + self._number))
        if len(self._alive) < wanted:
            self._came += 1
            self._alive.append(f"pod{self._came}")
            (self.directory / self._alive[-1]).touch()
            self._call("ADD", self._alive[-1])
        elif self._alive:
            gone = self._alive.pop(random.randrange(len(self._alive)))  # noqa: S311 -- no secret
            (self.directory / gone).unlink()
            if self.went % 10:  # the DEL of one in ten never comes
                self._call("DEL", gone)
            self.went += 1
        self._call("STATUS", "")

    def _call(self, command: str, pod: str) -> None:
        for index, conf in enumerate(self.confs):
            how = {"container_id": pod, "ifname": f"eth{index}", "netns": str(self.directory / pod), "args": pod_args(pod, uid=pod)}
            self.agent.call(command, conf, **how)


class Monitored:
    """So many nodes, a controller with a pool for them, and Prometheus."""

    def __init__(self, directory: Path, server: RealApiServer, nodes: int) -> None:
        self._directory, self.server = directory, server
        self.workers = [Worker(number, directory, server) for number in range(1, nodes + 1)]
        install_crds(server)
        spec = {"cidrs": [{"cidr": "172.31.0.0/24", "nodePrefix": 28}]}
        pool = {"apiVersion": f"{GROUP}/v1alpha1", "kind": "SubnetPool", "metadata": {"name": "net3"}, "spec": spec}
        server.request("POST", f"{APIS}/subnetpools", pool)
        admin = server.kubeconfig(directory / "admin", server.certificate_user("controller-admin", "system:masters"))
        self._controller = ControllerProcess(admin, directory / "controller.log", "--lease=none")
        self._port = free_port()
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        for worker in self.workers:
            self._stack.enter_context(worker.agent)
        self._stack.enter_context(self._controller)
        config = yaml.safe_load((MONITORING / "scrape.yaml").read_text())
        agents, controllers = config["scrape_configs"]
        for job in agents, controllers:
            del job["kubernetes_sd_configs"]  # instead: what it would find
        meta = "__meta_kubernetes_pod"
        labels = {f"{meta}_container_port_name": "metrics", f"{meta}_name": "kube-node-controller"}
        controllers["static_configs"] = [{"targets": [f"127.0.0.1:{self._controller.port}"], "labels": labels}]
        agents["static_configs"] = [
            {"targets": [worker.address], "labels": {f"{meta}_host_ip": worker.address, f"{meta}_node_name": worker.name}}
            for worker in self.workers
        ]
        config |= {"global": {"scrape_interval": f"{SCRAPE}s"}, "rule_files": [str(path) for path in MONITORING.glob("*rules.yaml")]}
        path = self._directory / "prometheus.yaml"
        path.write_text(yaml.safe_dump(config))
        options = [f"--config.file={path}", f"--storage.tsdb.path={self._directory}/tsdb", f"--web.listen-address=127.0.0.1:{self._port}"]
        with (self._directory / "prometheus.log").open("wb") as log:
            prometheus = subprocess.Popen(["prometheus", *options], stdout=log, stderr=log)
        self._stack.callback(prometheus.wait)
        self._stack.callback(prometheus.terminate)
        eventually(self._is_up, f"Prometheus does not come up: {self._directory}/prometheus.log")
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def work(self, seconds: float) -> None:
        """Let pods come and go for so long, and until one has gone; half-way the API server is away, and a Node comes."""
        begin = time.monotonic()
        away = threading.Timer(seconds / 2, self._restart_server)
        away.start()
        while (now := time.monotonic() - begin) < seconds or away.is_alive() or not all(worker.went for worker in self.workers):
            for worker in self.workers:
                worker.work(now)
            time.sleep(TICK)

    def _restart_server(self) -> None:
        self.server.stop()
        self.server.start()
        self.server.create_node("newcomer", [])

    def series(self, target: dict[str, Any], seconds: float) -> list[Series]:
        """Return what a panel's query has to show of the last seconds."""
        expression = target["expr"].replace("$instance", ".*").replace("$__rate_interval", RATE)
        end = time.time()
        asked = {"query": expression, "start": end - seconds, "end": end, "step": SCRAPE}
        found = self._ask("query_range", asked)["result"]
        return [
            Series(
                re.sub(r"\{\{(\w+)\}\}", lambda label: one["metric"][label[1]], target["legendFormat"]),  # noqa: B023 -- called at once
                [(when, float(value)) for when, value in one["values"]],
            )
            for one in found
        ]

    def _ask(self, what: str, parameters: dict[str, Any]) -> Any:
        url = f"http://127.0.0.1:{self._port}/api/v1/{what}?{urllib.parse.urlencode(parameters)}"
        with urllib.request.urlopen(url, timeout=30) as answer:
            return json.load(answer)["data"]

    def _is_up(self) -> bool:
        try:
            return len(self._ask("query", {"query": "up == 1"})["result"]) == len(self.workers) + 1
        except OSError:
            return False
