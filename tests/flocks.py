# SPDX-License-Identifier: Apache-2.0
"""A network's lock in somebody else's hands, and who waits for it."""

from __future__ import annotations

import fcntl
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from patience import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Hold a network's lock as another process does."""
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / "lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def until_waited_for(directory: Path) -> None:
    """Wait until a process waits for a network's lock (proc_locks(5))."""
    inode = (directory / "lock").stat().st_ino

    def is_waited_for() -> bool:
        waiting = [line.split() for line in Path("/proc/locks").read_text().splitlines() if " -> FLOCK" in line]
        return any(fields[6].endswith(f":{inode}") for fields in waiting)

    eventually(is_waited_for, f"nobody waits for {directory}/lock")
