# SPDX-License-Identifier: Apache-2.0
"""Network namespaces in records: whether one is certainly gone."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kubenode.host.root import HostRoot


class Namespaces:
    """Judge for one pass over many records; it checks each directory once."""

    def __init__(self, root: HostRoot) -> None:
        self._root = root
        self._visible: dict[str, bool] = {}

    def is_gone(self, netns: str) -> bool:
        """Say whether a network namespace is certainly gone, not just invisible to us."""
        if not netns.startswith("/") or _is_process(netns):
            return False
        return not os.path.lexists(self._root.path(netns)) and self._sees(netns)

    def may_be_there(self, netns: str) -> bool:
        """Say whether a network namespace exists, or may exist where a container cannot see it."""
        if not netns.startswith("/"):
            return False
        hidden = self._root.directory and not self._sees(netns)
        return _is_process(netns) or os.path.lexists(self._root.path(netns)) or bool(hidden)

    def _sees(self, netns: str) -> bool:
        """Say whether the directory of a namespace's path is visible here and is the host's."""
        directory = os.path.dirname(self._root.path(netns))
        if directory not in self._visible:
            self._visible[directory] = _is_linked_directory(directory) and self._root.is_mounted(netns)
        return self._visible[directory]


def _is_process(netns: str) -> bool:
    """Say whether a path belongs to a process: it ends with the process, and may be of another PID namespace than ours."""
    return os.path.normpath(netns).lstrip("/").startswith("proc/")


def _is_linked_directory(path: str) -> bool:
    """Say whether a directory still has a name. After a removal and a new mkdir our mount still shows the old, empty one."""
    try:
        status = os.stat(path)
    except OSError:
        return False
    return stat.S_ISDIR(status.st_mode) and status.st_nlink > 0
