"""The look of all commands: one kind of console, bar, number and age. Colour only on a terminal, and none with NO_COLOR."""

from __future__ import annotations

import os
import re
import sys
import time
from typing import IO, TYPE_CHECKING, Any, cast

from rich.console import Console

from kubenode.cli.entry import printable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rich.text import Text

FULL, EMPTY = "█", "░"
ASCII = str.maketrans({FULL: "#", "▓": "+", "▒": ":", EMPTY: ".", "✓": "+", "✗": "x", "→": ">", "·": "-"})
NEAR, SHORT = 0.8, 0.95  # from which part in use on a pool is worth a look, or a hurry
MANY = 10**9  # from here on a number's digits say less than its size
PIPE_WIDTH = 200  # columns where nobody looks: what is read by a program is not to be cut
MINUTE, HOUR, DAY = 60, 3600, 86400


def console(*, stderr: bool = False) -> Console:
    """Return where to print; what is no terminal has no end of the line."""
    stream = sys.stderr if stderr else sys.stdout
    if stream.isatty():
        return _Console(stderr=stderr, highlight=False, emoji=False)
    width = None if os.environ.get("COLUMNS") else PIPE_WIDTH
    return _Console(file=cast("IO[str]", _Trimmed(stream)), highlight=False, width=width, emoji=False)


class _Console(Console):
    """A console that no text makes do anything but show it."""

    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str(printable(text), **options)


class _Trimmed:
    """A stream whose lines have no blanks at their ends; rich fills tables up with them."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        return self._stream.write(re.sub(" +\n", "\n", text))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def legible(text: str, out: Console) -> str:
    """Return a text with signs that the terminal's encoding has."""
    return text if out.encoding.lower().startswith("utf") else text.translate(ASCII)


def bar(used: int, total: int, width: int) -> str:
    """Return a bar, in rich's markup; a first address that is used shows."""
    part = used / total if total else 1.0
    full = min(width, max(1 if used else 0, int(part * width)))
    colour = "red" if part >= SHORT else "yellow" if part >= NEAR else "green"
    return f"[{colour}]{FULL * full}[/][dim]{EMPTY * (width - full)}[/]"


def number(value: int) -> str:
    if value < MANY:
        return f"{value:,}"
    mantissa, _, exponent = f"{value:.1e}".partition("e+")
    return f"{mantissa}e{int(exponent)}"


def percent(used: int, total: int) -> str:
    part = 100 * used / total if total else 100.0
    return "<1 %" if 0 < part < 1 else f"{int(part)} %"


def age(seconds: float) -> str:
    """Return a time span as a person says it."""
    if seconds < 2 * MINUTE:
        return f"{max(0, int(seconds))} s"
    if seconds < 2 * HOUR:
        return f"{int(seconds / MINUTE)} min"
    if seconds < 2 * DAY:
        return f"{int(seconds / HOUR)} h"
    return f"{int(seconds / DAY)} d"


def ago(when: float) -> str:
    return f"{age(time.time() - when)} ago"


def stamp(when: float) -> str:
    """Return a time as JSON has it (RFC 3339)."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(when))


def counted(count: int, what: str, plural: Mapping[str, str] | None = None) -> str:
    """Return "1 address" or "2 addresses"."""
    return f"{count:,} {what if count == 1 else (plural or {}).get(what, what + ('es' if what.endswith('s') else 's'))}"
