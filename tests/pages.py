"""Pages of the documentation as scripts: blocks of commands below a mark, and what they print."""

from __future__ import annotations

import re
from typing import NamedTuple

EVERYWHERE = "run"  # by tests/docs, in a directory and namespaces of the test's own
ON_A_NODE = "run on a node"  # by tests/vm, in a virtual machine


class Step(NamedTuple):
    """A block of commands, and the text below `<!-- prints -->`, where `…` stands for what differs from machine to machine."""

    commands: str
    printed: str  # empty without that block

    def is_printed(self, text: str) -> bool:
        """Tell whether this is what the page says."""
        pattern = "".join(".*" if part == "…" else re.escape(part) for part in re.split("(…)", self.printed))
        return re.fullmatch(pattern, text) is not None


def steps(text: str, mark: str) -> list[Step]:
    """Return the blocks with this mark, in their order."""
    block = rf"<!-- {mark} -->\n+```sh\n(.*?)```(?:\s*<!-- prints -->\n+```(?:text)?\n(.*?)```)?"
    return [Step(*found) for found in re.findall(block, text, re.DOTALL)]


def section(text: str, heading: str) -> str:
    """Return what stands below a heading of the second level."""
    found = re.search(rf"^## {re.escape(heading)}\n(.*?)(?=^## |\Z)", text, re.DOTALL | re.MULTILINE)
    if not found:
        raise LookupError(f"no heading {heading!r}")
    return found[1]
