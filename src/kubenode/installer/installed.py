"""The record of an installation, beside the plugins: which paths, what is in them, and the directories made for them."""

from __future__ import annotations

import hashlib
import json
import os
from typing import Any, NamedTuple

from kubenode.base import files
from kubenode.base.problem import Problem
from kubenode.version import VERSION

NAME = "kube-node.installed"  # in the CNI bin directory: whoever wipes that wipes this, too
TREE = "tree:"  # how a directory's digest begins
CREDENTIALS, NODE_NAME, CONFLIST = "credentials", "node-name", "conflist"
NEEDS = ("", CREDENTIALS, NODE_NAME, CONFLIST)  # what options bring, each after what it needs; "": the plugins


class Entry(NamedTuple):
    """An entry of the record, for one path. It has two digests while an installation is under way. `option`: which one has brought it."""

    digests: tuple[str, ...]
    living: bool = False
    set_aside: bool = False
    option: str = ""

    @property
    def tree(self) -> bool:
        return self.digests[0].startswith(TREE)

    def has(self, digest: str) -> bool:
        return self.living or self.tree or digest in self.digests


class Installed:
    """The record: `entries` by their paths on the host, each after what it needs; `directories`; and `options` as they were last given."""

    def __init__(self, bin_dir: str) -> None:
        self.path = os.path.join(bin_dir, NAME)
        self.entries: dict[str, Entry] = {}
        self.directories: list[str] = []
        self.options: dict[str, str] = {}

    def read(self) -> None:
        """Take up what is written; directories known besides stay. Raises Problem for what is no record, OSError."""
        try:
            record: dict[str, Any] = json.loads(files.read(self.path))
            self.directories = list(dict.fromkeys([*record["directories"], *self.directories]))
            self.options = dict(record.get("options") or {})
            self.entries = {path: _entry(entry) for path, entry in record["files"].items()}
        except FileNotFoundError:
            return
        except (ValueError, LookupError, TypeError, AttributeError):
            advice = "move it away; what it was about is then taken for foreign"
            raise Problem(f"{self.path} is no record of an installation", advice) from None

    def write(self) -> None:
        """Put the record in place of the last one. Raises OSError."""
        told = {path: {key: value for key, value in entry._asdict().items() if value} for path, entry in self.entries.items()}
        record = {"version": VERSION, "options": self.options, "files": told, "directories": self.directories}
        files.replace(self.path, json.dumps(record, indent=1).encode() + b"\n", durable=True, mode=0o644)


def _entry(told: dict[str, Any]) -> Entry:
    first, *more = told["digests"]
    option = told.get("option", "")
    return Entry((first, *more), bool(told.get("living")), bool(told.get("set_aside")), option if option in NEEDS else "")


def before(bin_dir: str) -> Installed:
    """Return what the record says of the last installation. Raises Problem."""
    found = Installed(bin_dir)
    try:
        found.read()
    except OSError as error:
        raise Problem(f"{found.path}: {error.strerror}", "only root may do this") from None
    return found


def recorded(bin_dir: str) -> frozenset[str]:
    """Return the names of what was installed in this CNI bin directory, as the record beside it says; none where it says nothing."""
    try:
        return frozenset(map(os.path.basename, json.loads(files.read(os.path.join(bin_dir, NAME)))["files"]))
    except (OSError, ValueError, KeyError, TypeError):
        return frozenset()


def digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def tree_digest(directory: str) -> str:
    """Return a digest of the names and contents of all files below a directory, but for what Python has compiled of them."""
    whole = hashlib.sha256()
    for path, directories, names in os.walk(directory):
        directories[:] = sorted(name for name in directories if name != "__pycache__")
        for name in sorted(names):
            file = os.path.join(path, name)
            content = files.read(file)
            whole.update(f"{os.path.relpath(file, directory)}\0{len(content)}\0".encode())
            whole.update(content)
    return f"{TREE}{whole.hexdigest()}"


def digest_of(path: str) -> str:
    """Return the digest of what is at a path, "" where nothing is."""
    try:
        if os.path.islink(path):
            return f"link:{os.readlink(path)}"
        return tree_digest(path) if os.path.isdir(path) else digest(files.read(path))
    except FileNotFoundError:
        return ""
