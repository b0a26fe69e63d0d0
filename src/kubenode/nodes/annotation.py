# SPDX-License-Identifier: Apache-2.0
"""PURE. The text of a node-annotation: the inside of a JSON object; its keys may lack quotes.

The text is data, nothing in it is evaluated. Anything that is neither JSON nor a bare key is an error that shows it.
"""

from __future__ import annotations

from kubenode.base.jsontext import BLANKS, JSONTextError, loads
from kubenode.cni import keys
from kubenode.ipam.address import DIGITS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

KEY_START = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_")
KEY_CHARACTERS = KEY_START | DIGITS | {"-"}
STRUCTURE = frozenset("{}[]:, \t\r\n")
LITERALS = frozenset(["true", "false", "null"])


class AnnotationTextError(ValueError):
    """The text is not the inside of an object; the message shows the wrong part."""


def parse(text: str) -> dict[str, Any]:
    """Parse `ranges: [[{"subnet": "172.16.5.0/24"}]]`, or the same with quotes. Raises AnnotationTextError."""
    try:
        value = loads("{" + "".join(_quote_keys(text)) + "}")
    except JSONTextError as error:
        raise AnnotationTextError(f"not the inside of a JSON object: {error}") from None
    if not isinstance(value, dict):
        raise AnnotationTextError("not the inside of a JSON object")
    found: dict[str, Any] = keys.canonical(value, keys.IPAM)
    return found


def _quote_keys(text: str) -> Iterator[str]:
    """Yield the text with quotes around bare keys. A brace that ends the object before the text's end is an error."""
    depth = 0
    index = 0
    while index < len(text):
        end = _token_end(text, index)
        word = text[index:end]
        if word == "{":
            depth += 1
        elif word == "}":
            depth -= 1
            if depth < 0:
                raise AnnotationTextError(f"a closing brace too many before {text[end : end + 20]!r}")
        if word[0] in KEY_START and _has_colon(text, end):
            word = f'"{word}"'
        elif word[0] in KEY_START and word not in LITERALS:
            raise AnnotationTextError(f"{word!r} is neither a key nor a JSON value")
        yield word
        index = end


def _has_colon(text: str, index: int) -> bool:
    """Say whether a colon comes next. It copies nothing: a copy of the rest for each key would take quadratic time."""
    while index < len(text) and text[index] in BLANKS:
        index += 1
    return text.startswith(":", index)


def _token_end(text: str, index: int) -> int:
    first = text[index]
    if first in STRUCTURE:
        return index + 1
    if first == '"':
        end = index + 1
        while end < len(text) and text[end] != '"':
            end += 2 if text[end] == "\\" else 1
        return min(end + 1, len(text))
    allowed = KEY_CHARACTERS if first in KEY_START else DIGITS | frozenset("+-.eE")
    end = index
    while end < len(text) and text[end] in allowed:
        end += 1
    if end == index:
        raise AnnotationTextError(f"{text[index : index + 20]!r} is neither a key nor a JSON value")
    return end
