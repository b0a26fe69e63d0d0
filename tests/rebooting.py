# SPDX-License-Identifier: Apache-2.0
"""A reboot without one: what is on the disk becomes a former boot's, and programs run in the next one, by a time namespace of their own."""

from __future__ import annotations

import shlex
import shutil
import time
from typing import TYPE_CHECKING

from wanting import want

from kubenode.host import identity
from kubenode.host.boot import MARGIN, Boot

if TYPE_CHECKING:
    from pathlib import Path

EARLIER = "11111111-2222-3333-4444-555555555555"
# Each program finds itself in the first second after its start.
WRAP = ["sh", "-c", 'exec unshare --time --boottime "-$(cut -d. -f1 /proc/uptime)" "$@"', "sh"]


class NextBoot(Boot):
    """The boot that begins now, though it is the same one."""

    def began(self) -> float:
        return time.time() + 1


def note(machine: str = "", boot: str = EARLIER) -> str:
    """Return what a boot leaves beside a store; of this machine where no other is named."""
    return f"{boot} {machine or identity.machine_id()}\n"


def wanted() -> None:
    """Leave a test out where this machine cannot have a next boot."""
    want("time namespaces", "machine-id")


def reboot(*notes: Path, run_dir: Path | None = None, machine: str = "") -> list[str]:
    """Make these stores' notes those of an earlier boot, and what is there older than this one; return what to run programs under."""
    wanted()
    for path in notes:
        path.write_text(note(machine))
    if run_dir:
        shutil.rmtree(run_dir / "attachments", ignore_errors=True)
    time.sleep(MARGIN + 1.2)
    return WRAP


def rebooted(executable: Path, directory: Path) -> Path:
    """Return a program that runs another one in the next boot."""
    path = directory / "rebooted" / executable.name
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/bin/sh\nexec {shlex.join([*WRAP, str(executable)])}\n")
    path.chmod(0o755)
    return path
