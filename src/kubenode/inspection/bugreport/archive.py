# SPDX-License-Identifier: Apache-2.0
"""The archive: its files, and the list of its content and omissions."""

from __future__ import annotations

import io
import json
import tarfile
import time
from typing import TYPE_CHECKING, Any, NamedTuple

from kubenode.base.problem import Problem

if TYPE_CHECKING:
    from collections.abc import Callable

    from kubenode.inspection.bugreport.secrets import Scrubber

TOP = "kube-node-report"
LIST = "contents.json"


class Taken(NamedTuple):
    """A file in the archive."""

    file: str
    what: str
    size: int


class LeftOut(NamedTuple):
    """Something left out, with the reason."""

    what: str
    why: str


class Archive:
    """Files in memory; the scrubber removes secrets from each."""

    def __init__(self, scrubber: Scrubber) -> None:
        self.taken: list[Taken] = []
        self.left_out: list[LeftOut] = []
        self._scrubber = scrubber
        self._files: dict[str, bytes] = {}

    def add(self, file: str, what: str, content: object) -> None:
        """Add a text unchanged, or anything else as JSON."""
        if isinstance(content, str):
            text = self._scrubber.text(content)
        else:
            text = json.dumps(self._scrubber.object(content), indent=2, default=str) + "\n"
        self._files[file] = text.encode(errors="replace")
        self.taken.append(Taken(file, what, len(self._files[file])))

    def leave(self, what: str, why: str) -> None:
        """Note something left out, with the reason."""
        self.left_out.append(LeftOut(self._scrubber.text(what), self._scrubber.text(why)))

    def attempt(self, what: str, add: Callable[[], None]) -> None:
        """Call a function that adds something; note if it fails."""
        try:
            add()
        except Problem as error:
            self.leave(what, error.msg)
        except (OSError, UnicodeError, RecursionError) as error:  # the author of a network may nest what stands in it
            self.leave(what, str(error))

    def contents(self) -> dict[str, Any]:
        """Return the list of the content and omissions."""
        return {
            "taken": [{"file": one.file, "what": one.what, "bytes": one.size} for one in self.taken],
            "leftOut": [{"what": one.what, "why": one.why} for one in self.left_out],
        }

    def content(self) -> bytes:
        """Return the archive, a tar file under gzip."""
        buffer = io.BytesIO()
        files = {**self._files, LIST: (json.dumps(self.contents(), indent=2) + "\n").encode()}
        with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
            for name, content in files.items():
                member = tarfile.TarInfo(f"{TOP}/{name}")
                member.size, member.mode, member.mtime = len(content), 0o600, int(time.time())
                archive.addfile(member, io.BytesIO(content))
        return buffer.getvalue()
