# SPDX-License-Identifier: Apache-2.0
"""Output of commands: text for a person, or an object for a program. All commands with output have this option."""

from __future__ import annotations

import functools
import json
import sys
from typing import TYPE_CHECKING, Any, NamedTuple

import click

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from kubenode.base.problem import Problem

WIDE, JSON, YAML = "wide", "json", "yaml"


class Output(NamedTuple):
    """The form of the output; "" is text."""

    form: str = ""

    @property
    def wide(self) -> bool:
        """Whether the text has all details."""
        return self.form == WIDE

    @property
    def is_object(self) -> bool:
        """Whether the output is an object instead of a text."""
        return self.form in {JSON, YAML}

    def dump(self, value: object) -> None:
        """Print an object; JSON is indented on a terminal, and compact elsewhere."""
        if self.form == YAML:
            import yaml  # not every call needs it

            click.echo(yaml.safe_dump(value, sort_keys=False, width=sys.maxsize), nl=False)
        else:
            click.echo(json.dumps(value, indent=2 if sys.stdout.isatty() else None))

    def separate(self) -> None:
        """Print the separator between two objects of a stream."""
        if self.form == YAML:
            click.echo("---")


def as_objects(problems: Iterable[Problem]) -> list[dict[str, str]]:
    """Return problems for an object."""
    return [{"what": one.msg, **({"advice": one.details} if one.details else {})} for one in problems]


def with_output(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the option, and pass it on as `output`."""

    @functools.wraps(function)
    def command(*args: Any, output: str | None, **others: Any) -> Any:
        return function(*args, output=Output(output or ""), **others)

    return click.option("--output", "-o", type=click.Choice([WIDE, JSON, YAML]), help="More text; or one object, for a program.")(command)
