# SPDX-License-Identifier: Apache-2.0
"""Pages whose commands are run: their marked blocks, a checkout to run them in, and whether what comes is what the page says.

A shell block below `<!-- run -->` is run, the blocks of a page by one shell; the block below `<!-- prints -->` is what it printed, where
`…` stands for what differs from machine to machine, alone for whole lines. `<!-- run: MARK -->` are blocks for a place of that name.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(
    r"<!-- run(?:: (?P<mark>\w+))? -->\n+(?P<indent> *)```sh\n(?P<commands>.*?) *```"
    r"(?:\s*<!-- prints -->\n+ *```(?:text)?\n(?P<printed>.*?) *```)?",
    re.DOTALL,
)
# Network, mounts and processes of its own: real paths, nothing of this machine is changed, and what it starts ends with it.
ALONE = ("unshare", "--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc", "--propagation=private", "bash", "-c")
EMPTY = ("/opt", "/etc/cni", "/var/lib/cni", "/run/kube-node", "/run/netns")
LARGE = ("ziglang", "kubernetes_validate", "material")  # of .venv: four in five of its files
ANY = {"…": ".*", "…\n": "(?:.*\n)*"}
BLANKS = re.compile(" +$", re.MULTILINE)  # at a line's end, which pages do not have
SEPARATOR = "\x1e"


class Step(NamedTuple):
    """A block of commands, and what the page says that they print, if it does."""

    commands: str
    printed: str | None

    def is_printed(self, text: str) -> bool:
        return self.printed is None or re.fullmatch(as_pattern(self.printed), BLANKS.sub("", text)) is not None


class PageError(AssertionError):
    """A command of a page failed, or printed something else."""


def steps(page: Path, mark: str = "", heading: str = "") -> list[Step]:
    """Return the page's blocks with this mark, in their order; only those below a heading of the second level, if one is named."""
    text = page.read_text()
    if heading:
        _, _, text = text.partition(f"\n## {heading}\n")
        text, _, _ = text.partition("\n## ")
    return [
        Step(_block(found["commands"], found["indent"]), None if found["printed"] is None else _block(found["printed"], found["indent"]))
        for found in BLOCK.finditer(text)
        if (found["mark"] or "") == mark
    ]


def _block(text: str, indent: str) -> str:
    """Return what stands in a fenced block, which in a list is indented."""
    return "".join(line.removeprefix(indent) for line in text.splitlines(keepends=True))


def as_pattern(text: str) -> str:
    return "".join(ANY.get(part, re.escape(part)) for part in re.split("(^…\n|…)", text, flags=re.MULTILINE))


def emptied(*directories: str) -> str:
    """Return shell commands that lay an empty directory over each of these, in a mount namespace of its own."""
    return "".join(
        f"mkdir -p {path}; mount -t tmpfs -o mode=755 none {path}\n" for path in directories if os.path.isdir(os.path.dirname(path))
    )


def walk(
    walked: Sequence[Step],
    place: Path,
    environment: Mapping[str, str],
    *,
    shell: Sequence[str] = ("bash", "-c"),
    before: str = "",
    timeout: int = 600,
) -> str:
    """Run the steps in that directory, by one shell. Return what they printed. Raises PageError."""
    path = f"{environment.get('PATH', os.environ['PATH'])}:/usr/sbin:/sbin"
    script = f"set -eu\n{before}cd {place}\n" + "".join(f"{step.commands}printf '{SEPARATOR}'\n" for step in walked)
    try:
        done = subprocess.run(
            [*shell, script],
            env={"LC_ALL": "C.UTF-8", "TERM": "dumb", "HOME": str(place.parent), **environment, "PATH": path},
            check=False,
            capture_output=True,
            text=True,
            timeout=timeout,
            stdin=subprocess.DEVNULL,
        )
    except subprocess.TimeoutExpired as error:
        raise PageError(f"not done within {timeout} s; it has printed\n{(error.stdout or b'').decode()}") from None
    printed = done.stdout.split(SEPARATOR)
    for step, text in zip(walked, printed, strict=False):
        if not step.is_printed(text):
            raise PageError(f"{step.commands}printed:\n{text}\nnot:\n{step.printed}\n{done.stderr}")
    if done.returncode or len(printed) != len(walked) + 1:
        raise PageError(f"exit code {done.returncode} after\n{done.stdout}{done.stderr}")
    return done.stdout.replace(SEPARATOR, "")


def link_or_copy(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # on another file system
        shutil.copy2(source, target)


def checkout(built: Path, to: Path) -> None:
    """Copy what a person clones, with the virtual environment that ./build.sh would make, and binaries."""
    names = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True).stdout.split("\0")
    for name in filter(None, names):
        target = to / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, target, follow_symlinks=False)
    # By hard links, and the packages with most files by one link each. The stamp is its own, and written anew.
    ignored = shutil.ignore_patterns("__pycache__", "pycache", "stamp", *LARGE)
    shutil.copytree(ROOT / ".venv", to / ".venv", symlinks=True, ignore=ignored, copy_function=link_or_copy)
    for package in (ROOT / ".venv").glob("lib/python*/site-packages/*"):
        if package.name in LARGE:
            (to / package.relative_to(ROOT)).symlink_to(package)
    (to / ".venv/stamp").write_text(f"{to}\n{(to / 'pyproject.toml').read_text()}")
    shutil.copytree(built, to / "_output/bin", symlinks=True)
