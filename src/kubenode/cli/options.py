# SPDX-License-Identifier: Apache-2.0
"""The options for the places to look at, the same for all commands."""

from __future__ import annotations

import functools
import os
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from kubenode.cli.entry import FAILED, printable
from kubenode.host import cniconfig
from kubenode.host.nodeview import DEFAULT_RUN_DIR

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from click.shell_completion import CompletionItem

    from kubenode.base.problem import Problem
    from kubenode.host.root import HostRoot
    from kubenode.inspection.locations import Locations
    from kubenode.ipam.address import Address

DIRECTORIES = {"host_root": "--host-root", "config_dir": "--cni-config", "run_dir": "--run-dir", "bin_dirs": "--bin-dir"}
BIN_DIRS = ("/opt/cni/bin", "/usr/lib/cni")  # the second is Debian's

OPTIONS = (
    click.option(
        "--config", "configs", metavar="FILE", multiple=True, type=click.Path(dir_okay=False),
        help="Also the networks of this file: NetworkAttachmentDefinitions or CNI configurations, YAML or JSON. May be repeated.",
    ),
    click.option(
        "--cni-config", "config_dir", metavar="DIR", default=cniconfig.DEFAULT_CONFIG_DIR, show_default=True,
        help="The runtime's network configurations.",
    ),
    click.option(
        "--run-dir", metavar="DIR", envvar="KUBE_NODE_RUN_DIR", default=DEFAULT_RUN_DIR, show_default=True,
        help="The directory of the Node view and the records of attachments. [$KUBE_NODE_RUN_DIR]",
    ),
    click.option(
        "--host-root", metavar="DIR", envvar="KUBE_NODE_HOST_ROOT", default="",
        help="The mount point of the host's directories, in a container. [$KUBE_NODE_HOST_ROOT]",
    ),
)  # fmt: skip
BIN_DIR = click.option(
    "--bin-dir", "bin_dirs", metavar="DIR", multiple=True,
    help=f"The directory of the runtime's plugins. May be repeated. [default: {BIN_DIRS[0]}, or {BIN_DIRS[1]} if only that has ours]",
)  # fmt: skip
KUBECONFIG = click.option(
    "--kubeconfig", metavar="FILE", default="", help="The kubeconfig for the API server. [default: kubectl's, or the networks']"
)
CONTEXT = click.option("--context", metavar="NAME", default="", help="The kubeconfig's context. [default: its current one]")
NAMESPACE = click.option("--namespace", "-n", metavar="NAMESPACE", default="", help="Only pods of this namespace. [default: all]")


class IPAddress(click.ParamType):  # type: ignore[type-arg] # generic only to type checkers
    """An address: alone, with a prefix length, or in brackets."""

    name = "ADDRESS"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> Address:
        """Return the address."""
        from kubenode.ipam.address import Address, parse_address

        if isinstance(value, Address):
            return value
        address = parse_address(str(value).partition("/")[0].strip("[]"))
        if address is None:
            self.fail(f"{value!r} is not an IP address; write it as 10.1.2.3 or fd00::1:2", param, ctx)
        return address


class NetworkName(click.ParamType):  # type: ignore[type-arg] # generic only to type checkers
    """A network's name; a shell completes the names in the runtime's configuration."""

    name = "NAME"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:  # noqa: ARG002
        """Return the names that begin with a text."""
        from click.shell_completion import CompletionItem

        directory = str(ctx.params.get("config_dir") or cniconfig.DEFAULT_CONFIG_DIR)
        names = {str(conf.get("name")) for conf in cniconfig.netconfs(directory, cniconfig.OURS)}
        return [CompletionItem(name) for name in sorted(names) if name.startswith(incomplete)]


def locations(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options, and pass them on as `locations`. It names broken parts of --config on stderr, and fails then."""

    @functools.wraps(function)
    def command(*args: Any, locations: Locations, **options: Any) -> int:
        tell(locations.named.broken)
        code = function(*args, locations=locations, **options) or 0
        return FAILED if locations.named.broken else code

    return place_alone(command)


def node_networks(function: Callable[..., Any]) -> Callable[..., Any]:
    """Do the same for a command that looks at this node's networks. `unread` has the broken parts, and refused files of the runtime."""

    @functools.wraps(function)
    def command(*args: Any, locations: Locations, **options: Any) -> int:
        from kubenode.inspection import networks

        locations = networks.read_once(locations)
        tell(networks.refused(locations))
        unread = networks.unread(locations)
        code = function(*args, locations=locations, unread=unread, **options) or 0
        return FAILED if unread else code

    return locations(command)


def tell(problems: Iterable[Problem]) -> None:
    """Print problems on stderr."""
    for error in problems:
        click.echo(printable(f"Error: {error.msg}\n{error.details}"), err=True)


def place_alone(function: Callable[..., Any]) -> Callable[..., Any]:
    """Do the same for a command that reports broken parts itself."""

    @functools.wraps(function)
    def command(
        configs: tuple[str, ...],
        config_dir: str,
        run_dir: str,
        host_root: str,
        *args: Any,
        bin_dirs: tuple[str, ...] = (),
        kubeconfig: str = "",
        context: str = "",
        **options: Any,
    ) -> Any:
        found = make(configs, config_dir, run_dir, host_root, bin_dirs, kubeconfig, context)
        return function(*args, locations=found, **options)

    for option in reversed(OPTIONS):
        command = option(command)
    return command


def make(
    configs: tuple[str, ...],
    config_dir: str,
    run_dir: str,
    host_root: str,
    bin_dirs: tuple[str, ...] = (),
    kubeconfig: str = "",
    context: str = "",
) -> Locations:
    """Return the locations for the values of the options."""
    from kubenode.host.root import HostRoot
    from kubenode.inspection import named
    from kubenode.inspection.locations import Locations

    socket = os.environ.get("KUBE_NODE_SOCKET") or os.path.join(run_dir, "agent.sock")
    root = HostRoot(host_root)
    _require_directories(root)
    _require_files(configs)
    found = bin_dirs or (_bin_dir(root),)
    return Locations(root, run_dir, config_dir, socket, found, configs, kubeconfig, dict(os.environ), named.read(configs), context)


def _require_directories(root: HostRoot) -> None:
    """Raise UsageError for a directory in an option that does not exist."""
    context = click.get_current_context()
    for name, option in DIRECTORIES.items():
        value = context.params.get(name) or ()
        if context.get_parameter_source(name) is ParameterSource.COMMANDLINE or name == "host_root":
            for path in filter(None, (value,) if isinstance(value, str) else value):
                try:
                    os.stat((path if name == "host_root" else root.path(path)).rstrip("/") + "/.")
                except PermissionError:  # it may exist
                    pass
                except OSError:
                    raise click.UsageError(f"{option} {path}: there is no such directory", context) from None


def _require_files(configs: tuple[str, ...]) -> None:
    """Raise UsageError for a file after --config that does not exist."""
    for path in configs:
        try:
            os.stat(path)
        except (FileNotFoundError, NotADirectoryError):
            raise click.UsageError(f"--config {path}: there is no such file", click.get_current_context()) from None
        except (OSError, ValueError):  # its reader reports it
            pass


def _bin_dir(root: HostRoot) -> str:
    return next((directory for directory in BIN_DIRS if os.path.lexists(root.path(f"{directory}/kube-node"))), BIN_DIRS[0])
