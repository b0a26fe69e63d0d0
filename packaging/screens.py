# SPDX-License-Identifier: Apache-2.0
"""All commands of `kube-node` on a node to be shown, in panes of tmux, and what the panes show. JSON, for pictures and tests.

Root, because the node is a mount and a network namespace of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

from pane import Pane
from showcase import BINARIES, Showcase

from kubenode.version import VERSION

ROOT = Path(__file__).resolve().parent.parent
ROWS = 60
INTERRUPT = ("C-c",)


class Shot(NamedTuple):
    """A command to run, and its exit code. `until`: what it shows where it waits for the keys that are then typed, and is looked at."""

    line: str
    code: int = 0
    until: str = ""
    keys: tuple[str, ...] = ()


class Screen(NamedTuple):
    """What a pane shows: `text` with colours, `lines` as they were written, however wide. `code`: its exit code."""

    name: str
    command: str
    columns: int
    code: int
    text: str
    lines: list[str]


BARE = {
    "help": Shot(""),
    "install": Shot("install --dry-run --conflist=/etc/kube-node/10-k8snet.conflist"),
}
UP = {
    "status": Shot("status"),
    "status-wide": Shot("status -o wide"),
    "status-address": Shot("status 10.244.1.4"),
    "status-watch": Shot("status --watch --namespace=kube-system", 130, "worker-1", INTERRUPT),
    "doctor": Shot("doctor"),
    "map": Shot("map"),
    "map-network": Shot("map net1"),
    "pools": Shot("pools --kubeconfig=/etc/kubernetes/admin.conf"),
    "map-pool": Shot("map pool/net2 --kubeconfig=/etc/kubernetes/admin.conf"),
    "pools-name": Shot("pools net2 --kubeconfig=/etc/kubernetes/admin.conf"),
    "try-add": Shot("try-add k8snet"),
    "gc": Shot("gc --dry-run"),
    "release": Shot("release 172.20.2.5", 1, "[y/N]", ("n", "Enter")),
    "version": Shot("version"),
    "whois": Shot("whois 172.20.2.3 --kubeconfig=/etc/kubernetes/admin.conf", 1),
    "nodes": Shot("nodes --kubeconfig=/etc/kubernetes/admin.conf"),
    "report": Shot("report /run/report.tar.gz"),
    "try": Shot("try"),
    "uninstall": Shot("uninstall --dry-run"),
}
FAULTY = {
    "doctor-faults": Shot("doctor --quiet", 2),
    "gc-faults": Shot("gc --dry-run"),
    "status-leak": Shot("status --network=k8snet"),
}
SHOTS = {**BARE, **UP, **FAULTY}


def take(columns: list[int], binaries: Path | None = None) -> list[Screen]:
    """Run all commands at each width."""
    if os.geteuid() != 0:
        sys.exit("screens: root is needed, for a mount and a network namespace")
    with tempfile.TemporaryDirectory(prefix="kube-node-screens.") as scratch:
        if binaries is None:
            binaries = Path(scratch, "bin")
            subprocess.run([sys.executable, ROOT / "packaging/binaries.py", f"--output={binaries}", f"--version={VERSION}"], check=True)
        shutil.copytree("/etc", f"{scratch}/etc", symlinks=True, ignore=shutil.ignore_patterns("cni", "kube-node", "kubernetes"))
        widths = ",".join(map(str, columns))
        # Without the processes, too: a kubelet on this machine would name its runtime.
        alone = ["unshare", "--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc", "--propagation=private"]
        command = [*alone, sys.executable, __file__, f"--inside={scratch}", f"--binaries={binaries}", f"--columns={widths}"]
        done = subprocess.run(command, check=False, stdout=subprocess.PIPE, text=True)
        if done.returncode:
            sys.exit(done.returncode)
        return [Screen(*one) for one in json.loads(done.stdout)]


def take_all(scratch: Path, binaries: Path, columns: list[int]) -> list[Screen]:
    """Do so, in namespaces of our own."""
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    for name in ("etc", "run", "opt", "var/lib"):
        (scratch / name).mkdir(parents=True, exist_ok=True)
        subprocess.run(["mount", "--bind", scratch / name, f"/{name}"], check=True)
    screens = []
    with Showcase(binaries) as showcase:
        for shots, then in ((BARE, showcase.bring_up), (UP, showcase.break_something), (FAULTY, None)):
            screens += [look(name, shot, width, scratch) for name, shot in shots.items() for width in columns]
            if then:
                then()
    return screens


def look(name: str, shot: Shot, columns: int, scratch: Path) -> Screen:
    """Run a command in a pane, and return what that shows at the end."""
    dropped = {"COLUMNS", "LINES", "NO_COLOR", "TMUX", "TMUX_PANE", "KUBECONFIG", "CNI_PATH"}
    environ = {key: value for key, value in os.environ.items() if key not in dropped}
    environ["PATH"] = f"{BINARIES}:{environ['PATH']}:/usr/sbin:/sbin"
    command = f"kube-node {shot.line}".rstrip()
    with Pane(command.split(), columns, ROWS, environ, scratch) as pane:
        code = pane.wait(shot.until)
        if shot.keys and shot.keys != INTERRUPT:  # what that leaves is not to be seen
            pane.type(*shot.keys)
            code = pane.wait()
        text, lines = pane.text("-e"), pane.text("-J").splitlines()
        if shot.keys == INTERRUPT:
            pane.type(*shot.keys)
            code = pane.wait()
    return Screen(name, command, columns, code, text, lines)


def main() -> None:
    parser = argparse.ArgumentParser(description="Print what all commands show in panes of tmux, as JSON.")
    parser.add_argument("--columns", default="80,200", help="widths, with commas between")
    parser.add_argument("--binaries", default="", help="what ./build.sh binaries made")
    parser.add_argument("--inside", default="", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    columns = [int(text) for text in arguments.columns.split(",")]
    if arguments.inside:
        screens = take_all(Path(arguments.inside), Path(arguments.binaries), columns)
    else:
        screens = take(columns, Path(arguments.binaries).resolve() if arguments.binaries else None)
    json.dump(screens, sys.stdout)


if __name__ == "__main__":
    main()
