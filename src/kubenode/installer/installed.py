# SPDX-License-Identifier: Apache-2.0
"""Record of an installation, beside the plugins: our paths, their digests, and the directories created for them."""

from __future__ import annotations

import hashlib
import json
import os
from typing import Any, NamedTuple

from kubenode.base import files
from kubenode.base.problem import Problem
from kubenode.version import VERSION

NAME = "kube-node.installed"  # in the CNI bin directory, so that wiping that wipes this, too
TREE = "tree:"  # prefix of a directory's digest
CREDENTIALS, NODE_NAME, CONFLIST = "credentials", "node-name", "conflist"
NEEDS = ("", CREDENTIALS, NODE_NAME, CONFLIST)  # options that add files, in order of need; "": the plugins


class InstalledPath(NamedTuple):
    """Entry of the record for one path. It has two digests during an installation. `option`: the option that added the path."""

    digests: tuple[str, ...]
    living: bool = False
    set_aside: bool = False
    option: str = ""

    @property
    def tree(self) -> bool:
        """Say whether the path is a directory of ours."""
        return self.digests[0].startswith(TREE)

    def has(self, digest: str) -> bool:
        """Say whether a digest is that of our content."""
        return self.living or self.tree or digest in self.digests


class Installed:
    """The record: `entries` by path on the host, in order of need; `directories`; and `options` of the last installation."""

    def __init__(self, bin_dir: str) -> None:
        self.path = os.path.join(bin_dir, NAME)
        self.entries: dict[str, InstalledPath] = {}
        self.directories: list[str] = []
        self.options: dict[str, str] = {}

    def read(self) -> None:
        """Read the record; directories already known stay. Raises Problem if it is invalid, OSError."""
        try:
            record: dict[str, Any] = json.loads(files.read(self.path))
            self.directories = list(dict.fromkeys([*record["directories"], *self.directories]))
            self.options = dict(record.get("options") or {})
            self.entries = {path: _entry(entry) for path, entry in record["files"].items()}
        except FileNotFoundError:
            return
        except (ValueError, LookupError, TypeError, AttributeError):
            advice = "move it away; the files in it then count as foreign"
            raise Problem(f"{self.path} is no record of an installation", advice) from None

    def write(self) -> None:
        """Replace the record on disk. Raises OSError."""
        told = {path: {key: value for key, value in entry._asdict().items() if value} for path, entry in self.entries.items()}
        record = {"version": VERSION, "options": self.options, "files": told, "directories": self.directories}
        files.replace(self.path, json.dumps(record, indent=1).encode() + b"\n", durable=True, mode=0o644)


def _entry(told: dict[str, Any]) -> InstalledPath:
    first, *more = told["digests"]
    option = told.get("option", "")
    return InstalledPath((first, *more), bool(told.get("living")), bool(told.get("set_aside")), option if option in NEEDS else "")


def before(bin_dir: str) -> Installed:
    """Return the record of the last installation. Raises Problem."""
    found = Installed(bin_dir)
    try:
        found.read()
    except OSError as error:
        raise Problem(f"{found.path}: {error.strerror}", "only root may do this") from None
    return found


def recorded(bin_dir: str) -> frozenset[str]:
    """Return the names of the files installed in this CNI bin directory, by the record beside it; none without a valid record."""
    try:
        return frozenset(map(os.path.basename, json.loads(files.read(os.path.join(bin_dir, NAME)))["files"]))
    except (OSError, ValueError, KeyError, TypeError):
        return frozenset()


def digest(content: bytes) -> str:
    """Return the digest of a file's content."""
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def tree_digest(directory: str) -> str:
    """Return a digest of the names and contents of all files below a directory, without Python's caches."""
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
    """Return the digest of the file, link or directory at a path, "" if there is none."""
    try:
        if os.path.islink(path):
            return f"link:{os.readlink(path)}"
        return tree_digest(path) if os.path.isdir(path) else digest(files.read(path))
    except FileNotFoundError:
        return ""
