# SPDX-License-Identifier: Apache-2.0
"""Make a Debian package out of _output/bin and the systemd units: for Debian 12 and 13, whose Pythons differ.

Run by `./build.sh deb` after `./build.sh binaries`. Compiled dependencies for the other release's Python come as wheels, by pip, as
requirements/run.lock pins them; what is compiled to bytecode is compiled on the machine that installs it.
"""

from __future__ import annotations

import argparse
import gzip
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from importlib.metadata import distribution
from pathlib import Path

import lock
import manpages

ROOT = Path(__file__).resolve().parent.parent
BINARIES = ROOT / "_output/bin"
LIBRARY = "usr/lib/kube-node"
PYTHONS = ("3.11", "3.13")  # of Debian 12 and 13
COMPILED = ("msgspec", "PyYAML")
PLUGINS = ("kube-node", "node-annotation")  # not host-local: that name is containernetworking-plugins'
COMMANDS = ("kube-node", "kubectl-kube_node")  # the second is what `kubectl kube-node` runs
UNITS = ROOT / "deploy/systemd"

CONTROL = """\
Package: kube-node
Version: {version}
Architecture: {architecture}
Maintainer: {maintainer}
Section: net
Priority: optional
Installed-Size: {size}
Depends: libc6, python3 (>= 3.11), python3 (<< 3.14)
Recommends: containernetworking-plugins
Description: addresses for Kubernetes pods, taken from the Node object
 IPAM plugins for the Container Network Interface, kube-node and
 node-annotation, in /usr/lib/cni, and the node agent that makes them fast.
 .
 For a runtime that looks for plugins in /opt/cni/bin: kube-node install.
"""
COPYRIGHT = """\
Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/
Upstream-Name: kube-node
Comment: Libraries in usr/lib/kube-node/kube-node.lib have their licences beside them, in the directories NAME.dist-info.

Files: *
Copyright: 2025-2026 the kube-node contributors
License: Apache-2.0
 Licensed under the Apache License, Version 2.0. On Debian systems its text
 is in /usr/share/common-licenses/Apache-2.0.
"""
CHANGELOG = """\
kube-node ({version}) unstable; urgency=medium

  * CHANGELOG.md in this directory says what changed.

 -- {maintainer}  {date}
"""
# What lintian finds in files that are shipped byte for byte, as requirements/run.lock has their hashes, and in static programs.
OVERRIDES = """\
kube-node: embedded-library
kube-node: unstripped-binary-or-object
kube-node: unusual-interpreter
kube-node: shared-library-lacks-prerequisites
"""
COMPLETIONS = {
    "bash": "usr/share/bash-completion/completions/kube-node",
    "zsh": "usr/share/zsh/vendor-completions/_kube-node",
    "fish": "usr/share/fish/vendor_completions.d/kube-node.fish",
}
# systemctl is asked only where systemd runs: not in a container that is being built.
POSTINST = """\
#!/bin/sh
set -e
if [ "$1" = configure ]; then
    /usr/bin/python3 -m compileall -q --invalidation-mode unchecked-hash /{library}/kube-node.lib
    if [ -d /run/systemd/system ]; then
        systemctl daemon-reload
        # The socket unit is for those who want it.
        if [ -z "$2" ]; then systemctl enable -q kube-node-agent.service; fi
        systemctl restart kube-node-agent.service || echo "kube-node: the agent does not start; see journalctl -u kube-node-agent" >&2
    fi
fi
"""
PRERM = """\
#!/bin/sh
set -e
if [ "$1" = remove ] && [ -d /run/systemd/system ]; then
    systemctl disable -q --now {units} || true
fi
find /{library} -name __pycache__ -prune -exec rm -rf {{}} +
"""
POSTRM = """\
#!/bin/sh
set -e
if [ -d /run/systemd/system ]; then systemctl daemon-reload; fi
if [ "$1" = purge ]; then
    rm -f /etc/default/kube-node-agent
    # The boots that reservations are of: whoever gives addresses there from now on does not note them.
    named=$(cat /etc/cni/net.d/*.conf /etc/cni/net.d/*.conflist /etc/cni/net.d/*.json /run/kube-node/attachments/* 2>/dev/null |
        tr ',{}' '\\n' | sed -n 's/.*"dataDir" *: *"\\(\\/[^"]*\\)".*/\\1/p' | sort -u)
    for directory in /var/lib/cni/networks /run/container-ipam-state $named; do
        rm -f "$directory"/.*.note "$directory"/.*.boot
    done
    # The Node view and the records are also those of plugins that `kube-node install` has put elsewhere.
    if [ ! -e /opt/cni/bin/kube-node ]; then rm -rf /run/kube-node; fi
fi
"""


def debian_version(told: str) -> str:
    """Return a version that dpkg takes: it begins with a number, and what is not released yet sorts before what is."""
    text = re.sub(r"[^A-Za-z0-9.+~]", ".", re.sub(r"\.?(dev|rc)(?=\d)", r"~\1", told))
    if re.match(r"\d+\.\d", text):
        return text
    base = re.sub(r"\.?dev", "~dev", distribution("kube-node-ipam").version)
    return f"{base}+{time.strftime('%Y%m%d')}.{text}"


def built_version() -> str:
    text = (BINARIES / "kube-node.lib/kubenode/version.py").read_text()
    found = re.search(r"VERSION = '(.*)'", text)
    return found[1] if found else "0"


def add_compiled(library: Path, scratch: Path) -> None:
    """Put the compiled modules for each Python side by side: an interpreter takes those with its own name in theirs."""
    scratch.mkdir()
    wanted = scratch / "wanted.lock"
    wanted.write_text(lock.pinned(COMPILED))
    for python in PYTHONS:
        options = ["--no-deps", "--require-hashes", "--only-binary=:all:", f"--python-version={python}", f"--dest={scratch}", "-qq"]
        command = [sys.executable, "-m", "pip", "download", "--disable-pip-version-check", *options, f"--requirement={wanted}"]
        subprocess.run(command, check=True)
    for wheel in scratch.glob("*.whl"):
        with zipfile.ZipFile(wheel) as archive:
            for name in archive.namelist():
                if name.endswith(".so"):
                    archive.extract(name, library)


def lay_out(tree: Path, scratch: Path) -> None:
    shutil.copytree(BINARIES, tree / LIBRARY, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    add_compiled(tree / LIBRARY / "kube-node.lib", scratch)
    for name in ("kube-node", "node-annotation", "host-local"):
        launcher = tree / LIBRARY / f"{name}.standalone"
        launcher.write_text(re.sub(r"\A#!\S+", "#!/usr/bin/python3", launcher.read_text()))
    (tree / "usr/bin").mkdir(parents=True)
    for name in COMMANDS:
        (tree / "usr/bin" / name).symlink_to("../lib/kube-node/kube-node.standalone")
    (tree / "usr/lib/cni").mkdir(parents=True)
    for name in PLUGINS:
        for file in (name, f"{name}.standalone"):
            (tree / "usr/lib/cni" / file).symlink_to(f"../kube-node/{file}")
    units = tree / "usr/lib/systemd/system"
    units.mkdir(parents=True)
    for unit in sorted(UNITS.glob("kube-node-agent.*")):
        shutil.copy(unit, units)
    documents = tree / "usr/share/doc/kube-node"
    documents.mkdir(parents=True)
    (documents / "copyright").write_text(COPYRIGHT)
    for name in ("README.md", "CHANGELOG.md"):
        shutil.copy(ROOT / name, documents)
    shutil.copytree(ROOT / "docs", documents / "docs")
    shutil.copytree(ROOT / "examples", documents / "examples")


def add_help(tree: Path) -> None:
    """Put manual pages and the shells' completions where these look for them."""
    manual = tree / "usr/share/man/man1"
    manual.mkdir(parents=True)
    for name, text in manpages.pages().items():
        packed(manual / f"{name}.gz", text)
    for shell, place in COMPLETIONS.items():
        target = tree / place
        target.parent.mkdir(parents=True)
        told = subprocess.run(
            [Path(sys.executable).with_name("kube-node"), "completion", shell], check=True, capture_output=True, text=True
        )
        target.write_text(told.stdout)


def add_notes(tree: Path, version: str, maintainer: str) -> None:
    """Put in what Debian's policy wants of each package."""
    text = CHANGELOG.format(version=version, maintainer=maintainer, date=time.strftime("%a, %d %b %Y %H:%M:%S +0000", time.gmtime()))
    packed(tree / "usr/share/doc/kube-node/changelog.gz", text)
    overrides = tree / "usr/share/lintian/overrides"
    overrides.mkdir(parents=True)
    (overrides / "kube-node").write_text(OVERRIDES)


def packed(path: Path, text: str) -> None:
    path.write_bytes(gzip.compress(text.encode(), mtime=0))


def default_maintainer() -> str:
    """Return who says so of themselves, as Debian's tools have it, else the author of the last commit."""
    if {"DEBFULLNAME", "DEBEMAIL"} <= os.environ.keys():
        return f"{os.environ['DEBFULLNAME']} <{os.environ['DEBEMAIL']}>"
    command = ["git", "log", "-1", "--format=%an <%ae>"]
    try:
        told = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip()
    except FileNotFoundError:
        told = ""
    return told or sys.exit("deb: no git says who made this: --maintainer='NAME <ADDRESS>', or DEBFULLNAME and DEBEMAIL")


def write_control(tree: Path, version: str, maintainer: str) -> None:
    control = tree / "DEBIAN"
    control.mkdir()
    size = sum(path.lstat().st_size for path in tree.rglob("*")) // 1024
    architecture = subprocess.run(["dpkg", "--print-architecture"], check=True, capture_output=True, text=True).stdout.strip()
    (control / "control").write_text(CONTROL.format(version=version, architecture=architecture, size=size, maintainer=maintainer))
    units = " ".join(sorted(path.name for path in UNITS.glob("kube-node-agent.*")))
    for name, text in (("postinst", POSTINST), ("prerm", PRERM), ("postrm", POSTRM)):
        (control / name).write_text(text.format(library=LIBRARY, units=units) if name != "postrm" else text)
        (control / name).chmod(0o755)


def main() -> None:
    parser = argparse.ArgumentParser(prog="./build.sh deb", description="Make a Debian package for Debian 12 and 13.")
    parser.add_argument("--output", type=Path, default=ROOT / "_output", help="the directory for it (default: _output); older ones go")
    parser.add_argument("--maintainer", help="what the package says (default: DEBFULLNAME and DEBEMAIL, else the last commit's author)")
    arguments = parser.parse_args()
    if not BINARIES.exists():
        sys.exit("deb: there is no _output/bin: ./build.sh binaries")
    version, maintainer = debian_version(built_version()), arguments.maintainer or default_maintainer()
    with tempfile.TemporaryDirectory(prefix=".deb.", dir=ROOT / "_output") as scratch:
        tree = Path(scratch, "tree")
        tree.mkdir(mode=0o755)
        lay_out(tree, Path(scratch, "wheels"))
        add_help(tree)
        add_notes(tree, version, maintainer)
        write_control(tree, version, maintainer)
        subprocess.run(["chmod", "-R", "u=rwX,go=rX", tree], check=True)
        for old in arguments.output.glob("kube-node_*.deb"):  # of two versions apt-get install keeps the one that is there
            old.unlink()
        made = subprocess.run(
            ["dpkg-deb", "--root-owner-group", "-Zxz", "--build", tree, arguments.output], check=True, capture_output=True, text=True
        )
    print(made.stdout.strip().replace("dpkg-deb: building package", "deb:"))


if __name__ == "__main__":
    main()
