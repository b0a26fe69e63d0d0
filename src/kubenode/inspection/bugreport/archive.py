"""The archive: its files, and the list of what is in it and what is not."""

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
    file: str
    what: str
    size: int


class LeftOut(NamedTuple):
    what: str
    why: str


class Archive:
    """Files in memory; whatever is added goes through the scrubber, in the end as text."""

    def __init__(self, scrubber: Scrubber) -> None:
        self.taken: list[Taken] = []
        self.left_out: list[LeftOut] = []
        self._scrubber = scrubber
        self._files: dict[str, bytes] = {}

    def add(self, file: str, what: str, content: object) -> None:
        """Add a text as it is, or anything else as JSON."""
        if isinstance(content, str):
            text = self._scrubber.text(content)
        else:
            text = json.dumps(self._scrubber.object(content), indent=2, default=str) + "\n"
        self._files[file] = text.encode(errors="replace")
        self.taken.append(Taken(file, what, len(self._files[file])))

    def leave(self, what: str, why: str) -> None:
        self.left_out.append(LeftOut(self._scrubber.text(what), self._scrubber.text(why)))

    def attempt(self, what: str, add: Callable[[], None]) -> None:
        """Call what adds something; where it cannot, that is noted."""
        try:
            add()
        except Problem as error:
            self.leave(what, error.msg)
        except (OSError, UnicodeError, RecursionError) as error:  # the author of a network may nest what stands in it
            self.leave(what, str(error))

    def contents(self) -> dict[str, Any]:
        """Return the list of what is in it and what is not."""
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
