# SPDX-License-Identifier: Apache-2.0
"""`kube-node` for a person. Each command is a module, imported when it is called."""

from __future__ import annotations

import os
import sys
from difflib import get_close_matches
from importlib import import_module
from inspect import cleandoc
from typing import TYPE_CHECKING

import click

from kubenode.cli import entry
from kubenode.version import VERSION

if TYPE_CHECKING:
    from kubenode.base.problem import Problem

COMMANDS = {  # command: module; its function is `command`, or the one after the colon
    "status": "status",
    "doctor": "doctor",
    "whois": "whois",
    "nodes": "nodes",
    "map": "map_",
    "pools": "pools",
    "try-add": "try_add",
    "gc": "gc",
    "release": "release",
    "install": "install",
    "uninstall": "install:uninstall",
    "agent": "agent",
    "controller": "controller",
    "report": "report",
    "version": "version",
    "completion": "completion",
    "try": "try_",
}


PLUGIN = "kubectl-kube_node"  # the name of the executable that kubectl looks for as `kubectl kube-node`


def unraw(text: str | None) -> str:
    r"""Return a help text for click: in a raw docstring \b, which keeps the lines of a paragraph, is two characters."""
    return cleandoc(text or "").replace("\\b\n", "\b\n")


class Commands(entry.Group):
    """All commands; only the called one is imported."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 -- click's signature
        """Return the names of all commands."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 -- click's signature
        """Import a command; None if it does not exist."""
        if cmd_name not in COMMANDS:
            return None
        module, _, function = COMMANDS[cmd_name].partition(":")
        command: click.Command = getattr(import_module(f"kubenode.cli.{module}"), function or "command")
        command.help = unraw(command.help)
        return command

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the command of a command line; propose another for an unknown one."""
        if args[0] not in COMMANDS and not args[0].startswith("-") and not ctx.resilient_parsing:
            # click's own advice does not know commands that are imported on demand.
            near = "".join(f" Did you mean {name!r}?" for name in get_close_matches(args[0], COMMANDS, n=1))
            raise click.UsageError(f"No such command {args[0]!r}.{near}", ctx)
        return super().resolve_command(ctx, args)


@click.group(cls=Commands, invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(VERSION, "--version", message="%(version)s")
@click.pass_context
def kube_node(context: click.Context) -> None:
    r"""Addresses for pods, from the subnets of the Kubernetes Node object.

    The container runtime runs it as a CNI plugin, with CNI_COMMAND set and a network configuration on standard input.

    \b
    Examples:
      kube-node doctor
      kube-node status
      kube-node status 10.1.2.3
      kube-node help COMMAND
    """
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


kube_node.help = unraw(kube_node.help)


def main() -> int:
    """Run a command and return its exit code. Under kubectl's name for it, it is kubectl's plugin."""
    is_plugin = os.path.basename(sys.argv[0]) == PLUGIN
    return entry.run(kube_node, "kubectl kube-node" if is_plugin else "kube-node", _tell)


def _tell(error: Problem) -> None:
    click.echo(entry.printable(f"Error: {error.msg}" + (f"\n{error.details}" if error.details else "")), err=True)
