# SPDX-License-Identifier: Apache-2.0
"""Four programs on one directory, under all that may befall them: nothing is given twice, nothing is lost, no DEL is refused.

KUBE_NODE_CHAOS_SECONDS: how long for each seed. KUBE_NODE_CHAOS_SEEDS: how many. KUBE_NODE_CHAOS_SEED: the first.
KUBE_NODE_CHAOS_FAULTS: only these, by name, to find what it takes. KUBE_NODE_CHAOS_LOGS: a directory for what happened.
"""

from __future__ import annotations

import os
import random
import re
import shutil
import subprocess
import threading
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from agentprocess import AgentProcess
from apiserver import base64_text, write_kubeconfig
from fourprograms import NAME, SUBNETS, Node, Program
from ourprocess import KUBE_NODE
from patience import PATIENCE, eventually
from runtime_socket import RuntimeSocket
from standin import StandInApiServer, answer, refuse, stream
from trouble import AgentTrouble, ClientTrouble

if TYPE_CHECKING:
    from collections.abc import Callable

    from standin import Handler

SECONDS = float(os.environ.get("KUBE_NODE_CHAOS_SECONDS") or 8)
FIRST = int(os.environ.get("KUBE_NODE_CHAOS_SEED") or random.randrange(1 << 32))
SEEDS = int(os.environ.get("KUBE_NODE_CHAOS_SEEDS") or 1)
WORKERS = int(os.environ.get("KUBE_NODE_CHAOS_WORKERS") or 24)
FAULTS = (
    "agent", "client", "clock_set", "kept_mtime", "marker", "gc_by_namespaces", "gc_by_runtime", "administrator",
    "partial", "old_form", "aged", "sticky",
)  # fmt: skip
WANTED = (os.environ.get("KUBE_NODE_CHAOS_FAULTS") or ",".join(FAULTS)).split(",")
TORN = 60.0  # seconds for which a file without an owner may be one that is just being written
UUID = re.compile(rb"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class Faults:
    """What happens beside the pods, each on a thread of its own."""

    def __init__(self, node: Node, clock: Path, clients: ClientTrouble, tmp_path: Path, rng: random.Random) -> None:
        self._node = node
        self._clock = clock
        self._clients = clients
        self._tmp_path = tmp_path
        self._rng = rng
        self._over = threading.Event()
        self.counts: dict[str, int] = {}
        every = {
            self._client: 0.2, self._clock_set: 3.0, self._kept_mtime: 0.1, self._marker: 4.0,
            self._gc_by_namespaces: 8.0, self._gc_by_runtime: 8.0, self._administrator: 15.0,
        }  # fmt: skip
        self._threads = [
            threading.Thread(target=self._again_and_again, args=(fault, pause), daemon=True)
            for fault, pause in every.items()
            if fault.__name__.strip("_") in WANTED
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()
        self._clock.write_text("0")

    def _again_and_again(self, fault: Callable[[], None], pause: float) -> None:
        rng = random.Random(f"{self._rng.random()}")
        while not self._over.wait(rng.uniform(0, 2 * pause)):
            self._node.note(fault.__name__) if fault != self._client else None
            try:
                fault()
            except Exception as error:  # noqa: BLE001 -- a thread's end would go unnoticed
                self._node.say(f"{fault.__name__}: {error!r}")
            self.counts[fault.__name__.strip("_")] = self.counts.get(fault.__name__.strip("_"), 0) + 1

    def _client(self) -> None:
        self._clients.once()

    def _clock_set(self) -> None:
        """Back by an hour or a year, or right again."""
        wrong_by = self._rng.choice(["0", "-3600", "-31536000"])
        self._node.note(f"the clock is wrong by {wrong_by} s")
        self._clock.write_text(wrong_by)

    def _kept_mtime(self) -> None:
        """Somebody copies with `cp -a` or rsync: what has changed meanwhile has not, by the directory's time."""
        if self._node.directory.is_dir():
            before = self._node.directory.stat()
            self._over.wait(self._rng.uniform(0, 0.1))
            os.utime(self._node.directory, ns=(before.st_atime_ns, before.st_mtime_ns))

    def _marker(self) -> None:
        """The note of the boot becomes empty, or another boot's."""
        path = self._node.data_dir / f".{NAME}.note"
        if path.exists():
            path.write_bytes(b"" if self._rng.random() < 0.5 else UUID.sub(str(uuid.uuid4()).encode(), path.read_bytes()))

    def _gc_by_namespaces(self) -> None:
        self._kube_node_gc("--from=netns")

    def _gc_by_runtime(self) -> None:
        """Ask a runtime that does not know all pods."""
        path = self._tmp_path / f"cri-{self._rng.randrange(1 << 32):x}.sock"
        with RuntimeSocket(path, [pod.container for pod in self._node.alive() if self._rng.random() < 0.5]):
            self._kube_node_gc(f"--cri-socket={path}")

    def _kube_node_gc(self, *options: str) -> None:
        command = [str(KUBE_NODE), "gc", f"--cni-config={self._tmp_path}/net.d", "-o", "json", *options]
        done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=120)
        self._node.note(f"kube-node gc {options}: {done.stdout}")
        if done.returncode:
            self._node.say(f"kube-node gc: {done}")

    def _administrator(self) -> None:
        """Empty the directory while no pod has anything in it."""
        self._node.lives.collect(self._empty)

    def _empty(self) -> None:
        for path in list(self._node.directory.iterdir()):
            path.unlink(missing_ok=True)


@pytest.fixture
def preload(tmp_path: Path) -> dict[str, str]:
    """Return the environment of programs whose clock is set by a file, beside the environment's own."""
    library, clock = tmp_path / "clock.so", tmp_path / "clock"
    clock.write_text("0")
    source = Path(__file__).with_name("clock.c")
    subprocess.run(["gcc", "-shared", "-fPIC", "-O1", "-o", library, source], check=True)
    return {"LD_PRELOAD": str(library), "STRESS_CLOCK": str(clock)}


def api(node: Callable[[], Node], rng: random.Random) -> Callable[[Handler], None]:
    """Answer as an API server with one Node, and with the pods that there are."""
    meta = {"name": "n1", "uid": "u1", "resourceVersion": "5", "annotations": {}}
    manifest = {"kind": "Node", "apiVersion": "v1", "metadata": meta, "spec": {"podCIDRs": list(SUBNETS)}}

    def step(handler: Handler) -> None:
        path = handler.path.partition("?")[0]
        if "/pods/" in path:
            name = path.rpartition("/")[2]
            if rng.random() < 0.1:
                refuse(500, "no")(handler)
            elif name in node().in_api:
                answer({"kind": "Pod", "apiVersion": "v1", "metadata": {"name": name, "uid": name}})(handler)
            else:
                refuse(404, "no", "NotFound")(handler)
        elif "watch=" in handler.path:
            stream({"type": "ADDED", "object": manifest}, 30)(handler)
        elif path.endswith("/nodes"):
            answer({"kind": "NodeList", "apiVersion": "v1", "metadata": {"resourceVersion": "5"}, "items": [manifest]})(handler)
        else:
            answer(manifest)(handler)

    return step


def left(node: Node) -> list[tuple[str, str]]:
    """Return what is left after GC by each of our programs, and after an ADD, which heals what is torn, and whose own address rests."""
    for program in node.programs[:3]:
        node.collect(program)
        assert node.call(program, "ADD", "last", "/none").code == 0
        assert node.call(program, "DEL", "last").code == 0
    return [(address, owner) for address, owner in node.owners() if not owner.endswith(".default.last")]


def why_not_reclaimed(node: Node, run_dir: Path, agent: AgentProcess) -> str:
    """Return what is left of leaked pods, with all that the history, the records and the agent's log have of them."""
    left = node.reclaimable()
    owners = {owner for _, owner in left}
    lines = [line for line in (*node.history, *agent.log().splitlines()) if any(re.search(rf"\b{owner}\b", line) for owner in owners)]
    records = [path.read_text() for path in (run_dir / "attachments").iterdir() if path.name.split(":")[1] in owners]
    return "\n".join([f"not reclaimed: {left}", *lines, f"records: {records}", *agent.log().splitlines()[-20:]])


@pytest.mark.timeout(300 + 3 * SECONDS)
@pytest.mark.parametrize("number", range(SEEDS))  # a seed would give the test another name on each worker
def test_four_programs(
    number: int, binaries: Path, cni_bin: Path, tmp_path: Path, run_dir: Path, preload: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """No address is given twice, none is lost, no DEL is refused, and at the end nothing is left."""
    (tmp_path / "net.d").mkdir()
    seed = FIRST + number
    relays = tmp_path / "relays"
    relays.mkdir()
    shutil.copy(binaries / "kube-node", relays / "kube-node")
    (relays / "kube-node.standalone").symlink_to(binaries / "kube-node.standalone")
    sticky = {"stickyFor": "2s"} if "sticky" in WANTED else {}
    of_node = {"type": "kube-node", "delegate": "embedded", **sticky}
    of_ranges = {"type": "host-local", "ranges": [[{"subnet": subnet}] for subnet in SUBNETS], **sticky}
    programs = [
        Program("relay", relays / "kube-node", of_node),
        Program("standalone", binaries / "kube-node.standalone", of_node),
        Program("drop-in", binaries / "host-local.standalone", of_ranges),
        Program("reference", cni_bin / "host-local", of_ranges, has_records=False),
    ]
    rng = random.Random(seed)
    clients = ClientTrouble(rng)
    node = Node(tmp_path, programs, clients, seed, WANTED)
    with StandInApiServer(tmp_path, then=api(lambda: node, rng)) as server:
        cluster = {"server": server.url, "certificate-authority-data": base64_text(server.authority.certificate)}
        kubeconfig = write_kubeconfig(tmp_path / "kube.conf", cluster, {"token": "t0"})
        for key, value in {"KUBECONFIG": str(kubeconfig), "NODE_NAME": "n1", **preload}.items():
            monkeypatch.setenv(key, value)
        with AgentProcess(run_dir, f"--kubeconfig={kubeconfig}", "--loglevel=warning", "--grace=1") as agent:
            eventually((run_dir / "node.json").exists)
            faults = Faults(node, tmp_path / "clock", clients, tmp_path, rng)
            trouble = AgentTrouble(agent, rng, longer=SECONDS > 15, pauses=(0.2, 2, 5))
            try:
                node.start(WORKERS)
                faults.start()
                trouble.until(time.monotonic() + SECONDS) if "agent" in WANTED else time.sleep(SECONDS)
                faults.stop()
                node.stop(180)
                eventually(lambda: not node.reclaimable(), lambda: why_not_reclaimed(node, run_dir, agent))
                eventually(lambda: not left(node), lambda: f"left: {left(node)}", TORN + PATIENCE)
                records = run_dir / "attachments"
                eventually(lambda: not os.listdir(records), lambda: f"records: {os.listdir(records)}")
            finally:
                log = agent.log()
                done = [dict(sorted(node.calls.items())), faults.counts, clients.counts, trouble.counts]
                reclaimed = log.count("leaked addresses released")
                print(f"KUBE_NODE_CHAOS_SEED={seed}", *done, f"{len(node.leaked)} leaks, {reclaimed} reclaimed", *node.wrong[:40], sep="\n")  # noqa: T201 -- what it was
                if directory := os.environ.get("KUBE_NODE_CHAOS_LOGS"):
                    Path(directory, f"{seed}.history").write_text("\n".join(node.history))
                    Path(directory, f"{seed}.agent").write_text(log)
    assert node.wrong == []
    assert "internal error" not in log
