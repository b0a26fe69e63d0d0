# SPDX-License-Identifier: Apache-2.0
"""`kube-node status --watch`: on a terminal of 24 lines stands what matters, and what does not stand there is counted."""

from __future__ import annotations

import contextlib
import fcntl
import io
import os
import pty
import re
import signal
import struct
import subprocess
import termios
from typing import TYPE_CHECKING

import pytest
from ourprocess import KUBE_NODE
from patience import eventually
from rich.console import Console

from kubenode.cli import statusview
from kubenode.host.root import HostRoot
from kubenode.inspection import named
from kubenode.inspection.holders import HolderFilter
from kubenode.inspection.locations import Locations
from kubenode.inspection.report import look

if TYPE_CHECKING:
    from node import SeededNode

pytestmark = pytest.mark.slow

LINES, COLUMNS = 24, 80
NEWEST = 10


def fitting(node: SeededNode, lines: int = LINES, most: int = NEWEST, *, wide: bool = False) -> str:
    """Return what stands on a terminal of so many lines, which has to hold it."""
    out = Console(file=io.StringIO(), width=COLUMNS, height=lines, force_terminal=True, color_system=None, highlight=False, emoji=False)
    place = Locations(HostRoot(""), str(node.run), str(node.net), f"{node.run}/agent.sock", (), (), "", os.environ, named.read(()))
    found = look(place, (), HolderFilter("", most))
    assert isinstance(out.file, io.StringIO)
    out.print(statusview.fitting(found, out, wide=wide))
    shown = out.file.getvalue()
    assert len(shown.splitlines()) <= lines, shown
    return shown


def leak(node: SeededNode, *containers: str) -> None:
    for name in containers:
        (node.netns / name).unlink()


def test_leaks_come_first(seeded: SeededNode) -> None:
    """With more pods than lines the leaks stand at the top, old as they are, and the rest is a number."""
    conf = seeded.conf()
    seeded.configure(conf)
    for number in range(30):
        seeded.add(conf, f"c{number}", f"web/pod-{number}")
    leak(seeded, "c0", "c1")
    rows = [line.split() for line in fitting(seeded, most=0).splitlines()]
    pods = [words[2] for words in rows if len(words) > 2 and words[2].startswith("web/")]
    assert set(pods[:2]) == {"web/pod-0", "web/pod-1"}
    assert pods[2] == "web/pod-29"
    assert ["and", str(60 - 2 * len(pods)), "more", "addresses"] in rows
    text = fitting(seeded, most=0)
    assert text.index("2 pods have addresses and no network namespace") < text.index("k8snet")


def test_a_network_in_trouble_comes_first(seeded: SeededNode) -> None:
    """With more networks than lines the one with a leak stands there, and the others are a number."""
    seeded.view(["10.1.0.0/16"], {f"example.com/n{number}": f"172.20.{number}.0/24" for number in range(12)})
    for number in range(12):
        conf = seeded.conf(f"net{number}", annotation=f"example.com/n{number}")
        seeded.configure(conf, f"{number:02}-net.conf")
        seeded.add(conf, f"c{number}", f"web/pod-{number}")
    leak(seeded, "c11")
    text = fitting(seeded)
    assert text.index("net11") < text.index("net0 ")
    left = re.search(r"and (\d+) more networks: --network shows one", text)
    assert left
    assert int(left[1]) + len(re.findall(r"^net\d+", text, re.MULTILINE)) == 12


def test_where_there_is_room(seeded: SeededNode) -> None:
    """On a large terminal nothing is cut off; on a tiny one it is no error."""
    conf = seeded.conf()
    seeded.configure(conf)
    for number in range(4):
        seeded.add(conf, f"c{number}", f"web/pod-{number}")
    whole = fitting(seeded)
    assert "more" not in whole
    assert all(f"web/pod-{number}" in whole for number in range(4))
    for lines in range(4, 12):
        assert "worker-1" in fitting(seeded, lines, wide=True)


def test_pods_are_counted_as_pods(seeded: SeededNode) -> None:
    """A pod that has leaked addresses of two networks is one pod."""
    first, second = seeded.conf(), seeded.conf("net1", annotation="example.com/net1")
    seeded.view(["10.1.0.0/24"], {"example.com/net1": "172.20.2.0/24"})
    seeded.configure(first)
    for conf, ifname in ((first, "eth0"), (second, "net1")):
        seeded.add(conf, "c1", "web/shop", ifname=ifname)
        seeded.add(conf, "c2", ifname=ifname)
    leak(seeded, "c1")
    assert "! 1 pod has addresses and no network namespace" in seeded.run_command("status").stdout
    leak(seeded, "c2")
    assert "! 2 pods have addresses and no network namespace" in seeded.run_command("status").stdout


def test_on_a_terminal(seeded: SeededNode) -> None:
    """The command shows it on the terminal that it has."""
    conf = seeded.conf()
    seeded.configure(conf)
    for number in range(15):
        seeded.add(conf, f"c{number}", f"web/pod-{number}")
    leak(seeded, "c0")
    leader, follower = pty.openpty()
    os.set_blocking(leader, False)
    fcntl.ioctl(leader, termios.TIOCSWINSZ, struct.pack("4H", LINES, COLUMNS, 0, 0))
    environ = {key: value for key, value in os.environ.items() if key not in {"LINES", "COLUMNS"}}
    # In the background of a shell SIGINT is ignored, and what is started there inherits that.
    command = ["env", "--default-signal=INT", str(KUBE_NODE), "status", f"--cni-config={seeded.net}", "--watch", "--all"]
    shown = b""

    def reads(text: bytes = b"") -> bool:
        nonlocal shown
        with contextlib.suppress(OSError):  # nothing yet; EIO: nobody writes to it any more
            shown += os.read(leader, 65536)
        return text in shown

    with subprocess.Popen(command, stdin=follower, stdout=follower, stderr=follower, env={**environ, "TERM": "xterm-256color"}) as watching:
        os.close(follower)
        try:
            eventually(lambda: reads(b"more addresses"), lambda: shown)
        finally:
            watching.send_signal(signal.SIGINT)
            eventually(lambda: reads() and watching.poll() is not None, "it goes on")
    os.close(leader)
    assert watching.returncode == 130
    assert b"leaked?" in shown
