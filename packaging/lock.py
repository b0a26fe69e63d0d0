# SPDX-License-Identifier: Apache-2.0
"""Make the lock files: what is installed in .venv, in the image and in the package, version by version with hashes. `./build.sh lock`.

`requirements/run.lock` is what kube-node needs and what builds it, and each other file what a group of pyproject.toml needs beyond those
before it. Without arguments the pins stay that still fit; `--upgrade` or `--upgrade-package=NAME` go to uv. `--check` downloads nothing and
says where pyproject.toml and the locks differ.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
LOCKS = ROOT / "requirements"
PARTS = {"run": "build", "test": "test", "check": "check", "zig": "zig", "docs": "docs"}  # lock file: group of pyproject.toml
OLDEST = "3.11"
PIN = re.compile(r"^([\w.-]+)==([^\s;]+).*(?:\n    --hash=.*)+\n", re.MULTILINE)


def pins(text: str) -> dict[str, str]:
    """Return the lines of each project in a lock file, by its canonical name."""
    found: dict[str, str] = {}
    for pin in PIN.finditer(text):
        name = canonicalize_name(pin[1])
        found[name] = found.get(name, "") + pin[0]
    return found


def pinned(names: tuple[str, ...]) -> str:
    """Return the lines of these projects of run.lock, as a requirements file."""
    known = pins((LOCKS / "run.lock").read_text())
    return "".join(known[canonicalize_name(name)] for name in names)


def resolve(output: Path, groups: list[str], options: list[str]) -> dict[str, str]:
    """Let uv pin what kube-node and these groups need, in the file `output`, whose pins stay where they can."""
    command = ["uv", "pip", "compile", "--quiet", "pyproject.toml", *(f"--group={group}" for group in groups), f"--output-file={output}"]
    subprocess.run(
        [*command, "--universal", f"--python-version={OLDEST}", "--generate-hashes", "--no-header", "--no-annotate", *options],
        check=True,
        cwd=ROOT,
    )
    # These files are about Linux, as pyproject.toml tells uv.
    return pins(re.sub(r" (and|;) sys_platform == 'linux'", "", output.read_text()))


def megabytes(lock: Path, scratch: Path) -> int:
    """Return how much pip downloads for a lock file, here and for this Python."""
    command = [sys.executable, "-m", "pip", "download", "-qq", "--no-deps", "--require-hashes", f"--requirement={lock}"]
    subprocess.run([*command, f"--dest={scratch}"], check=True)
    return round(sum(file.stat().st_size for file in scratch.iterdir()) / 1e6) or 1


def make(options: list[str]) -> None:
    LOCKS.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        everything = Path(scratch, "all")
        everything.write_text("".join(path.read_text() for path in sorted(LOCKS.glob("*.lock"))))
        resolve(everything, list(PARTS.values()), options)
        before: set[str] = set()
        for number, part in enumerate(PARTS, 1):
            needed = resolve(Path(scratch, part), list(PARTS.values())[:number], [f"--constraint={everything}"])
            new = {name: text for name, text in needed.items() if name not in before}
            before |= new.keys()
            lock = LOCKS / f"{part}.lock"
            lock.write_text("".join(new.values()))
            size = megabytes(lock, Path(scratch, f"{part}.files"))
            lock.write_text(f"# made by ./build.sh lock; to download: {size} MB\n" + lock.read_text())
            print(f"lock: {lock.relative_to(ROOT)}: {len(new)} packages, {size} MB to download")


def differences() -> list[str]:
    """Return in what pyproject.toml and the locks do not agree."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wrong = []
    known: dict[str, str] = {}
    for part, group in PARTS.items():
        for name, text in pins((LOCKS / f"{part}.lock").read_text()).items():
            if name in known:
                wrong.append(f"{name} is in two files")
            known[name] = text
        wanted = [*(project["project"]["dependencies"] if part == "run" else ()), *project["dependency-groups"][group]]
        for requirement in map(Requirement, [*wanted, *(project["build-system"]["requires"] if part == "run" else ())]):
            versions = re.findall(r"==([^\s;]+)", known.get(canonicalize_name(requirement.name), ""))
            if not versions or not all(requirement.specifier.contains(version, prereleases=True) for version in versions):
                wrong.append(f"pyproject.toml wants {requirement}, requirements/{part}.lock has {' and '.join(versions) or 'none'}")
    return wrong


def main() -> None:
    parser = argparse.ArgumentParser(prog="./build.sh lock", description="Pin what is installed, with hashes, in requirements/.")
    parser.add_argument("--check", action="store_true", help="only say where pyproject.toml and the locks differ")
    arguments, options = parser.parse_known_args()
    if not arguments.check:
        if not shutil.which("uv"):
            sys.exit("lock: there is no uv command in PATH (pip install uv)")
        make(options)
    if wrong := differences():
        sys.exit("\n".join([*(f"lock: {text}" for text in wrong), "lock: ./build.sh lock makes them agree"]))


if __name__ == "__main__":
    main()
