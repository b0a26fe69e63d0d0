"""Network namespaces as records name them: whether one is gone for certain."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kubenode.host.root import HostRoot


class Namespaces:
    """The judgement for one look at many; what directories are here is asked once."""

    def __init__(self, root: HostRoot) -> None:
        self._root = root
        self._visible: dict[str, bool] = {}

    def is_gone(self, netns: str) -> bool:
        """Say whether a network namespace's path is gone for certain, and not only for us."""
        if not netns.startswith("/") or _is_process(netns):
            return False
        return not os.path.lexists(self._root.path(netns)) and self._sees(netns)

    def may_be_there(self, netns: str) -> bool:
        """Say whether a network namespace's path is there, or is in a container's blind spot."""
        if not netns.startswith("/"):
            return False
        hidden = self._root.directory and not self._sees(netns)
        return _is_process(netns) or os.path.lexists(self._root.path(netns)) or bool(hidden)

    def _sees(self, netns: str) -> bool:
        """Say whether what would hold a namespace's path is here, and is the host's."""
        directory = os.path.dirname(self._root.path(netns))
        if directory not in self._visible:
            self._visible[directory] = _is_linked_directory(directory) and self._root.is_mounted(netns)
        return self._visible[directory]


def _is_process(netns: str) -> bool:
    """Say whether a path is a process's own, which goes with the process and may be of another PID namespace than ours."""
    return os.path.normpath(netns).lstrip("/").startswith("proc/")


def _is_linked_directory(path: str) -> bool:
    """Say whether a directory has a name. One that was removed and made anew stays in our mount as it was, and empty."""
    try:
        status = os.stat(path)
    except OSError:
        return False
    return stat.S_ISDIR(status.st_mode) and status.st_nlink > 0
