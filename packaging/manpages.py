# SPDX-License-Identifier: Apache-2.0
"""Make the manual pages of all commands, from the text that --help prints. Run by `./build.sh man`.

One page a command, `kube-node-COMMAND.1`, and `kube-node.1` for all of them.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import TYPE_CHECKING

import click

from kubenode.cli.main import COMMANDS, kube_node
from kubenode.version import VERSION

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parent.parent
KEPT = "\b\n"  # what click's help has in front of a paragraph whose lines stay as they are


def pages() -> dict[str, str]:
    """Return the pages by file name."""
    context = kube_node.make_context("kube-node", [], resilient_parsing=True)  # with its settings, as a call has them
    made = {"kube-node.1": page(context, kube_node)}
    for name in COMMANDS:
        command = kube_node.get_command(context, name) or kube_node
        made[f"kube-node-{name}.1"] = page(click.Context(command, info_name=name, parent=context), command)
    return made


def page(context: click.Context, command: click.Command) -> str:
    """Return one page in the man macros (man(7))."""
    title = context.command_path.replace(" ", "-")
    paragraphs = (command.help or "").strip().split("\n\n")
    summary = (command.short_help or paragraphs[0]).rstrip(".")
    examples = [text for text in paragraphs if text.startswith(KEPT)]
    lines = [
        f'.TH "{title.upper()}" "1" "" "kube-node {VERSION}" "kube-node"',
        ".SH NAME",
        f"{plain(title)} \\- {plain(summary[0].lower() + summary[1:])}",
        ".SH SYNOPSIS",
        f".B {plain(context.command_path)}",
        plain(" ".join(command.collect_usage_pieces(context))),
        ".SH DESCRIPTION",
    ]
    for text in paragraphs:
        if text not in examples:
            lines += [".PP", plain(" ".join(text.split()))]
    lines += [".SH OPTIONS", *options(context, command)]
    if isinstance(command, click.Group):
        lines += [".SH COMMANDS", *commands(context, command)]
    if examples:
        lines.append(".SH EXAMPLES")
    for text in examples:
        lines += [".PP", ".nf", *(plain(line.strip()) for line in text.removeprefix(KEPT).splitlines()[1:]), ".fi"]
    others = ["kube-node"] if context.parent else [f"kube-node-{name}" for name in COMMANDS]
    lines += [".SH SEE ALSO", ",\n".join(f".BR {plain(name)} (1)" for name in others).replace(",\n", " ,\n")]
    return "\n".join(lines) + "\n"


def options(context: click.Context, command: click.Command) -> Iterator[str]:
    for parameter in command.get_params(context):
        record = parameter.get_help_record(context)
        if record:
            yield from (".TP", f".B {plain(record[0])}", plain(record[1]))


def commands(context: click.Context, group: click.Group) -> Iterator[str]:
    for name in group.list_commands(context):
        command = group.get_command(context, name) or group
        yield from (".TP", f".BR kube\\-node\\-{plain(name)} (1)", plain(command.get_short_help_str(limit=200)))


def plain(text: str) -> str:
    """Return a text as roff takes it for itself."""
    escaped = text.replace("\\", "\\e").replace("-", "\\-")
    return re.sub(r"^([.'])", r"\\&\1", escaped, flags=re.MULTILINE)


def main() -> None:
    parser = argparse.ArgumentParser(prog="./build.sh man", description="Make the manual pages.")
    parser.add_argument("--output", type=Path, default=ROOT / "_output/man", help="the directory to write to (default: _output/man)")
    output: Path = parser.parse_args().output
    output.mkdir(parents=True, exist_ok=True)
    made = pages()
    for name, text in made.items():
        (output / name).write_text(text)
    print(f"man: {len(made)} pages in {output}; man -l {output}/kube-node.1")


if __name__ == "__main__":
    main()
