# SPDX-License-Identifier: Apache-2.0
"""What Prometheus and the kubelet are told over HTTP."""

from __future__ import annotations

import json
import os
import re
import socket
import struct
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
from agentprocess import AgentProcess, write_node
from flocks import until_waited_for
from ourprocess import KUBE_NODE
from patience import PATIENCE, at_best, eventually
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from kubenode.agent.metrics import AgentMetrics
from kubenode.agent.networks import Key
from kubenode.base.log import Log
from kubenode.host.datadir import DiskStore
from kubenode.host.nodeview import NodeView
from kubenode.ipam.allocator import Usage
from kubenode.ipam.ranges import RangeSet
from kubenode.nodes import node
from kubenode.version import VERSION

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from prometheus_client import Metric

pytestmark = pytest.mark.slow

LABELS = {"plugin", "command", "code", "verb", "result", "reason", "network", "version", "le", "family", "data_dir"}
ERROR = b'{"cniVersion": "1.0.0", "code": 110, "msg": "full"}'


def families(text: str) -> dict[str, Metric]:
    return {family.name: family for family in text_string_to_metric_families(text)}


def samples(text: str) -> dict[str, float]:
    """Return each sample by its name and labels, as Prometheus writes them."""
    found = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = ",".join(f'{key}="{value}"' for key, value in sorted(sample.labels.items()))
            found[f"{sample.name}{{{labels}}}" if labels else sample.name] = sample.value
    return found


@pytest.fixture
def exported() -> str:
    """Return what is exported when each metric has something to show."""
    usages = [Usage(RangeSet(0, ()), 0, 0)][:0]
    metrics = AgentMetrics()
    metrics.show_node(lambda: time.time() - 5)
    metrics.show_log(lambda: 3)
    metrics.show_usage(lambda: [(Key("net", "/d"), usages)])
    metrics.called("kube-node", "ADD", 0, b"{}", 0.002)
    metrics.called("kube-node", "ADD", 1, ERROR, 0.002)
    metrics.called("host-local", "DEL", 0, b"", 0.001)
    metrics.requested("get", "200")
    metrics.restarted("gone")
    metrics.reclaimed("net", 2)
    metrics.suspected({"net": 1})
    return generate_latest(metrics.registry).decode()


def test_each_metric(exported: str) -> None:
    """Calls by plugin and command, errors by code, requests by verb and result, restarts, leaks, the Node's age, the version."""
    found = samples(exported)
    assert found['kubenode_call_duration_seconds_count{command="ADD",plugin="kube-node"}'] == 2
    assert found['kubenode_call_duration_seconds_bucket{command="DEL",le="0.0025",plugin="host-local"}'] == 1
    assert found['kubenode_call_errors_total{code="110",command="ADD",plugin="kube-node"}'] == 1
    assert found['kubenode_api_requests_total{result="200",verb="get"}'] == 1
    assert found['kubenode_watch_restarts_total{reason="gone"}'] == 1
    assert found['kubenode_leaks_reclaimed_total{network="net"}'] == 2
    assert found['kubenode_leaks_suspected{network="net"}'] == 1
    assert found["kubenode_log_lines_dropped_total"] == 3
    assert 4 < found["kubenode_node_view_age_seconds"] < 60
    assert found[f'kubenode_build_info{{version="{VERSION}"}}'] == 1
    assert found["process_resident_memory_bytes"] > 0


def test_naming_conventions(exported: str) -> None:
    """Snake case with our prefix, a help text, base units; _total for counters and for nothing else. No label names a container."""
    for family in families(exported).values():
        assert re.fullmatch(r"(kubenode|process)_[a-z0-9_]*[a-z0-9]", family.name)
        assert family.documentation.endswith(".")
        assert not re.search(r"_(total|count|sum|bucket|milliseconds|ms|kilobytes)$", family.name)
        for sample in family.samples:
            assert sample.name.endswith("_total") == (family.type == "counter")
            assert sample.labels.keys() <= {
                "plugin",
                "command",
                "code",
                "verb",
                "result",
                "reason",
                "network",
                "version",
                "le",
                "family",
                "data_dir",
            }


def test_the_number_of_series_is_bounded() -> None:
    """However many containers come, with whatever in their calls, no series is added."""
    metrics = AgentMetrics()

    def count() -> int:
        return len(samples(generate_latest(metrics.registry).decode()))

    def calls(begin: int) -> None:
        for number in range(begin, begin + 500):
            metrics.called("kube-node", "ADD", 1, ERROR, 0.1)
            metrics.called("kube-node", f"X{number}", 1, b'{"code": 4}', 0.1)
            metrics.called("kube-node", "ADD", 1, b"no object %d" % number, 0.1)
            metrics.suspected({f"net{number % 3}": 1})

    calls(0)
    before = count()
    calls(500)
    assert count() == before


@pytest.fixture
def agent(tmp_path: Path, run_dir: Path) -> Iterator[AgentProcess]:
    """Return an agent whose Node has two families."""
    node = write_node(tmp_path / "node.json", "10.0.0.0/24", "fd00::/120", held="10.0.1.0/24")
    with AgentProcess(run_dir, f"--node-file={node}") as process:
        yield process


def conf(data_dir: Path, name: str = "net", **ipam: str) -> dict[str, Any]:
    return {"cniVersion": "1.1.0", "name": name, "type": "bridge", "ipam": {"type": "kube-node", "dataDir": str(data_dir), **ipam}}


def test_addresses(agent: AgentProcess, tmp_path: Path) -> None:
    """A scrape counts what each network has and uses, by family, as it is at that moment; the Node's age is small."""
    for container in ("c1", "c2"):
        agent.add(conf(tmp_path / "d"), container)
    found = samples(agent.get("/metrics")[1])
    labels = f'data_dir="{tmp_path}/d",family="%s",network="net"'
    for name, family, value in (("addresses", 4, 253), ("addresses", 6, 254), ("addresses_used", 4, 2), ("addresses_used", 6, 2)):
        assert found[f"kubenode_{name}{{{labels % f'ipv{family}'}}}"] == value
    assert found["kubenode_node_view_age_seconds"] < 30
    assert agent.call("DEL", conf(tmp_path / "d")).code == 0
    assert samples(agent.get("/metrics")[1])[f"kubenode_addresses_used{{{labels % 'ipv4'}}}"] == 1


def test_a_scrape_while_a_lock_is_held(agent: AgentProcess, tmp_path: Path) -> None:
    """A network whose lock somebody holds is left out after two seconds; nothing piles up, and afterwards it is back."""
    agent.add(conf(tmp_path / "d", "held", annotation="held"))
    agent.add(conf(tmp_path / "d"))
    with DiskStore(str(tmp_path / "d"), "held").lock():

        def scrape() -> None:
            with ThreadPoolExecutor(3) as scrapers:
                texts = [text for _, text in scrapers.map(agent.get, ["/metrics"] * 3)]
            for text in texts:
                counted = [line for line in text.splitlines() if line.startswith("kubenode_addresses")]
                assert any('network="net"' in line for line in counted)
                assert not any('network="held"' in line for line in counted)

        for _ in range(2):
            assert at_best(scrape, 4) < 4
        assert agent.get("/healthz") == (200, "ok\n")
    eventually(lambda: 'network="held"' in agent.get("/metrics")[1], "the network does not come back")


def test_it_ends_while_a_lock_is_held(agent: AgentProcess, tmp_path: Path) -> None:
    """SIGTERM ends the agent also where housekeeping waits for a lock that somebody holds."""
    agent.add(conf(tmp_path / "d"))
    with DiskStore(str(tmp_path / "d"), "net").lock():
        until_waited_for(tmp_path / "d/net")
        begin = time.monotonic()
        assert agent.stop() == 0
        assert time.monotonic() - begin < 10  # who is owed an answer would have 13


def test_health(tmp_path: Path, run_dir: Path) -> None:
    """/healthz is about the process, /readyz about whether it can serve, and says why not; anything else is 404."""
    node = tmp_path / "node.json"
    with AgentProcess(run_dir, f"--node-file={node}") as agent:
        assert agent.get("/healthz") == (200, "ok\n")
        eventually(lambda: "No such file" in agent.get("/readyz")[1], "it is ready, or does not say why not")
        assert agent.get("/readyz")[0] == 503
        assert str(node) in agent.get("/readyz")[1]
        assert samples(agent.get("/metrics")[1])["kubenode_node_view_age_seconds"] == float("inf")
        write_node(node, "10.0.0.0/24")
        eventually(lambda: agent.get("/readyz") == (200, "ok\n"), "it does not become ready")
        assert agent.get("/")[0] == 404
        assert agent.get("/metrics?name[]=x")[0] == 200


def test_a_scraper_that_goes_away(tmp_path: Path, run_dir: Path) -> None:
    """Who asks and does not wait for the answer, or resets the connection, leaves nothing in the log, which is JSON lines."""
    with AgentProcess(run_dir, f"--node-file={write_node(tmp_path / 'node.json', '10.0.0.0/24')}") as agent:
        agent.said("agent started")
        for asked in (b"GET /metrics HTTP/1.1\r\n\r\n", b"GET /met") * 5:
            with socket.create_connection(("127.0.0.1", agent.port)) as scraper:
                scraper.sendall(asked)
                scraper.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # a reset
        assert agent.get("/healthz") == (200, "ok\n")
        assert agent.stop() == 0
        assert [line for line in agent.log().splitlines() if not line.startswith("{")] == []


def test_ready_means_that_calls_are_taken(run_dir: Path) -> None:
    """An agent that knows its Node from the view is not ready before relays can connect: reading its libraries takes a while."""
    manifest = {"metadata": {"name": "node-1", "uid": "u", "annotations": {}}, "spec": {"podCIDRs": ["10.0.0.0/24"]}}
    NodeView(str(run_dir), "test", Log("test")).put(node.parse(manifest, ""))
    agent = AgentProcess(run_dir, f"--kubeconfig={run_dir}/none")
    agent.launch()
    end = time.monotonic() + PATIENCE
    try:
        while not is_ready(agent):  # without a pause: as soon as it is
            assert time.monotonic() < end, agent.log()
        agent.connect().close()
    finally:
        agent.kill()


def is_ready(agent: AgentProcess) -> bool:
    try:
        return agent.get("/readyz")[0] == 200
    except OSError:  # it does not listen yet
        return False


def test_a_port_that_is_taken(tmp_path: Path, run_dir: Path, built: Path) -> None:
    """A port that somebody has is a line in the log, and `status` tells of it; pods get addresses all the same, and a kubelet's probes,
    which ask over the socket, find the agent well; the pages are there once the port is free.
    """
    probe = {"PATH": os.defpath, "KUBE_NODE_SOCKET": str(run_dir / "agent.sock")}
    node = write_node(tmp_path / "node.json", "10.0.0.0/24")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        agent = AgentProcess(run_dir, f"--node-file={node}", f"--listen=127.0.0.1:{port}")
        agent.port = port
        agent.start()
        assert agent.add(conf(tmp_path / "d")) == ["10.0.0.2"]
        told = agent.said("cannot listen on")
        assert told["msg"] == f"cannot listen on 127.0.0.1:{port}: Address already in use"
        assert "--listen" in told["details"]
        for question in ("healthz", "readyz"):
            assert subprocess.run([built / "kube-node", question], env=probe, check=False, capture_output=True, text=True).returncode == 0
        status = json.loads(subprocess.run([KUBE_NODE, "status", "-o", "json"], check=True, capture_output=True).stdout)["agent"]
        assert (status["up"], status["problems"]) == (True, [told["msg"]])
        assert f"! {told['msg']}" in subprocess.run([KUBE_NODE, "status"], check=True, capture_output=True, text=True).stdout
    eventually(lambda: agent.get("/healthz") == (200, "ok\n"), "it does not try again")
    assert len(agent.lines("cannot listen on")) == 1
    assert agent.stop() == 0


@pytest.mark.parametrize("listen", ["none", "[::1]:{port}"])
def test_where_it_listens(tmp_path: Path, run_dir: Path, listen: str) -> None:
    """--listen takes an IPv6 address, or none for no HTTP at all."""
    agent = AgentProcess(run_dir, f"--node-file={tmp_path}/node.json", "--listen=none")
    agent.arguments = [part if part != "--listen=none" else f"--listen={listen.format(port=agent.port)}" for part in agent.arguments]
    with agent:
        for host, is_there in (("127.0.0.1", False), ("::1", listen != "none")):
            with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as sock:
                assert (sock.connect_ex((host, agent.port)) == 0) == is_there


def test_usage_that_cannot_be_told(tmp_path: Path, run_dir: Path) -> None:
    """A network whose Node has no subnets for it is left out, and the others are there."""
    other = conf(tmp_path / "d", "other") | {"ipam": {"type": "kube-node", "annotation": "a/b"}}
    for name, content in (
        ("10-net.conf", conf(tmp_path / "d")),
        ("20-other.conf", other),
        ("30-bad.conf", {"ipam": {"type": "host-local"}}),
    ):
        (tmp_path / name).write_text(json.dumps(content))
    node = write_node(tmp_path / "node.json", "10.0.0.0/24")
    with AgentProcess(run_dir, f"--node-file={node}", f"--cni-config={tmp_path}") as agent:
        eventually(lambda: 'network="net"' in agent.get("/metrics")[1], "the network is not in the metrics")
        assert 'network="other"' not in agent.get("/metrics")[1]
        assert agent.lines("internal error") == []


def test_a_network_that_nobody_has_used(tmp_path: Path, run_dir: Path) -> None:
    """What is only configured is counted, and nothing is made for it."""
    (tmp_path / "10-net.conf").write_text(json.dumps(conf(tmp_path / "d")))
    node = write_node(tmp_path / "node.json", "10.0.0.0/24")
    with AgentProcess(run_dir, f"--node-file={node}", f"--cni-config={tmp_path}") as agent:
        eventually(lambda: 'network="net"' in agent.get("/metrics")[1], "the network is not in the metrics")
        assert not (tmp_path / "d").exists()
        assert samples(agent.get("/metrics")[1])[f'kubenode_addresses_used{{data_dir="{tmp_path}/d",family="ipv4",network="net"}}'] == 0


def test_the_annotations_data_directory(tmp_path: Path, run_dir: Path) -> None:
    """A network is counted where its addresses are noted, which the annotation may say; once, whoever leads there."""
    ipam = {"type": "node-annotation", "annotation": "a/b"}
    for number, more in enumerate(({}, {"dataDir": str(tmp_path / "configured")})):
        (tmp_path / f"{number}.conf").write_text(
            json.dumps({"cniVersion": "1.1.0", "name": "net", "type": "bridge", "ipam": {**ipam, **more}})
        )
    (tmp_path / "node.json").write_text(
        json.dumps(
            {
                "kind": "Node",
                "metadata": {
                    "name": "n",
                    "annotations": {"a/b": f'ranges: [[{{"subnet": "10.0.0.0/24"}}]], dataDir: "{tmp_path}/annotated"'},
                },
            }
        )
    )
    with AgentProcess(run_dir, f"--node-file={tmp_path}/node.json", f"--cni-config={tmp_path}") as agent:
        text = eventually(
            lambda: text if 'network="net"' in (text := agent.get("/metrics")[1]) else "", "the network is not in the metrics"
        )
        counted = [line for line in text.splitlines() if line.startswith("kubenode_addresses_used{")]
        assert counted == [f'kubenode_addresses_used{{data_dir="{tmp_path}/annotated",family="ipv4",network="net"}} 0.0']


def test_half_a_character_in_a_path(agent: AgentProcess, tmp_path: Path) -> None:
    """A dataDir that is no text is refused, and ends nobody's scrape."""
    netconf = {"cniVersion": "1.1.0", "name": "net", "type": "bridge", "ipam": {"type": "kube-node", "dataDir": str(tmp_path / "d")}}
    agent.add(netconf)
    for directory in ("/\ud800", "/\udc80"):
        odd = {**netconf, "name": "odd", "ipam": {"type": "kube-node", "dataDir": directory}}
        for command in ("ADD", "STATUS"):
            assert agent.call(command, odd).code == 1
    status, text = agent.get("/metrics")
    assert status == 200
    assert 'network="net"' in text
