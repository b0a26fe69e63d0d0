# SPDX-License-Identifier: Apache-2.0
"""The frame of both command lines: messages and exit codes of failures."""

from __future__ import annotations

import io
import os
import sys
from typing import TYPE_CHECKING

import click

from kubenode.base.problem import Problem

if TYPE_CHECKING:
    from collections.abc import Callable

# Exit codes of every command; a command's own are 0 to 3, and 1 is "no": nobody has it, a step failed, nothing was released.
MISUSED = 64  # EX_USAGE: a wrong command line
FAILED = 69  # EX_UNAVAILABLE: it could not look, ask or do; standard error says why
INTERRUPTED = 130  # 128 and SIGINT, as in shells

HALVES = range(0xD800, 0xE000)  # surrogates: JSON may contain one of a pair, and no stream takes it
CONTROL = {code: "\N{REPLACEMENT CHARACTER}" for code in (*range(32), *range(127, 160), *HALVES) if chr(code) != "\n"}


class Group(click.Group):
    """Commands, with `help COMMAND` as another form of `COMMAND --help`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse a command line, which may begin with `help`."""
        return super().parse_args(ctx, [*args[1:], "--help"] if args[:1] == ["help"] else args)


def printable(text: str) -> str:
    """Return a text without control characters for a terminal: parts of it may come from a tenant."""
    return text.translate(CONTROL)


def confirm(question: str) -> bool:
    """Ask a person. Raises Problem if standard input has no answer, as without a terminal."""
    try:
        return click.confirm(question)
    except click.Abort:
        if sys.stdin.isatty():
            raise
        raise Problem(f"standard input has no answer to: {question}", "run it on a terminal, or add --yes") from None


def _open_streams() -> None:
    """Prepare three streams that take any text: the caller may have closed them, and a text may contain half a character."""
    for stream, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, stream) is None:  # now, before another file gets its number
            setattr(sys, stream, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115 -- for as long as the process runs
    for out in (sys.stdout, sys.stderr):
        if isinstance(out, io.TextIOWrapper):
            out.reconfigure(errors="backslashreplace")


def run(group: click.Group, name: str, tell: Callable[[Problem], None], obj: object = None, *, failed: int = FAILED) -> int:
    """Run a command line and return its exit code; `tell` shows a Problem, and `failed` is its exit code."""
    _open_streams()
    try:
        result = group.main(prog_name=name, standalone_mode=False, obj=obj)
        sys.stdout.flush()
    except click.Abort:
        click.echo("interrupted", err=True)
        return INTERRUPTED
    except click.ClickException as error:
        error.show()
        return MISUSED if isinstance(error, click.UsageError) else failed
    except Problem as error:
        tell(error)
        return failed
    except OSError as error:
        what = error.filename or "standard output"
        tell(Problem(f"{what}: {error.strerror or error}", "check that it exists, and its rights"))
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # the interpreter would write again at its end
        return failed
    return result if isinstance(result, int) else 0
