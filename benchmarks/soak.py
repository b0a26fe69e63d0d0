# SPDX-License-Identifier: Apache-2.0
"""A day of an agent's work in as little time as it takes, and the memory that the agent has meanwhile.

A day is 86,400 pods, one a second, each with ADD, now and then CHECK, and DEL; STATUS every fifth second, a scrape of /metrics every 30th,
GC, a changed annotation and 64 pods that come and go at once every tenth minute. The agent is the real one; it has all imported that
one with an API server has.
Flat is: a straight line through the second half of the samples rises by at most 20 kB in 10,000 calls, a megabyte in some six days.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from rich.console import Console
from rich.table import Table

from kubenode.agent import protocol

if TYPE_CHECKING:
    from collections.abc import Iterator

DAY = 86_400
SMOKE = 600
ALIVE = 20  # pods at a time
AT_ONCE = 64  # pods that come at one moment, now and then
SAMPLES = 200
FLAT = 20.0  # kB in 10,000 calls
BARS = {250: 45.0, 60_000: 80.0}  # MB of resident memory with so many reservations
START = 30.0  # seconds
POOL = "10.0.0.0/8"
# What an agent with an API server imports beyond one with a manifest, also where this one has none.
PROGRAM = """
import importlib, sys
names = "ssl httpx2 prometheus_client kubenode.kube.client kubenode.kube.asyncclient kubenode.agent.watch"
for name in names.split():
    importlib.import_module(name)
from kubenode.cli.main import main
sys.argv[0] = "kube-node"
main()
"""


class Agent:
    """The agent as a process, and its socket as a relay uses it."""

    def __init__(self, scratch: Path) -> None:
        self.run_dir = scratch / "run"
        self.node_file = scratch / "node.json"
        self.data_dir = scratch / "networks"
        self.run_dir.mkdir()
        self.annotate("0")
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.address = f"127.0.0.1:{free.getsockname()[1]}"
        options = [f"--run-dir={self.run_dir}", f"--node-file={self.node_file}", f"--listen={self.address}", f"--cni-config={scratch}/none"]
        with (scratch / "log").open("wb") as log:
            self.process = subprocess.Popen([sys.executable, "-c", PROGRAM, "agent", *options], stdout=log, stderr=log)
        end = time.monotonic() + START
        while self.call("STATUS") != 0:
            if self.process.poll() is not None or time.monotonic() > end:
                sys.exit(f"soak: the agent does not serve: {(scratch / 'log').read_text()}")
            time.sleep(0.1)

    def annotate(self, value: str) -> None:
        """Change the Node, as a controller does."""
        metadata = {"name": "soak", "uid": "0", "annotations": {"changes": value}}
        written = self.node_file.with_suffix(".new")
        written.write_text(json.dumps({"kind": "Node", "metadata": metadata, "spec": {"podCIDRs": [POOL, "fd00::/64"]}}))
        written.rename(self.node_file)

    def call(self, command: str, container: str = "", **more: Any) -> int:
        """Make a call; return the exit code, -1 where nobody answers."""
        ipam = {"type": "kube-node", "dataDir": str(self.data_dir)}
        netconf = {"cniVersion": "1.1.0", "name": "net", "type": "bridge", "ipam": ipam, **more}
        environ = {"CNI_COMMAND": command, "CNI_PATH": "/opt/cni/bin"}
        if container:
            # A netns that is there: a pod of this day is no leak.
            pod = {"CNI_CONTAINERID": container, "CNI_IFNAME": "eth0", "CNI_NETNS": "/proc/self/ns/net"}
            environ |= {**pod, "CNI_ARGS": f"IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME={container}"}
        try:
            with socket.socket(socket.AF_UNIX) as sock:
                sock.settimeout(30)
                sock.connect(str(self.run_dir / "agent.sock"))
                sock.sendall(protocol.frame(protocol.Asked("kube-node", environ, json.dumps(netconf).encode())))
                sock.shutdown(socket.SHUT_WR)
                answer = b""
                while chunk := sock.recv(65536):
                    answer += chunk
        except (FileNotFoundError, ConnectionRefusedError):
            return -1
        return answer[0]

    def scrape(self) -> None:
        with urllib.request.urlopen(f"http://{self.address}/metrics", timeout=30) as answer:
            answer.read()

    def memory(self) -> float:
        """Return the resident memory in kB (proc_pid_status(5))."""
        lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        return next(float(line.split()[1]) for line in lines if line.startswith("VmRSS:"))


@contextmanager
def running() -> Iterator[Agent]:
    with tempfile.TemporaryDirectory(prefix="kn-soak.", dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None) as scratch:
        agent = Agent(Path(scratch))
        try:
            yield agent
        finally:
            agent.process.terminate()
            agent.process.wait(30)


class Sample(NamedTuple):
    calls: int
    kilobytes: float


class Soak(NamedTuple):
    """What a day came to. `slope` is in kB for 10,000 calls, of the second half."""

    pods: int
    calls: int
    failed: int
    seconds: float
    first: float
    middle: float
    last: float
    slope: float
    samples: list[Sample]


def soak(pods: int) -> Soak:
    """Work so many seconds' worth."""
    with running() as agent, ThreadPoolExecutor(AT_ONCE) as crowd:
        alive: deque[str] = deque()
        calls = failed = 0

        def call(command: str, container: str = "", **more: Any) -> None:
            nonlocal calls, failed
            good = agent.call(command, container, **more) == 0
            calls += 1
            failed += not good

        samples = []
        begin = time.monotonic()
        for second in range(pods):
            alive.append(f"{second:064x}")
            call("ADD", alive[-1])
            if len(alive) > ALIVE:
                call("DEL", alive.popleft())
            if second % 5 == 0:
                call("STATUS")
            if second % 30 == 0:
                agent.scrape()
                call("CHECK", alive[0])
            if second % 600 == 0:
                agent.annotate(str(second))
                more: dict[str, Any] = {"cni.dev/valid-attachments": [{"containerID": name, "ifname": "eth0"} for name in alive]}
                call("GC", **more)
                for command in ("ADD", "DEL"):
                    list(crowd.map(call, [command] * AT_ONCE, [f"{second}-{number}" for number in range(AT_ONCE)]))
            if second % max(1, pods // SAMPLES) == 0:
                samples.append(Sample(calls, agent.memory()))
        took = time.monotonic() - begin
        samples.append(Sample(calls, agent.memory()))
    half = samples[len(samples) // 2 :]
    slope = statistics.linear_regression([one.calls for one in half], [one.kilobytes for one in half]).slope * 10_000
    return Soak(pods, calls, failed, took, samples[0].kilobytes, half[0].kilobytes, samples[-1].kilobytes, slope, samples)


class Resident(NamedTuple):
    """Resident memory in MB with so many reservations: found on the disk by a new agent, and after calls with them."""

    reservations: int
    before: float
    after: float


def resident(count: int) -> Resident:
    """Let a new agent meet a directory with so many reservations, all of IPv4, and work on."""
    with running() as agent:
        before = agent.memory()
        directory = agent.data_dir / "net"
        directory.mkdir(parents=True, exist_ok=True)
        for number in range(count):
            address = f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}"
            (directory / address).write_text(f"{number:064x}\r\neth0", newline="")
        for number in range(200):
            if agent.call("ADD", f"new{number}") or agent.call("STATUS") or agent.call("DEL", f"new{number}"):
                sys.exit(f"soak: a call fails with {count} reservations")
        agent.scrape()
        return Resident(count, before / 1000, agent.memory() / 1000)


def machine() -> str:
    return f"{os.cpu_count()} x {platform.machine()}, Linux {platform.release()}, Python {platform.python_version()}"


def show(day: Soak, memory: list[Resident]) -> None:
    table = Table(title=f"{day.pods:,} pods on {machine()}", caption=f"{day.calls:,} calls in {day.seconds:.0f} s; resident memory in MB")
    for heading in ("", "at the start", "half-way", "at the end", "kB / 10,000 calls"):
        table.add_column(heading, justify="right" if heading else "left", no_wrap=True)
    values = [f"{kilobytes / 1000:.1f}" for kilobytes in (day.first, day.middle, day.last)]
    table.add_row("a day", *values, f"{day.slope:+.1f}")
    for one in memory:
        table.add_row(f"{one.reservations:,} reservations", f"{one.before:.1f}", "", f"{one.after:.1f}", "")
    console = Console(width=120, markup=False)
    console.print(table)
    for text, good in verdicts(day, memory):
        console.print(f"{text}: {'met' if good else 'not met'}")


def verdicts(day: Soak, memory: list[Resident]) -> list[tuple[str, bool]]:
    found = [("no call fails", day.failed == 0)]
    if day.pods > SMOKE:
        found.append((f"flat: at most {FLAT:g} kB in 10,000 calls, in the second half", day.slope <= FLAT))
    for one in memory:
        bar = BARS[one.reservations]
        found.append((f"{one.reservations:,} reservations: at most {bar:g} MB ({one.after:.1f})", one.after <= bar))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pods", type=int, default=DAY)
    parser.add_argument("--smoke", action="store_true", help=f"{SMOKE} pods: shows only that it runs")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    arguments = parser.parse_args()
    memory = [resident(count) for count in BARS if not arguments.smoke or count < 1000]
    day = soak(SMOKE if arguments.smoke else arguments.pods)
    if arguments.json:
        rows = {"day": {**day._asdict(), "samples": [tuple(one) for one in day.samples]}, "memory": [one._asdict() for one in memory]}
        judged = [{"bar": text, "met": good} for text, good in verdicts(day, memory)]
        print(json.dumps({"machine": machine(), **rows, "bars": judged}, indent=2))
    else:
        show(day, memory)


if __name__ == "__main__":
    main()
