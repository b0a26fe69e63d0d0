# SPDX-License-Identifier: Apache-2.0
"""Leaks: what counts as evidence, and everything that must not."""

from __future__ import annotations

import json
import os
import threading
import time
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from counting import calls_of
from patience import PATIENCE, eventually

from kubenode.agent import podlookup, reclaim
from kubenode.agent.host import Stores
from kubenode.agent.housekeeping import Housekeeping
from kubenode.agent.networks import Networks
from kubenode.agent.reclaim import Mode, Reclaimer
from kubenode.base.log import INFO, Log
from kubenode.base.workers import Round, Workers
from kubenode.cni.errors import FORBIDDEN, TRY_AGAIN_LATER, CNIError
from kubenode.cni.request import is_name
from kubenode.host.attachments import Attachments, Record
from kubenode.host.datadir import DiskStore
from kubenode.host.root import HostRoot
from kubenode.ipam.address import Address
from kubenode.ipam.store import Attachment

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


class FakePods:
    """An API server with these pods, by namespace and name; what is an error is raised."""

    def __init__(self) -> None:
        self.pods: dict[str, dict[str, Any] | CNIError] = {}
        self.failure: CNIError | None = None
        self.asked: list[str] = []
        self.before: Callable[[], None] = lambda: None
        self.open = 0

    def connect(self) -> FakePods:
        if self.failure:
            raise self.failure
        self.open += 1
        return self

    def pod(self, namespace: str, name: str) -> dict[str, Any] | None:
        self.asked.append(f"{namespace}/{name}")
        self.before()
        found = self.pods.get(f"{namespace}/{name}", self.pods.get(f"{namespace}/*"))
        if isinstance(found, CNIError):
            raise found
        return found

    def on_node(self) -> dict[tuple[str, str], dict[str, Any]]:
        raise CNIError(FORBIDDEN, "a service account may not list pods")

    def close(self) -> None:
        self.open -= 1


class Counts:
    """What Metrics would be told."""

    def __init__(self) -> None:
        self.released = 0
        self.suspects: dict[str, int] = {}
        self.allowed: bool | None = None

    def may_ask(self, *, allowed: bool) -> None:
        self.allowed = allowed

    def reclaimed(self, network: str, count: int) -> None:
        self.released += count

    def suspected(self, counts: dict[str, int]) -> None:
        self.suspects = counts


class Clock:
    """The time, in seconds."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Node:
    """A node with real files: a data directory, records, and plain files for network namespaces. Its clock stands still."""

    def __init__(self, directory: Path, run_dir: Path) -> None:
        self.netns = directory / "netns"
        self.netns.mkdir()
        self.data_dir = directory / "networks"
        self.run_dir = run_dir
        self.pods = FakePods()
        self.counts = Counts()
        self.clock = Clock()
        self._numbers = iter(range(2, 1 << 16))
        self.keep = self.keeper()

    def keeper(
        self, mode: Mode = Mode.ON, grace: float = 0.0, connect: Callable[[], FakePods] | None = None, *, can_ask: bool = True
    ) -> Housekeeping:
        log = Log("agent", INFO)
        stores, ask = Stores(HostRoot()), Round(Workers(), log, 0.5)
        asking = (connect or self.pods.connect) if can_ask else None
        reclaimer = Reclaimer(HostRoot(), str(self.run_dir), stores, ask, asking, log, self.counts, mode, grace, self.clock)
        return Housekeeping(Networks(log), stores, ask, reclaimer, str(self.run_dir), str(self.run_dir / "none"), log)

    def add(self, container: str, *, network: str = "net", ifname: str = "eth0", reserve: bool = True, **record: Any) -> Attachment:
        """Do what an ADD does, for a pod that is called as its container. Values of None are left out of the record."""
        attachment = Attachment(container, ifname)
        (self.netns / container).touch()
        said: dict[str, Any] = {
            "netns": str(self.netns / container),
            "podNamespace": "default",
            "podName": container,
            "podUID": f"uid-{container}",
            "dataDir": str(self.data_dir),
            "ipam": {"type": "host-local"},
            **record,
        }
        said = {key: value for key, value in said.items() if value is not None}
        Attachments(str(self.run_dir), network).write(attachment, Record.parse(said) or Record())
        if reserve:
            store = DiskStore(str(self.data_dir), network)
            with store.lock():
                assert store.reserve(Address(4, (10 << 24) + next(self._numbers)), attachment)
        return attachment

    def kill(self, *containers: str) -> None:
        for container in containers:
            (self.netns / container).unlink()

    def reserved(self, network: str = "net") -> list[str]:
        """Return whose addresses are reserved."""
        store = DiskStore(str(self.data_dir), network)
        return sorted(entry.attachment.container_id for entry in store.reservations() if entry.attachment)

    def records(self) -> list[str]:
        return sorted(os.listdir(self.run_dir / "attachments"))


@pytest.fixture
def node(tmp_path: Path, run_dir: Path) -> Node:
    return Node(tmp_path, run_dir)


def said(capfd: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capfd.readouterr().err.splitlines()]


def reasons(capfd: pytest.CaptureFixture[str]) -> list[str]:
    return [str(line["why_it_stays"]) for line in said(capfd) if "why_it_stays" in line]


def test_a_leak_is_released(node: Node, capfd: pytest.CaptureFixture[str]) -> None:
    """Namespace gone and pod gone: the address is released with its record, logged with whose it was, and counted. Others stay."""
    node.add("gone")
    node.add("lives")
    node.kill("gone")
    node.keep.tidy()
    assert (node.reserved(), node.records()) == (["lives"], ["net:lives:eth0"])
    assert node.pods.asked == ["default/gone"]
    assert (node.counts.released, node.counts.suspects, node.pods.open) == (1, {}, 0)
    (line,) = said(capfd)
    assert line["msg"] == "leaked addresses released"
    assert {key: line[key] for key in ("network", "containerID", "ifname", "pod", "ips")} == {
        "network": "net", "containerID": "gone", "ifname": "eth0", "pod": "default/gone", "ips": ["10.0.0.2"],
    }  # fmt: skip


def test_the_grace_period(node: Node) -> None:
    """Nothing is released, and nobody asked, before the namespace has been gone for the grace period; coming back begins it anew."""
    keep = node.keeper(grace=60)
    node.add("c1")
    node.kill("c1")
    keep.tidy()
    node.clock.now += 59
    (node.netns / "c1").touch()
    keep.tidy()
    node.kill("c1")
    for seconds in (0, 59):
        node.clock.now += seconds
        keep.tidy()
        assert (node.reserved(), node.pods.asked, node.counts.suspects) == (["c1"], [], {"net": 1})
    node.clock.now += 1
    keep.tidy()
    assert node.reserved() == []


def test_another_attachment_begins_its_own_grace_period(node: Node) -> None:
    """A record that is written anew for another namespace has not been without it since the old one was gone."""
    keep = node.keeper(grace=60)
    node.add("c1")
    node.kill("c1")
    keep.tidy()
    node.clock.now += 61
    node.add("c1", reserve=False, netns=str(node.netns / "another"))
    keep.tidy()
    assert node.reserved() == ["c1"]


@pytest.mark.parametrize(
    ("pod", "is_released"),
    [
        ({"metadata": {"uid": "uid-c1"}}, False),
        ({"metadata": {"uid": "uid-c1", "deletionTimestamp": "2026-01-01T00:00:00Z"}}, False),
        ({"metadata": {"uid": "mirror", "annotations": {"kubernetes.io/config.mirror": "uid-c1"}}}, False),
        ({"metadata": {"uid": "mirror", "annotations": {"kubernetes.io/config.mirror": "uid-c2"}}}, True),
        ({"metadata": {"uid": "uid-c2"}}, True),
        ({"metadata": {}}, False),
        ({}, False),
        (None, True),
    ],
)
def test_the_pod_as_evidence(node: Node, capfd: pytest.CaptureFixture[str], *, pod: dict[str, Any] | None, is_released: bool) -> None:
    """A pod is gone if there is none of its name, or one with another UID; a static pod's UID is what its mirror pod says."""
    node.add("c1")
    node.kill("c1")
    if pod is not None:
        node.pods.pods["default/c1"] = pod
    for _ in range(2):
        node.keep.tidy()
    assert node.reserved() == ([] if is_released else ["c1"])
    assert reasons(capfd) == ([] if is_released else ["its pod still exists"])


def test_a_name_alone_is_not_enough_to_tell_pods_apart(node: Node) -> None:
    """Where the runtime gave no UID, a pod of that name counts as the same."""
    node.add("c1", podUID=None)
    node.kill("c1")
    node.pods.pods["default/c1"] = {"metadata": {"uid": "another"}}
    node.keep.tidy()
    assert node.reserved() == ["c1"]


@pytest.mark.parametrize(
    "record",
    [
        {"podName": None},
        {"podNamespace": None},
        {"podName": "My_Sandbox"},
        {"podName": "../nodes"},
        {"ipam": None},
        {"ipam": "host-local"},
        {"ipam": {"type": "whereabouts"}},
        {"netns": None},
        {"netns": ""},
        {"netns": "netns/c1"},
        {"netns": "/proc/4194304/ns/net"},
        {"netns": "//proc/4194304/ns/net"},
        {"netns": "/var/../proc/4194304/ns/net"},
        {"netns": "/proc/self/ns/none"},
        {"netns": "/no/such/directory/c1"},
    ],
    ids=str,
)
def test_doubt(node: Node, record: dict[str, Any]) -> None:
    """A record that does not say whose it is, of another delegate, or with a namespace that cannot be judged, keeps its address."""
    node.add("c1", **record)
    node.kill("c1")
    for _ in range(2):
        node.keep.tidy()
    assert (node.reserved(), node.pods.asked) == (["c1"], [])


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b'{"netns": {}, "ipam": []}', b"\xff\xfe"])
def test_torn_records(node: Node, content: bytes) -> None:
    """A record that cannot be read is no evidence, and keeps nobody else's from being read."""
    node.add("torn")
    node.add("gone")
    node.kill("torn", "gone")
    (node.run_dir / "attachments/net:torn:eth0").write_bytes(content)
    (node.run_dir / "attachments/strange").write_bytes(content)
    node.keep.tidy()
    assert node.reserved() == ["torn"]


def test_a_reservation_without_a_record(node: Node) -> None:
    """An address that no record speaks of is never called a leak."""
    node.add("c1")
    node.kill("c1")
    (node.run_dir / "attachments/net:c1:eth0").unlink()
    node.keep.tidy()
    assert node.reserved() == ["c1"]


def test_a_record_without_reservation_goes(node: Node) -> None:
    """An ADD that failed half-way leaves a record: it goes with its namespace, without a question to the API server."""
    node.add("c1", reserve=False)
    node.add("other")
    node.kill("c1")
    node.keep.tidy()
    assert (node.records(), node.pods.asked, node.counts.released) == (["net:other:eth0"], [], 0)


def test_a_data_directory_that_was_never_made(node: Node) -> None:
    """Looking for a leak does not make directories."""
    node.add("c1", reserve=False, dataDir=str(node.data_dir / "none"))
    node.kill("c1")
    node.keep.tidy()
    assert not node.data_dir.exists()
    assert node.records() == []


def test_nobody_to_ask(node: Node, capfd: pytest.CaptureFixture[str]) -> None:
    """An agent that serves a Node manifest has no API server to ask, and releases nothing; it says so once."""
    keep = node.keeper(can_ask=False)
    node.add("c1")
    node.kill("c1")
    for _ in range(3):
        keep.tidy()
    assert node.reserved() == ["c1"]
    assert reasons(capfd) == ["there is no API server to ask for its pod"]
    assert node.counts.suspects == {"net": 1}


def test_an_api_server_that_does_not_answer(node: Node, capfd: pytest.CaptureFixture[str]) -> None:
    """Without an answer nothing is released. It is said once, and the leak goes when the API server is back."""
    for container in ("c1", "c2"):
        node.add(container)
    node.kill("c1", "c2")
    node.pods.failure = CNIError(TRY_AGAIN_LATER, "no answer")
    for _ in range(3):
        node.keep.tidy()
    assert node.reserved() == ["c1", "c2"]
    assert [line["error"] for line in said(capfd)] == ["no answer"]
    node.pods.failure = None
    node.pods.pods["default/c1"] = CNIError(TRY_AGAIN_LATER, "it has gone in the middle")
    node.pods.asked.clear()
    node.keep.tidy()
    assert "c1" in node.reserved()
    assert node.pods.open == 0
    del node.pods.pods["default/c1"]
    node.keep.tidy()
    assert node.reserved() == []


def test_a_namespace_that_we_may_not_look_into(node: Node, capfd: pytest.CaptureFixture[str]) -> None:
    """Where the right is missing in one namespace, its addresses stay, the log has the API server's words, and others are released."""
    for container in ("a1", "a2", "b1"):
        node.add(container, podNamespace=container[0])
    node.kill("a1", "a2", "b1")
    node.pods.pods["a/*"] = CNIError(FORBIDDEN, "pods is forbidden", "the rule")
    node.keep.tidy()
    assert node.reserved() == ["a1", "a2"]
    assert len(node.pods.asked) == 2
    assert [line["error"] for line in said(capfd) if "error" in line] == ["pods is forbidden (the rule)"]


def test_without_the_right(node: Node, capfd: pytest.CaptureFixture[str]) -> None:
    """Without the right to get pods it is said once, whatever pods and passes there are, and shown; with it the leaks go."""
    for number in range(3):
        node.add(f"c{number}", podNamespace=f"n{number}")
        node.pods.pods[f"n{number}/*"] = CNIError(FORBIDDEN, f"pods in n{number} is forbidden", "the rule")
    for number in range(3):
        node.kill(f"c{number}")
        node.keep.tidy()
    assert node.reserved() == ["c0", "c1", "c2"]
    assert len([line for line in said(capfd) if "error" in line]) == 1
    assert node.counts.allowed is False
    node.pods.pods.clear()
    node.keep.tidy()
    assert node.reserved() == []
    assert node.counts.allowed is True


def test_report_changes_nothing(node: Node, capfd: pytest.CaptureFixture[str]) -> None:
    """--reclaim=report says what would be released, and leaves files and records as they are."""
    keep = node.keeper(Mode.REPORT)
    node.add("c1")
    node.add("failed", reserve=False)
    node.kill("c1", "failed")
    for _ in range(2):
        keep.tidy()
    assert (node.reserved(), node.records()) == (["c1"], ["net:c1:eth0", "net:failed:eth0"])
    assert reasons(capfd) == ["not released because of --reclaim=report"]
    assert (node.counts.released, node.counts.suspects) == (0, {"net": 1})


def test_an_add_between_evidence_and_release(node: Node) -> None:
    """An ADD that comes after the API server was asked keeps its address: namespace and record are looked at again with the lock held."""
    node.add("c1")
    node.add("c2")
    node.add("c3")
    node.kill("c1", "c2", "c3")

    def add_again() -> None:
        (node.netns / "c1").touch()
        node.add("c2", reserve=False, netns=str(node.netns / "new"))
        node.kill("c2")

    node.pods.before = add_again
    node.keep.tidy()
    assert node.reserved() == ["c1", "c2"]
    assert node.records() == ["net:c1:eth0", "net:c2:eth0"]


def test_an_add_between_evidence_and_tidying(node: Node) -> None:
    """A record without reservation stays where it was written anew in the meantime: its ADD is about to reserve."""
    keep = node.keep._reclaimer
    assert keep
    node.add("c1", reserve=False)
    node.add("c2", reserve=False)
    node.kill("c1", "c2")
    keep.look(node.keep._records(set()))
    (node.netns / "c1").touch()
    node.add("c2", reserve=False, netns=str(node.netns / "new"))
    keep.judge()
    assert node.records() == ["net:c1:eth0", "net:c2:eth0"]


def test_only_the_attachment_itself_is_released(node: Node) -> None:
    """Of a pod with several interfaces those are released whose records say so; one pod is asked for once."""
    node.add("c1")
    node.add("c1", ifname="net1")
    node.add("c1", network="other")
    node.add("c1", ifname="net2", netns=str(node.netns / "lives"))
    (node.netns / "lives").touch()
    node.kill("c1")
    node.keep.tidy()
    assert (node.reserved(), node.reserved("other")) == (["c1"], [])
    assert node.records() == ["net:c1:net2"]
    assert node.pods.asked == ["default/c1"]


def test_the_api_server_is_not_flooded(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pass asks for a limited number of pods, and the next one begins with those that were not asked for yet."""
    monkeypatch.setattr(podlookup, "QUESTIONS", 3)
    containers = [f"c{number}" for number in range(8)]
    for container in containers:
        node.add(container)
        node.pods.pods[f"default/{container}"] = {"metadata": {"uid": f"uid-{container}"}}
    node.kill(*containers)
    for _ in range(3):
        node.keep.tidy()
    assert len(node.pods.asked) == 9
    assert {name.rpartition("/")[2] for name in node.pods.asked} == set(containers)


def test_a_lock_that_is_held(node: Node) -> None:
    """A network whose lock somebody holds does not keep the others' leaks, and a late turn releases only what is still certain."""
    for network in ("held", "net"):
        node.add("c1", network=network)
        node.add("c2", network=network)
    node.kill("c1", "c2")
    holder = DiskStore(str(node.data_dir), "held")
    with holder.lock():
        begin = time.monotonic()
        node.keep.tidy()
        assert time.monotonic() - begin < PATIENCE
        assert (node.reserved("held"), node.reserved()) == (["c1", "c2"], [])
        (node.netns / "c1").touch()
    node.keep.tidy()
    assert node.reserved("held") == ["c1"]


@pytest.mark.slow
def test_a_late_turn_during_the_next_pass(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """A network that comes to its turn only while the next pass looks at all suspects takes nothing from that pass."""
    node.add("c0", network="held")
    node.add("c1", network="held", reserve=False)
    node.add("c2")
    node.kill("c1", "c2")
    lock = DiskStore(str(node.data_dir), "held").lock()
    held = ExitStack()
    turns: Iterator[Callable[[], None]] = iter([lambda: held.enter_context(lock), held.close])

    def hold_or_let_go(name: str) -> bool:
        """Take the lock once the first pass judges, and let it go when the second does."""
        if name == "held" and (turn := next(turns, None)):
            turn()
            time.sleep(0.5)
        return is_name(name)

    monkeypatch.setattr(reclaim, "is_name", hold_or_let_go)
    node.pods.pods["default/c2"] = {"metadata": {"uid": "uid-c2"}}
    node.keep.tidy()
    del node.pods.pods["default/c2"]
    node.keep.tidy()
    assert node.reserved() == []


@pytest.mark.slow
def test_thousands_of_records(node: Node) -> None:
    """Of each of many attachments whose pods live little is to be done, and of ten times as many ten times as much."""
    template = {"netns": str(node.netns / "lives"), "dataDir": str(node.data_dir), "ipam": {"type": "host-local"}}
    (node.netns / "lives").touch()
    (node.run_dir / "attachments").mkdir()
    took = []
    for count in (500, 5000):
        for number in range(count):
            (node.run_dir / f"attachments/net:c{number}:eth0").write_text(json.dumps(template))
        took.append(calls_of(node.keep.tidy))
    assert took[1] < 12 * took[0]
    assert took[1] < 200 * 5000
    assert node.counts.suspects == {}


@pytest.mark.slow
def test_many_leaks_at_once(node: Node) -> None:
    """After an outage of the runtime a thousand leaks are gone within a few passes, each released once."""
    containers = [f"c{number}" for number in range(1000)]
    for container in containers:
        node.add(container, podName="one")
    node.kill(*containers)
    for _ in range(10):  # a pass waits for a network's thread for two seconds, which a busy machine may exceed
        node.keep.tidy()
        if not node.records():
            break
    assert (node.reserved(), node.records(), node.counts.released) == ([], [], 1000)


def test_calls_go_on_meanwhile(node: Node) -> None:
    """While leaks are released others reserve and release in the same network, and lose nothing."""
    leaks = [f"leak{number}" for number in range(100)]
    for container in leaks:
        node.add(container, podName="one")
    node.kill(*leaks)
    pods = [threading.Thread(target=partial(node.add, f"pod{number}")) for number in range(50)]
    for thread in pods:
        thread.start()
    node.keep.tidy()
    for thread in pods:
        thread.join(20)
    pods_alone = sorted(f"pod{number}" for number in range(50))

    def tidied() -> bool:
        node.keep.tidy()  # which waits for a network's thread for half a second
        return node.reserved() == pods_alone

    eventually(tidied, node.reserved)
