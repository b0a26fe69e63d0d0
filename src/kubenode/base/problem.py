"""An error that a person can do something about."""

from __future__ import annotations


class Problem(Exception):  # noqa: N818 -- it is what a person has, and what is shown
    """What is wrong and what to do: `msg` names the thing and its value, `details` the cure."""

    def __init__(self, msg: str, details: str = "") -> None:
        super().__init__(msg)
        self.msg = msg
        self.details = details

    def __str__(self) -> str:
        return f"{self.msg} ({self.details})" if self.details else self.msg
