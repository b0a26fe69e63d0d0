# SPDX-License-Identifier: Apache-2.0
"""Reading and writing whole files. A reader of a file that is being written sees the old content or the new, never a part."""

from __future__ import annotations

import errno
import os
import stat

from kubenode.base.record import remembered

PLAIN = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-.")
LONGEST_NAME = 200  # characters; callers add a prefix or a suffix
TEMPORARY = ".tmp"  # suffix of files that are not complete yet

NAME_MAX = 255  # bytes of a file's name


def short(name: str, room: int = NAME_MAX) -> str:
    """Return the name, or its SHA-256 digest if it has more than `room` bytes."""
    encoded = os.fsencode(name)
    if len(encoded) <= room:
        return name
    import hashlib  # loads OpenSSL, and names this long are rare

    return hashlib.sha256(encoded).hexdigest()


def read(path: str) -> bytes:
    """Return a file's content. Raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return read_all(fd)
    finally:
        os.close(fd)


def read_regular(path: str) -> bytes:
    """Return the content of a regular file; opening a named pipe would block for ever. Raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise OSError(errno.EINVAL, "not a regular file", path)
        return read_all(fd)
    finally:
        os.close(fd)


def open_exactly(path: str, flags: int, mode: int = 0o600) -> int:
    """Open an absolute path that contains no symbolic link, also if somebody creates one meanwhile. Raises OSError."""
    directory, name = os.path.split(path)
    at = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if os.readlink(f"/proc/self/fd/{at}") != directory:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
        return os.open(name, flags | os.O_NOFOLLOW | os.O_CLOEXEC, mode, dir_fd=at)
    finally:
        os.close(at)


def read_exactly(path: str, limit: int) -> bytes:
    """Return the content of a regular file of at most `limit` bytes; its path must contain no symbolic link. Raises OSError."""
    fd = open_exactly(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise OSError(errno.EINVAL, "not a regular file", path)
        content = read_all(fd, limit)
    finally:
        os.close(fd)
    if len(content) > limit:
        raise OSError(errno.EFBIG, f"larger than {limit} bytes", path)
    return content


@remembered
def name_of(text: str) -> str:
    """Return a unique file name for any text."""
    name = "".join(chr(byte) if byte in PLAIN else f"%{byte:02X}" for byte in text.encode(errors="surrogatepass"))
    if len(name) <= LONGEST_NAME:
        return name
    from hashlib import sha256  # names this long are rare

    return sha256(name.encode()).hexdigest()


def read_all(fd: int, limit: int | None = None) -> bytes:
    """Read to the end, or until more than `limit` bytes are there. Raises OSError with the file's name."""
    content = b""
    try:
        while chunk := os.read(fd, 65536):
            content += chunk
            if limit is not None and len(content) > limit:
                break
    except OSError as error:
        error.filename = _path_of(fd)
        raise
    return content


def write_all(fd: int, content: bytes) -> None:
    """Write all bytes; a single write(2) may take fewer. Raises OSError with the file's name."""
    try:
        while content:
            content = content[os.write(fd, content) :]
    except OSError as error:
        error.filename = _path_of(fd)
        raise


def _path_of(fd: int) -> str | None:
    """Return the path of an open file, which errors of read(2) and write(2) lack; for an unnamed file, its directory."""
    try:
        path = os.readlink(f"/proc/self/fd/{fd}")
    except OSError:
        return None
    return os.path.dirname(path) if path.endswith(" (deleted)") else path


def replace(path: str, content: bytes, *, durable: bool = False, mode: int = 0o600, alone: bool = False) -> None:
    """Write a file under a temporary name and rename it. Raises OSError, and then leaves nothing behind.

    `alone`: the caller's lock keeps other writers out. All then use one temporary name, so the next writer reuses what a killed one left.
    """
    temporary = f"{path}{TEMPORARY}" if alone else f"{path}.{os.getpid()}{TEMPORARY}"
    if not alone:  # in a directory such as /tmp the file there may be another user's, or a link to one
        discard(temporary)
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | (os.O_TRUNC if alone else os.O_EXCL) | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        try:
            write_all(fd, content)
            if mode != 0o600:  # noqa: PLR2004 -- the mode of open
                os.fchmod(fd, mode)  # regardless of the umask
            if durable:
                os.fsync(fd)
        finally:
            os.close(fd)
        os.rename(temporary, path)
    except BaseException as error:
        if isinstance(error, OSError) and not error.filename:
            error.filename = path  # fsync(2) sets no name
        discard(temporary)  # already renamed if the deadline's signal came just after that
        raise


def is_passing(error: OSError) -> bool:
    """Say whether a call failed for lack of descriptors or memory, which says nothing about the file."""
    return error.errno in {errno.EMFILE, errno.ENFILE, errno.ENOMEM}


def is_nowhere(error: OSError) -> bool:
    """Say whether a call failed because its path does not, or cannot, exist."""
    return error.errno in {errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG}


def remove(path: str) -> None:
    """Remove a file that may not be there. Raises OSError."""
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass


def discard(path: str) -> None:
    """Try to remove a file, ignoring errors: the caller reports an earlier error."""
    try:
        os.unlink(path)
    except OSError:
        pass
