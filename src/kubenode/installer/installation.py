# SPDX-License-Identifier: Apache-2.0
"""Our files in the host's directories: installation, update and removal. `payload` defines the files.

A record beside the plugins lists our files and their digests. Any other file is foreign: it is never overwritten or removed without
`force`; then it is renamed, and uninstall restores it.
"""

from __future__ import annotations

import fcntl
import glob
import os
import shutil
from contextlib import contextmanager
from typing import TYPE_CHECKING

from kubenode.base import files
from kubenode.base.problem import Problem
from kubenode.host import boot
from kubenode.host.cniconfig import DEFAULT_CONFIG_DIR
from kubenode.installer import held
from kubenode.installer.installed import CONFLIST, NEEDS, Installed, InstalledPath
from kubenode.installer.steps import FORCE, SET_ASIDE, Step, Steps

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

    from kubenode.host.root import HostRoot
    from kubenode.installer.steps import PayloadPart


class Installation:
    """Our files in one host's directories. Raises Problem."""

    def __init__(self, root: HostRoot, bin_dir: str) -> None:
        self._root = root
        self._plugins = os.path.dirname(os.path.join(bin_dir, ""))
        self._bin_dir = root.path(bin_dir)
        self._installed = Installed(self._bin_dir)
        self._steps = Steps(root, self._plugins, self._installed)

    def install(
        self,
        parts: Sequence[PayloadPart],
        given: Collection[str] = (),
        options: Mapping[str, str] | None = None,
        *,
        force: bool = False,
        leave: bool = False,
        hold: bool = False,
        dry_run: bool = False,
    ) -> list[Step]:
        """Install these parts in this order, and remove obsolete files of an earlier installation.

        Files of an option that is not in `given` stay. `options` go into the record. `leave`: skip foreign files. `hold`: a new network
        configuration waits for the agent.
        """
        with self._held(dry_run=dry_run):
            self._require_exec()
            self._installed.options |= options or {}
            steps = [self._steps.forward(part, force=force, hold=hold) for part in parts]
            obsolete = self._steps.obsolete({part.path for part in parts}, given)
            foreign = [step for step in steps if step.what == "leave"]
            if foreign and not leave:
                raise Problem(
                    "; ".join(f"{step.path} {step.why}" for step in foreign),
                    f"nothing was changed; {FORCE}",
                )
            steps += [Step("remove", path, "is obsolete") for path in obsolete]
            if not dry_run:
                self._carry_out([(part, step) for part, step in zip(parts, steps, strict=False) if step.what != "leave"], obsolete)
            return steps

    def uninstall(self, data_dirs: Iterable[str], *, force: bool = False, dry_run: bool = False) -> list[Step]:
        """Remove our files. Files that were changed since stay, unless `force`.

        The boot notes in `data_dirs` go, too: another plugin would not update them.
        """
        with self._held(dry_run=dry_run):
            # The network configuration goes first, then the files that it needs.
            steps = [self._steps.back(path, force=force) for path in reversed(self._installed.entries)]
            notes = [path for directory in data_dirs for path in boot.notes(self._root.path(directory))]
            if not dry_run:
                for step in steps:
                    self._take_back(step)
                self._leave()
                for path in notes:
                    files.remove(path)
            return steps + [Step("remove", path.removeprefix(self._root.directory), "boot note of the reservations") for path in notes]

    def _carry_out(self, work: Sequence[tuple[PayloadPart, Step]], obsolete: Sequence[str]) -> None:
        try:
            self._announce(work)
            for part, step in work:
                if step.what == "hold":
                    files.replace(f"{self._steps.path(part.path)}{held.SUFFIX}", part.content, durable=True, mode=part.mode)
                    continue
                if step.what != "keep":
                    self._place(part, set_aside=step.set_aside)
                files.remove(f"{self._steps.path(part.path)}{held.SUFFIX}")
            for path in obsolete:
                self._take_back(self._steps.back(path, force=False))
            for part, _ in work:
                self._installed.entries[part.path] = self._installed.entries[part.path]._replace(digests=(part.digest(),))
            self._installed.write()
        except OSError as error:
            advice = "the files installed so far work; run install again, or uninstall"
            # For a directory it contains the errors of all files.
            problem = error.args[0][0][2] if isinstance(error, shutil.Error) else error.strerror
            raise Problem(f"{error.filename or self._installed.path}: {problem}", advice) from None

    def _announce(self, work: Sequence[tuple[PayloadPart, Step]]) -> None:
        """Write the record before the files: whenever we are killed, it lists all of ours."""
        for part, step in work:
            before = self._installed.entries.pop(part.path, InstalledPath(()))  # moves to the end: the record has the order of the parts
            digests = tuple(dict.fromkeys([*before.digests, part.digest()]))
            self._installed.entries[part.path] = InstalledPath(digests, part.living, before.set_aside or step.set_aside, part.option)
            directory = os.path.dirname(part.path)
            self._make_directory(directory, 0o700 if part.mode == 0o600 else 0o755)  # noqa: PLR2004 -- a file for root only
            if part.option == CONFLIST:
                self._installed.directories = [path for path in self._installed.directories if path != directory]  # the runtime watches it
        by_need = sorted(self._installed.entries.items(), key=lambda item: NEEDS.index(item[1].option))
        self._installed.entries = dict(by_need)
        self._installed.write()

    def _place(self, part: PayloadPart, *, set_aside: bool) -> None:
        path = self._steps.path(part.path)
        if part.tree:
            # No fsync: it takes seconds on a busy disk. After a power failure the next installation sees another digest.
            temporary = f"{path}{files.TEMPORARY}"
            shutil.rmtree(temporary, ignore_errors=True)
            try:
                shutil.copytree(part.tree, temporary, symlinks=True)
            except OSError:  # the disk may be full
                shutil.rmtree(temporary, ignore_errors=True)
                raise
            shutil.rmtree(path, ignore_errors=True)
            os.rename(temporary, path)
            return
        if set_aside:
            # A second name, so that the first is never without a file.
            files.remove(f"{path}{SET_ASIDE}")
            os.link(path, f"{path}{SET_ASIDE}", follow_symlinks=False)
        files.replace(path, part.content, durable=True, mode=part.mode)

    def _take_back(self, step: Step) -> None:
        path = self._steps.path(step.path)
        if step.what == "leave":
            return
        try:
            if step.what == "restore":
                if os.path.lexists(f"{path}{SET_ASIDE}"):
                    os.rename(f"{path}{SET_ASIDE}", path)
                    files.remove(f"{path}{SET_ASIDE}")  # rename(2) does nothing where both are names of one file
            elif self._installed.entries[step.path].tree:
                shutil.rmtree(path, ignore_errors=True)
            else:
                files.remove(path)
            files.remove(f"{path}{held.SUFFIX}")
        except OSError as error:
            raise Problem(f"{path}: {error.strerror}", "remove it by hand, or run uninstall again") from None
        del self._installed.entries[step.path]

    def _leave(self) -> None:
        """Remove the directories that we created and that are empty now; then the record, once it is empty."""
        if self._installed.entries:
            self._installed.write()
            return
        files.remove(self._installed.path)
        self._remove_empty(self._installed.directories)

    def _sweep(self) -> None:
        """Remove temporary files of an installation that was killed."""
        for there in [self._installed.path, *map(self._steps.path, self._installed.entries)]:
            for left in glob.glob(f"{glob.escape(there)}.*{files.TEMPORARY}"):
                files.remove(left)
            shutil.rmtree(f"{there}{files.TEMPORARY}", ignore_errors=True)

    def _remove_empty(self, directories: Iterable[str]) -> None:
        for path in sorted({*directories} - {DEFAULT_CONFIG_DIR}, reverse=True):  # a runtime would not notice a new one
            try:
                os.rmdir(self._root.path(path))
            except OSError:  # it has other files, or is gone
                continue

    def _require_exec(self) -> None:
        there = self._bin_dir
        while not os.path.isdir(there):
            there = os.path.dirname(there)
        if os.statvfs(there).f_flag & os.ST_NOEXEC:
            problem = f"{self._plugins} is on a file system mounted noexec: no plugin could start"
            raise Problem(problem, "mount it with exec, or give the runtime another directory and --bin-dir its name")

    def _make_directory(self, path: str, mode: int) -> None:
        there = self._root.path(path)
        if os.path.isdir(there):
            return
        self._make_directory(os.path.dirname(path), 0o755)
        os.mkdir(there, mode)
        self._installed.directories.append(path)

    @contextmanager
    def _held(self, *, dry_run: bool) -> Iterator[None]:
        """Keep other installations out, and read the record."""
        bin_dir, before = -1, set(self._installed.directories)
        if self._root.directory and not os.path.isdir(self._root.directory):
            raise Problem(f"there is no host root {self._root.directory}", "--host-root is the path of the host's /")
        try:
            if not dry_run:
                self._installed.read()
                before = set(self._installed.directories)
                self._make_directory(self._bin_dir.removeprefix(self._root.directory), 0o755)
                bin_dir = os.open(self._bin_dir, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
                fcntl.flock(bin_dir, fcntl.LOCK_EX)
            self._installed.read()
            if not dry_run:
                self._sweep()
            yield
        except Problem:
            self._remove_empty(set(self._installed.directories) - before)
            raise
        except OSError as error:
            raise Problem(f"{error.filename or self._bin_dir}: {error.strerror}", "only root may do this") from None
        finally:
            if bin_dir >= 0:
                os.close(bin_dir)
