"""Which boot of which machine this is, and the note of it that lies beside a store.

The note has a line `BOOT-ID MACHINE-ID` for each machine that uses the directory. Only a note that is well-formed, of this machine alone
and of another boot says that there was a reboot. Whatever else is there counts as never noted: a text of another form, such as that of
earlier versions, which named no machine; or a directory that several machines share.
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

BOOT_ID = "/proc/sys/kernel/random/boot_id"  # random(4): another one each time the kernel starts
SUFFIX = ".note"
# The note of earlier versions had the boot alone. To them one of any other form, or of another boot, says that all reservations are dead,
# and none says nothing: they must find none, so that whoever goes back to one releases nothing that running pods have.
EARLIER_SUFFIX = ".boot"
ROOM = files.NAME_MAX - len(".") - len(SUFFIX) - len(files.TEMPORARY)  # bytes of a network's name that the name of its note can have
BOOT_ID_SHAPE = (8, 4, 4, 4, 12)  # its groups of hexadecimal digits
HEX_DIGITS = frozenset("0123456789abcdef")
MACHINES = 8  # that a note remembers; the oldest is forgotten
# Seconds: what seems to be of just before this boot may be of just after it, when NTP moved the clock forward.
MARGIN = 2.0


class Boot:
    """This boot. `machine_id` names the machine, or returns "" while nobody knows it; `run_dir` has the records of attachments."""

    def __init__(self, run_dir: str = DEFAULT_RUN_DIR, machine_id: Callable[[], str] = own_machine_id) -> None:
        self.run_dir = run_dir
        self.machine_id = machine_id

    def id(self) -> str:
        """Return what names this boot; "" where the kernel does not say."""
        try:
            return files.read(BOOT_ID).decode().strip()
        except FileNotFoundError:
            return ""

    def began(self) -> float:
        """Return the time, by time.time(), before which nothing of this boot can have been made."""
        return time.time() - time.clock_gettime(time.CLOCK_BOOTTIME) - MARGIN

    def is_in(self, note: bytes) -> bool:
        """Say whether a note has this boot. Nothing can be noted where the kernel does not name it: that is to say yes."""
        this = self.id()
        return not this or f"{this} ".encode() in note

    def is_after(self, note: bytes) -> bool:
        """Say whether a note is of an earlier boot of this machine."""
        noted, this, machine = read(note), self.id(), self.machine_id()
        return bool(this and machine) and list(noted) == [machine] and noted[machine] != this

    def added_to(self, note: bytes) -> bytes:
        """Return a note with this boot in it; as it was where boot or machine have no name."""
        this, machine = self.id(), self.machine_id()
        if not this or not machine:
            return note
        others = {other: boot for other, boot in read(note).items() if other != machine}
        lines = [f"{boot} {other}\n" for other, boot in [*others.items(), (machine, this)][-MACHINES:]]
        return "".join(lines).encode()

    def recorded(self, network: str) -> Collection[Attachment]:
        """Return the attachments that have a record: the run directory does not outlive a boot."""
        from kubenode.host.attachments import Attachments  # after a reboot

        return frozenset(Attachments(self.run_dir, network).all())


def read(note: bytes) -> dict[str, str]:
    """Return the boot of each machine that a note names; nothing where it is not well-formed."""
    machines: dict[str, str] = {}
    for line in note.decode(errors="replace").splitlines():
        boot, _, machine = line.partition(" ")
        groups = boot.split("-")
        if tuple(map(len, groups)) != BOOT_ID_SHAPE or not HEX_DIGITS.issuperset("".join(groups)) or machine.split() != [machine]:
            return {}
        machines[machine] = boot
    return machines if note.endswith(b"\n") else {}


def notes(data_dir: str) -> list[str]:
    """Return the notes of a data directory."""
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
    """Return where a network's note lies: no network can be called as it is."""
    return os.path.join(data_dir, f".{files.short(network, ROOM)}{suffix}")
