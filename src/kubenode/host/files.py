"""Reading and writing whole files. A file that is written is either the old one or the new one, whatever happens."""

from __future__ import annotations

import os


def read(path: str) -> bytes:
    """Return a file's content. Raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        content = b""
        while chunk := os.read(fd, 65536):
            content += chunk
        return content
    finally:
        os.close(fd)


def write_all(fd: int, content: bytes) -> None:
    """Write all of it; write(2) may take less. Raises OSError."""
    while content:
        content = content[os.write(fd, content) :]


def replace(path: str, content: bytes, *, durable: bool = False) -> None:
    """Write a file of mode 0600 by a temporary name and rename. Raises OSError, and then nothing is left behind."""
    temporary = f"{path}.{os.getpid()}.tmp"
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        try:
            write_all(fd, content)
            if durable:
                os.fsync(fd)
        finally:
            os.close(fd)
        os.rename(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
