# SPDX-License-Identifier: Apache-2.0
"""Reservations on disk, byte for byte like host-local (its `backend/disk`), so that each can continue from the other.

`DATA_DIR/NETWORK/` contains a file per address, with container ID, CR LF and interface name; `last_reserved_ip.N`; and `lock`, held with
flock(2) during every access to the others. Beside it, `DATA_DIR/.NETWORK.note` notes the boot of the reservations; host-local has none.

`rm -rf NETWORK/*`, a common cure, removes the lock, too: a reservation appears with its owner in it, exclusive even without the lock.
"""

from __future__ import annotations

import errno
import fcntl
import os
import time

from kubenode.base import files
from kubenode.cni.request import is_ifname, is_name
from kubenode.host import boot
from kubenode.ipam.address import address_of, parse_address
from kubenode.ipam.store import DEFAULT_DATA_DIR, Attachment, Index, Reservation

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import TracebackType

    from kubenode.ipam.address import Address

LOCK = "lock"
LAST_RESERVED = "last_reserved_ip."
ABANDONED = 60.0  # seconds after which the writer of an empty file must be dead
HERE = boot.Boot()
# Errors of open(2) and link(2) if file system, kernel or a filter do not support unnamed files, or /proc is missing.
NO_UNNAMED = frozenset(
    [errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL, errno.ENOENT, errno.EXDEV, errno.ENOSYS, errno.EPERM, errno.EACCES, errno.ELOOP]
)


def wait_for(lock: int, _path: str) -> bool:
    """Wait for a lock that another process holds, without a limit."""
    fcntl.flock(lock, fcntl.LOCK_EX)
    return True


class DiskStore:
    """Reservations of one network. Raises OSError. `wait` waits for a held lock; it returns False if the file has lost its name."""

    def __init__(self, data_dir: str, network: str, this_boot: boot.Boot = HERE, wait: Callable[[int, str], bool] = wait_for) -> None:
        self._wait = wait
        self.directory = os.path.join(data_dir or DEFAULT_DATA_DIR, network)
        self.boot_path = boot.path_of(data_dir or DEFAULT_DATA_DIR, network)
        self._network = network
        self._boot = this_boot

    def lock(self) -> Lock:
        """Return the directory's lock, for a `with`."""
        return Lock(self.directory, self._wait)

    def is_there(self) -> bool:
        """Say whether the network's directory exists."""
        try:
            os.stat(f"{self.directory}/.")
        except (FileNotFoundError, NotADirectoryError):
            return False
        return True

    def require_place(self) -> None:
        """Raise CNIError 7 if the directory is in another network's, or has another purpose. Cheap once it has a lock."""
        if not os.path.lexists(f"{self.directory}/{LOCK}"):
            from kubenode.host import storeplace  # needed only before a network's first ADD

            storeplace.require(self.directory, self._boot.run_dir)

    def if_unused(self, do: Callable[[], None]) -> bool:
        """Call `do` while nobody has an address and no call holds the lock; return whether it was called. Does not wait."""
        try:
            fd = os.open(f"{self.directory}/{LOCK}", os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError:
            fd = -1
        try:
            if fd >= 0:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if self.is_there() and any(entry.address and not entry.rests for entry in DiskStore.reservations(self)):
                return False
            do()
        except BlockingIOError:
            return False
        finally:
            if fd >= 0:
                os.close(fd)
        return True

    def reservations(self) -> Iterator[Reservation]:
        """Iterate over all reservations, in no order."""
        with os.scandir(self.directory) as entries:
            for entry in entries:
                # Only a regular file can have an owner. Anything else blocks its address; a link is never followed.
                if entry.name == LOCK or entry.name.startswith(LAST_RESERVED) or not entry.is_file(follow_symlinks=False):
                    continue
                try:
                    owner = owner_in(files.read(entry.path))
                except FileNotFoundError:  # removed without the lock
                    continue
                yield Reservation(entry.name, address_of(entry.name), owner)

    def index(self) -> Index:
        """Return an index of all reservations."""
        return Index(self.reservations())

    def taken(self) -> dict[int, list[int]]:
        """Return the reserved addresses as numbers, by IP version."""
        numbers: dict[int, list[int]] = {4: [], 6: []}
        with os.scandir(self.directory) as entries:
            for entry in entries:
                if (address := address_of(entry.name)) and entry.is_file(follow_symlinks=False):
                    numbers[address.version].append(address.number)
        for found in numbers.values():
            found.sort()
        return numbers

    def reserve(self, address: Address, attachment: Attachment) -> bool:
        """Reserve an address; False if it is reserved already. Needs the lock."""
        path = f"{self.directory}/{address}"
        content = f"{attachment.container_id}\r\n{attachment.ifname}".encode()
        try:
            try:
                self._make(path, content)
            except OSError as error:
                if error.errno not in NO_UNNAMED:
                    raise
                self._make_in_place(path, content)
        except FileExistsError:
            return False
        return True

    def _make(self, path: str, content: bytes) -> None:
        """Create a file that has its content from the moment it has its name (open(2), O_TMPFILE). Raises OSError."""
        fd = os.open(self.directory, os.O_WRONLY | os.O_TMPFILE | os.O_CLOEXEC, 0o600)
        try:
            files.write_all(fd, content)
            os.link(f"/proc/self/fd/{fd}", path, src_dir_fd=fd)  # src_dir_fd selects linkat(2), which follows links
        finally:
            os.close(fd)

    def _make_in_place(self, path: str, content: bytes) -> None:
        """Create a file like host-local does. Raises OSError."""
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            files.write_all(fd, content)
        except BaseException:
            files.discard(path)  # if it stays, it is empty or torn: a later ADD removes it
            raise
        finally:
            os.close(fd)

    def release(self, reservation: Reservation) -> bool:
        """Release a reservation; False if it was gone."""
        if not self.has(reservation):
            return False
        files.remove(f"{self.directory}/{reservation.name}")
        return True

    def has(self, reservation: Reservation) -> bool:
        """Say whether a reservation still exists."""
        try:
            return owner_in(files.read(f"{self.directory}/{reservation.name}")) == reservation.attachment
        except FileNotFoundError:
            return False

    def is_abandoned(self, reservation: Reservation) -> bool:
        """Say whether a file without owner is old enough that its writer must be dead."""
        try:
            return time.time() - os.lstat(f"{self.directory}/{reservation.name}").st_mtime > ABANDONED
        except FileNotFoundError:
            return False

    def last_reserved(self, set_id: int) -> Address | None:
        """Return the last reserved address of a range set, None if unknown."""
        try:
            return parse_address(files.read(f"{self.directory}/{LAST_RESERVED}{set_id}").decode("latin-1"))
        except FileNotFoundError:
            return None

    def set_last_reserved(self, set_id: int, address: Address) -> None:
        """Note the last reserved address of a range set."""
        # In place, like host-local: a temporary file could be left here, and a torn text only costs one turn of the round robin.
        # No O_TRUNC: on close ext4 writes a truncated file to the disk, which takes longer than a whole ADD.
        path = f"{self.directory}/{LAST_RESERVED}{set_id}"
        text = str(address).encode()
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            files.write_all(fd, text)
            os.ftruncate(fd, len(text))
        finally:
            os.close(fd)

    def is_of_this_boot(self) -> bool:
        """Say whether the boot note has this boot: then no reservation is from an earlier boot."""
        return self._boot.is_in(self.boot_noted())

    def from_earlier_boot(self) -> list[Reservation]:
        """Return the reservations of an earlier boot; [] in doubt."""
        if not self._boot.is_after(self.boot_noted()):
            return []
        began, recorded = self._boot.began(), self._boot.recorded(self._network)
        containers = {attachment.container_id for attachment in recorded}

        def is_dead(entry: Reservation) -> bool:
            owner = entry.attachment
            if entry.address is None or (owner and (owner in recorded if owner.ifname else owner.container_id in containers)):
                return False
            try:
                return os.lstat(f"{self.directory}/{entry.name}").st_ctime < began
            except FileNotFoundError:
                return False

        return [entry for entry in self.index() if is_dead(entry)]

    def note_boot(self) -> None:
        """Note that this boot uses the directory."""
        if (note := self._boot.added_to(before := self.boot_noted())) != before:
            files.replace(self.boot_path, note, alone=True)
            files.discard(self.boot_path.removesuffix(boot.SUFFIX) + boot.EARLIER_SUFFIX)

    def boot_noted(self) -> bytes:
        """Return the boot note; empty if there is none."""
        try:
            return files.read(self.boot_path)
        except FileNotFoundError:
            return b""


class Lock:
    """Lock of the directory, for a `with`. Creates the directory if needed, like host-local."""

    def __init__(self, directory: str, wait: Callable[[int, str], bool]) -> None:
        self._directory = directory
        self._wait = wait
        self._fd = -1
        self._status: os.stat_result | None = None

    def __enter__(self) -> None:
        path = f"{self._directory}/{LOCK}"
        while not self._take(path):
            os.close(self._fd)
            self._status = None

    def _take(self, path: str) -> bool:
        """Wait for the lock; return whether it is in force."""
        flags = os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        while True:  # somebody may remove the directory at any moment
            try:
                self._fd = os.open(path, flags, 0o750)
                break
            except FileNotFoundError:
                os.makedirs(self._directory, 0o755, exist_ok=True)
        try:
            try:
                fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return self._wait(self._fd, path) and self.is_in_force()
            return self.is_in_force()
        except BaseException:
            os.close(self._fd)
            raise

    def is_in_force(self) -> bool:
        """Say whether the locked file still has its name. If somebody removed it or the directory, others lock another file."""
        self._status = self._status or os.fstat(self._fd)  # an open file stays the same one
        try:
            return os.path.samestat(self._status, os.lstat(f"{self._directory}/{LOCK}"))
        except FileNotFoundError:
            return False

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        os.close(self._fd)  # releases the lock


def owner_in(content: bytes) -> Attachment | None:
    """Return the owner from a file's content; None for content that no host-local writes: its writer died, or it has another purpose.

    Junk may follow the owner, such as zeros after a power failure.
    """
    container_id, separator, rest = content.decode(errors="replace").partition("\r\n")
    container_id = container_id.strip() if separator else container_id.strip().rstrip("\0 \t\r\n")
    if not is_name(container_id):
        return None
    if not separator:
        return Attachment(container_id, "")
    ifname = rest.strip()
    if not is_ifname(ifname) and not (ifname := _before_junk(ifname)):
        return None
    return Attachment(container_id, ifname if is_ifname(ifname) else "")  # if the junk is text, only the container is certain


def _before_junk(text: str) -> str:
    """Return the beginning of a text up to the first character that no interface name has."""
    junk = (index for index, character in enumerate(text) if character in "/:\ufffd" or character.isspace() or not character.isprintable())
    return text[: next(junk, len(text))]
