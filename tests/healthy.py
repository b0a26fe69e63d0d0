# SPDX-License-Identifier: Apache-2.0
"""A node on which all is well, for `kube-node doctor` to find what a test then breaks."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from agentprocess import AgentProcess

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import ExitStack

    from node import SeededNode
    from podnet import Answer

T = TypeVar("T")
SCRIPTS = Path(sys.executable).parent


class Doctor:
    """A healthy node: a configuration, plugins, a Node view that a person has written, a pod. `built` are our binaries."""

    def __init__(self, node: SeededNode, built: Path, stack: ExitStack) -> None:
        self.node, self.built, self.stack = node, built, stack
        self.env: dict[str, str] = {"PATH": f"{SCRIPTS}:{os.environ['PATH']}"}
        self.wrap: list[str] = []
        self.conf = node.conf()
        node.configure(self.conf)
        for name in ("bridge", "macvlan"):
            self.plugin(name)
        (node.bin / "kube-node").symlink_to(SCRIPTS / "kube-node")
        node.add(self.conf, "c1", "web/shop")

    def plugin(self, name: str, mode: int = 0o755) -> None:
        path = self.node.bin / name
        path.write_text("#!/bin/sh\nexit 1\n")
        path.chmod(mode)

    def relays(self) -> None:
        """Put the relay and what it falls back to in place."""
        (self.node.bin / "kube-node").unlink()
        shutil.copy(self.built / "kube-node", self.node.bin)
        shutil.copy(self.built / "kube-node.standalone", self.node.bin)
        (self.node.bin / "kube-node.lib").symlink_to(self.built / "kube-node.lib")

    def write(self, name: str, text: str) -> None:
        (self.node.directory / name).write_text(text)

    def agent(self) -> None:
        self.stack.enter_context(AgentProcess(self.node.run))

    def reconfigure(self, **ipam: Any) -> None:
        """Change the network's `ipam`; None takes a key away."""
        self.conf["ipam"] = {key: value for key, value in {**self.conf["ipam"], **ipam}.items() if value is not None}
        self.node.configure(self.conf)

    def run(self, *arguments: str) -> Answer:
        where = ["doctor", f"--bin-dir={self.node.bin}", *arguments]
        if not self.wrap:
            return self.node.run_command(*where, env=self.env)
        return self.node.run_command(*where, env=self.env, wrap=self.wrap)

    def findings(self) -> tuple[int, list[dict[str, str]]]:
        """Return the exit code, and all that is not well."""
        answer = self.run("-o", "json")
        return answer.code, [one for one in answer.json["checks"] if one["state"] not in {"ok", "skipped"}]


def follow(doctor: Doctor, findings: list[dict[str, str]]) -> None:
    """Run the commands that the findings advise."""
    for one in findings:
        subprocess.run([*doctor.wrap, "sh", "-c", one["run"]], check=True, env={**os.environ, **doctor.env}, capture_output=True)


def steps(*functions: Callable[[T], object]) -> Callable[[T], None]:
    """Return a function that does all of these."""

    def do(patient: T) -> None:
        for function in functions:
            function(patient)

    return do
