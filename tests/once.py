# SPDX-License-Identifier: Apache-2.0
"""What takes long to make: made once for all workers of a run, by the first who wants it, and before any test's time limit begins."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from compile_relay import SOURCE, choose, command, here
from relayplace import SECOND
from wanting import want

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).resolve().parent.parent
LIMIT = 1800  # seconds: zig compiles a C library first, once on a machine
SHORT = {"SECOND": int(SECOND * 1000), "STDIN_LIMIT": 4194304, "ANSWER_LIMIT": 4194304, "HEADER_LIMIT": 6291456, "SHOWN": 4096}


class NotMadeError(Exception):
    """It could not be made; the text says why."""


def _binaries(output: Path) -> list[str]:
    return [sys.executable, f"{ROOT}/packaging/binaries.py", f"--output={output}", "--version=1.2.3-test"]


def _short_relay(output: Path) -> list[str]:
    options = ['-DVERSION="1.2.3-short"', *(f"-D{name}={value}" for name, value in SHORT.items())]
    return [*command(choose(), here()), *options, str(SOURCE), "-o", str(output)]


# Fixture to the command that makes the file or directory which it returns.
MADE: dict[str, Callable[[Path], list[str]]] = {"built": _binaries, "short_relay": _short_relay}


def shared(factory: pytest.TempPathFactory) -> Path:
    """Return a directory that is the same for all workers of a run, and another in each run."""
    base = factory.getbasetemp()
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base


def make(directory: Path, name: str, tell: Callable[[str], None] = lambda _: None) -> Path:
    """Return its path. Raises NotMadeError, after a first failure at once."""
    target, failure = directory / name, directory / f"{name}.failure"
    with (directory / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if failure.exists():
            raise NotMadeError(failure.read_text())
        if not target.exists():
            tell(f"making what tests share ({name}); a first time takes a minute or more")
            try:
                subprocess.run(MADE[name](target), check=True, capture_output=True, text=True, timeout=LIMIT)
            except (subprocess.SubprocessError, OSError) as error:
                said = getattr(error, "stderr", "") or ""
                failure.write_text(f"{name}: {error}\n{said}")
                raise NotMadeError(failure.read_text()) from None
    return target


def make_all(items: list[pytest.Item], factory: pytest.TempPathFactory, tell: Callable[[str], None]) -> None:
    """Make what these tests have fixtures of."""
    for name in wanted(*items):
        with suppress(NotMadeError, pytest.skip.Exception):
            want("a C compiler")
            make(shared(factory), name, tell)


def check(item: pytest.Item, factory: pytest.TempPathFactory) -> None:
    """Fail the first test of a run that wants what could not be made, with the reason, and leave out the others."""
    for name in wanted(item):
        want("a C compiler")
        directory = shared(factory)
        if not (directory / f"{name}.failure").exists():
            continue
        try:
            (directory / f"{name}.told").touch(exist_ok=False)
        except FileExistsError:
            pytest.skip(f"wants {name}: it cannot be made; one error says why")
        pytest.fail((directory / f"{name}.failure").read_text(), pytrace=False)


def wanted(*items: pytest.Item) -> list[str]:
    given = {"built"} if os.environ.get("KUBE_NODE_BINARIES") else set()
    return sorted({name for item in items for name in getattr(item, "fixturenames", ())} & MADE.keys() - given)
