# SPDX-License-Identifier: Apache-2.0
"""What a pod's addresses cost without agent and relay: the standalone plugin, the exec of host-local and a Python that does nothing.

Rounds interleave all of them, so that a noisy machine is noisy for each; a ratio is taken within its round. Nothing is subtracted.
The plugin is built anew, the Node view is warm. host-local is looked for in CNI_TEST_PATH, /opt/cni/bin and /usr/lib/cni.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.table import Table

from kubenode.nodes.annotation import parse

ROOT = Path(__file__).resolve().parent.parent
PASS = "python3 -IS -c pass"
EMBEDDED_ADD = "kube-node ADD, embedded"
BAR, AMBITION = 2.5, 2.0
PODS, AT_ONCE = 200, 64  # of a burst, as when a node without an agent reboots
BUSY = (0, 16)  # loops beside it
FEW_KEYS, MANY_KEYS, GROWTH = 12_000, 96_000, 24  # of an annotation, which may have 256 KiB; the bar is three times what is linear


class Case(NamedTuple):
    """One program to run, with its standard input."""

    name: str
    command: list[str]
    environment: dict[str, str]
    stdin: Path


class Sample(NamedTuple):
    wall: float  # seconds
    cpu: float  # user and system, of its children too


class Burst(NamedTuple):
    """Many ADDs at once: how long all took, and how many failed, of the DELs after them, too."""

    name: str
    seconds: float
    failed_adds: int
    failed_dels: int


class Row(NamedTuple):
    """Medians and quartiles of a case; ratios are to PASS."""

    name: str
    wall_ms: float
    wall_quartiles_ms: tuple[float, float]
    cpu_ms: float
    wall_ratio: float
    wall_ratio_quartiles: tuple[float, float]
    cpu_ratio: float


def measure(case: Case) -> Sample:
    """Run it once. posix_spawn: what is around the program's own time should be as little as a runtime's."""
    actions = [(os.POSIX_SPAWN_OPEN, 0, str(case.stdin), os.O_RDONLY, 0), (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)]
    begin = time.perf_counter()
    pid = os.posix_spawn(case.command[0], case.command, case.environment, file_actions=actions)
    _, status, usage = os.wait4(pid, 0)
    wall = time.perf_counter() - begin
    if status:
        told = subprocess.run(case.command, env=case.environment, stdin=case.stdin.open(), check=False, capture_output=True, text=True)
        sys.exit(f"standalone: {case.name} failed; run again it says: {told.stdout}{told.stderr}")
    return Sample(wall, usage.ru_utime + usage.ru_stime)


def host_local() -> Path | None:
    found = shutil.which("host-local", path=f"{os.environ.get('CNI_TEST_PATH', '')}:/opt/cni/bin:/usr/lib/cni")
    return Path(found) if found else None


def prepare(scratch: Path) -> list[Case]:
    """Build the plugin, write a view and configurations; return what one round runs."""
    binaries = scratch / "bin"
    subprocess.run([sys.executable, ROOT / "packaging/binaries.py", f"--output={binaries}"], check=True, stdout=subprocess.DEVNULL)
    interpreter = (binaries / "kube-node.standalone").read_text().split(maxsplit=1)[0].removeprefix("#!")
    run_dir = scratch / "run"
    run_dir.mkdir()
    node = {
        "kind": "Node",
        "apiVersion": "v1",
        "metadata": {"name": "bench", "uid": "0"},
        "spec": {"podCIDRs": ["10.244.1.0/24", "fd00:10:244:1::/64"]},
    }

    def cases(network: str, plugin: Path, ipam: dict[str, object], path: Path) -> list[Case]:
        (run_dir / network).mkdir()
        (run_dir / network / "node.json").write_text(json.dumps(node))
        name = plugin.name.removesuffix(".standalone")
        stdin = scratch / f"{network}.json"
        ipam = {"type": name, "dataDir": str(scratch / "networks"), **ipam}
        stdin.write_text(json.dumps({"cniVersion": "1.0.0", "name": network, "type": "bridge", "ipam": ipam}))
        environment = {
            "PATH": os.defpath,
            "KUBE_NODE_RUN_DIR": str(run_dir / network),  # each network has the podCIDRs for itself
            "CNI_CONTAINERID": "bench",
            "CNI_NETNS": "/var/run/netns/bench",
            "CNI_IFNAME": "eth0",
            "CNI_PATH": str(path),
            "CNI_ARGS": "IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=bench",
        }
        return [
            Case(
                f"{name} {command}, {network}",
                [str(plugin)],
                {**environment, "CNI_COMMAND": command},
                stdin,
            )
            for command in ("ADD", "DEL")
        ]

    empty = scratch / "empty"
    empty.touch()
    plugin = binaries / "kube-node.standalone"
    found = [Case(PASS, [interpreter, "-IS", "-c", "pass"], {"PATH": os.defpath}, empty)]
    found += cases("embedded", plugin, {"delegate": "embedded"}, binaries)
    if reference := host_local():
        ranges = [[{"subnet": cidr}] for cidr in ("10.244.1.0/24", "fd00:10:244:1::/64")]
        found += cases("reference", reference, {"ranges": ranges}, reference.parent)
        found += cases("delegating", plugin, {"delegate": "host-local"}, reference.parent)
    return found


def burst(case: Case, busy: int) -> Burst:
    """ADD so many pods, at most so many at once, beside busy loops; DEL them again, so that all programs begin alike."""
    loops = [subprocess.Popen([sys.executable, "-IS", "-c", "while True: pass"]) for _ in range(busy)]
    try:
        found = [_burst(case, command) for command in ("ADD", "DEL")]
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()
    return Burst(f"{case.name}, {busy} busy loops", found[0][0], found[0][1], found[1][1])


def _burst(case: Case, command: str) -> tuple[float, int]:
    """Return the seconds that the calls took together, and how many failed."""
    actions = [(os.POSIX_SPAWN_OPEN, 0, str(case.stdin), os.O_RDONLY, 0), (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)]
    waiting = [{**case.environment, "CNI_COMMAND": command, "CNI_CONTAINERID": f"pod{number}"} for number in range(PODS)]
    begin = time.perf_counter()
    running: set[int] = set()
    failed = 0
    while waiting or running:
        while waiting and len(running) < AT_ONCE:
            running.add(os.posix_spawn(case.command[0], case.command, waiting.pop(), file_actions=actions))
        pid, status = os.wait()
        running.discard(pid)
        failed += status != 0
    return time.perf_counter() - begin, failed


def quartiles(values: list[float]) -> tuple[float, float]:
    low, _, high = statistics.quantiles(values, n=4)
    return low, high


def run(cases: list[Case], rounds: int) -> list[Row]:
    samples: dict[str, list[Sample]] = {case.name: [] for case in cases}
    for number in range(rounds + 1):
        for case in cases:
            sample = measure(case)
            if number > 0:  # the first round fills caches
                samples[case.name].append(sample)
    return [row(name, taken, samples[PASS]) for name, taken in samples.items()]


def row(name: str, taken: list[Sample], base: list[Sample]) -> Row:
    wall = [sample.wall * 1000 for sample in taken]
    ratio = [sample.wall / nothing.wall for sample, nothing in zip(taken, base, strict=True)]
    cpu_ratio = [sample.cpu / nothing.cpu for sample, nothing in zip(taken, base, strict=True)]
    return Row(
        name=name,
        wall_ms=statistics.median(wall),
        wall_quartiles_ms=quartiles(wall),
        cpu_ms=statistics.median(sample.cpu * 1000 for sample in taken),
        wall_ratio=statistics.median(ratio),
        wall_ratio_quartiles=quartiles(ratio),
        cpu_ratio=statistics.median(cpu_ratio),
    )


def growth() -> float:
    """Return how many times as long an annotation with many keys takes as one with few."""

    def seconds(keys: int) -> float:
        text = ", ".join(f"k{number}: 1" for number in range(keys))
        begin = time.process_time()
        parse(text)
        return time.process_time() - begin

    return statistics.median(seconds(MANY_KEYS) / seconds(FEW_KEYS) for _ in range(3))


def machine() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())
    return f"{os.cpu_count()} x {model}, Linux {platform.release()}, Python {platform.python_version()}"


def show(rows: list[Row], rounds: int) -> None:
    table = Table(title=f"{rounds} rounds on {machine()}", caption="medians; in brackets the quartiles; x: times as much as the first row")
    for heading in ("", "wall ms", "wall x", "CPU ms", "CPU x"):
        table.add_column(heading, justify="right" if heading else "left", no_wrap=True)
    for item in rows:
        low, high = item.wall_quartiles_ms
        low_x, high_x = item.wall_ratio_quartiles
        table.add_row(
            item.name,
            f"{item.wall_ms:.1f} [{low:.1f}-{high:.1f}]",
            f"{item.wall_ratio:.2f} [{low_x:.2f}-{high_x:.2f}]",
            f"{item.cpu_ms:.1f}",
            f"{item.cpu_ratio:.2f}",
        )
    # Wide enough also where there is no terminal.
    console = Console(width=120, markup=False)
    console.print(table)
    ratio = next(item.wall_ratio for item in rows if item.name == EMBEDDED_ADD)
    for word, limit in (("bar", BAR), ("ambition", AMBITION)):
        console.print(f"{word}: {EMBEDDED_ADD} at most {limit} x {PASS}: {'met' if ratio <= limit else 'not met'} ({ratio:.2f})")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--smoke", action="store_true", help="3 rounds: shows only that it runs")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    arguments = parser.parse_args()
    rounds = 3 if arguments.smoke else arguments.rounds
    with tempfile.TemporaryDirectory(prefix="kn-bench.") as scratch:
        cases = prepare(Path(scratch))
        rows = run(cases, rounds)
        many = [case for case in cases if case.environment.get("CNI_COMMAND") == "ADD"]
        bursts = [burst(case, busy) for busy in BUSY[: 1 if arguments.smoke else None] for case in many]
    if arguments.json:
        print(
            json.dumps(
                {
                    "machine": machine(),
                    "rounds": rounds,
                    "rows": [item._asdict() for item in rows],
                    "bursts": [b._asdict() for b in bursts],
                    "growth": growth(),
                },
                indent=2,
            )
        )
    else:
        show(rows, rounds)
        for item in bursts:
            print(
                f"{PODS} x {item.name}, {AT_ONCE} at once: {item.seconds:.1f} s, {item.failed_adds} failed; of the DELs {item.failed_dels}"
            )
        grown = growth()
        told = "met" if grown <= GROWTH else "not met"
        print(f"bar: an annotation of {MANY_KEYS:,} keys at most {GROWTH} x one of {FEW_KEYS:,}: {told} ({grown:.1f})")


if __name__ == "__main__":
    main()
