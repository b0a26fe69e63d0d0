# SPDX-License-Identifier: Apache-2.0
"""`node-annotation` for a person, to see the plugin's view. Errors are CNI error objects on standard output, like the plugin's."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import click

from kubenode.cli import entry
from kubenode.cni import versions
from kubenode.cni.errors import IO_FAILURE, TRY_AGAIN_LATER, CNIError
from kubenode.nodes import node
from kubenode.plugins import standalone
from kubenode.plugins.node_annotation import CONFIG_PATH, config_file
from kubenode.plugins.standalone import Standalone
from kubenode.version import VERSION

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from kubenode.base.problem import Problem


@click.group(cls=entry.Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(VERSION, "--version", message="%(version)s")
def node_annotation() -> None:
    """Give pods addresses by a host-local configuration in an annotation of the Node: a CNI IPAM plugin.

    Without a command it is the plugin. /etc/cni/node-annotation.conf, or the file in $NODE_ANNOTATION_CFG, is a JSON object with
    kubeconfig, nextipam and log.
    """


@node_annotation.command()
@click.pass_obj
def ipam(act: Callable[[], None]) -> None:
    """Act as the plugin; without CNI_COMMAND, print the configuration for the delegate. The default."""
    act()


@node_annotation.command(name="my_node")
def my_node() -> None:
    """Print the own Node object."""
    click.echo(json.dumps(_node(""), indent=2))


@node_annotation.command(name="get_annotation")
@click.option("--node", "name", default="", metavar="NODE", help="This Node instead of the own one.")
@click.argument("annotation")
def get_annotation(name: str, annotation: str) -> None:
    """Print the value of an annotation on the Node object."""
    click.echo(node.annotation(node.parse(_node(name), node.ANSWER), annotation))


@node_annotation.command(name="error_quit")
@click.argument("message", nargs=-1, metavar="[MSG]")
def error_quit(message: Sequence[str]) -> None:
    """Print a CNI error object and fail, to see how a runtime handles it."""
    raise CNIError(TRY_AGAIN_LATER, f"FAILED: {' '.join(message) or 'node-annotation'}")


def main(act: Callable[[], None]) -> int:
    """Run a command and return its exit code, 1 after an error object; `act` acts as the plugin."""
    return entry.run(node_annotation, "node-annotation", _tell, act, failed=1)


def _tell(problem: Problem) -> None:
    """Print an error object, like the plugin; a problem without a code is a failure to read or write."""
    error = problem if isinstance(problem, CNIError) else CNIError(IO_FAILURE, problem.msg, problem.details)
    click.echo(json.dumps(error.as_object(versions.LATEST), indent=2))


def _node(name: str) -> dict[str, Any]:
    kubeconfig = config_file(os.environ, Standalone(os.environ)).get("kubeconfig", "")
    return standalone.fetch(kubeconfig, os.environ, name, option=f"kubeconfig in {CONFIG_PATH}")
