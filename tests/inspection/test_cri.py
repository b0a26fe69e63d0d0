# SPDX-License-Identifier: Apache-2.0
"""Protocol buffers as far as one answer of a runtime needs them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubenode.base.problem import Problem
from kubenode.inspection.cri import fields


def test_fields() -> None:
    """Every wire type is stepped over, texts and numbers come out."""
    message = b"\x0a\x03abc" + b"\x10\x96\x01" + b"\x19" + bytes(8) + b"\x25" + bytes(4)
    assert list(fields(message)) == [(1, b"abc"), (2, 150), (3, bytes(8)), (4, bytes(4))]


@given(st.binary(max_size=64))
def test_anything(message: bytes) -> None:
    """Whatever a socket sends is fields or an error of ours."""
    try:
        for number, value in fields(message):
            assert isinstance(value, (int, bytes))
            assert number >= 0
    except Problem:
        pass


@pytest.mark.parametrize("message", [b"\x0a", b"\x0a\x05abc", b"\x0b", b"\x80"])
def test_torn(message: bytes) -> None:
    """A message that ends too early, or is of no known kind, is an error."""
    with pytest.raises(Problem, match="not a protocol buffers message"):
        list(fields(message))
