# SPDX-License-Identifier: Apache-2.0
"""The inside of a JSON object, with keys that may stand without quotes; data, whatever it says."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubenode.nodes.annotation import AnnotationTextError, parse

KEYS = st.from_regex(r"[A-Za-z_][A-Za-z0-9_-]{0,8}", fullmatch=True) | st.text()
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**9), 10**9) | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=12,
)
BARE = re.compile(r'^"([A-Za-z_][A-Za-z0-9_-]*)":')


def bare(key: str) -> str:
    return BARE.sub(r"\1: ", json.dumps(key) + ":")


def without_quotes(value: Any) -> str:
    """Write JSON with every key bare that may be."""
    if isinstance(value, dict):
        pairs = [bare(key) + without_quotes(item) for key, item in value.items()]
        return "{" + ", ".join(pairs) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(without_quotes, value)) + "]"
    return json.dumps(value)


@given(st.dictionaries(KEYS, VALUES, max_size=5))
def test_both_spellings(value: dict[str, Any]) -> None:
    """Any object's inside is read, with quotes around its keys and without."""
    assert parse(json.dumps(value)[1:-1]) == value
    assert parse(without_quotes(value)[1:-1]) == value


@given(st.text(max_size=60) | st.text(alphabet='{}[]",:$()`\\ab1|.+-', max_size=30))
def test_any_text(text: str) -> None:
    """Any other text is an error, or what JSON with quoted keys would say; nothing else can come of it."""
    try:
        found = parse(text)
    except AnnotationTextError:
        return
    assert isinstance(found, dict)
    assert parse(json.dumps(found)[1:-1]) == found


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a: b", "'b' is neither a key nor a JSON value"),
        ("a: $ENV", "'$ENV' is neither a key nor a JSON value"),
        ("a: 1}", "a closing brace too many before ''"),
        ('a: 1}, {"b": 2', "a closing brace too many before ', {\"b\": 2'"),
        ("a: [", "not the inside of a JSON object: "),
        ("a 1", "'a' is neither a key nor a JSON value"),
        ('"a": "x', "not the inside of a JSON object: "),
    ],
)
def test_the_part_is_shown(text: str, problem: str) -> None:
    """An error shows the part that cannot be."""
    with pytest.raises(AnnotationTextError) as error:
        parse(text)
    assert str(error.value).startswith(problem)
