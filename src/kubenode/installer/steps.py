# SPDX-License-Identifier: Apache-2.0
"""Decisions of an installation: the step for each path, by its content and the record. Changes nothing."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

from kubenode.host import delegate
from kubenode.installer import held, installed
from kubenode.installer.installed import CONFLIST

if TYPE_CHECKING:
    from collections.abc import Collection

    from kubenode.host.root import HostRoot
    from kubenode.installer.installed import Installed

SET_ASIDE = ".before-kube-node"  # suffix of a foreign file that ours replaced
FORCE = f"--force renames the existing files (*{SET_ASIDE}), and uninstall restores them"


class PayloadPart(NamedTuple):
    """Wanted file at a path of the host; or a directory, copied from `tree`.

    `living`: the agent rewrites it, too, so any content is ours. `option`: the option that adds it, "" for plugins.
    """

    path: str
    content: bytes = b""
    mode: int = 0o644
    tree: str = ""
    living: bool = False
    option: str = ""

    def digest(self) -> str:
        """Return the digest of the wanted content."""
        return installed.tree_digest(self.tree) if self.tree else installed.digest(self.content)


class Step(NamedTuple):
    """Action for one path: write, hold, replace, keep, remove, restore or leave. `set_aside`: a foreign file is renamed first."""

    what: str
    path: str
    why: str = ""
    set_aside: bool = False


class Steps:
    """Steps for one host; `plugins` is the plugins' directory. Raises OSError."""

    def __init__(self, root: HostRoot, plugins: str, record: Installed) -> None:
        self._root = root
        self._plugins = plugins
        self._installed = record

    def path(self, path: str) -> str:
        """Return where to find a path of the host here. The last component is not followed: a link there is itself the foreign file."""
        return os.path.join(self._root.path(os.path.dirname(path)), os.path.basename(path))

    def forward(self, part: PayloadPart, *, force: bool, hold: bool) -> Step:
        """Return the installation's step for a part. `force` renames a foreign file; `hold` makes a new network configuration wait."""
        path = self.path(part.path)
        there, wanted, entry = installed.digest_of(path), part.digest(), self._installed.entries.get(part.path)
        if not there:
            waits = hold and part.option == CONFLIST
            return Step("hold", part.path, "the agent puts it there once it is ready") if waits else Step("write", part.path)
        if there == wanted and (part.tree or os.stat(path).st_mode & 0o7777 == part.mode):
            return Step("keep", part.path)
        if part.living or part.tree or there == wanted or (entry and entry.has(there)):
            return Step("replace", part.path, "is damaged" if part.tree else "")
        if delegate.is_ours(path):
            return Step("replace", part.path, "was copied there by hand")
        if force:
            return Step("replace", part.path, f"the previous file is now {part.path}{SET_ASIDE}", set_aside=True)
        return Step("leave", part.path, "was changed since it was installed" if entry else "is not ours")

    def obsolete(self, wanted: set[str], given: Collection[str]) -> list[str]:
        """Return paths of the record that this installation does not contain, except the last library, from which running calls import.

        A plugin's file belongs to another version; any other path counts only if its option is in `given`.
        """
        entries = self._installed.entries.items()
        meant = {path for path, entry in entries if (entry.option not in given if entry.option else os.path.dirname(path) != self._plugins)}
        obsolete = [path for path in self._installed.entries if path not in wanted | meant]
        trees = [path for path in obsolete if self._installed.entries[path].tree]
        unchanged = [path for path in obsolete if path in trees or self._is_unchanged(path)]
        return [path for path in unchanged if path not in trees[-1:]]

    def _is_unchanged(self, path: str) -> bool:
        there = installed.digest_of(self.path(path))
        return self._installed.entries[path].has(there) if there else os.path.lexists(f"{self.path(path)}{held.SUFFIX}")

    def back(self, path: str, *, force: bool) -> Step:
        """Return the step that removes a path of the record; files that were changed since stay, unless `force`."""
        there, entry = installed.digest_of(self.path(path)), self._installed.entries[path]
        aside = installed.digest_of(f"{self.path(path)}{SET_ASIDE}") if entry.set_aside else ""
        is_ours = entry.has(there)
        # A killed installer may not have replaced a foreign file yet, or may have restored it already.
        is_back = entry.set_aside and bool(there) and not is_ours and aside in ("", there)
        if there and not is_ours and not is_back and not force:
            return Step("leave", path, "was changed since it was installed")
        if aside or is_back:
            return Step("restore", path, "the file from before")
        if there or os.path.lexists(f"{self.path(path)}{held.SUFFIX}"):
            return Step("remove", path)
        return Step("keep", path, "is already gone")
