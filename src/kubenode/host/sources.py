"""Which network has a source of addresses: the podCIDRs of this node's Node, or an annotation on it.

Two networks over one source would give the same addresses out of two stores. A source has a link, `sources/SOURCE`, that nobody follows: it
names the directory of the network that came first, and is made and read by one system call.
"""

from __future__ import annotations

import fcntl
import os

from kubenode.base import files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


class Sources:
    """The sources of one node. Raises OSError where the disk does."""

    def __init__(self, run_dir: str) -> None:
        self._directory = f"{run_dir}/sources"

    def holder(self, source: str) -> str:
        """Return the directory of the network that has a source, "" where none has."""
        try:
            return os.readlink(self._path(source))
        except FileNotFoundError:
            return ""

    def take(self, source: str, directory: str, if_unused: Callable[[str, Callable[[], None]], bool]) -> str:
        """Let a network have a source, if none has it or the one that has it has no use for it; return who has it then.

        `if_unused` does something while nothing is reserved in a directory, if that is so, and says whether.
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
            # One at a time: another may be about to take over from the same network. Who that is comes again.
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return self._take_over(source, directory, if_unused)
        except BlockingIOError:
            return held
        finally:
            os.close(lock)

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
