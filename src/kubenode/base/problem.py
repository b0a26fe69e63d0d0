# SPDX-License-Identifier: Apache-2.0
"""Error with an advice for a person."""

from __future__ import annotations


class Problem(Exception):  # noqa: N818 -- the word that users see
    """Problem and its cure: `msg` names the thing and its value, `details` says what to do."""

    def __init__(self, msg: str, details: str = "") -> None:
        super().__init__(msg)
        self.msg = msg
        self.details = details

    def __str__(self) -> str:
        return f"{self.msg} ({self.details})" if self.details else self.msg
