"""Many pods at once, each plugin a process of its own."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
from callplugin import environment

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from callplugin import ViewWriter

AT_ONCE = 32  # processes; all are started as fast as that allows
V4, V6 = "10.7.0.0/24", "fd07::/64"
FREE = 253  # 256 less network, broadcast and gateway


def call_all(executable: Path, config: Path, command: str, count: int, path: Sequence[Path] = ()) -> list[dict[str, Any]]:
    """Call a plugin for containers c0, c1, ... in parallel; return what each said, {} for nothing."""
    waiting: list[subprocess.Popen[bytes]] = []
    answers: list[dict[str, Any]] = []
    for number in range(count):
        if len(waiting) == AT_ONCE:
            answers.append(json.loads(waiting.pop(0).communicate(timeout=60)[0] or b"{}"))
        with config.open() as stdin:
            environ = environment(command, container_id=f"c{number}", path=path)
            waiting.append(subprocess.Popen([executable], stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environ))
    return answers + [json.loads(process.communicate(timeout=60)[0] or b"{}") for process in waiting]


@pytest.fixture
def config(tmp_path: Path, view: ViewWriter) -> Any:
    """Return a function that writes the network's configuration."""
    view(V4, V6)

    def write(**ipam: str) -> Path:
        path = tmp_path / f"config-{'-'.join(ipam.values())}"
        ipam |= {"type": "kube-node", "dataDir": str(tmp_path / "networks")}
        path.write_text(json.dumps({"cniVersion": "1.0.0", "name": "net", "ipam": ipam}))
        return path

    return write


def reserved(tmp_path: Path) -> list[str]:
    return [path.name for path in (tmp_path / "networks/net").iterdir() if path.name[0] in "1f"]


def test_300_adds_on_a_24(binaries: Path, config: Any, tmp_path: Path, run_dir: Path) -> None:
    """Exactly 253 get addresses, none twice; the others are told which range is full and leave no IPv6 address behind; DELs empty it."""
    embedded = config(delegate="embedded")
    answers = call_all(binaries / "kube-node", embedded, "ADD", 300)
    given = [[ip["address"] for ip in answer["ips"]] for answer in answers if "ips" in answer]
    assert len(given) == FREE
    assert len({address for pair in given for address in pair}) == 2 * FREE
    errors = {(answer["code"], answer["msg"]) for answer in answers if "ips" not in answer}
    assert errors == {(110, "failed to allocate for range 0: no IP addresses available in range set: 10.7.0.1-10.7.0.254")}
    assert sorted(reserved(tmp_path)) == sorted(address.partition("/")[0] for pair in given for address in pair)
    assert call_all(binaries / "kube-node", embedded, "DEL", 300) == [{}] * 300
    assert reserved(tmp_path) == []
    assert list((run_dir / "attachments").iterdir()) == []


def test_half_by_host_local(binaries: Path, config: Any, cni_bin: Path, tmp_path: Path) -> None:
    """Embedded allocator and host-local at work on one store at the same time give no address twice."""
    waiting, configs = [], [config(delegate=delegate) for delegate in ("embedded", "host-local")]
    for number in range(120):
        with configs[number % 2].open() as stdin:
            environ = environment("ADD", container_id=f"c{number}", path=[cni_bin])
            waiting.append(subprocess.Popen([binaries / "kube-node"], stdin=stdin, stdout=subprocess.PIPE, env=environ))
    answers = [json.loads(process.communicate(timeout=60)[0]) for process in waiting]
    addresses = [ip["address"] for answer in answers for ip in answer["ips"]]
    assert len(addresses) == len(set(addresses)) == 240
    call_all(binaries / "kube-node", configs[0], "DEL", 120)
    assert reserved(tmp_path) == []
