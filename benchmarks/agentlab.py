# SPDX-License-Identifier: Apache-2.0
"""What `agent.py` measures with: programs to run, an agent, networks with any number of reservations, an API server."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Self

import yaml
from standalone import PASS

from kubenode.agent import protocol

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "packaging"))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
import compile_relay
from apiserver import RealApiServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

ROOT = Path(__file__).resolve().parent.parent
KUBE_NODE = Path(sys.executable).parent / "kube-node"
POD_CIDRS = ["10.244.0.0/15", "fd00:10:244:1::/64"]
IN_MEMORY = "/dev/shm"
NODE_ADDRESSES = "/apis/kube-node.nordix.org/v1alpha1/nodeaddresses"
EMPTY = "an empty static program"  # the floor of each call: what the exec alone takes
START = 30.0  # seconds
SETTLE = 0.002  # seconds in which the agent ends what it does after an answer: that is to be counted, too


class Sample(NamedTuple):
    """Seconds that a call took: by the clock, and of CPU, the agent's share included."""

    wall: float
    cpu: float


class Program(NamedTuple):
    """A plugin's call as a runtime makes it. `agent`: the process whose CPU time counts, too; 0 for none."""

    name: str
    executable: list[str]
    environ: dict[str, str]
    stdin: Path
    agent: int

    def start(self) -> int:
        actions = [(os.POSIX_SPAWN_OPEN, 0, str(self.stdin), os.O_RDONLY, 0), (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)]
        return os.posix_spawn(self.executable[0], self.executable, self.environ, file_actions=actions)

    def run(self) -> Sample:
        before = cpu_of(self.agent)
        begin = time.perf_counter()
        _, status, usage = os.wait4(self.start(), 0)
        wall = time.perf_counter() - begin
        time.sleep(SETTLE)
        if status:
            told = subprocess.run(self.executable, env=self.environ, stdin=self.stdin.open(), check=False, capture_output=True, text=True)
            sys.exit(f"agent: {self.name} failed; run again it says: {told.stdout}{told.stderr}")
        return Sample(wall, usage.ru_utime + usage.ru_stime + cpu_of(self.agent) - before)


def cpu_of(pid: int) -> float:
    """Return the CPU seconds of a process, by its clock (clock_getcpuclockid(3)): /proc tells hundredths only."""
    return time.clock_gettime(~pid << 3 | 2) if pid else 0.0


def resident_mb(pid: int) -> float:
    line = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmRSS:"))
    return int(line.split()[1]) / 1024


class Agent:
    """An agent with a run directory of its own, in memory."""

    def __init__(self, log: Path, arguments: Sequence[str]) -> None:
        self.run_dir = Path(tempfile.mkdtemp(prefix="kn-bench.", dir=IN_MEMORY))
        self._command = [str(KUBE_NODE), "agent", f"--run-dir={self.run_dir}", "--listen=127.0.0.1:0", "--cni-config=/none", *arguments]
        self._log = log.with_suffix(".log")
        self.pid = 0

    def __enter__(self) -> Self:
        with self._log.open("wb") as log:
            process = subprocess.Popen(self._command, stderr=log)
        self.pid = process.pid
        end = time.monotonic() + START
        while not (self.run_dir / "node.json").exists():
            if process.poll() is not None or time.monotonic() > end:
                sys.exit(f"agent: it does not start: {self._log.read_text()}")
            time.sleep(0.05)
        return self

    def __exit__(self, *_: object) -> None:
        os.kill(self.pid, signal.SIGTERM)
        os.waitpid(self.pid, 0)
        shutil.rmtree(self.run_dir)


# Each network has a source of its own.
ANNOTATIONS = {f"example.com/relay{count}": ",".join(POD_CIDRS) for count in (0, 250, 4000, 60000)}


class Lab:
    """Networks with reservations, ours and the reference's, an agent, and calls to all of them."""

    def __init__(self, directory: Path, binaries: Path, host_local: Path, data_dir: Path) -> None:
        self.directory = directory
        self._data_dir = data_dir
        self._binaries = binaries
        self._host_local = host_local
        self.api_server: RealApiServer | None = None
        self.kubeconfig = directory / "kubeconfig"
        self.agent_arguments = [f"--node-file={directory / 'node.json'}"]
        node = {
            "kind": "Node",
            "metadata": {"name": "bench", "uid": "0", "annotations": ANNOTATIONS},
            "spec": {"podCIDRs": POD_CIDRS},
        }
        (directory / "node.json").write_text(json.dumps(node))

    def __enter__(self) -> Self:
        if assets := os.environ.get("KUBEBUILDER_ASSETS"):
            (self.directory / "server").mkdir()
            self.api_server = RealApiServer(Path(assets), self.directory / "server")
            self.api_server.start()
            self.api_server.create_node("bench", POD_CIDRS)
            self.api_server.annotate("bench", ANNOTATIONS)
            self.api_server.grant("bench", "get", "list", "watch")
            for crd in yaml.safe_load_all((ROOT / "deploy/controller/crds.yaml").read_text()):
                self.api_server.request("POST", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", crd)
            for resource in ("nodeaddresses", "nodeaddresses/status"):
                self.api_server.grant("bench", "get", "create", "patch", resource=resource, group="kube-node.nordix.org")
            self.api_server.kubeconfig(self.kubeconfig, "bench")
            os.environ["NODE_NAME"] = "bench"
            self.agent_arguments = [f"--kubeconfig={self.kubeconfig}"]
        self.agent = Agent(self.directory / "agent", self.agent_arguments).__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self.agent.__exit__()
        if self.api_server:
            self.api_server.close()

    def relay(self, command: str, count: int, agent: Agent | None = None, container: str = "bench") -> Program:
        """Return a call of kube-node through the relay, in a network with so many reservations."""
        by = agent or self.agent
        environ = _environ(command, container, by.run_dir)
        stdin = self._network("relay", count, {"type": "kube-node", "annotation": f"example.com/relay{count}"})
        return Program(f"relay {command}", [str(self._binaries / "kube-node")], environ, stdin, by.pid)

    @contextmanager
    def reporting(self) -> Iterator[Agent]:
        """Run a second agent, which reports the use of addresses; wait for its first report."""
        assert self.api_server
        with Agent(self.directory / "reporting", [*self.agent_arguments, "--node-addresses"]) as agent:
            end = time.monotonic() + START
            while not any(one.get("status") for one in self.api_server.request("GET", NODE_ADDRESSES)["items"]):
                if time.monotonic() > end:
                    sys.exit("agent: no report of NodeAddresses")
                time.sleep(0.1)
            yield agent

    def reference(self, command: str, count: int, container: str = "bench") -> Program:
        """Return the same of the reference's host-local."""
        ipam = {"type": "host-local", "ranges": [[{"subnet": cidr}] for cidr in POD_CIDRS]}
        environ = _environ(command, container, self.directory)
        return Program(f"reference {command}", [str(self._host_local)], environ, self._network("reference", count, ipam), 0)

    def standalone(self, command: str, container: str = "bench", run_dir: Path | None = None) -> Program:
        """Return the same of the standalone plugin, which finds the Node view that the agent keeps."""
        ipam = {"type": "kube-node", "delegate": "embedded", "kubeconfig": str(self.kubeconfig)}
        conf = self.directory / "kube-node.conf"
        conf.write_text(json.dumps({"allow": {"kubeconfig": [str(self.directory)]}}))
        environ = {**_environ(command, container, run_dir or self.agent.run_dir), "NODE_NAME": "bench", "KUBE_NODE_CONF": str(conf)}
        executable = [str(self._binaries / "kube-node.standalone")]
        return Program(f"standalone {command}", executable, environ, self._network("standalone", 0, ipam), 0)

    def nothing(self) -> Program:
        interpreter = (self._binaries / "kube-node.standalone").read_text().split(maxsplit=1)[0].removeprefix("#!")
        return Program(PASS, [interpreter, "-IS", "-c", "pass"], {"PATH": os.defpath}, Path(os.devnull), 0)

    def empty(self) -> Program:
        """Return a program that does nothing, compiled as the relay is, with a call's environment and stdin."""
        source, program = self.directory / "empty.c", self.directory / "empty"
        source.write_text("int main(void) { return 0; }\n")
        compiler = compile_relay.command(compile_relay.choose(), compile_relay.here())
        subprocess.run([*compiler, str(source), "-o", str(program)], check=True)
        return self.relay("ADD", 0)._replace(name=EMPTY, executable=[str(program)], agent=0)

    def _network(self, kind: str, count: int, ipam: Mapping[str, object]) -> Path:
        """Make a network with so many reservations, once; return the file with its configuration."""
        name = f"{kind}{count}"
        path = self.directory / f"{name}.json"
        if not path.exists():
            _fill(self._data_dir / name, count)
            ipam = {**ipam, "dataDir": str(self._data_dir)}
            path.write_text(json.dumps({"cniVersion": "1.1.0", "name": name, "type": "bridge", "ipam": ipam}))
        return path


def _environ(command: str, container: str, run_dir: Path) -> dict[str, str]:
    return {
        "PATH": os.defpath,
        "KUBE_NODE_RUN_DIR": str(run_dir),
        "CNI_COMMAND": command,
        "CNI_CONTAINERID": container,
        "CNI_NETNS": "/var/run/netns/bench",
        "CNI_IFNAME": "eth0",
        "CNI_PATH": "/none",
        "CNI_ARGS": "IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=bench",
    }


def _fill(directory: Path, count: int) -> None:
    """Reserve an address of each family for half as many pods, as either plugin would have left it."""
    directory.mkdir(parents=True)
    (directory / "lock").touch()
    for number in range(2, count // 2 + 2):
        content = f"{secrets.token_hex(32)}\r\neth0"
        for name in (f"10.{244 + (number >> 16)}.{number >> 8 & 255}.{number & 255}", f"fd00:10:244:1::{number:x}"):
            (directory / name).write_text(content)
    if count:
        (directory / "last_reserved_ip.0").write_text(f"10.{244 + (number >> 16)}.{number >> 8 & 255}.{number & 255}")
        (directory / "last_reserved_ip.1").write_text(f"fd00:10:244:1::{number:x}")


def made_up(agent: Agent, count: int) -> None:
    """Call the agent for so many networks that do not exist, as a relay does."""
    for number in range(count):
        conf = {"cniVersion": "1.1.0", "name": f"made-up-{number}", "type": "bridge", "ipam": {"type": "kube-node"}}
        environ = {key: value for key, value in _environ("DEL", "bench", agent.run_dir).items() if key.startswith("CNI_")}
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(str(agent.run_dir / "agent.sock"))
            sock.sendall(protocol.frame(protocol.Asked("kube-node", environ, json.dumps(conf).encode())))
            sock.shutdown(socket.SHUT_WR)
            if sock.recv(1) != b"\0":
                sys.exit("agent: DEL of a network that does not exist failed")


def concurrently(lab: Lab, way: str, pods: int, most: int) -> float:
    """ADD so many pods, at most so many at once; return the seconds, and DEL them again."""
    make: Callable[..., Program] = lab.relay if way == "relay" else lab.reference
    seconds = 0.0
    for command in ("ADD", "DEL"):
        waiting = [make(command, 0, container=f"pod{number}") for number in range(pods)]
        begin = time.perf_counter()
        running = 0
        while waiting or running:
            while waiting and running < most:
                waiting.pop().start()
                running += 1
            _, status = os.wait()
            running -= 1
            if status:
                sys.exit(f"agent: a concurrent {command} of {way} failed")
        if command == "ADD":
            seconds = time.perf_counter() - begin
    return seconds


def api_requests(lab: Lab, way: str, pods: int) -> int:
    """Return how many requests reach the API server while so many pods are added on a node that has just started."""
    assert lab.api_server
    run_dir = Path(tempfile.mkdtemp(prefix="kn-bench.", dir=IN_MEMORY))
    before = len(lab.api_server.asked())
    for number in range(pods):
        container = f"cold{number}"
        (lab.standalone("ADD", container, run_dir) if way == "standalone" else lab.relay("ADD", 0, container=container)).run()
    asked = len(lab.api_server.asked()) - before
    for number in range(pods):
        container = f"cold{number}"
        (lab.standalone("DEL", container, run_dir) if way == "standalone" else lab.relay("DEL", 0, container=container)).run()
    shutil.rmtree(run_dir)
    return asked
