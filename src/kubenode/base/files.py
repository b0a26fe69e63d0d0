"""Reading and writing whole files. A file that is written is either the old one or the new one, whatever happens."""

from __future__ import annotations

import errno
import os
import stat

from kubenode.base.record import remembered

PLAIN = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-.")
LONGEST_NAME = 200  # characters, so that there is room for what is put around it
TEMPORARY = ".tmp"  # how a name ends under which nothing is to be read yet

NAME_MAX = 255  # bytes of a file's name


def short(name: str, room: int = NAME_MAX) -> str:
    """Return a name, or in the place of one that has more bytes a digest of it."""
    encoded = os.fsencode(name)
    if len(encoded) <= room:
        return name
    import hashlib  # brings OpenSSL, for names that hardly anybody has

    return hashlib.sha256(encoded).hexdigest()


def read(path: str) -> bytes:
    """Return a file's content. Raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return read_all(fd)
    finally:
        os.close(fd)


def read_regular(path: str) -> bytes:
    """Return the content of a regular file; a named pipe would keep the caller waiting for ever. Raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise OSError(errno.EINVAL, "not a regular file", path)
        return read_all(fd)
    finally:
        os.close(fd)


def open_exactly(path: str, flags: int, mode: int = 0o600) -> int:
    """Open a path that leads through no link; who puts one there after it was resolved gets nowhere. Raises OSError."""
    directory, name = os.path.split(path)
    at = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if os.readlink(f"/proc/self/fd/{at}") != directory:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
        return os.open(name, flags | os.O_NOFOLLOW | os.O_CLOEXEC, mode, dir_fd=at)
    finally:
        os.close(at)


def read_exactly(path: str, limit: int) -> bytes:
    """Return the content of a regular file of at most `limit` bytes whose path leads through no link. Raises OSError."""
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
    """Return a file name for any text, another for each."""
    name = "".join(chr(byte) if byte in PLAIN else f"%{byte:02X}" for byte in text.encode(errors="surrogateescape"))
    if len(name) <= LONGEST_NAME:
        return name
    from hashlib import sha256  # longer than any that is meant

    return sha256(name.encode()).hexdigest()


def read_all(fd: int, limit: int | None = None) -> bytes:
    """Read until the end, or until there is more than `limit` bytes. Raises OSError, which names the file."""
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
    """Write all of it; write(2) may take less. Raises OSError, which names the file."""
    try:
        while content:
            content = content[os.write(fd, content) :]
    except OSError as error:
        error.filename = _path_of(fd)
        raise


def _path_of(fd: int) -> str | None:
    """Return what read(2) and write(2) do not say: the file's path; of one that has no name yet its directory's."""
    try:
        path = os.readlink(f"/proc/self/fd/{fd}")
    except OSError:
        return None
    return os.path.dirname(path) if path.endswith(" (deleted)") else path


def replace(path: str, content: bytes, *, durable: bool = False, mode: int = 0o600, alone: bool = False) -> None:
    """Write a file by a temporary name and rename. Raises OSError, and then nothing is left behind.

    `alone`: a lock keeps other writers out. Then there is one temporary name, and what a killed writer has left the next one takes.
    """
    temporary = f"{path}{TEMPORARY}" if alone else f"{path}.{os.getpid()}{TEMPORARY}"
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        try:
            write_all(fd, content)
            if mode != 0o600:  # noqa: PLR2004 -- what it was opened with
                os.fchmod(fd, mode)  # whatever the umask
            if durable:
                os.fsync(fd)
        finally:
            os.close(fd)
        os.rename(temporary, path)
    except BaseException as error:
        if isinstance(error, OSError) and not error.filename:
            error.filename = path  # fsync(2) does not say
        discard(temporary)  # not there where the deadline's signal came just after the rename
        raise


def is_passing(error: OSError) -> bool:
    """Say whether a call has failed for want of descriptors or memory: it says nothing of the file."""
    return error.errno in {errno.EMFILE, errno.ENFILE, errno.ENOMEM}


def is_nowhere(error: OSError) -> bool:
    """Say whether a call has failed because there is nothing at its path, and nothing can be."""
    return error.errno in {errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG}


def remove(path: str) -> None:
    """Remove a file that may not be there. Raises OSError."""
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass


def discard(path: str) -> None:
    """Remove a file if that can be done: what has failed before is what is to be told of."""
    try:
        os.unlink(path)
    except OSError:
        pass
