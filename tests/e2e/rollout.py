#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Rollouts with deploy/components/surge on a real one-node cluster, while pods come and go: no ADD fails, and no node is without agent.

First to an image that cannot be pulled: the old agent stays, whatever the new pod says. Then to another build, which takes over.

    rollout.py [--bin=_output/bin] [--pods=5]

As walk.py, without helm and prometheus; Kubernetes 1.22 or later. Takes about two minutes.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from lab import ENTRYPOINT, ROOT, CheckFailedError, cluster_for, parser, show, wait
from walk import IMAGE, NEW, Walk, build_images
from worker import Worker, on_machine

SYSTEM = ("--namespace=kube-system",)
CHURN = ("--namespace=team-red",)
RESTS = 15  # seconds that a new pod which cannot start is looked at: an agent that is to go for it would be gone


class Rollout:
    """The DaemonSet, as it is installed and changed."""

    def __init__(self, lab: Worker, place: Path) -> None:
        self._lab = lab
        self._place = place

    def install(self) -> None:
        shutil.copytree(ROOT / "deploy", self._place / "deploy")
        mine = self._place / "deploy/mine"
        mine.mkdir()
        kustomization = {
            "resources": ["../base"],
            "components": ["../components/bridge", "../components/surge"],
            "images": [{"name": "kube-node", "newName": IMAGE, "newTag": "1"}],
        }
        (mine / "kustomization.yaml").write_text(json.dumps(kustomization))
        self._lab.kubectl("apply", "-k", str(mine))
        self.finish()

    def set_image(self, tag: str) -> None:
        self._lab.kubectl(*SYSTEM, "set", "image", "daemonset/kube-node", f"install={IMAGE}:{tag}", f"agent={IMAGE}:{tag}")

    def finish(self) -> None:
        self._lab.kubectl(*SYSTEM, "rollout", "status", "daemonset/kube-node", "--timeout=120s")

    def pods(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self._lab.get("pods", *SYSTEM, "--selector=app.kubernetes.io/name=kube-node")["items"]
        return found

    def ready(self) -> list[str]:
        conditions = {pod["metadata"]["name"]: pod["status"].get("conditions", ()) for pod in self.pods()}
        return [name for name, all_ in conditions.items() if any(one["type"] == "Ready" and one["status"] == "True" for one in all_)]

    def reasons(self) -> list[str]:
        """Return why init containers have not started."""
        states = (one["state"] for pod in self.pods() for one in pod["status"].get("initContainerStatuses", ()))
        return [state["waiting"]["reason"] for state in states if "waiting" in state]


def story(lab: Worker, base: Path, churning: int) -> None:
    begin = time.monotonic()
    lab.up()
    for number in (1, 2):
        lab.image(f"{IMAGE}:{number}", base / f"image-{number}", *ENTRYPOINT)
    rollout = Rollout(lab, base)
    rollout.install()
    lab.ready()
    show("node ready, with an agent", f"{time.monotonic() - begin:.1f} s")

    lab.kubectl("create", "namespace", "team-red")
    (old,) = rollout.ready()
    with Walk(lab, base, churning).churn():
        rollout.set_image("missing")
        wait(lambda: f"the image cannot be pulled: {rollout.reasons()}", 60, lambda: any("Pull" in reason for reason in rollout.reasons()))
        time.sleep(RESTS)
        if rollout.ready() != [old]:
            raise CheckFailedError(f"agents: {rollout.ready()}, not {old}")
        show("to an image that is not there", f"{', '.join(rollout.reasons())}; {old} stays")

        begin = time.monotonic()
        rollout.set_image("2")
        rollout.finish()
        show("to another build", f"{time.monotonic() - begin:.1f} s")
    version = lab.kubectl(*SYSTEM, "exec", "daemonset/kube-node", "-c", "agent", "--", "kube-node", "version")
    if NEW not in version:
        raise CheckFailedError(f"the agent is {version}")
    said = [json.loads(line) for line in lab.kubectl(*SYSTEM, "logs", "daemonset/kube-node", "-c", "agent").splitlines()]
    if said[0]["msg"] != "waiting for another agent to end" or any(line["level"] == "error" for line in said):
        raise CheckFailedError(f"the new agent has not waited, or says of an error: {said}")
    waited = next(line for line in said if line["msg"] == "agent started")
    show("the new agent has waited", f"from {said[0]['ts']} to {waited['ts']}")
    events = lab.get("events", *CHURN, "--field-selector=type=Warning")["items"]
    if failed := [event["message"] for event in events if event["reason"] == "FailedCreatePodSandBox"]:
        raise CheckFailedError(f"ADDs failed: {failed}")
    show("ADDs that failed", "none")
    lab.kubectl("delete", "-k", str(base / "deploy/mine"))


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--pods", type=int, default=5, help="pods that come and go in each of two lanes, at least")
    arguments.add_argument("--prepared", type=Path, help=argparse.SUPPRESS)  # this very program, on the machine
    given = arguments.parse_args()
    if given.prepared:
        with cluster_for(given.bin, Worker) as lab:
            story(lab, given.prepared, given.pods)
        return
    with tempfile.TemporaryDirectory(prefix="kn-rollout.") as base:
        build_images(Path(base), None)
        sys.exit(on_machine(Path(base), sys.executable, *sys.argv, f"--prepared={base}"))


if __name__ == "__main__":
    main()
