# SPDX-License-Identifier: Apache-2.0
"""The keys of what commands print for programs: camelCase, without blanks, so that jq and Go's fields take them as they are."""

from __future__ import annotations

import json
import re
from itertools import pairwise
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

KEY = re.compile(r"[a-z][A-Za-z0-9]*")
ASKS = {"--output=json", "-ojson"}


def odd(value: Any) -> Iterator[str]:
    """Yield the keys of another form, at any depth."""
    if isinstance(value, dict):
        yield from (key for key in value if not KEY.fullmatch(key))
    for item in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from odd(item)


def require(arguments: Sequence[str], stdout: str) -> None:
    """Require it of a command's output if its arguments ask for JSON: an object, or with --watch one a line."""
    if not (ASKS & {*arguments} or ("-o", "json") in pairwise(arguments)):
        return
    for line in stdout.splitlines():
        value = json.loads(line)
        assert isinstance(value, dict), value
        assert [*odd(value)] == [], arguments
