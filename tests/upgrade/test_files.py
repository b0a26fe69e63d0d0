# SPDX-License-Identifier: Apache-2.0
"""Files of the version before, in the hands of today's: records, Node view, reservations, the note of the boot. And the way back."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from recording import PODS, Version, leave, put_back, taken
from wanting import want

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Ask = Callable[..., tuple[int, str]]

SOURCE = Path(__file__).resolve().parent.parent.parent / "src"
BEFORE = json.loads(Path(__file__).with_name("72e61b4.json").read_text())
NOTE, NOTE_BEFORE, NAME, VIEW = "networks/.net.note", "networks/.net.boot", "run/nodename", "run/node.json"
HAD = {"c1": ["10.1.1.2", "fd01:0:0:1::2"], "c3": ["10.1.1.4", "fd01:0:0:1::4"]}


@pytest.fixture(autouse=True)
def machine_id() -> None:
    want("machine-id")


@pytest.fixture
def version(tmp_path: Path, run_dir: Path) -> Version:
    """Return today's programs on a node as the version before has left it, with two pods."""
    base = tmp_path / "node"
    base.mkdir()
    version = Version(SOURCE, base)
    version.prepare()
    put_back(BEFORE, base)
    return version


@pytest.fixture(params=["agent", "alone"])
def ask(version: Version, request: pytest.FixtureRequest) -> Iterator[Ask]:
    """Return how a plugin is called: through an agent, or alone."""
    if request.param == "alone":
        yield version.call
        return
    agent = version.agent()
    yield version.ask
    agent.terminate()
    assert agent.wait(60) == 0


def reserved(version: Version) -> dict[str, list[str]]:
    """Return what each container has."""
    found: dict[str, list[str]] = {}
    for path in sorted((version.networks / "net").iterdir()):
        if not path.name.startswith(("lock", "last_reserved")):
            found.setdefault(path.read_bytes().decode().partition("\r\n")[0], []).append(path.name)
    return found


def listed(*containers: str) -> dict[str, Any]:
    return {"cniVersion": "1.1.0", "cni.dev/valid-attachments": [{"containerID": one, "ifname": "eth0"} for one in containers]}


def test_an_upgrade_under_running_pods(version: Version, ask: Ask) -> None:
    """Pods that the version before has started keep their addresses, nobody else gets them, and their DEL releases them."""
    code, said = ask("ADD", "c4")
    assert code == 0, said
    mine = [ip["address"].partition("/")[0] for ip in json.loads(said)["ips"]]
    assert mine == ["10.1.1.5", "fd01:0:0:1::5"]  # the turn goes on, too
    assert ask("GC", **listed("c1", "c3", "c4")) == (0, "")
    assert reserved(version) == {**HAD, "c4": mine}
    assert ask("DEL", "c1") == (0, "")
    assert ask("DEL", "c3") == (0, "")
    assert reserved(version) == {"c4": mine}
    assert {path.name for path in (version.run / "attachments").iterdir()} == {"net:c4:eth0"}


def test_a_leak_of_the_version_before(version: Version, ask: Ask) -> None:
    """A pod that ended without DEL is told by its record from then: GC releases it, and keeps the other, whose namespace is there."""
    (version.base / "c1").unlink()
    assert ask("GC", **listed()) == (0, "")
    assert reserved(version) == {"c3": HAD["c3"]}


@pytest.fixture
def another_boot(version: Version) -> None:
    """Make the note of the version before another boot's."""
    (version.base / NOTE_BEFORE).write_text("11111111-2222-3333-4444-555555555555\n")


@pytest.mark.usefixtures("another_boot")
def test_the_note_of_the_boot(version: Version, ask: Ask) -> None:
    """The note of the version before says nothing to today's: nothing is released. It is gone then, and another is there."""
    code, said = ask("ADD", "c4")
    assert code == 0, said
    assert reserved(version).items() >= HAD.items()
    now = taken(version.base)
    assert (now[NOTE], now.get(NOTE_BEFORE)) == ("@BOOT@ @MACHINE@\n", None)


def test_what_status_says(version: Version) -> None:
    """Whose an address is, and how old the Node view, is known from the files of the version before."""
    (version.base / "net.d").mkdir()
    (version.base / "net.d/10.conf").write_bytes(version.conf())
    command = [*version.command, "status", "-o", "json", f"--cni-config={version.base}/net.d"]
    told = json.loads(subprocess.run(command, check=True, capture_output=True, env=version.environ, timeout=60).stdout)
    assert told["node"]["name"] == "worker-1"
    (network,) = told["networks"]
    pods = {tuple(one["addresses"]): one["pod"] for one in network["attachments"]}
    assert pods == {tuple(addresses): f"shop/{PODS[container]}" for container, addresses in HAD.items()}
    assert network["suspectedLeaks"] == 0


def test_the_way_back(tmp_path: Path, run_dir: Path) -> None:
    """The same calls leave the same files as those of the version before, byte for byte, but for three.

    That version takes any note but its own of this boot for a reboot, and then releases all; where it finds none it releases nothing. So
    ours has another name. The Node's name is noted where its machine-id is known, which a manifest by hand does not have. Our Node view
    also has the Node's version, which that version does not read.
    """
    base = tmp_path / "node"
    base.mkdir()
    leave(Version(SOURCE, base))
    now = taken(base)
    different = {name for name in {*now, *BEFORE} if now.get(name) != BEFORE.get(name)}
    assert different == {NOTE, NOTE_BEFORE, NAME, VIEW}
    view = json.loads(now[VIEW])
    assert view["metadata"].pop("resourceVersion") == "7"
    assert view == json.loads(BEFORE[VIEW])
    assert (now[NOTE], now.get(NOTE_BEFORE), now.get(NAME)) == ("@BOOT@ @MACHINE@\n", None, None)
