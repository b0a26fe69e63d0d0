# SPDX-License-Identifier: Apache-2.0
"""The place of a fault in a text that a person wrote."""

from __future__ import annotations


def of(error: Exception) -> str:
    """Return the line and column of a YAML library's error for the end of a message, "" if it has none; its own text may quote secrets."""
    mark = getattr(error, "problem_mark", None)
    return f" (line {mark.line + 1}, column {mark.column + 1})" if mark else ""
