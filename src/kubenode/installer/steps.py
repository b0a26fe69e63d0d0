"""Decisions of an installation: which step each path needs, by what is there and what the record says. It changes nothing."""

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

SET_ASIDE = ".before-kube-node"  # how the name of a foreign file ends that ours has taken the place of
FORCE = f"--force sets what is there aside (*{SET_ASIDE}), and uninstall brings it back"


class Part(NamedTuple):
    """One file as it is to be, at a path of the host; or a directory, copied from `tree`.

    `living`: it is written anew by the agent, too, so that whatever it holds is ours. `option`: which option brought it, "" for plugins.
    """

    path: str
    content: bytes = b""
    mode: int = 0o644
    tree: str = ""
    living: bool = False
    option: str = ""

    def digest(self) -> str:
        return installed.tree_digest(self.tree) if self.tree else installed.digest(self.content)


class Step(NamedTuple):
    """One path and what is done to it: write, hold, replace, keep, remove, restore or leave. `set_aside`: a foreign file makes room."""

    what: str
    path: str
    why: str = ""
    set_aside: bool = False


class Steps:
    """The steps for one host; `plugins` is the plugins' directory. Raises OSError."""

    def __init__(self, root: HostRoot, plugins: str, record: Installed) -> None:
        self._root = root
        self._plugins = plugins
        self._installed = record

    def path(self, path: str) -> str:
        """Return where a path of the host is found. Its path may be a link: that is the foreign file, and not what it leads to."""
        return os.path.join(self._root.path(os.path.dirname(path)), os.path.basename(path))

    def forward(self, part: Part, *, force: bool, hold: bool) -> Step:
        """Return what an installation does to a part's path. `force` sets a foreign file aside; `hold` lets a new network wait."""
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
            return Step("replace", part.path, "copied there by hand")
        if force:
            return Step("replace", part.path, f"what was there is now {part.path}{SET_ASIDE}", set_aside=True)
        return Step("leave", part.path, "was changed since it was installed" if entry else "is not ours")

    def obsolete(self, wanted: set[str], given: Collection[str]) -> list[str]:
        """Return what the record has and this installation has not; but for the last tree: calls under way import from it.

        A plugin's file is another version's; anything else is a `given` option's, or it stays.
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
        """Return how a path of the record is taken back; what was changed since stays, unless `force`."""
        there, entry = installed.digest_of(self.path(path)), self._installed.entries[path]
        aside = installed.digest_of(f"{self.path(path)}{SET_ASIDE}") if entry.set_aside else ""
        is_ours = entry.has(there)
        # An installer that is killed in between has not taken a foreign file's place yet, or has given it back.
        is_back = entry.set_aside and bool(there) and not is_ours and aside in ("", there)
        if there and not is_ours and not is_back and not force:
            return Step("leave", path, "was changed since it was installed")
        if aside or is_back:
            return Step("restore", path, "what was there before")
        if there or os.path.lexists(f"{self.path(path)}{held.SUFFIX}"):
            return Step("remove", path)
        return Step("keep", path, "is gone already")
