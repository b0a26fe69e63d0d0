# SPDX-License-Identifier: Apache-2.0
"""Our executables in a CNI bin directory: relays and launchers, with their versions."""

from __future__ import annotations

import os
import re
from typing import NamedTuple

from kubenode.base import files
from kubenode.host import cniconfig, delegate
from kubenode.installer import payload

STANDALONE = ".standalone"
RELAY_VERSION = re.compile(rb" of kube-node ([^\0:]+): passes")
LIBRARY_VERSION = re.compile(rb"""VERSION = ["']([^"']+)["']""")


class Executable(NamedTuple):
    """A relay or launcher; `version` is "" if unknown. `broken`: the reason why a launcher cannot start, or ""."""

    path: str
    is_relay: bool
    version: str
    broken: str

    @property
    def fallback(self) -> str:
        """The path of a relay's launcher."""
        return self.path + STANDALONE


def executables(directories: list[str]) -> list[Executable]:
    """Return our executables with the names that runtimes call, and the launchers beside them."""
    candidates = [os.path.join(directory, name + end) for directory in directories for name in cniconfig.OURS for end in ("", STANDALONE)]
    return [_look(path) for path in candidates if os.path.isfile(path) and delegate.is_ours(path)]


def _look(path: str) -> Executable:
    try:
        content = files.read(path)
    except OSError as error:
        return Executable(path, is_relay=False, version="", broken=error.strerror or str(error))
    if content.startswith(b"\x7fELF"):
        found = RELAY_VERSION.search(content)
        return Executable(path, is_relay=True, version=found[1].decode(errors="replace") if found else "", broken="")
    library = os.path.join(os.path.dirname(os.path.realpath(path)), payload.library_of(content))
    interpreter = content.split(b"\n", 1)[0].removeprefix(b"#!").split(b" ")[0].decode(errors="replace")
    broken = ""
    if not os.access(interpreter, os.X_OK):
        broken = f"there is no {interpreter}"
    elif not os.path.isdir(library):
        broken = f"there is no {library}"
    try:
        found = LIBRARY_VERSION.search(files.read(os.path.join(library, "kubenode", "version.py")))
    except OSError:
        found = None
    return Executable(path, is_relay=False, version=found[1].decode(errors="replace") if found else "", broken=broken)
