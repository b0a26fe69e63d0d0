"""JSON text to values and back, without importing `json`.

`json` imports `re`, which costs as much time as starting the interpreter, and a plugin is started for every pod. CPython's C scanner and
encoder, which `json` is a wrapper of, are used directly.
"""

from __future__ import annotations

from _json import encode_basestring_ascii, make_encoder, make_scanner

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    JSON = Any  # what JSON text can say: dict, list, str, int, float, bool, None


class JSONTextError(ValueError):
    """The text is not one JSON value; the message says where."""


def _finite(text: str) -> float:
    number = float(text)
    if number - number != 0:
        raise JSONTextError(f"number {text} is out of range")
    return number


def _no_constant(text: str) -> float:
    raise JSONTextError(f"{text} is not JSON")


class _Context:
    """The attributes that the C scanner reads from a decoder."""

    strict = True
    object_hook = None
    object_pairs_hook = None
    parse_float = staticmethod(_finite)
    parse_int = int
    parse_constant = staticmethod(_no_constant)


NO_OPTIONS = (False, False, False)  # sorted keys, skipped keys, NaN
BLANKS = " \t\n\r"  # RFC 8259, section 2


def loads(text: str | bytes) -> JSON:
    """Parse one JSON value (RFC 8259) and nothing after it. Raises JSONTextError."""
    try:
        if isinstance(text, bytes):
            text = text.decode()
        begin = len(text) - len(text.lstrip(BLANKS))
        value, end = _scan(text, begin)
    except StopIteration as stop:
        raise JSONTextError(f"no value at character {stop.value}") from None
    except RecursionError:
        raise JSONTextError("nested too deeply") from None
    except UnicodeDecodeError as error:
        raise JSONTextError(f"not UTF-8 at byte {error.start}") from None
    except JSONTextError:
        raise
    except ValueError as error:  # json.JSONDecodeError, and int()'s limit on digits
        raise JSONTextError(str(error)) from None
    if rest := text[end:].strip(BLANKS):
        raise JSONTextError(f"text after the value: {rest[:40]!r}")
    return value


def _scan(text: str, begin: int) -> tuple[JSON, int]:
    scanner = make_scanner(_Context())  # type: ignore[arg-type]
    try:
        return scanner(text, begin)
    except SystemError:  # CPython 3.11 has no words for an error until `json.decoder` is there
        import json.decoder  # noqa: F401

        return scanner(text, begin)


def dumps(value: JSON) -> str:
    """Format a value as one line of ASCII JSON text, keys in the order in which they stand."""
    encode = make_encoder(None, _refuse, encode_basestring_ascii, None, ": ", ", ", *NO_OPTIONS)
    return "".join(encode(value, 0))


def _refuse(value: object) -> JSON:
    raise TypeError(f"{type(value).__name__} is not a JSON value")
