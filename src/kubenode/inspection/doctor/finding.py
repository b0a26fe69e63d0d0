# SPDX-License-Identifier: Apache-2.0
"""The findings of a check: severity, text and advice."""

from __future__ import annotations

from enum import Enum, IntEnum
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from kubenode.base.problem import Problem
    from kubenode.inspection.doctor.facts import Facts


class State(IntEnum):
    """Severity; the worst is the exit code. `SKIPPED` means not checked."""

    SKIPPED = -1
    OK = 0
    WARNING = 1
    FAILURE = 2

    @property
    def sign(self) -> str:
        """The sign in the output."""
        return "-✓!✗"[self - State.SKIPPED]


class Finding(NamedTuple):
    """A finding. `what` names the thing and its value, `advice` says what to do, `run` is a command line for it, if there is one."""

    state: State
    what: str
    advice: str = ""
    run: str = ""


class Of(Enum):
    """The subject of a check."""

    NETWORKS = "there is no network with our plugins"
    SUBNETS = "there is no network with our plugins and known subnets"
    STORES = "there are no reservations yet"


class Check(NamedTuple):
    """A check. `look` yields findings; without any, `fine` is true. `of`: the things that it needs."""

    name: str
    fine: str
    look: Callable[[Facts], Iterable[Finding]]
    of: Of | None = None


class CheckResult(NamedTuple):
    """A check's name with one of its findings."""

    check: str
    finding: Finding


def ok(what: str) -> Finding:
    """Return a finding that all is well."""
    return Finding(State.OK, what)


def skipped(why: str, advice: str = "") -> Finding:
    """Return a finding that something was not checked, with the reason."""
    return Finding(State.SKIPPED, why, advice)


def warning(what: str, advice: str, run: str = "") -> Finding:
    """Return a finding of something that needs a look."""
    return Finding(State.WARNING, what, advice, run)


def failure(what: str, advice: str, run: str = "") -> Finding:
    """Return a finding by which pods get no address, or a wrong one."""
    return Finding(State.FAILURE, what, advice, run)


def of_error(error: Problem, state: State = State.FAILURE) -> Finding:
    """Return a Problem as a finding."""
    return Finding(state, error.msg, error.details or "see docs/reference/errors.md")
