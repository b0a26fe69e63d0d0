"""The host's directories as an agent in a container sees them: under a directory, and only where they are mounted."""

from __future__ import annotations

import os

from kubenode.base import files
from kubenode.cni.errors import NOT_MOUNTED, OutOfReachError

LINKS = 40  # symbolic links that one path may go through, as in the kernel (path_resolution(7))


class HostRoot:
    """A directory that stands for the host's `/`; "" where this process sees the host's as it is."""

    def __init__(self, directory: str = "") -> None:
        self.directory = os.path.realpath(directory) if directory else ""
        self._seen: set[str] = set()

    @classmethod
    def of_process(cls, pid: int) -> HostRoot:
        """Return what a process sees as `/`, in a container as on the host. Raises OSError where that is not to be seen."""
        root, link = cls(), f"/proc/{pid}/root"
        if not os.path.samestat(os.stat(link), os.stat("/")):
            root.directory = link  # which leads there though it reads as "/" (proc_pid_root(5))
        return root

    def path(self, path: str) -> str:
        """Return where a path of the host is found. A symbolic link leads to where it leads on the host."""
        return path if not self.directory else self.directory + self._resolved(path)

    def real(self, path: str) -> str:
        """Return a path of the host with its links followed, as the host has it."""
        return self._resolved(path) if self.directory else os.path.realpath(path)

    def seen(self, path: str, what: str) -> str:
        """Return the same for a directory that must be the host's own, there or to be made. Raises OutOfReachError without a mount."""
        found = self.path(path)
        if self.directory and path not in self._seen:
            if not _is_below(_mount_of(found), self.directory):
                mount = _first_two(found.removeprefix(self.directory))
                raise OutOfReachError(
                    NOT_MOUNTED,
                    f"{what} {path} of the host is not mounted in the agent's container",
                    f"mount the host's {mount} at {self.directory}{mount} (hostPath, mountPropagation: HostToContainer)",
                )
            self._seen.add(path)
        return found

    def is_mounted(self, path: str) -> bool:
        """Say whether what is here, or is not here, is what is on the host."""
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
            except OSError:  # no link, or not there
                # Where only /run is mounted there is no /var to say that /var/run is a link to it (FHS 3.0, 5.13).
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
    """Return the mount point that a path is on (proc_pid_mountinfo(5))."""
    lines = files.read("/proc/self/mountinfo").decode(errors="surrogateescape").splitlines()
    points = [_unescaped(line.split(" ")[4]) for line in lines]
    return max((point for point in points if _is_below(path, point)), key=len, default="/")


def _unescaped(text: str) -> str:
    for escape, character in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        text = text.replace(escape, character)
    return text


def _first_two(path: str) -> str:
    """Return what is worth mounting for a path: /var/lib for /var/lib/cni/networks, /run for /run/x."""
    parts = [part for part in path.split("/") if part]
    return "/" + "/".join(parts[: 1 if parts[:1] == ["run"] else 2])
