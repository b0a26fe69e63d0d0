# SPDX-License-Identifier: Apache-2.0
"""`kube-node install` and `kube-node uninstall`: put the plugins and their files into a node's directories, and remove them."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any, NamedTuple

import click
from click.core import ParameterSource

from kubenode.base.problem import Problem
from kubenode.cli.output import with_output
from kubenode.host import cniconfig
from kubenode.host.cniconfig import DEFAULT_CONFIG_DIR
from kubenode.host.nodeview import DEFAULT_RUN_DIR
from kubenode.host.root import HostRoot
from kubenode.installer import installed, payload
from kubenode.installer.installation import Installation
from kubenode.installer.installed import CONFLIST, CREDENTIALS, NODE_NAME
from kubenode.installer.steps import FORCE, PayloadPart, Step
from kubenode.kube.loadingrules import SERVICE_ACCOUNT
from kubenode.plugins.standalone import run_dir
from kubenode.version import VERSION

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from kubenode.cli.output import Output
    from kubenode.installer.installed import Installed

DEFAULT_BIN_DIR = "/opt/cni/bin"
DEFAULT_PLUGINS = ",".join(cniconfig.TAKE_NODES)
DEFAULT_CREDENTIALS = "/etc/cni/net.d/kube-node.d"
GIVEN = frozenset([ParameterSource.COMMANDLINE, ParameterSource.ENVIRONMENT])
PAST = {
    "write": "written",
    "hold": "held",
    "replace": "replaced",
    "keep": "as they were",
    "remove": "removed",
    "restore": "restored",
    "leave": "left",
}


def _common(function: Callable[..., None]) -> Callable[..., None]:
    for option in (
        with_output,
        click.option("--dry-run", is_flag=True, help="Only show the steps."),
        click.option("--force", is_flag=True, help="Also if a file is not ours, or was changed since."),
        click.option("--bin-dir", metavar="DIR", default=DEFAULT_BIN_DIR, show_default=True, help="The runtime's CNI plugins."),
        click.option("--host-root", metavar="DIR", default="", help="The mount point of the host's directories, for a run in a container."),
    ):
        function = option(function)
    return function


class InstallOptions(NamedTuple):
    """The options of an installation: as given, or from the last time."""

    source: str
    plugins: str
    standalone: str
    credentials: str
    service_account: str
    api_server: str
    node_name: str
    run_dir: str
    conflists: tuple[str, ...]
    config_dir: str


REMEMBERED = frozenset(["plugins", "standalone", "credentials", "api_server", "run_dir", "config_dir"])


@click.command("install")
@_common
@click.option("--hold", is_flag=True, help="Let the agent put a new network configuration in place, once it is ready for the first pods.")
@click.option("--leave", is_flag=True, help="If a file is not ours, or was changed since: keep it, warn, and go on.")
@click.option(
    "--from", "source", metavar="DIR", default="", help="A directory with kube-node's plugins. [default: where this program runs from]"
)
@click.option(
    "--plugins", metavar="NAMES", default=DEFAULT_PLUGINS, show_default=True,
    help=f"Some of {', '.join(cniconfig.OURS)}. host-local takes the place of the reference plugin.",
)  # fmt: skip
@click.option(
    "--standalone", type=click.Choice(["auto", "yes", "no"]), default="auto", show_default=True,
    help="Also install the plugins that need no agent; auto: if the host has the Python that they were built with.",
)  # fmt: skip
@click.option(
    "--credentials", metavar="DIR", default=DEFAULT_CREDENTIALS, show_default=True,
    help="The directory for the kubeconfig of plugins without agent, made from the service account; none for no kubeconfig.",
)  # fmt: skip
@click.option("--service-account", metavar="DIR", default=SERVICE_ACCOUNT, help="The directory of its token. [default: as in a pod]")
@click.option(
    "--api-server",
    metavar="URL",
    default="",
    help="The API server in the kubeconfig. [default: $KUBERNETES_SERVICE_HOST and $KUBERNETES_SERVICE_PORT]",
)
@click.option("--node-name", metavar="NAME", envvar="NODE_NAME", default="", help="The name of this host's Node. [$NODE_NAME]")
@click.option(
    "--run-dir", metavar="DIR", envvar="KUBE_NODE_RUN_DIR", default=DEFAULT_RUN_DIR, show_default=True, help="[$KUBE_NODE_RUN_DIR]"
)
@click.option(
    "--conflist", "conflists", metavar="FILE", multiple=True,
    help="A network configuration to install, after all other files; none removes an installed one.",
)  # fmt: skip
@click.option(
    "--cni-config", "config_dir", metavar="DIR", default=DEFAULT_CONFIG_DIR, show_default=True, help="The directory for --conflist."
)
@click.pass_context
def command(
    context: click.Context,
    /,
    host_root: str,
    bin_dir: str,
    *,
    force: bool,
    leave: bool,
    hold: bool,
    dry_run: bool,
    output: Output,
    **options: Any,
) -> None:
    r"""Install the plugins on this node, or update them.

    Each file appears by renaming, so pods may start meanwhile. A file that is not ours is an error, before anything is changed, or with
    --leave a warning. Later runs without an option keep the files of that option.

    \b
    Examples:
      kube-node install --dry-run
      kube-node install --plugins=kube-node,node-annotation,host-local --force
      kube-node install --host-root=/host --conflist=10-k8snet.conflist
    """
    root = HostRoot(host_root)
    given = {name: value for name, value in options.items() if context.get_parameter_source(name) in GIVEN}
    bin_dir = os.path.abspath(bin_dir)
    known = _known(installed.before(root.path(bin_dir)), bin_dir)
    parts, brought = _parts(InstallOptions(**{**options, **known, **given}), given, root, bin_dir)
    remembered = {name: value for name, value in given.items() if name in REMEMBERED}
    installation = Installation(root, bin_dir)
    steps = installation.install(_distinct(parts), brought, remembered, force=force, leave=leave, hold=hold, dry_run=dry_run)
    _tell(steps, output, dry_run=dry_run)
    for step in steps:
        if step.what == "leave":
            click.echo(f"Warning: {step.path} {step.why}, and was left as it is; {FORCE}", err=True)


def _known(before: Installed, bin_dir: str) -> dict[str, str]:
    """Return the options of the last time. An old record has no options, only the installed plugins."""
    had = [name for name in cniconfig.OURS if os.path.join(bin_dir, name) in before.entries]
    plugins = ",".join(dict.fromkeys([*DEFAULT_PLUGINS.split(","), *had]))
    return {"plugins": plugins, **{name: value for name, value in before.options.items() if name in REMEMBERED}}


def _parts(wanted: InstallOptions, given: Mapping[str, Any], root: HostRoot, bin_dir: str) -> tuple[list[PayloadPart], set[str]]:
    """Return the parts to install, and the options that decide them."""
    standalone = {"auto": None, "yes": True, "no": False}[wanted.standalone]
    parts = payload.plugins(_source(wanted.source), _names(wanted.plugins), bin_dir, root, standalone=standalone)
    brought = set()
    server = _server(wanted.api_server)
    if wanted.credentials == "none":
        brought.add(CREDENTIALS)
    elif server and _is_there(wanted.service_account, asked=bool(given.get("api_server"))):
        brought.add(CREDENTIALS)
        parts += payload.credentials(wanted.credentials, wanted.service_account, server)
    if "node_name" in given:
        brought.add(NODE_NAME)
        parts += [payload.node_name(wanted.run_dir, wanted.node_name)] if wanted.node_name else []
    if "conflists" in given:
        brought.add(CONFLIST)
        parts += [payload.network(root, wanted.config_dir, file) for file in wanted.conflists if wanted.conflists != ("none",)]
    return parts, brought


@click.command("uninstall")
@_common
@click.pass_context
def uninstall(context: click.Context, /, host_root: str, bin_dir: str, *, force: bool, dry_run: bool, output: Output) -> None:
    r"""Remove the files of install, and restore the previous ones.

    Reservations, the Node view and files that were changed since stay; the boot notes beside the reservations are removed. Exit code 1:
    something of ours was left.

    \b
    Examples:
      kube-node uninstall --dry-run
      kube-node uninstall --host-root=/host
    """
    root = HostRoot(host_root)
    data_dirs = payload.data_dirs(root, run_dir(os.environ), DEFAULT_CONFIG_DIR)
    steps = Installation(root, os.path.abspath(bin_dir)).uninstall(data_dirs, force=force, dry_run=dry_run)
    _tell(steps, output, dry_run=dry_run)
    if any(step.what == "leave" for step in steps):
        context.exit(1)


def _source(directory: str) -> payload.PluginDirectory:
    found = directory or payload.own_source()
    if not found:
        raise Problem(
            f"{sys.argv[0]} does not run from a directory that can be installed",
            "--from=DIR names a directory with kube-node's plugins",
        )
    return payload.PluginDirectory(os.path.abspath(found))


def _names(text: str) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    unknown = [name for name in names if name not in cniconfig.OURS]
    if unknown or not names:
        raise click.BadParameter(f"{text!r}: some of {', '.join(cniconfig.OURS)}", param_hint="--plugins")
    return names


def _server(url: str) -> str:
    if url:
        return url
    host, port = os.environ.get("KUBERNETES_SERVICE_HOST", ""), os.environ.get("KUBERNETES_SERVICE_PORT", "")
    return "" if not (host and port) else f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"


def _is_there(service_account: str, *, asked: bool) -> bool:
    # Outside of a pod there is none, and none is expected; unless an option names the API server.
    return asked or service_account != SERVICE_ACCOUNT or os.path.isdir(service_account)


def _distinct(parts: Sequence[PayloadPart]) -> list[PayloadPart]:
    return list({part.path: part for part in parts}.values())


def _tell(steps: Sequence[Step], output: Output, *, dry_run: bool) -> None:
    if output.is_object:
        changed = any(step.what not in ("keep", "leave") for step in steps)
        told = [{"what": step.what, "path": step.path, **({"why": step.why} if step.why else {})} for step in steps]
        output.dump({"version": VERSION, "dryRun": dry_run, "changed": changed, "steps": told})
        return
    for step in steps:
        click.echo(f"{step.what:8} {step.path}" + (f"  ({step.why})" if step.why else ""))
    counts = [
        f"{sum(step.what == what for step in steps)} {past}" for what, past in PAST.items() if any(step.what == what for step in steps)
    ]
    click.echo(f"kube-node {VERSION}: {', '.join(counts) or 'nothing is installed'}" + (" (dry run)" if dry_run else ""))
