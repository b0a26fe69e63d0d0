# SPDX-License-Identifier: Apache-2.0
"""The agent is killed, stopped and started at random while 64 relays call it: no address twice, nothing left, no call without an end."""

from __future__ import annotations

import json
import os
import random
import shutil
import time
from typing import TYPE_CHECKING, Any

import pytest
from agentprocess import AgentProcess
from callplugin import OURS
from runtime import PATIENCE, Net, Runtime
from trouble import AgentTrouble

if TYPE_CHECKING:
    from pathlib import Path

SECONDS = float(os.environ.get("KUBE_NODE_CHAOS_SECONDS") or 8)
SEED = int(os.environ.get("KUBE_NODE_CHAOS_SEED") or random.randrange(1 << 32))
WORKERS = 64
MARGIN = 5.0  # seconds that a machine with two cores may take to start 64 processes
PLUGINS = ("kube-node", "node-annotation", "host-local")


def networks(tmp_path: Path, node_file: Path) -> list[Net]:
    """Write the Node; return networks of every plugin, in three data directories. 252 addresses each: the round robin comes round."""
    elsewhere = tmp_path / "annotated"
    annotations = {"other": "10.2.0.0/24", "whole": f'ranges: [[{{"subnet": "10.3.0.0/24"}}]], dataDir: "{elsewhere}"'}
    node = {"metadata": {"name": "n", "uid": "1", "annotations": annotations}, "spec": {"podCIDRs": ["10.1.0.0/24", "fd01::/64"]}}
    node_file.write_text(json.dumps({"kind": "Node", **node}))

    def net(name: str, plugin: str, data_dir: Path, reserved_in: Path | None = None, **ipam: Any) -> Net:
        conf = {"type": plugin, "dataDir": str(data_dir), **ipam}
        return Net(plugin, {"cniVersion": "1.1.0", "name": name, "type": "bridge", "ipam": conf}, (reserved_in or data_dir) / name)

    first, second = tmp_path / "first", tmp_path / "second"
    return [
        net("pods", "kube-node", first, delegate="embedded"),
        net("secondary", "kube-node", second, annotation="other", delegate="embedded"),
        net("annotated", "node-annotation", second, elsewhere, annotation="whole", delegate="embedded"),
        net("plain", "host-local", first, ranges=[[{"subnet": "10.4.0.0/24"}]]),
    ]


def owners(directory: Path) -> set[str]:
    """Return whose the reservations are; "" where nobody can say."""
    files = [path for path in directory.iterdir() if not path.name.startswith(OURS)] if directory.is_dir() else []
    return {path.read_bytes().decode().partition("\r\n")[0] for path in files}


@pytest.mark.timeout(180 + 3 * SECONDS)
@pytest.mark.parametrize("standalone", [True, False], ids=["with standalone", "without standalone"])
def test_chaos(binaries: Path, tmp_path: Path, run_dir: Path, standalone: bool, record_property: Any) -> None:  # noqa: FBT001 -- a parameter
    """Whenever the agent is stopped or dies, no two pods have one address, and what a pod had or asked for goes with its DEL."""
    if not standalone:
        relays = tmp_path / "relays"
        relays.mkdir()
        for name in PLUGINS:
            shutil.copy(binaries / name, relays / name)
        binaries = relays
    node_file = tmp_path / "node.json"
    nets = networks(tmp_path, node_file)
    print(f"KUBE_NODE_CHAOS_SEED={SEED}")  # noqa: T201 -- to have the same again, as far as the machine goes along
    with AgentProcess(run_dir, f"--node-file={node_file}", "--loglevel=warning") as agent:
        while not (run_dir / "node.json").exists():  # what a standalone is served from
            time.sleep(0.01)
        runtime = Runtime(binaries, nets, WORKERS, SEED)
        trouble = AgentTrouble(agent, random.Random(SEED), longer=SECONDS > PATIENCE)
        runtime.start()
        trouble.until(time.monotonic() + SECONDS)
        runtime.stop(120)
        for net in nets:
            # Whatever is still on its way in the agent, of relays that are gone, comes to its end before.
            assert runtime.call(net, "ADD", "last").code == 0
            assert runtime.call(net, "DEL", "last").code == 0
        time.sleep(1)
        for net in nets:
            assert owners(net.directory) == runtime.forgotten(net), net.name
        listed = {path.name.split(":")[1] for path in (run_dir / "attachments").iterdir()}
        assert listed == {name for net in nets for name in runtime.forgotten(net)}
        for net in nets:
            runtime.collect(net)
            assert owners(net.directory) == set(), net.name
        assert list((run_dir / "attachments").iterdir()) == []
        log = agent.log()
    assert runtime.wrong == []
    assert runtime.longest < PATIENCE + MARGIN
    assert "internal error" not in log
    assert runtime.calls["ADD ok"] > WORKERS
    assert trouble.counts  # something was in their way; how much fits into the time is the machine's
    record_property("calls", dict(runtime.calls))
    print(f"{dict(sorted(runtime.calls.items()))}, {trouble.counts}, longest {runtime.longest:.1f} s")  # noqa: T201 -- what it was
