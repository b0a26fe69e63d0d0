"""The findings of a check: how bad it is, and what to do."""

from __future__ import annotations

from enum import Enum, IntEnum
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from kubenode.base.problem import Problem
    from kubenode.inspection.doctor.facts import Facts


class State(IntEnum):
    """Severity; the worst is the exit code. `SKIPPED` is neither well nor bad: nobody has looked."""

    SKIPPED = -1
    OK = 0
    WARNING = 1
    FAILURE = 2

    @property
    def sign(self) -> str:
        return "-✓!✗"[self - State.SKIPPED]


class Finding(NamedTuple):
    """`what` names the thing and its value, `advice` says what to do, `run` is a command line that does it, where one can."""

    state: State
    what: str
    advice: str = ""
    run: str = ""


class Of(Enum):
    """The subject of a check."""

    NETWORKS = "there is no network of ours"
    SUBNETS = "there is no network of ours whose subnets are known"
    STORES = "there are no reservations yet"


class Check(NamedTuple):
    """`look` yields findings; none at all: `fine` is true. `of`: what there has to be for it to look at."""

    name: str
    fine: str
    look: Callable[[Facts], Iterable[Finding]]
    of: Of | None = None


class Result(NamedTuple):
    check: str
    finding: Finding


def ok(what: str) -> Finding:
    return Finding(State.OK, what)


def skipped(why: str, advice: str = "") -> Finding:
    """Return that something was not looked at, and why."""
    return Finding(State.SKIPPED, why, advice)


def warning(what: str, advice: str, run: str = "") -> Finding:
    return Finding(State.WARNING, what, advice, run)


def failure(what: str, advice: str, run: str = "") -> Finding:
    return Finding(State.FAILURE, what, advice, run)


def of_error(error: Problem, state: State = State.FAILURE) -> Finding:
    """Return an error of ours as a finding: it says what is wrong and what to do as it is."""
    return Finding(state, error.msg, error.details or "see docs/reference/errors.md")
