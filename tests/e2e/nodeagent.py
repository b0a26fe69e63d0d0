# SPDX-License-Identifier: Apache-2.0
"""The agent of a lab's node, started by hand, and what it says of itself."""

from __future__ import annotations

import json
import os
import re
import subprocess
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, Any, Self

from lab import NETWORK, NODE, CheckFailedError, wait

if TYPE_CHECKING:
    from pathlib import Path

    from lab import Lab

LISTEN = "127.0.0.1:19090"
SERIES = re.compile(r"^(?P<name>\w+)(?:\{(?P<labels>.*)\})? (?P<value>\S+)$", re.MULTILINE)
LABEL = re.compile(r'(\w+)="([^"]*)"')


class Samples:
    """Metrics as Prometheus reads them."""

    def __init__(self, text: str) -> None:
        self._all = [(found["name"], dict(LABEL.findall(found["labels"] or "")), float(found["value"])) for found in SERIES.finditer(text)]

    def total(self, name: str, **labels: str) -> float:
        """Return the sum of the series with these labels, 0 where there is none."""
        return sum(value for series, has, value in self._all if series == name and labels.items() <= has.items())

    def calls(self, command: str) -> int:
        """Return how many of these calls the agent has answered since its start."""
        return round(self.total("kubenode_call_duration_seconds_count", plugin="kube-node", command=command))

    def used(self) -> int:
        """Return how many addresses are reserved."""
        return round(self.total("kubenode_addresses_used", network=NETWORK))

    def reclaimed(self) -> int:
        return round(self.total("kubenode_leaks_reclaimed_total"))

    def buckets(self, name: str, **labels: str) -> list[tuple[float, int]]:
        """Return a histogram: upper bound in seconds, and how many lie in this bucket alone."""
        bounds = [
            (float(has["le"]), round(value))
            for series, has, value in self._all
            if series == f"{name}_bucket" and labels.items() <= has.items()
        ]
        bounds.sort()
        below = [0, *(count for _, count in bounds)]
        return [(bound, count - before) for (bound, count), before in zip(bounds, below, strict=False)]


class NodeAgent:
    """The agent as a process. With the API server's credentials of its own, as an operator would give it."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self._log = lab.directory / "log/agent.log"
        self._kubeconfig: Path | None = None
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def start(self, *arguments: str) -> None:
        """Start it and wait until it is ready."""
        self._kubeconfig = self._kubeconfig or self._lab.credentials("kube-node-agent", "get,list,watch nodes", "get pods")
        command = [str(self._lab.binaries / "kube-node"), "agent", f"--kubeconfig={self._kubeconfig}", f"--listen={LISTEN}"]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [*command, f"--cni-config={self._lab.net_d}", *arguments], env={**os.environ, "NODE_NAME": NODE}, stdout=log, stderr=log
            )
        wait(lambda: f"the agent is ready; its log: {self._log.read_text()[-3000:]}", 30, self._is_ready, 0.05)

    def _is_ready(self) -> bool:
        if self._process and self._process.poll() is not None:
            raise CheckFailedError(f"the agent has ended: {self._log.read_text()[-3000:]}")
        try:
            self._ask("/readyz")
        except (urllib.error.URLError, OSError):
            return False
        return True

    def stop(self) -> None:
        """End it as systemd does."""
        if self._process:
            self._process.terminate()
            if code := self._process.wait(30):
                raise CheckFailedError(f"the agent has ended with {code}: {self._log.read_text()[-3000:]}")
            self._process = None

    def kill(self) -> None:
        """End it as a crash does."""
        if self._process:
            self._process.kill()
            self._process.wait()
            self._process = None

    def _ask(self, path: str) -> str:
        with urllib.request.urlopen(f"http://{LISTEN}{path}", timeout=10) as answer:
            return str(answer.read().decode())

    def metrics(self) -> Samples:
        return Samples(self._ask("/metrics"))

    def log(self, *levels: str) -> list[dict[str, Any]]:
        """Return its log's lines of these levels. Raises CheckFailedError where a line is none: a traceback."""
        lines = self._log.read_text().splitlines()
        try:
            told = [json.loads(line) for line in lines]
        except json.JSONDecodeError:
            raise CheckFailedError(f"the agent's log holds more than JSON lines: {self._log.read_text()[-3000:]}") from None
        return [line for line in told if not levels or line["level"] in levels]

    def without_errors(self) -> None:
        """Raise CheckFailedError where it has logged an error."""
        if errors := self.log("error"):
            raise CheckFailedError(f"errors in the agent's log: {errors}")
