"""Output of commands: text for a person, or an object for a program. All commands that show something have this option."""

from __future__ import annotations

import functools
import json
import sys
from typing import TYPE_CHECKING, Any, NamedTuple

import click

if TYPE_CHECKING:
    from collections.abc import Callable

WIDE, JSON, YAML = "wide", "json", "yaml"


class Output(NamedTuple):
    """The form that somebody has asked for; "" is text."""

    form: str = ""

    @property
    def wide(self) -> bool:
        """Whether the text is to say more, where there is more."""
        return self.form == WIDE

    @property
    def is_object(self) -> bool:
        """Whether an object is wanted, and no text."""
        return self.form in {JSON, YAML}

    def dump(self, value: object) -> None:
        """Print an object; JSON on a terminal so that a person can read it, else as quickly as may be."""
        if self.form == YAML:
            import yaml  # not every call's

            click.echo(yaml.safe_dump(value, sort_keys=False, width=sys.maxsize), nl=False)
        else:
            click.echo(json.dumps(value, indent=2 if sys.stdout.isatty() else None))

    def separate(self) -> None:
        """Print what stands between two objects of one stream."""
        if self.form == YAML:
            click.echo("---")


def with_output(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the option, and hand it on as `output`."""

    @functools.wraps(function)
    def command(*args: Any, output: str | None, **others: Any) -> Any:
        return function(*args, output=Output(output or ""), **others)

    return click.option("--output", "-o", type=click.Choice([WIDE, JSON, YAML]), help="More text; or one object, for a program.")(command)
