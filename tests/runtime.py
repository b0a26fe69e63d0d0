# SPDX-License-Identifier: Apache-2.0
"""A container runtime in small: threads that ADD, CHECK and DEL pods through plugins, and note what a pod believes it has.

A failed ADD is followed by DEL, a DEL is tried until it succeeds, each sandbox has a container ID of its own, and no ADD of a network is
under way while its GC is: all as a runtime does.
"""

from __future__ import annotations

import itertools
import random
import threading
import time
from collections import Counter
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from callplugin import environment, execute

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from podnet import Answer

T = TypeVar("T")
PATIENCE = 15.0  # seconds for a call
TRY_AGAIN_LATER, NOT_AVAILABLE = 11, 50


class Net(NamedTuple):
    """A network: the plugin's name, its configuration, and the directory with its reservations."""

    plugin: str
    netconf: dict[str, Any]
    directory: Path

    @property
    def name(self) -> str:
        return str(self.netconf["name"])


class Gate:
    """Keeps ADDs and a GC of one network apart."""

    def __init__(self) -> None:
        self._change = threading.Condition()
        self._adding = 0
        self._collecting = False

    def add(self, call: Callable[[], T]) -> T:
        with self._change:
            self._change.wait_for(lambda: not self._collecting)
            self._adding += 1
        try:
            return call()
        finally:
            with self._change:
                self._adding -= 1
                self._change.notify_all()

    def collect(self, call: Callable[[], object]) -> None:
        with self._change:
            self._collecting = True
            self._change.wait_for(lambda: not self._adding)
        try:
            call()
        finally:
            with self._change:
                self._collecting = False
                self._change.notify_all()


def end_all(threads: list[threading.Thread], seconds: float) -> bool:
    """Wait for threads that were told to stop; say whether all have ended in time."""
    end = time.monotonic() + seconds
    for thread in threads:
        thread.join(max(0.0, end - time.monotonic()))
    return not any(thread.is_alive() for thread in threads)


class Runtime:
    """Runs `workers` threads over some networks until it is told to stop. `wrong` is what must not have been."""

    def __init__(self, binaries: Path, networks: list[Net], workers: int, seed: int) -> None:
        self.wrong: list[str] = []
        self.calls: Counter[str] = Counter()
        self.longest = 0.0
        self._binaries = binaries
        self._networks = networks
        self._gates = {net.name: Gate() for net in networks}
        self._mutex = threading.Lock()
        self._held: dict[tuple[str, str], str] = {}
        self._alive: dict[str, set[str]] = {net.name: set() for net in networks}  # container IDs whose DEL has not succeeded
        self._forgotten: dict[str, set[str]] = {net.name: set() for net in networks}  # those that no DEL will ever come for
        self._numbers = itertools.count()
        self._stop = threading.Event()
        jobs = [*((self._pods, number) for number in range(workers)), (self._gc, 0), (self._status, 0)]
        self._threads = [threading.Thread(target=job, args=(random.Random(f"{seed} {number}"),), daemon=True) for job, number in jobs]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self, seconds: float) -> None:
        """Let every pod come to its end."""
        self._stop.set()
        if not end_all(self._threads, seconds):
            self.wrong.append("a pod does not come to its end")

    def forgotten(self, net: Net) -> set[str]:
        return self._forgotten[net.name]

    def collect(self, net: Net) -> None:
        """Call GC for a network until it succeeds; what was forgotten is stale from now on."""
        with self._mutex:
            stale = self._forgotten[net.name].copy()
            self._held = {key: owner for key, owner in self._held.items() if owner not in stale}
            valid = [{"containerID": container, "ifname": "eth0"} for container in self._alive[net.name]]
        while self.call(net, "GC", "", **{"cni.dev/valid-attachments": valid}).code:
            time.sleep(0.1)
        with self._mutex:
            self._forgotten[net.name] -= stale

    def _gc(self, rng: random.Random) -> None:
        while not self._stop.wait(rng.uniform(2, 6)):
            net = rng.choice(self._networks)
            self._gates[net.name].collect(lambda net=net: self.collect(net))  # type: ignore[misc] # the loop waits for it

    def _status(self, rng: random.Random) -> None:
        while not self._stop.wait(1):
            self.call(rng.choice(self._networks), "STATUS", "")

    def _pods(self, rng: random.Random) -> None:
        while not self._stop.is_set():
            try:
                self._pod(rng, rng.choice(self._networks), f"pod{next(self._numbers)}")
            except Exception as error:  # noqa: BLE001 -- a thread's end would go unnoticed
                self.wrong.append(repr(error))

    def _pod(self, rng: random.Random, net: Net, container: str) -> None:
        with self._mutex:
            self._alive[net.name].add(container)
        added = self._gates[net.name].add(lambda: self.call(net, "ADD", container))
        mine: list[tuple[str, str]] = []
        if added.code == 0:
            mine = [(str(net.directory), address) for address in added.addresses]
            with self._mutex:
                for key in mine:
                    if other := self._held.get(key):
                        self.wrong.append(f"{key[1]} of {net.name} is {container}'s and {other}'s")
                    self._held[key] = container
            self._stop.wait(rng.choice([0, 0, 0.05, 0.5, 2]))
            if rng.random() < 0.1:
                self.call(net, "CHECK", container, prevResult=added.json)
            if rng.random() < 0.02:
                with self._mutex:
                    self._alive[net.name].discard(container)
                    self._forgotten[net.name].add(container)
                return
        with self._mutex:
            for key in mine:
                if self._held.pop(key, None) != container:
                    self.wrong.append(f"{key[1]} of {net.name} was given to somebody else while {container} had it")
        while self.call(net, "DEL", container).code:
            time.sleep(rng.uniform(0.02, 0.3))
        with self._mutex:
            self._alive[net.name].discard(container)

    def call(self, net: Net, command: str, container: str, **more: Any) -> Answer:
        """Run the relay once, and look at what it says and how long it takes."""
        environ = environment(command, container_id=container, args=f"K8S_POD_NAMESPACE=default;K8S_POD_NAME={container}", path=["/none"])
        begin = time.monotonic()
        answer = execute(self._binaries / net.plugin, {**net.netconf, **more}, environ)
        took = time.monotonic() - begin
        outcome = "ok"
        if answer.code:
            outcome = "failed"
            try:
                code = answer.json["code"]
            except (ValueError, KeyError):
                code = answer.stdout
            if code != (NOT_AVAILABLE if command == "STATUS" else TRY_AGAIN_LATER):
                self.wrong.append(f"{command} of {net.name}: {answer}")
        with self._mutex:
            self.calls[f"{command} {outcome}"] += 1
            self.longest = max(self.longest, took)
        return answer
