# SPDX-License-Identifier: Apache-2.0
"""Identity of this boot, and the boot note beside a store.

The note has a line `BOOT-ID MACHINE-ID` for each machine that uses the directory. It proves a reboot only if it is well-formed and names
this machine alone, with another boot. Any other text counts as no note: the form of earlier versions, which named no machine, or a
directory that several machines share.
"""

from __future__ import annotations

import os
import time

from kubenode.base import files
from kubenode.cni.request import is_name
from kubenode.host.identity import machine_id as own_machine_id
from kubenode.host.nodeview import DEFAULT_RUN_DIR

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from kubenode.ipam.store import Attachment

BOOT_ID = "/proc/sys/kernel/random/boot_id"  # random(4): changes with each start of the kernel
SUFFIX = ".note"
# Notes of earlier versions. These versions release all reservations if the note has another form, and none if there is no note: ours must
# not be found by them, so that a rollback keeps the addresses of running pods.
EARLIER_SUFFIX = ".boot"
ROOM = files.NAME_MAX - len(".") - len(SUFFIX) - len(files.TEMPORARY)  # bytes for a network's name in its note's name
BOOT_ID_SHAPE = (8, 4, 4, 4, 12)  # digits of its groups
HEX_DIGITS = frozenset("0123456789abcdef")
MACHINES = 8  # machines in a note; a new one replaces the oldest
# Seconds: a file may seem older than this boot, and be younger, when NTP moved the clock forward.
MARGIN = 2.0


class Boot:
    """The current boot. `machine_id` returns the machine-id, "" while unknown; `run_dir` has the records of attachments."""

    def __init__(self, run_dir: str = DEFAULT_RUN_DIR, machine_id: Callable[[], str] = own_machine_id) -> None:
        self.run_dir = run_dir
        self.machine_id = machine_id

    def id(self) -> str:
        """Return the boot ID; "" if the kernel does not provide it."""
        try:
            return files.read(BOOT_ID).decode().strip()
        except FileNotFoundError:
            return ""

    def began(self) -> float:
        """Return a time, as of time.time(), before which nothing can belong to this boot."""
        return time.time() - time.clock_gettime(time.CLOCK_BOOTTIME) - MARGIN

    def is_in(self, note: bytes) -> bool:
        """Say whether a note has this boot; also yes if the kernel provides no boot ID, as there is nothing to write then."""
        this = self.id()
        return not this or f"{this} ".encode() in note

    def is_after(self, note: bytes) -> bool:
        """Say whether a note proves that this machine has rebooted."""
        noted, this, machine = read(note), self.id(), self.machine_id()
        return bool(this and machine) and list(noted) == [machine] and noted[machine] != this

    def added_to(self, note: bytes) -> bytes:
        """Return a note with this boot added; unchanged if boot or machine are unknown."""
        this, machine = self.id(), self.machine_id()
        if not this or not machine:
            return note
        others = {other: boot for other, boot in read(note).items() if other != machine}
        lines = [f"{boot} {other}\n" for other, boot in [*others.items(), (machine, this)][-MACHINES:]]
        return "".join(lines).encode()

    def recorded(self, network: str) -> Collection[Attachment]:
        """Return the attachments of this boot: those with a record, as the run directory is emptied at boot."""
        from kubenode.host.attachments import Attachments  # needed only after a reboot

        return frozenset(Attachments(self.run_dir, network).all())


def read(note: bytes) -> dict[str, str]:
    """Return the boot ID of each machine-id in a note; {} if it is not well-formed."""
    machines: dict[str, str] = {}
    for line in note.decode(errors="replace").splitlines():
        boot, _, machine = line.partition(" ")
        groups = boot.split("-")
        if tuple(map(len, groups)) != BOOT_ID_SHAPE or not HEX_DIGITS.issuperset("".join(groups)) or machine.split() != [machine]:
            return {}
        machines[machine] = boot
    return machines if note.endswith(b"\n") else {}


def notes(data_dir: str) -> list[str]:
    """Return the paths of the notes in a data directory."""
    try:
        names = sorted(os.listdir(data_dir))
    except OSError:
        return []
    return [
        path_of(data_dir, network, suffix)
        for suffix in (SUFFIX, EARLIER_SUFFIX)
        for name in names
        if name.startswith(".") and name.endswith(suffix) and is_name(network := name[1 : -len(suffix)])
    ]


def path_of(data_dir: str, network: str, suffix: str = SUFFIX) -> str:
    """Return the path of a network's note; it begins with a dot, which no network's name does."""
    return os.path.join(data_dir, f".{files.short(network, ROOM)}{suffix}")
