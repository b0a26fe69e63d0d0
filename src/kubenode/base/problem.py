"""An error that a person can do something about."""

from __future__ import annotations


class Problem(Exception):  # noqa: N818 -- it is what a person has, and what is shown
    """A fault and its cure: `msg` names the thing and its value, `details` says what to do."""

    def __init__(self, msg: str, details: str = "") -> None:
        super().__init__(msg)
        self.msg = msg
        self.details = details

    def __str__(self) -> str:
        return f"{self.msg} ({self.details})" if self.details else self.msg
