# SPDX-License-Identifier: Apache-2.0
"""Lay out what goes into a node's CNI bin directory: relays, the launchers beside them, and everything that those import.

Run by `./build.sh binaries` with .venv's interpreter. Nothing is downloaded: what is installed in .venv is what is shipped, as pinned in
requirements/run.lock.
"""

from __future__ import annotations

import argparse
import compileall
import os
import pwd
import py_compile
import shutil
import subprocess
import sys
import tempfile
import time
from importlib.metadata import Distribution, distribution
from pathlib import Path, PurePath

from compile_relay import ARCHITECTURES, MISSING, CompileError, choose, command, compile_relay, here
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parent.parent
NAMES = ("kube-node", "node-annotation", "host-local")
PROJECT = "kube-node-ipam"
LIBRARY = "kube-node.lib"
UNUSED = ("markdown-it-py", "pygments")  # rich's, for Markdown and source code: a quarter of all that would be shipped

# -I: no PYTHON* variable and no directory of a user decides what root imports. -S: half of the interpreter's start. gc: a call ends before
# there is garbage, and a collection while it imports is a fifteenth of an ADD.
LAUNCHER = f"""\
#!{{python}} -IS
import gc
import sys
from posixpath import dirname, realpath

gc.disable()
sys.path.insert(0, dirname(realpath(__file__)) + "/{LIBRARY}")
from kubenode.launcher import {{function}}

{{function}}()
"""


def needed(project: str) -> list[Distribution]:
    """Return the distributions that this one needs at run time, its own not among them."""
    found: dict[str, Distribution] = {}
    todo = [Requirement(project)]
    while todo:
        wanted = todo.pop()
        here = distribution(wanted.name)
        found[here.metadata["Name"]] = here
        for text in here.requires or ():
            requirement = Requirement(text)
            marker = requirement.marker
            applies = marker is None or any(marker.evaluate({"extra": extra}) for extra in ("", *wanted.extras))
            if applies and requirement.name not in UNUSED and distribution(requirement.name).metadata["Name"] not in found:
                todo.append(requirement)
    del found[distribution(project).metadata["Name"]]
    return sorted(found.values(), key=lambda item: item.metadata["Name"].lower())


def copy_distribution(source: Distribution, library: Path) -> None:
    """Copy modules, licences and the metadata that packages read of themselves; not scripts, tests and compiled files."""
    for file in source.files or ():
        place = PurePath(file)
        if {"..", "__pycache__", "tests"} & set(place.parts):
            continue
        if place.parts[0].endswith(".dist-info") and not place.name.startswith(("METADATA", "LICENSE", "LICENCE", "COPYING", "NOTICE")):
            continue
        target = library / place
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(str(source.locate_file(file)), target)


def default_version() -> str:
    """Return what git calls this checkout, 1.2.3 for v1.2.3, else the time: a copy without a version helps nobody."""
    command = ["git", "describe", "--tags", "--always", "--dirty"]
    try:
        told = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip()
    except FileNotFoundError:
        told = ""
    return told.removeprefix("v") or time.strftime("%Y.%m.%d-%H.%M.%S")


def build(output: Path, version: str, compiler: str) -> None:
    """Make the directory `output` anew. Raises CompileError."""
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{output.name}.", dir=output.parent) as scratch:
        new, old = Path(scratch, "new"), Path(scratch, "old")
        library = new / LIBRARY
        shutil.copytree(ROOT / "src/kubenode", library / "kubenode", ignore=shutil.ignore_patterns("__pycache__"))
        (library / "kubenode/version.py").write_text(f'"""The version of this copy."""\n\nVERSION = {version!r}\n')
        for dependency in needed(PROJECT):
            copy_distribution(dependency, library)
        # Unchecked: a copy with new modification times (`docker cp`, `install`) must not cost a compilation for every pod.
        mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
        if not compileall.compile_dir(library, quiet=1, stripdir=str(new), invalidation_mode=mode, workers=0):
            sys.exit("binaries: a module does not compile")
        relay = Path(scratch, "relay")
        compile_relay(relay, here(), version, compiler)
        for name in NAMES:
            shutil.copy(relay, new / name)
            launcher = new / f"{name}.standalone"
            launcher.write_text(LAUNCHER.format(python=f"{sys.base_prefix}/bin/python3", function=name.replace("-", "_")))
            launcher.chmod(0o755)
        # Old and new change places by renaming, so that a call finds all of one or all of the other.
        if output.exists():
            os.rename(output, old)
        os.rename(new, output)


def build_relays(directory: Path, architectures: list[str], version: str, compiler: str) -> None:
    """Make DIRECTORY/ARCHITECTURE/relay, for images of other machines. Raises CompileError, mostly before it has made any."""
    for architecture in architectures:
        command(compiler, architecture)
    for architecture in architectures:
        target = directory / architecture / "relay"
        target.parent.mkdir(parents=True, exist_ok=True)
        made = target.with_suffix(".new")
        compile_relay(made, architecture, version, compiler)
        made.rename(target)


def main() -> None:
    parser = argparse.ArgumentParser(prog="./build.sh binaries", description="Make what goes into /opt/cni/bin.")
    parser.add_argument("--version", default="", help="what `kube-node --version` prints (default: what git says, else the time)")
    parser.add_argument("--output", type=Path, default=ROOT / "_output/bin", help="the directory to make (default: _output/bin)")
    parser.add_argument("--arch", choices=["all", *ARCHITECTURES], help="also the relay for this machine type, in relay/ARCH beside it")
    parser.add_argument(
        "--cc", choices=[*MISSING], default="", help="what compiles the relay (default: the first of these that is installed)"
    )
    arguments = parser.parse_args()
    version = arguments.version or default_version()
    output = arguments.output.absolute()
    relays = output.parent / "relay"
    architectures = list(ARCHITECTURES) if arguments.arch == "all" else [arguments.arch] if arguments.arch else []
    try:
        compiler = choose(arguments.cc)
        build_relays(relays, architectures, version, compiler)
        build(output, version, compiler)
    except CompileError as error:
        sys.exit(f"binaries: {error}")
    except PermissionError as error:
        advice = f"let {pwd.getpwuid(os.geteuid()).pw_name} own {output.parent}, or name another place: --output=DIRECTORY/bin"
        sys.exit(f"binaries: {error.filename}: {error.strerror}; {advice}")
    series = f"Python {sys.version_info.major}.{sys.version_info.minor}"  # compiled dependencies work with no other
    print(f"binaries: {output} holds {', '.join(NAMES)} {version}: relays for {here()} by {compiler}; their .standalone,", end=" ")
    print(f"for {sys.base_prefix}/bin/python3 ({series}); and {LIBRARY}")
    if architectures:
        print(f"binaries: {relays} holds the relay for {', '.join(architectures)}")


if __name__ == "__main__":
    main()
