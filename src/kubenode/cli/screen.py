# SPDX-License-Identifier: Apache-2.0
"""Console, bars, numbers and ages of all commands. Colour only on a terminal, and none with NO_COLOR."""

from __future__ import annotations

import calendar
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
NEAR, SHORT = 0.8, 0.95  # shares in use for yellow and for red
MANY = 10**9  # from here on a number is shown as a power of two
PIPE_WIDTH = 200  # columns without a terminal: a program's input is not cut
MINUTE, HOUR, DAY = 60, 3600, 86400


def console(*, stderr: bool = False) -> Console:
    """Return the console; anything but a terminal gets lines of any length."""
    stream = sys.stderr if stderr else sys.stdout
    if stream.isatty():
        return _Console(stderr=stderr, highlight=False, emoji=False)
    width = None if os.environ.get("COLUMNS") else PIPE_WIDTH
    return _Console(file=cast("IO[str]", _Trimmed(stream)), highlight=False, width=width, emoji=False)


class _Console(Console):
    """A console that removes control characters from texts."""

    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str(printable(text), **options)


class _Trimmed:
    """A stream that removes blanks from the ends of lines; rich fills tables up with them."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        return self._stream.write(re.sub(" +\n", "\n", text))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def legible(text: str, out: Console) -> str:
    """Return a text with only signs of the terminal's encoding."""
    return text if out.encoding.lower().startswith("utf") else text.translate(ASCII)


def bar(used: int, total: int, width: int) -> str:
    """Return a bar, in rich's markup; already the first used address shows."""
    part = used / total if total else 1.0
    full = min(width, max(1 if used else 0, int(part * width)))
    colour = "red" if part >= SHORT else "yellow" if part >= NEAR else "green"
    return f"[{colour}]{FULL * full}[/][dim]{EMPTY * (width - full)}[/]"


def number(value: int) -> str:
    """Return a number for a person."""
    if value < MANY:
        return f"{value:,}"
    mantissa, _, exponent = f"{value:.1e}".partition("e+")
    return f"{mantissa}e{int(exponent)}"


def percent(used: int, total: int) -> str:
    """Return a share in per cent."""
    part = 100 * used / total if total else 100.0
    return "<1 %" if 0 < part < 1 else f"{int(part)} %"


def age(seconds: float) -> str:
    """Return a time span, in seconds, for a person."""
    if seconds < 2 * MINUTE:
        return f"{max(0, int(seconds))} s"
    if seconds < 2 * HOUR:
        return f"{int(seconds / MINUTE)} min"
    if seconds < 2 * DAY:
        return f"{int(seconds / HOUR)} h"
    return f"{int(seconds / DAY)} d"


def ago(when: float) -> str:
    """Return the age of a time in seconds since 1970."""
    return f"{age(time.time() - when)} ago"


def since(text: str) -> str:
    """Return the age of a time as in JSON; the text itself if it is none."""
    try:
        return ago(calendar.timegm(time.strptime(text, "%Y-%m-%dT%H:%M:%SZ")))
    except ValueError:
        return text


def stamp(when: float) -> str:
    """Return a time as in JSON (RFC 3339)."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(when))


def counted(count: int, what: str, plural: Mapping[str, str] | None = None) -> str:
    """Return "1 address" or "2 addresses"."""
    return f"{count:,} {what if count == 1 else (plural or {}).get(what, what + ('es' if what.endswith('s') else 's'))}"
