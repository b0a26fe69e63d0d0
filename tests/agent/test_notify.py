# SPDX-License-Identifier: Apache-2.0
"""What systemd is told, and what its unit lets the agent do."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from agentprocess import AgentProcess, pod_args, write_node
from ourprocess import KUBE_NODE
from patience import PATIENCE
from rebooting import reboot
from wanting import want

from kubenode.agent.notify import Notifier

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[2]
UNIT = ROOT / "deploy/systemd/kube-node-agent.service"


class Manager:
    """The service manager's end of the notification socket."""

    def __init__(self, address: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind("\0" + address[1:] if address.startswith("@") else address)
        self.socket.settimeout(15)
        self.told: list[dict[str, str]] = []

    def wait_for(self, assignment: str) -> dict[str, str]:
        """Wait until it is told this; return all of that message."""
        key, _, value = assignment.partition("=")
        end = time.monotonic() + PATIENCE
        while True:
            assert time.monotonic() < end, f"not told {assignment}, but {self.told[-3:]}"
            message = dict(line.split("=", 1) for line in self.socket.recv(4096).decode().splitlines())
            self.told.append(message)
            if message.get(key) == value:
                return message


@pytest.fixture(params=["path", "abstract"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path / "notify") if request.param == "path" else f"@kube-node-test-{os.getpid()}-{time.monotonic_ns()}"


@pytest.fixture
def manager(address: str) -> Iterator[Manager]:
    manager = Manager(address)
    yield manager
    manager.socket.close()


@pytest.mark.slow
def test_the_life_of_a_service(manager: Manager, address: str, tmp_path: Path, run_dir: Path) -> None:
    """READY once calls are served, STATUS with the Node, WATCHDOG often enough, STOPPING at SIGTERM."""
    node = write_node(tmp_path / "node.json", "10.0.0.0/24")
    env = {"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "400000"}
    with AgentProcess(run_dir, f"--node-file={node}", env=env) as agent:
        manager.wait_for("READY=1")
        assert agent.call("VERSION", {"cniVersion": "1.0.0", "ipam": {"type": "kube-node"}}).code == 0
        begin = time.monotonic()
        for _ in range(8):
            manager.wait_for("WATCHDOG=1")
        assert time.monotonic() - begin < 16  # without $WATCHDOG_USEC it would be 20
        assert manager.wait_for("STATUS=Node node-1")["WATCHDOG"] == "1"
        node.write_text("[")
        manager.wait_for("STATUS=Node node-1; " + agent.said("cannot use the Node manifest")["error"].rpartition(" (")[0])
        assert agent.stop() == 0
        manager.wait_for("STOPPING=1")
    assert [message for message in manager.told if "READY" in message] == manager.told[:1]


@pytest.mark.parametrize(
    ("environ", "watchdog"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "30000000"}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "2147483647"}, None),
        ({"WATCHDOG_USEC": "x"}, None),
    ],
)
def test_the_watchdog_is_for_this_process(environ: dict[str, str], watchdog: float | None) -> None:
    """The watchdog's period counts where it is meant for this process (sd_watchdog_enabled(3))."""
    assert Notifier(environ).watchdog == watchdog


@pytest.mark.parametrize("environ", [{}, {"NOTIFY_SOCKET": ""}, {"NOTIFY_SOCKET": "/no/such/socket"}])
def test_nobody_to_tell(environ: dict[str, str]) -> None:
    """Without a service manager, or with one that is gone, the agent goes on."""
    Notifier(environ).tell(READY="1")


@pytest.fixture
def unit(tmp_path: Path) -> Path:
    """Return the unit with the program that is here."""
    want("systemd-analyze")
    copy = tmp_path / "kube-node-agent.service"
    copy.write_text(UNIT.read_text().replace("/usr/bin/kube-node", str(KUBE_NODE)))
    shutil.copy(UNIT.with_suffix(".socket"), tmp_path)
    return copy


@pytest.mark.parametrize("suffix", [".service", ".socket"])
def test_the_units_are_right(unit: Path, suffix: str) -> None:
    """systemd finds nothing to complain about in the units."""
    command = ["systemd-analyze", "verify", "--man=no", str(unit.with_suffix(suffix))]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert (done.returncode, [line for line in done.stderr.splitlines() if unit.stem in line]) == (0, [])


def test_the_exposure_is_what_the_page_says(unit: Path) -> None:
    """docs/reference/agent.md says how far the unit is locked down, as systemd rates it, and no setting has slackened since."""
    command = ["systemd-analyze", "security", "--offline=true", "--no-pager", str(unit)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    rated = re.search(r"exposure level for .*: ([\d.]+)", done.stdout)
    documented = re.search(r"exposure (?:level )?of ([\d.]+)", (ROOT / "docs/reference/agent.md").read_text())
    assert rated is not None
    assert documented is not None
    assert float(rated[1]) <= float(documented[1])


@pytest.mark.slow
def test_the_restrictions_leave_its_work(tmp_path: Path) -> None:
    """Without any capability, and with everything read-only but its two directories, ADD, DEL, GC, reboot and evidence work.

    As the unit does it, but by hand: systemd is not what runs tests.
    """
    want("the right to mount", "setpriv")
    data_dir, run_dir, spaces = tmp_path / "cni", tmp_path / "run-kube-node", tmp_path / "netns"
    for directory in (data_dir, run_dir, spaces):
        directory.mkdir()
    (spaces / "c1").touch()
    node = write_node(tmp_path / "node.json", "10.0.0.0/24")
    script = (
        f'for d in "{data_dir}" "{run_dir}"; do mount --bind "$d" "$d" || exit; done; '
        f'mount --rbind "{tmp_path}" "{tmp_path}" && mount -o bind,remount,ro "{tmp_path}" && exec "$@"'
    )
    drop = ["setpriv", "--bounding-set=-all", "--inh-caps=-all", "--no-new-privs"]
    conf: dict[str, Any] = {"cniVersion": "1.1.0", "name": "net", "ipam": {"type": "kube-node", "dataDir": str(data_dir / "networks")}}
    reserved = data_dir / "networks/net"
    (reserved.parent / "old").mkdir(parents=True)
    (reserved.parent / "old/10.0.0.9").write_text("old\r\neth0")
    wrap = ["unshare", "--mount", "sh", "-c", script, "sh", *reboot(reserved.parent / ".old.note"), *drop]
    with AgentProcess(run_dir, f"--node-file={node}", "--grace=0", wrap=wrap) as agent:
        assert agent.process is not None
        status = Path(f"/proc/{agent.process.pid}/status").read_text()
        assert re.search(r"^CapEff:\s0+$", status, re.MULTILINE)
        for container in ("c1", "c2", "c3"):
            agent.add(conf, container, netns=str(spaces / "c1"), args=pod_args("pod"))
        (spaces / "c1").unlink()
        assert agent.said("the network namespace is gone")
        assert agent.call("DEL", conf).code == 0
        assert sorted(file.name for file in reserved.glob("10.*")) == ["10.0.0.3", "10.0.0.4"]
        assert agent.call("GC", {**conf, "cni.dev/valid-attachments": [{"containerID": "c3", "ifname": "eth0"}]}).code == 0
        assert [file.name for file in reserved.glob("10.*")] == ["10.0.0.4"]
        assert agent.call("STATUS", {**conf, "name": "old"}).code == 0
        agent.said("reservations of an earlier boot released")
        assert list((reserved.parent / "old").glob("10.*")) == []
        elsewhere = agent.call("ADD", {**conf, "ipam": {**conf["ipam"], "dataDir": str(tmp_path / "elsewhere")}})
        assert (elsewhere.code, "Read-only file system" in elsewhere.stdout) == (2, True)  # the standalone plugin may be able to
