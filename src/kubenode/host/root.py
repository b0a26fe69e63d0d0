# SPDX-License-Identifier: Apache-2.0
"""Directories of the host as an agent in a container sees them: below a directory, and only if mounted there."""

from __future__ import annotations

import os

from kubenode.base import files
from kubenode.cni.errors import NOT_MOUNTED, OutOfReachError

LINKS = 40  # symbolic links in one path, as in the kernel (path_resolution(7))
MOST = 100  # paths that are known to be mounted


class HostRoot:
    """Directory that is the host's `/`; "" if this process has the host's own root."""

    def __init__(self, directory: str = "") -> None:
        self.directory = os.path.realpath(directory) if directory else ""
        self._seen: set[str] = set()

    @classmethod
    def of_process(cls, pid: int) -> HostRoot:
        """Return the root of a process, in a container or on the host. Raises OSError if it is not accessible."""
        root, link = cls(), f"/proc/{pid}/root"
        if not os.path.samestat(os.stat(link), os.stat("/")):
            root.directory = link  # a magic link: it leads there although it reads as "/" (proc_pid_root(5))
        return root

    def path(self, path: str) -> str:
        """Return where to find a path of the host here. Symbolic links lead to where they lead on the host."""
        return path if not self.directory else self.directory + self._resolved(path)

    def real(self, path: str) -> str:
        """Return a path of the host with its links resolved, still as a path of the host."""
        return self._resolved(path) if self.directory else os.path.realpath(path)

    def seen(self, path: str, what: str) -> str:
        """Return the same for a directory that must be the host's own, even if not created yet. Raises OutOfReachError without a mount."""
        found = self.path(path)
        if self.directory and path not in self._seen:
            if not _is_below(_mount_of(found), self.directory):
                mount = _first_two(found.removeprefix(self.directory))
                raise OutOfReachError(
                    NOT_MOUNTED,
                    f"{what} {path} of the host is not mounted in the agent's container",
                    f"mount the host's {mount} at {self.directory}{mount} (hostPath, mountPropagation: HostToContainer)",
                )
            if len(self._seen) >= MOST:
                self._seen.clear()
            self._seen.add(path)
        return found

    def is_mounted(self, path: str) -> bool:
        """Say whether this process sees the path as the host does."""
        return not self.directory or _is_below(_mount_of(self.path(path)), self.directory)

    def _resolved(self, path: str) -> str:
        todo = [part for part in path.split("/") if part][::-1]
        done: list[str] = []
        links = 0
        while todo:
            part = todo.pop()
            if part == ".":
                continue
            if part == "..":
                done = done[:-1]
                continue
            here = "/".join([self.directory, *done, part])
            try:
                target = os.readlink(here)
            except OSError:  # not a link, or missing
                # With only /run mounted, no /var shows that /var/run is a link to it (FHS 3.0, 5.13).
                if [*done, part] == ["var", "run"] and not os.path.lexists(here):
                    done = ["run"]
                else:
                    done.append(part)
                continue
            links += 1
            if links > LINKS:
                return path
            todo += [step for step in target.split("/") if step][::-1]
            if target.startswith("/"):
                done = []
        return "/" + "/".join(done)


def _is_below(path: str, directory: str) -> bool:
    return path == directory or path.startswith(directory.rstrip("/") + "/")


def _mount_of(path: str) -> str:
    """Return the mount point of a path (proc_pid_mountinfo(5))."""
    lines = files.read("/proc/self/mountinfo").decode(errors="surrogateescape").splitlines()
    points = [_unescaped(line.split(" ")[4]) for line in lines]
    return max((point for point in points if _is_below(path, point)), key=len, default="/")


def _unescaped(text: str) -> str:
    for escape, character in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        text = text.replace(escape, character)
    return text


def _first_two(path: str) -> str:
    """Return the directory to mount for a path: /var/lib for /var/lib/cni/networks, /run for /run/x."""
    parts = [part for part in path.split("/") if part]
    return "/" + "/".join(parts[: 1 if parts[:1] == ["run"] else 2])
