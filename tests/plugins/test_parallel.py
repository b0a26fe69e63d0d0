# SPDX-License-Identifier: Apache-2.0
"""Many pods at once, each plugin a process of its own."""

from __future__ import annotations

import json
import subprocess
import warnings
from typing import TYPE_CHECKING, Any

import pytest
from callplugin import environment
from patience import TRIES
from ways import DIFFERENT

from kubenode.cni.errors import TRY_AGAIN_LATER

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from callplugin import ViewWriter

pytestmark = DIFFERENT

AT_ONCE = 32  # processes; all are started as fast as that allows
V4, V6 = "10.7.0.0/24", "fd07::/64"
FREE = 253  # 256 less network, broadcast and gateway


def call_all(executable: Path, configs: Sequence[Path], command: str, numbers: Iterable[int], path: Sequence[Path] = ()) -> dict[int, Any]:
    """Call a plugin for containers c0, c1, ... in parallel, with the configurations in turn; return what each said, {} for nothing."""
    waiting: dict[int, subprocess.Popen[bytes]] = {}
    answers: dict[int, Any] = {}

    def take(number: int) -> None:
        answers[number] = json.loads(waiting.pop(number).communicate(timeout=60)[0] or b"{}")

    for number in numbers:
        if len(waiting) == AT_ONCE:
            take(next(iter(waiting)))
        with configs[number % len(configs)].open() as stdin:
            environ = environment(command, container_id=f"c{number}", path=path)
            waiting[number] = subprocess.Popen([executable], stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environ)
    for number in list(waiting):
        take(number)
    return answers


def add_all(executable: Path, configs: Sequence[Path], count: int, path: Sequence[Path] = ()) -> list[dict[str, Any]]:
    """Call ADD for all as a runtime does: who is to try again later, as on a machine that stood still for a while, has DEL and ADD."""
    answers = call_all(executable, configs, "ADD", range(count), path)
    for _ in range(TRIES):
        again = [number for number, answer in answers.items() if answer.get("code") == TRY_AGAIN_LATER]
        if not again:
            break
        warnings.warn(f"{len(again)} pods were told to try again", stacklevel=2)  # on a machine with nothing else to do there are none
        call_all(executable, configs, "DEL", again, path)
        answers |= call_all(executable, configs, "ADD", again, path)
    return [answers[number] for number in range(count)]


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
    answers = add_all(binaries / "kube-node", [embedded], 300)
    given = [[ip["address"] for ip in answer["ips"]] for answer in answers if "ips" in answer]
    assert len(given) == FREE
    assert len({address for pair in given for address in pair}) == 2 * FREE
    errors = {(answer["code"], answer["msg"]) for answer in answers if "ips" not in answer}
    assert errors == {(110, "failed to allocate for range 0: no IP addresses available in range set: 10.7.0.1-10.7.0.254")}
    assert sorted(reserved(tmp_path)) == sorted(address.partition("/")[0] for pair in given for address in pair)
    assert list(call_all(binaries / "kube-node", [embedded], "DEL", range(300)).values()) == [{}] * 300
    assert reserved(tmp_path) == []
    assert list((run_dir / "attachments").iterdir()) == []


def test_half_by_host_local(binaries: Path, config: Any, cni_bin: Path, tmp_path: Path) -> None:
    """Embedded allocator and host-local at work on one store at the same time give no address twice."""
    configs = [config(delegate=delegate) for delegate in ("embedded", "host-local")]
    answers = add_all(binaries / "kube-node", configs, 120, path=[cni_bin])
    addresses = [ip["address"] for answer in answers for ip in answer["ips"]]
    assert len(addresses) == len(set(addresses)) == 240
    call_all(binaries / "kube-node", configs[:1], "DEL", range(120))
    assert reserved(tmp_path) == []
