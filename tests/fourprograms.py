# SPDX-License-Identifier: Apache-2.0
"""A node in small on which four programs serve one dual-stack directory: relay and agent, standalone, our host-local, the reference's.

Each call goes to one of them, by chance. What a pod believes it has is noted, and compared with what others get and what lies on the disk.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import threading
import time
from typing import TYPE_CHECKING, Any, NamedTuple

from callplugin import OURS, environment
from podnet import Answer
from runtime import TRY_AGAIN_LATER, Gate, end_all

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator
    from pathlib import Path

    from trouble import ClientTrouble

NAME = "net"
SUBNETS = ("10.1.0.0/24", "fd01::/120")
CALLER = 60.0  # seconds that who calls has patience
STATEFUL = 16  # names of pods that come again and again
ENDED = 2.0  # seconds after a DEL until nothing of its pod may be seen


class Program(NamedTuple):
    """One of the four, and whether it leaves a record of an attachment."""

    name: str
    executable: Path
    ipam: dict[str, Any]
    has_records: bool = True


class Pod(NamedTuple):
    """What a runtime knows of a sandbox."""

    container: str
    netns: Path
    by: Program


class Node:
    """Pods that come and go, until it is told to stop. `wrong` is what must not have been."""

    def __init__(self, directory: Path, programs: list[Program], trouble: ClientTrouble, seed: int, faults: Collection[str]) -> None:
        self.data_dir = directory / "networks"
        self.directory = self.data_dir / NAME
        self.netns = directory / "netns"
        self.netns.mkdir()
        self.wrong: list[str] = []
        self.calls: dict[str, int] = {}
        self.history: list[str] = []
        self.in_api: set[str] = set()  # names of pods
        self.lives = Gate()  # an administrator waits until there is no pod
        self._adds = Gate()  # no ADD is under way while the runtime's GC is
        self.programs = programs
        self._favourites = programs
        self._trouble = trouble
        self._seed = seed
        self._faults = faults
        self._mutex = threading.Lock()
        self._held: dict[str, str] = {}  # address: container
        self._pods: dict[str, Pod] = {}  # whose DEL has not succeeded
        self._ended: dict[str, float] = {}
        self.leaked: list[Pod] = []
        self._names: dict[str, str] = {}  # of pods that come again under their name, by container
        self._number = 0
        self._stop = threading.Event()
        self._began = time.monotonic()
        self._threads: list[threading.Thread] = []

    def start(self, workers: int) -> None:
        jobs = [(self._live, number) for number in range(workers)]
        jobs += [(self._observe, -1), (self._collect_now_and_then, -2), (self._change_favourite, -3)]
        self._threads = [threading.Thread(target=job, args=(random.Random(f"{self._seed} {number}"),), daemon=True) for job, number in jobs]
        for thread in self._threads:
            thread.start()

    def stop(self, seconds: float) -> None:
        """Let every pod come to its end."""
        self._stop.set()
        if not end_all(self._threads, seconds):
            self.say("a pod does not come to its end")

    def call(self, program: Program, command: str, container: str = "", netns: str = "", **more: Any) -> Answer:
        """Call a plugin as a runtime does; its process may be killed, and then has code -9."""
        environ = environment(
            command, container_id=container, netns=netns, path=["/none"],
            args=f"IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME={self._names.get(container, container)};K8S_POD_UID={container}",
        )  # fmt: skip
        netconf = {"cniVersion": "1.1.0", "name": NAME, "type": "bridge", "ipam": {"dataDir": str(self.data_dir), **program.ipam}, **more}
        stdin = json.dumps(netconf).encode()
        pipe = subprocess.PIPE
        with subprocess.Popen([program.executable], env=environ, stdin=pipe, stdout=pipe, stderr=pipe) as process:
            began = time.monotonic()
            try:
                stdout, stderr = self._trouble.run(process, lambda: process.communicate(stdin, CALLER))
            except subprocess.TimeoutExpired:
                process.kill()
                stdout, stderr = process.communicate()
                self.say(f"{command} of {container} by {program.name} does not end: {stderr!r}")
        answer = Answer(process.returncode, stdout.decode(), stderr.decode())
        with self._mutex:
            key = f"{command} {program.name} {'ok' if answer.code == 0 else 'killed' if answer.code < 0 else 'failed'}"
            self.calls[key] = self.calls.get(key, 0) + 1
        said = answer.code or (answer.addresses if command == "ADD" else "ok")
        more_said = f" of all but {len(more['cni.dev/valid-attachments'])}" if command == "GC" else ""
        self.note(f"{command} {container}{more_said} by {program.name}, begun {time.monotonic() - began:.2f} s before: {said}")
        if answer.code > 0 and not _may_fail(command, answer):
            self.say(f"{command} of {container} by {program.name} after {time.monotonic() - began:.1f} s: {answer}")
        return answer

    def note(self, text: str) -> None:
        """Note what has happened, for who looks for the cause of what is wrong."""
        self.history.append(f"{time.monotonic() - self._began:7.2f} s: {text}")

    def say(self, text: str) -> None:
        """Say what must not have been."""
        self.note(f"WRONG: {text}")
        self.wrong.append(text)

    def _any(self, rng: random.Random) -> Program:
        return rng.choice(self._favourites)

    def _change_favourite(self, rng: random.Random) -> None:
        """Let one program alone do all for a while, most often the agent: what it remembers is then of use, and may be wrong."""
        while not self._stop.wait(rng.choice([1, 4])):
            self._favourites = rng.choice([self.programs, self.programs[:1], [rng.choice(self.programs)]])

    # What pods do.

    def _live(self, rng: random.Random) -> None:
        while not self._stop.is_set():
            with self._mutex:
                self._number += 1
                container = f"pod{self._number}"
                if "sticky" in self._faults and rng.random() < 0.5:
                    self._names[container] = f"db-{rng.randrange(STATEFUL)}"
            try:
                self.lives.add(lambda container=container: self._pod(rng, container))  # type: ignore[misc] # the loop waits for it
            except Exception as error:  # noqa: BLE001 -- a thread's end would go unnoticed
                self.say(repr(error))

    def _pod(self, rng: random.Random, container: str) -> None:
        pod = Pod(container, self.netns / container, self._any(rng))
        pod.netns.touch()
        with self._mutex:
            self._pods[container] = pod
            self.in_api.add(container)
        added = self._adds.add(lambda: self.call(pod.by, "ADD", container, str(pod.netns)))
        if added.code == 0:
            addresses = added.addresses
            self._take(addresses, container)
            self._be(rng, pod, addresses, added)
            self._let_go(addresses, container)
            if rng.random() < 0.05:
                self._leak(pod)
                return
        early = rng.random() < 0.2  # the sandbox, or the Pod, is gone before the DEL comes
        if early:
            self._remove(pod)
            self._stop.wait(rng.choice([0, 0, 2]))
        while self.call(self._any(rng), "DEL", container, "" if early else str(pod.netns)).code:
            time.sleep(rng.uniform(0.02, 0.3))
        if left := self._files_of(container):
            self.say(f"{container} (by {pod.by.name}) had its DEL, and still has {left}")
        with self._mutex:
            self._pods.pop(container, None)
            self._ended[container] = time.monotonic()
        self._remove(pod)

    def _be(self, rng: random.Random, pod: Pod, addresses: list[str], added: Answer) -> None:
        """Run; the files may become what host-locals before 0.8.0 wrote, of which some are still there after an upgrade."""
        if "old_form" in self._faults and rng.random() < 0.1:
            for address in addresses:
                os.truncate(self.directory / address, len(pod.container))
        if rng.random() < 0.2:
            self.in_api.discard(pod.container)
        if "aged" in self._faults and rng.random() < 0.2:  # it was made long ago, as far as files say
            then = time.time() - 86400
            for address in addresses:
                os.utime(self.directory / address, (then, then))
        self._stop.wait(rng.choice([0, 0, 0.05, 0.5, 2]))
        if rng.random() < 0.1:
            self.call(self._any(rng), "CHECK", pod.container, str(pod.netns), prevResult=added.json)

    def _leak(self, pod: Pod) -> None:
        """End without a DEL."""
        with self._mutex:
            self._pods.pop(pod.container)
            self.leaked.append(pod)
        self._remove(pod)

    def _remove(self, pod: Pod) -> None:
        pod.netns.unlink(missing_ok=True)
        self.in_api.discard(pod.container)

    # What is looked at.

    def _take(self, addresses: list[str], container: str) -> None:
        if len(addresses) != len(SUBNETS):
            self.say(f"{container} has {addresses}")
        with self._mutex:
            for address in addresses:
                if other := self._held.get(address):
                    self.say(f"{address} was given to {container} while {other} has it")
                self._held[address] = container

    def _let_go(self, addresses: list[str], container: str) -> None:
        self._look_for(dict.fromkeys(addresses, container))
        with self._mutex:
            for address in addresses:
                if self._held.get(address) == container:
                    del self._held[address]

    def _look_for(self, held: dict[str, str]) -> None:
        """Say which of what pods have is not theirs on the disk."""
        for address, container in held.items():
            try:
                owner = (self.directory / address).read_bytes().decode().partition("\r\n")[0]
            except FileNotFoundError:
                owner = "(nothing)"
            with self._mutex:
                if owner != container and self._held.get(address) == container:
                    pod = self._pods.get(container)
                    self.say(f"{address} is {container}'s ({pod.by.name if pod else '-'}), and has {owner!r} on the disk")
                    del self._held[address]  # once is enough

    def _observe(self, rng: random.Random) -> None:
        while not self._stop.wait(rng.uniform(0.2, 0.5)):
            with self._mutex:
                held = self._held.copy()
            self._look_for(held)
            now = time.monotonic()
            with self._mutex:
                ended = {container for container, when in self._ended.items() if now - when > ENDED}
            for address, owner in self.owners():
                if owner in ended:
                    self.say(f"{address} is {owner}'s again, which had its DEL")
                    self._ended.pop(owner, None)

    def owners(self) -> Iterator[tuple[str, str]]:
        """Yield who has what on the disk; "" where nobody can say."""
        for name in os.listdir(self.directory) if self.directory.is_dir() else ():
            if name.startswith((*OURS, ".", "#")):
                continue
            try:
                yield name, (self.directory / name).read_bytes().decode().partition("\r\n")[0]
            except FileNotFoundError:
                continue

    def _files_of(self, container: str) -> list[str]:
        return [name for name, owner in self.owners() if owner == container]

    def reclaimable(self) -> list[tuple[str, str]]:
        """Return what leaked pods still have of which an ADD's record says all that the agent needs to know."""
        recorded = {pod.container for pod in self.leaked if pod.by.has_records}
        return [(address, owner) for address, owner in self.owners() if owner in recorded]

    # What the runtime's GC does.

    def _collect_now_and_then(self, rng: random.Random) -> None:
        while not self._stop.wait(rng.uniform(2, 8)):
            self._adds.collect(lambda: self.collect(rng.choice(self.programs[:3]), rng))

    def collect(self, program: Program, rng: random.Random | None = None) -> Answer:
        """GC with those that are alive; of those that have a record some may be missing, as in Multus's list."""
        with self._mutex:
            pods = list(self._pods.values())
        if rng and "partial" in self._faults and rng.random() < 0.7:
            pods = [pod for pod in pods if not pod.by.has_records or rng.random() < 0.5]
        more: dict[str, Any] = {"cni.dev/valid-attachments": [{"containerID": pod.container, "ifname": "eth0"} for pod in pods]}
        return self.call(program, "GC", **more)

    def alive(self) -> list[Pod]:
        with self._mutex:
            return list(self._pods.values())


def _may_fail(command: str, answer: Answer) -> bool:
    try:
        code = answer.json["code"]
    except (ValueError, KeyError):
        return False
    return code == TRY_AGAIN_LATER and command != "DEL"
