"""Files of ours in the host's directories: put there, brought up to date and taken back. What they are is `payload`'s business.

A record beside the plugins says what we have put where, and its digest. What is there and is not ours is a foreign file: it is neither
overwritten nor removed unless somebody insists, and then it is set aside and comes back in the end.
"""

from __future__ import annotations

import fcntl
import glob
import hashlib
import json
import os
import shutil
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from kubenode.cni.errors import INSTALLATION, IO_FAILURE, CNIError
from kubenode.host import delegate, files
from kubenode.version import VERSION

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from kubenode.host.root import HostRoot

RECORD = "kube-node.installed"  # in the CNI bin directory: whoever wipes that wipes this, too
SET_ASIDE = ".before-kube-node"  # how the name of a foreign file ends that ours has taken the place of
TREE = "tree:"  # how a directory's digest begins


class Part(NamedTuple):
    """One file as it is to be, at a path of the host; or a directory, copied from `tree`.

    `living`: it is written anew by the agent, too, so that whatever it holds is ours.
    """

    path: str
    content: bytes = b""
    mode: int = 0o644
    tree: str = ""
    living: bool = False

    def digest(self) -> str:
        return tree_digest(self.tree) if self.tree else _digest(self.content)


class Step(NamedTuple):
    """What is done to one path: write, replace, keep, remove, restore or leave."""

    what: str
    path: str
    why: str = ""


class Entry(NamedTuple):
    """What the record says of a path. There are two digests while an installation is under way."""

    digests: tuple[str, ...]
    living: bool = False
    set_aside: bool = False

    @property
    def tree(self) -> bool:
        return self.digests[0].startswith(TREE)

    def has(self, digest: str) -> bool:
        return self.living or self.tree or digest in self.digests


class Installation:
    """What we have put into one host's directories. Raises CNIError."""

    def __init__(self, root: HostRoot, bin_dir: str) -> None:
        self._root = root
        self._bin_dir = root.path(bin_dir)
        self._record = os.path.join(self._bin_dir, RECORD)
        self._entries: dict[str, Entry] = {}
        self._directories: list[str] = []

    def install(self, parts: Sequence[Part], *, force: bool = False, dry_run: bool = False) -> list[Step]:
        """Put these parts in place, in this order, and remove what an earlier installation had besides."""
        with self._held(dry_run=dry_run):
            steps = [self._step(part, force=force) for part in parts]
            obsolete = self._obsolete({part.path for part in parts})
            foreign = [step for step in steps if step.what == "leave"]
            if foreign:
                raise CNIError(
                    INSTALLATION,
                    "; ".join(f"{step.path} {step.why}" for step in foreign),
                    f"nothing was changed; --force sets what is there aside (*{SET_ASIDE}), and uninstall brings it back",
                )
            steps += [Step("remove", path, "this version has no such file") for path in obsolete]
            if not dry_run:
                self._carry_out(parts, steps, obsolete)
            return steps

    def uninstall(self, *, force: bool = False, dry_run: bool = False) -> list[Step]:
        """Take back what is there by our hand. What was changed since stays, unless `force`."""
        with self._held(dry_run=dry_run):
            # The network configuration goes first, and what it needs after it.
            steps = [self._step_back(path, force=force) for path in reversed(self._entries)]
            if not dry_run:
                for step in steps:
                    self._take_back(step)
                self._leave()
            return steps

    def _step(self, part: Part, *, force: bool) -> Step:
        path = self._root.path(part.path)
        there, wanted, entry = _digest_of(path), part.digest(), self._entries.get(part.path)
        if not there:
            return Step("write", part.path)
        if there == wanted and (part.tree or os.stat(path).st_mode & 0o7777 == part.mode):
            return Step("keep", part.path)
        if part.living or part.tree or there == wanted or (entry and entry.has(there)):
            return Step("replace", part.path, "is damaged" if part.tree else "")
        if delegate.is_ours(path):
            return Step("replace", part.path, "copied there by hand")
        if force:
            return Step("replace", part.path, f"what was there is now {part.path}{SET_ASIDE}")
        return Step("leave", part.path, "was changed since it was installed" if entry else "is not ours")

    def _obsolete(self, wanted: set[str]) -> list[str]:
        """Return what the record has and this installation has not; but for the last tree: calls under way import from it."""
        obsolete = [path for path in self._entries if path not in wanted]
        trees = [path for path in obsolete if self._entries[path].tree]
        unchanged = [path for path in obsolete if path in trees or self._entries[path].has(_digest_of(self._root.path(path)))]
        return [path for path in unchanged if path not in trees[-1:]]

    def _carry_out(self, parts: Sequence[Part], steps: Sequence[Step], obsolete: Sequence[str]) -> None:
        try:
            self._announce(parts, steps)
            for part, step in zip(parts, steps, strict=False):
                if step.what != "keep":
                    self._place(part, set_aside=SET_ASIDE in step.why)
            for path in obsolete:
                self._take_back(Step("restore" if self._entries[path].set_aside else "remove", path))
            for part in parts:
                self._entries[part.path] = self._entries[part.path]._replace(digests=(part.digest(),))
            self._write_record()
        except OSError as error:
            advice = "what is in place works; run install again, or uninstall"
            raise CNIError(IO_FAILURE, f"{error.filename or self._record}: {error.strerror}", advice) from None

    def _announce(self, parts: Sequence[Part], steps: Sequence[Step]) -> None:
        """Write down what is about to be there: whenever we are killed, the record knows all that is ours."""
        for part, step in zip(parts, steps, strict=False):
            before = self._entries.pop(part.path, Entry(()))  # anew at the end: the record has the order of the parts
            digests = tuple(dict.fromkeys([*before.digests, part.digest()]))
            self._entries[part.path] = Entry(digests, part.living, before.set_aside or SET_ASIDE in step.why)
            self._make_directory(os.path.dirname(part.path), 0o700 if part.mode == 0o600 else 0o755)  # noqa: PLR2004 -- a file of root's own
        self._write_record()

    def _place(self, part: Part, *, set_aside: bool) -> None:
        path = self._root.path(part.path)
        if part.tree:
            # Not synced: that takes seconds on a busy disk. What a power failure has torn has another digest at the next installation.
            temporary = f"{path}{files.TEMPORARY}"
            shutil.rmtree(temporary, ignore_errors=True)
            shutil.copytree(part.tree, temporary, symlinks=True)
            shutil.rmtree(path, ignore_errors=True)
            os.rename(temporary, path)
            return
        if set_aside:
            # A second name, so that the first is never without a file.
            _unlink(f"{path}{SET_ASIDE}")
            os.link(path, f"{path}{SET_ASIDE}", follow_symlinks=False)
        files.replace(path, part.content, durable=True, mode=part.mode)

    def _step_back(self, path: str, *, force: bool) -> Step:
        there, entry = _digest_of(self._root.path(path)), self._entries[path]
        if there and not entry.has(there) and not force:
            return Step("leave", path, "was changed since it was installed")
        if entry.set_aside:
            return Step("restore", path, "what was there before")
        return Step("remove", path) if there else Step("keep", path, "is gone already")

    def _take_back(self, step: Step) -> None:
        path = self._root.path(step.path)
        if step.what == "leave":
            return
        try:
            if step.what == "restore" and os.path.lexists(f"{path}{SET_ASIDE}"):
                os.rename(f"{path}{SET_ASIDE}", path)
            elif self._entries[step.path].tree:
                shutil.rmtree(path, ignore_errors=True)
            else:
                _unlink(path)
        except OSError as error:
            raise CNIError(IO_FAILURE, f"{path}: {error.strerror}", "remove it by hand, or run uninstall again") from None
        del self._entries[step.path]

    def _leave(self) -> None:
        """Remove the directories that were made for us and are empty now, and at last the record, where nothing is left in it."""
        if self._entries:
            self._write_record()
            return
        _unlink(self._record)
        self._remove_empty(self._directories)

    def _sweep(self) -> None:
        """Remove what an installation that was killed had under temporary names."""
        for path in self._entries:
            there = self._root.path(path)
            for left in glob.glob(f"{glob.escape(there)}.*{files.TEMPORARY}"):
                _unlink(left)
            shutil.rmtree(f"{there}{files.TEMPORARY}", ignore_errors=True)

    def _remove_empty(self, directories: Iterable[str]) -> None:
        for path in sorted(directories, reverse=True):
            try:
                os.rmdir(self._root.path(path))
            except OSError:  # somebody else's files are in it, or it is gone
                continue

    def _make_directory(self, path: str, mode: int) -> None:
        there = self._root.path(path)
        if os.path.isdir(there):
            return
        self._make_directory(os.path.dirname(path), 0o755)
        os.mkdir(there, mode)
        self._directories.append(path)

    @contextmanager
    def _held(self, *, dry_run: bool) -> Iterator[None]:
        """Let no other installation run, and read what the last one has left."""
        bin_dir, before = -1, set(self._directories)
        if self._root.directory and not os.path.isdir(self._root.directory):
            raise CNIError(INSTALLATION, f"there is no host root {self._root.directory}", "--host-root names where the host's / is")
        try:
            if not dry_run:
                self._read_record()
                before = set(self._directories)
                self._make_directory(self._bin_dir.removeprefix(self._root.directory), 0o755)
                bin_dir = os.open(self._bin_dir, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
                fcntl.flock(bin_dir, fcntl.LOCK_EX)
            self._read_record()
            if not dry_run:
                self._sweep()
            yield
        except CNIError:
            self._remove_empty(set(self._directories) - before)
            raise
        except OSError as error:
            raise CNIError(IO_FAILURE, f"{error.filename or self._bin_dir}: {error.strerror}", "only root may do this") from None
        finally:
            if bin_dir >= 0:
                os.close(bin_dir)

    def _read_record(self) -> None:
        made = self._directories
        try:
            record: dict[str, Any] = json.loads(files.read(self._record))
            self._directories = list(dict.fromkeys([*record["directories"], *made]))
            self._entries = {
                path: Entry(tuple(entry["digests"]), bool(entry.get("living")), bool(entry.get("set_aside")))
                for path, entry in record["files"].items()
            }
        except FileNotFoundError:
            return
        except (ValueError, KeyError, TypeError, AttributeError):
            advice = "move it away; what it was about is then taken for foreign"
            raise CNIError(INSTALLATION, f"{self._record} is no record of an installation", advice) from None

    def _write_record(self) -> None:
        told = {
            path: {
                "digests": list(entry.digests),
                **({"living": True} if entry.living else {}),
                **({"set_aside": True} if entry.set_aside else {}),
            }
            for path, entry in self._entries.items()
        }
        record = {"version": VERSION, "files": told, "directories": self._directories}
        files.replace(self._record, json.dumps(record, indent=1).encode() + b"\n", durable=True, mode=0o644)


def recorded(bin_dir: str) -> frozenset[str]:
    """Return the names of what was installed in this CNI bin directory, as the record beside it says; none where it says nothing."""
    try:
        return frozenset(map(os.path.basename, json.loads(files.read(os.path.join(bin_dir, RECORD)))["files"]))
    except (OSError, ValueError, KeyError, TypeError):
        return frozenset()


def _digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def tree_digest(directory: str) -> str:
    """Return a digest of the names and contents of all files below a directory, but for what Python has compiled of them."""
    digest = hashlib.sha256()
    for path, directories, names in os.walk(directory):
        directories[:] = sorted(name for name in directories if name != "__pycache__")
        for name in sorted(names):
            file = os.path.join(path, name)
            content = files.read(file)
            digest.update(f"{os.path.relpath(file, directory)}\0{len(content)}\0".encode())
            digest.update(content)
    return f"{TREE}{digest.hexdigest()}"


def _digest_of(path: str) -> str:
    """Return the digest of what is at a path, "" where nothing is."""
    try:
        if os.path.islink(path):
            return f"link:{os.readlink(path)}"
        return tree_digest(path) if os.path.isdir(path) else _digest(files.read(path))
    except FileNotFoundError:
        return ""


def _unlink(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass
