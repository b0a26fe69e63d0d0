# SPDX-License-Identifier: Apache-2.0
"""JSON text without the json module reads and writes what the json module does."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any, NoReturn

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubenode.base import jsontext

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(VALUES)
def test_values_survive(value: Any) -> None:
    """What is written is read again, and json reads the same; keys keep their order."""
    text = jsontext.dumps(value)
    assert jsontext.loads(text) == json.loads(text) == value
    assert text == json.dumps(value)


@given(st.text() | VALUES.map(json.dumps).flatmap(lambda text: st.integers(0, len(text)).map(lambda cut: text[:cut])))
def test_reads_what_json_reads(text: str) -> None:
    """A text is JSON for us if and only if it is for json, but for NaN and numbers that are none."""

    def refuse(name: str) -> NoReturn:
        raise ValueError(name)

    try:
        expected = json.loads(text, parse_constant=refuse)
    except ValueError:
        with pytest.raises(jsontext.JSONTextError):
            jsontext.loads(text)
        return
    assert jsontext.loads(text) == expected


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (b"", "no value at character 0"),
        (b"{} x", "text after the value: 'x'"),
        (b"\xff", "not UTF-8 at byte 0"),
        (b"[1e999]", "number 1e999 is out of range"),
        (b"NaN", "NaN is not JSON"),
        (b"-Infinity", "-Infinity is not JSON"),
        (b"[" * 100_000, "nested too deeply"),
        (b"1" * 5000, "Exceeds the limit"),
        (b"{", "Expecting property name enclosed in double quotes: line 1 column 2 (char 1)"),
        (b'"\n"', "Invalid control character at: line 1 column 2 (char 1)"),
        (b"\xef\xbb\xbf{}", "no value at character 0"),
    ],
)
def test_what_is_wrong_and_where(text: bytes, problem: str) -> None:
    """An error says what is wrong, and where."""
    with pytest.raises(jsontext.JSONTextError) as error:
        jsontext.loads(text)
    assert problem in str(error.value)


def test_errors_where_json_was_never_imported() -> None:
    """The C scanner words its errors also in a process that has not imported json, as ours never have."""
    program = (
        "import sys; sys.path[:0] = sys.argv[1:]; from kubenode.base.jsontext import *\n"
        "try: loads('{')\nexcept JSONTextError as e: print(e)"
    )
    done = subprocess.run([sys.executable, "-IS", "-c", program, *filter(None, sys.path)], capture_output=True, text=True, check=True)
    assert done.stdout == "Expecting property name enclosed in double quotes: line 1 column 2 (char 1)\n"


def test_what_is_no_json() -> None:
    """A value that JSON cannot say is a fault of ours."""
    with pytest.raises(TypeError, match="set is not a JSON value"):
        jsontext.dumps({"a": {1}})
