# SPDX-License-Identifier: Apache-2.0
"""JSON text to values and back, without importing `json`.

`json` imports `re`, which takes as long as starting the interpreter, and a plugin starts for every pod. CPython's C scanner and encoder,
on which `json` is built, are used directly; an interpreter without them uses `json`.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    JSON = Any  # dict, list, str, int, float, bool or None

try:
    from _json import encode_basestring_ascii, make_encoder, make_scanner
except ImportError:
    import json
else:
    json = None  # type: ignore[assignment]


class JSONTextError(ValueError):
    """Text that is not exactly one JSON value; the message says where."""


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
    if json:
        return json.JSONDecoder(parse_float=_finite, parse_constant=_no_constant).raw_decode(text, begin)
    scanner = make_scanner(_Context())  # type: ignore[arg-type]
    try:
        return scanner(text, begin)
    except SystemError:  # CPython 3.11 needs `json.decoder` loaded to raise an error
        from json import decoder  # noqa: F401

        return scanner(text, begin)


def dumps(value: JSON) -> str:
    """Format a value as one line of ASCII JSON text, keys in their order."""
    if json:
        return json.JSONEncoder(default=_refuse, check_circular=False, allow_nan=False).encode(value)
    encode = make_encoder(None, _refuse, encode_basestring_ascii, None, ": ", ", ", *NO_OPTIONS)
    return "".join(encode(value, 0))


def _refuse(value: object) -> JSON:
    raise TypeError(f"{type(value).__name__} is not a JSON value")
