# SPDX-License-Identifier: Apache-2.0
"""`kube-node try-add`: a pod's start and end, without a trace."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from node import SeededNode

pytestmark = pytest.mark.slow

SCRIPTS = Path(sys.executable).parent


def names(steps: list[dict[str, object]]) -> list[object]:
    return [step["name"] for step in steps]


def test_steps(seeded: SeededNode) -> None:
    """Each step stands there with its time, the address with the ADD, and nothing is left."""
    conf = seeded.conf()
    seeded.configure(conf)
    seeded.add(conf, "c1", "web/shop")
    answer = seeded.run_command("try-add", "k8snet", f"--bin-dir={SCRIPTS}", "-o", "json")
    assert answer.code == 0, answer.stdout + answer.stderr
    steps = answer.json["steps"]
    assert names(steps) == ["look at the network", "STATUS", "ADD", "CHECK", "DEL", "look for what is left"]
    assert steps[2]["told"] == "10.1.0.3/24, fd01::3/64"
    assert all(step["milliseconds"] > 0 for step in steps)
    assert "10.1.0.3" not in os.listdir(seeded.networks / "k8snet")
    assert len(os.listdir(seeded.run / "attachments")) == 1


def test_failure(seeded: SeededNode) -> None:
    """What fails is told with its reason and advice; DEL follows all the same, and the exit code is 1."""
    conf = seeded.conf(**{"ipv4-namespaces": ["web"]})
    seeded.view(["10.1.0.0/24"])
    seeded.configure(conf)
    answer = seeded.run_command("try-add", "k8snet", f"--bin-dir={SCRIPTS}")
    assert answer.code == 1
    assert "✗  ADD" in answer.stdout
    assert "add the namespace there" in answer.stdout
    assert "✓  DEL" in answer.stdout
    assert seeded.run_command("try-add", "k8snet", f"--bin-dir={SCRIPTS}", "--namespace=web").code == 0
    assert "not found in CNI_PATH" in seeded.run_command("try-add", "k8snet", f"--bin-dir={seeded.bin}").stderr


@pytest.mark.parametrize("version", ["0.2.0", "0.3.1"])
def test_old_versions(seeded: SeededNode, version: str) -> None:
    """In a version without CHECK and STATUS these are left out."""
    seeded.configure({**seeded.conf(), "cniVersion": version})
    steps = seeded.run_command("try-add", "k8snet", f"--bin-dir={SCRIPTS}", "-o", "json").json["steps"]
    assert names(steps) == ["look at the network", "ADD", "DEL", "look for what is left"]
    assert steps[1]["told"] == "10.1.0.2/24, fd01::2/64"
