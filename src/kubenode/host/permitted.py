# SPDX-License-Identifier: Apache-2.0
"""Paths that a network configuration may use on this host, as the host's administrator allows.

A configuration may come from a tenant (a NetworkAttachmentDefinition). Its paths must be below the directories that the administrator's
file allows for their key. The file belongs to root; so does the environment that may name another one.
"""

from __future__ import annotations

import os
import stat

from kubenode.base import files
from kubenode.base.jsontext import JSONTextError, dumps, loads
from kubenode.cni.errors import CONFIG_FILE, NOT_ALLOWED, CNIError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from kubenode.base.jsontext import JSON
    from kubenode.host.root import HostRoot

    Allowed = Mapping[str, tuple[str, ...]]

DEFAULT = "/etc/cni/kube-node.conf"
ALLOWED = {"kubeconfig": ("/etc",), "nodeFile": ("/etc",), "logfile": ("/var/log",), "resolvConf": ("/etc", "/run")}
LARGEST = 64 << 10  # bytes of the administrator's file
MOST = 100  # cached paths
OTHERS_WRITE = 0o022
ADVICE = 'such as {"allow": {"logfile": ["/var/log"]}}, with lists of absolute paths for ' + ", ".join(ALLOWED)


class Permitted:
    """The administrator's file. It is read on first use, and again after a change.

    `unread`: keys whose files this process never opens. The links in such a path are resolved only once.
    """

    def __init__(self, root: HostRoot, environ: Mapping[str, str], unread: Collection[str] = ()) -> None:
        self.path = environ.get("KUBE_NODE_CONF") or DEFAULT
        self._root = root
        self._known: tuple[tuple[int, ...], Allowed] = ((), ALLOWED)
        self._unread = unread
        self._allowed_before: dict[tuple[str, str], tuple[Allowed, str]] = {}

    def require(self, key: str, path: str) -> str:
        """Return a path of the host with its links resolved, if the configuration may use it under this key. Raises CNIError."""
        allowed = self.allowed()
        if key not in self._unread:
            return self._require(key, path, allowed[key])
        before = self._allowed_before.get((key, path))
        if before and before[0] is allowed:
            return before[1]
        real = self._require(key, path, allowed[key])
        if len(self._allowed_before) >= MOST:
            self._allowed_before.clear()
        self._allowed_before[key, path] = allowed, real
        return real

    def _require(self, key: str, path: str, directories: tuple[str, ...]) -> str:
        real = self.real(path) if path.startswith("/") else path
        if any(_is_below(real, directory) or _is_below(real, self.real(directory)) for directory in directories):
            return real
        line = dumps({"allow": {key: [*directories, os.path.dirname(real) or "/"]}})
        raise CNIError(
            NOT_ALLOWED,
            f"{key} {path!r}{f', which is {real!r},' if real != path else ''} is not below {' or '.join(directories) or 'any directory'}",
            f"the administrator of this host allows a directory by {line} in {self.path}",
        )

    def real(self, path: str) -> str:
        """Return a path of the host with its links resolved."""
        return self._root.real(path)

    def here(self, real: str) -> str:
        """Return where this process finds a path that `require` or `real` returned."""
        return self._root.directory + real

    def allowed(self) -> Allowed:
        """Return the allowed directories by key. Raises CNIError if others than root can change the file, or if it is invalid."""
        here = self._root.path(self.path)
        try:
            status = os.stat(here)
            state = (status.st_mtime_ns, status.st_ino, status.st_ctime_ns, status.st_size)
            if state != self._known[0]:
                self._known = (state, self._read(here))
        except FileNotFoundError:
            if self.path == DEFAULT:
                return ALLOWED
            advice = "KUBE_NODE_CONF names it; write it, or unset the variable"
            raise CNIError(CONFIG_FILE, f"there is no file {self.path}", advice) from None
        except OSError as error:
            raise CNIError(CONFIG_FILE, f"cannot read {self.path}: {error.strerror}", "make it readable, or remove it") from None
        return self._known[1]

    def _read(self, here: str) -> Allowed:
        fd = os.open(here, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode) or status.st_uid not in {0, os.geteuid()} or status.st_mode & OTHERS_WRITE:
                told = f"{self.path} is not a file that root alone can change (owner {status.st_uid}, mode {status.st_mode & 0o7777:04o})"
                raise CNIError(CONFIG_FILE, told, f"chown root {self.path} && chmod 644 {self.path}")
            text = files.read_all(fd, LARGEST)
        finally:
            os.close(fd)
        if len(text) > LARGEST:
            raise CNIError(CONFIG_FILE, f"{self.path} has more than {LARGEST} bytes", ADVICE)
        try:
            return {**ALLOWED, **_allow(loads(text))}
        except JSONTextError as error:
            raise CNIError(CONFIG_FILE, f"{self.path} is not JSON: {error}", ADVICE) from None
        except ValueError as error:
            raise CNIError(CONFIG_FILE, f"{self.path}: {error}", ADVICE) from None


def _allow(content: JSON) -> dict[str, tuple[str, ...]]:
    """Return the allowed directories by key. Unknown keys are refused: a typo would allow what should be forbidden."""
    allow = content.get("allow", {}) if isinstance(content, dict) else None
    if not isinstance(allow, dict):
        raise ValueError("not an object, or allow is not one")  # noqa: TRY004 -- the text is wrong, not a type of ours
    if unknown := [*(content.keys() - {"allow"}), *(allow.keys() - ALLOWED.keys())]:
        raise ValueError(f"unknown key {min(unknown)!r}")
    found = {}
    for key, directories in allow.items():
        if not isinstance(directories, list) or not all(isinstance(one, str) and one.startswith("/") for one in directories):
            raise ValueError(f"{key} is {directories!r}")
        found[key] = tuple(directories)
    return found


def _is_below(path: str, directory: str) -> bool:
    return path == directory or path.startswith(directory.rstrip("/") + "/")
