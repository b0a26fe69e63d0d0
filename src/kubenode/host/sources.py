# SPDX-License-Identifier: Apache-2.0
"""Owner of each source of addresses: the network that uses the Node's podCIDRs, or an annotation of the Node.

Two networks with one source would assign the same addresses from two stores. A source is a symbolic link, `sources/SOURCE`, whose text is
the directory of the first network that used it. Nobody follows the link: it is created and read in one system call.
"""

from __future__ import annotations

import fcntl
import os

from kubenode.base import files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator


class Sources:
    """Sources of one node. Raises OSError."""

    def __init__(self, run_dir: str) -> None:
        self._directory = f"{run_dir}/sources"

    def holder(self, source: str) -> str:
        """Return the directory of the network that owns a source, "" if none does."""
        try:
            return os.readlink(self._path(source))
        except FileNotFoundError:
            return ""

    def take(self, source: str, directory: str, if_unused: Callable[[str, Callable[[], None]], bool]) -> str:
        """Let a network own a source if it has no owner, or one without reservations; return the owner.

        `if_unused(directory, do)` calls `do` while nothing is reserved in a directory, and returns whether it did.
        """
        held = self.holder(source)
        if held == directory:
            return held
        os.makedirs(self._directory, 0o755, exist_ok=True)
        if not held:
            try:
                os.symlink(directory, self._path(source))
            except FileExistsError:
                return self.holder(source)
            return directory
        lock = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            # One at a time: another network may take over at the same moment. This one then tries again.
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return self._take_over(source, directory, if_unused)
        except BlockingIOError:
            return held
        finally:
            os.close(lock)

    def all(self, known: Iterable[str] = ()) -> Iterator[tuple[str, str]]:
        """Iterate over the sources and their owners; `known`: sources that may have too long a name for a file."""
        from urllib.parse import unquote  # not needed in a call

        long = {files.name_of(source): source for source in known}
        try:
            names = os.listdir(self._directory)
        except FileNotFoundError:
            return
        for name in names:
            source = long.get(name) or unquote(name)
            if name != files.TEMPORARY and (owner := self.holder(source)):
                yield source, owner

    def _take_over(self, source: str, directory: str, if_unused: Callable[[str, Callable[[], None]], bool]) -> str:
        def replace() -> None:
            temporary = f"{self._directory}/{files.TEMPORARY}"
            files.discard(temporary)
            os.symlink(directory, temporary)
            os.rename(temporary, self._path(source))

        held = self.holder(source)
        return directory if if_unused(held, replace) else held

    def _path(self, source: str) -> str:
        return f"{self._directory}/{files.name_of(source)}"
