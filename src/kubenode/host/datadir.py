"""Reservations on disk, byte for byte as host-local keeps them (its `backend/disk`), so that either can go on from the other.

`DATA_DIR/NETWORK/` has a file for each address, with the container ID, CR LF and the interface name in it; `last_reserved_ip.N`; and
`lock`, under flock(2) while anything else here is read or written. Beside it, in `DATA_DIR/.NETWORK.boot`, which no network can be called,
is the boot that the reservations are of; host-local has no such file.
"""

from __future__ import annotations

import fcntl
import os

from kubenode.cni.request import is_ifname, is_name
from kubenode.host import files
from kubenode.ipam.address import parse_address
from kubenode.ipam.index import Index
from kubenode.ipam.store import Attachment, Reservation

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

    from kubenode.ipam.address import Address

BOOT_ID = "/proc/sys/kernel/random/boot_id"  # random(4): another one each time the kernel starts
DEFAULT_DATA_DIR = "/var/lib/cni/networks"
LOCK = "lock"
LAST_RESERVED = "last_reserved_ip."
MARKED = files.NAME_MAX - len(".") - len(".boot") - len(files.TEMPORARY)  # bytes of a network's name that its boot marker can have


class DiskStore:
    """The reservations of one network. Raises OSError where the disk does."""

    def __init__(self, data_dir: str, network: str) -> None:
        self.directory = os.path.join(data_dir or DEFAULT_DATA_DIR, network)
        self.boot_path = os.path.join(data_dir or DEFAULT_DATA_DIR, f".{files.short(network, MARKED)}.boot")

    def lock(self) -> _Lock:
        return _Lock(self.directory)

    def is_there(self) -> bool:
        try:
            os.stat(f"{self.directory}/.")
        except (FileNotFoundError, NotADirectoryError):
            return False
        return True

    def reservations(self) -> Iterator[Reservation]:
        """Iterate over all that is reserved, in no order."""
        with os.scandir(self.directory) as entries:
            for entry in entries:
                # What is not a plain file is nobody's reservation, and keeps its name: a link is never followed.
                if entry.name == LOCK or entry.name.startswith(LAST_RESERVED) or not entry.is_file(follow_symlinks=False):
                    continue
                try:
                    owner = owner_in(files.read(entry.path))
                except FileNotFoundError:  # somebody without the lock has taken it away
                    continue
                yield Reservation(entry.name, address_of(entry.name), owner)

    def index(self) -> Index:
        return Index(self.reservations())

    def taken(self) -> dict[int, list[int]]:
        numbers: dict[int, list[int]] = {4: [], 6: []}
        with os.scandir(self.directory) as entries:
            for entry in entries:
                if (address := address_of(entry.name)) and entry.is_file(follow_symlinks=False):
                    numbers[address.version].append(address.number)
        for found in numbers.values():
            found.sort()
        return numbers

    def reserve(self, address: Address, attachment: Attachment) -> bool:
        path = os.path.join(self.directory, str(address))
        try:
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except FileExistsError:
            return False
        try:
            files.write_all(fd, f"{attachment.container_id}\r\n{attachment.ifname}".encode())
        except BaseException:
            files.discard(path)  # torn where it stays, which the next ADD heals
            raise
        finally:
            os.close(fd)
        return True

    def release(self, reservation: Reservation) -> None:
        files.remove(os.path.join(self.directory, reservation.name))

    def last_reserved(self, set_id: int) -> Address | None:
        try:
            return parse_address(files.read(os.path.join(self.directory, f"{LAST_RESERVED}{set_id}")).decode("latin-1"))
        except FileNotFoundError:
            return None

    def set_last_reserved(self, set_id: int, address: Address) -> None:
        # In place, as host-local does: a temporary file could stay behind here, and a torn text only costs one turn of the round robin.
        # Not by O_TRUNC either: ext4 writes a file that was emptied to the disk when it is closed, which takes longer than all of an ADD.
        path = os.path.join(self.directory, f"{LAST_RESERVED}{set_id}")
        text = str(address).encode()
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            files.write_all(fd, text)
            os.ftruncate(fd, len(text))
        finally:
            os.close(fd)

    def is_of_another_boot(self) -> bool:
        this = boot_id()
        try:
            noted = files.read(self.boot_path)
        except FileNotFoundError:
            self.note_boot()
            return False
        return this not in {b"", noted}

    def note_boot(self) -> None:
        if this := boot_id():
            files.replace(self.boot_path, this, alone=True)


class _Lock:
    """The directory's lock, for a `with`. Makes the directory where there is none, as host-local does."""

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self._fd = -1

    def __enter__(self) -> None:
        path = os.path.join(self._directory, LOCK)
        flags = os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            self._fd = os.open(path, flags, 0o750)
        except FileNotFoundError:
            os.makedirs(self._directory, 0o755, exist_ok=True)
            self._fd = os.open(path, flags, 0o750)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX)
        except BaseException:
            os.close(self._fd)
            raise

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        os.close(self._fd)  # and with it goes the lock


def boot_id() -> bytes:
    """Return what names this boot; empty where the kernel does not say."""
    try:
        return files.read(BOOT_ID)
    except FileNotFoundError:
        return b""


def address_of(name: str) -> Address | None:
    """Return the address that a file is named by, as we and host-local would name it."""
    address = parse_address(name)
    return address if address and str(address) == name else None


def owner_in(content: bytes) -> Attachment | None:
    """Return whose a file is; None for what neither we nor any host-local writes: its writer died, or it is somebody else's."""
    container_id, separator, ifname = content.decode(errors="replace").partition("\r\n")
    if not is_name(container_id.strip()) or (separator and not is_ifname(ifname.strip())):
        return None
    return Attachment(container_id.strip(), ifname.strip())
