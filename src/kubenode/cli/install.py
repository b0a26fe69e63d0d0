"""`kube-node install` and `kube-node uninstall`: the plugins and what they need, in and out of a node's directories."""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING

import click

from kubenode.cni.errors import INSTALLATION, CNIError
from kubenode.host import payload
from kubenode.host.cniconfig import DEFAULT_CONFIG_DIR
from kubenode.host.installation import Installation, Part, Step
from kubenode.host.nodeview import DEFAULT_RUN_DIR
from kubenode.host.root import HostRoot
from kubenode.kube.sources import SERVICE_ACCOUNT
from kubenode.plugins.nodes import run_dir
from kubenode.version import VERSION

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

DEFAULT_BIN_DIR = "/opt/cni/bin"
DEFAULT_CREDENTIALS = "/etc/cni/net.d/kube-node.d"
PAST = {"write": "written", "replace": "replaced", "keep": "as they were", "remove": "removed", "restore": "restored", "leave": "left"}


def _common(function: Callable[..., None]) -> Callable[..., None]:
    for option in (
        click.option("--json", "as_json", is_flag=True, help="Print one JSON object."),
        click.option("--dry-run", is_flag=True, help="Only say what would be done."),
        click.option("--force", is_flag=True, help="Also where a file is not ours, or was changed since."),
        click.option("--bin-dir", metavar="DIR", default=DEFAULT_BIN_DIR, show_default=True, help="The runtime's CNI plugins."),
        click.option("--host-root", metavar="DIR", default="", help="Where the host's directories are mounted, for a run in a container."),
    ):
        function = option(function)
    return function


@click.command("install")
@_common
@click.option(
    "--from", "source", metavar="DIR", default="", help="A directory with kube-node's plugins. [default: where this program runs from]"
)
@click.option(
    "--plugins", metavar="NAMES", default="kube-node,node-annotation", show_default=True,
    help=f"Some of {', '.join(payload.PLUGINS)}. host-local takes the place of the reference plugin.",
)  # fmt: skip
@click.option(
    "--standalone", type=click.Choice(["auto", "yes", "no"]), default="auto", show_default=True,
    help="With the plugins that need no agent; auto: where the host has the Python that they were built with.",
)  # fmt: skip
@click.option(
    "--credentials", metavar="DIR", default=DEFAULT_CREDENTIALS, show_default=True,
    help="Where the service account becomes a kubeconfig for plugins without agent; none for nowhere.",
)  # fmt: skip
@click.option("--service-account", metavar="DIR", default=SERVICE_ACCOUNT, help="Where its token is. [default: as in a pod]")
@click.option(
    "--api-server",
    metavar="URL",
    default="",
    help="What the kubeconfig names. [default: $KUBERNETES_SERVICE_HOST and $KUBERNETES_SERVICE_PORT]",
)
@click.option("--node-name", metavar="NAME", envvar="NODE_NAME", default="", help="The Node that this host is. [$NODE_NAME]")
@click.option(
    "--run-dir", metavar="DIR", envvar="KUBE_NODE_RUN_DIR", default=DEFAULT_RUN_DIR, show_default=True, help="[$KUBE_NODE_RUN_DIR]"
)
@click.option("--conflist", "conflists", metavar="FILE", multiple=True, help="A network configuration to install, after all that it needs.")
@click.option("--cni-config", "config_dir", metavar="DIR", default=DEFAULT_CONFIG_DIR, show_default=True, help="Where --conflist goes.")
def command(
    host_root: str,
    bin_dir: str,
    source: str,
    plugins: str,
    standalone: str,
    credentials: str,
    service_account: str,
    api_server: str,
    node_name: str,
    run_dir: str,
    conflists: tuple[str, ...],
    config_dir: str,
    *,
    force: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    r"""Install the plugins on this node, or bring them up to date.

    Each file appears by renaming, so that pods may start meanwhile. What is there and is not ours is an error, before anything is changed.

    \b
    Examples:
      kube-node install --dry-run
      kube-node install --plugins=kube-node,node-annotation,host-local --force
      kube-node install --host-root=/host --conflist=10-k8snet.conflist
    """
    root = HostRoot(host_root)
    parts = payload.plugins(
        _source(source), _names(plugins), bin_dir, root, standalone={"auto": None, "yes": True, "no": False}[standalone]
    )
    if credentials != "none" and (server := _server(api_server)) and _is_there(service_account, asked=bool(api_server)):
        parts += payload.credentials(credentials, service_account, server)
    if node_name:
        parts.append(payload.node_name(run_dir, node_name))
    parts += [payload.network(root, config_dir, file) for file in conflists]
    steps = Installation(root, bin_dir).install(_distinct(parts), force=force, dry_run=dry_run)
    _tell(steps, dry_run=dry_run, as_json=as_json)


@click.command("uninstall")
@_common
@click.pass_context
def uninstall(context: click.Context, host_root: str, bin_dir: str, *, force: bool, dry_run: bool, as_json: bool) -> None:
    r"""Take back what install has put here, and restore what was.

    Reservations, the Node view and files that were changed since stay; the notes beside the reservations, which say of which boot they
    are, go. Exit code 1: something of ours was left.

    \b
    Examples:
      kube-node uninstall --dry-run
      kube-node uninstall --host-root=/host
    """
    root = HostRoot(host_root)
    data_dirs = payload.data_dirs(root, run_dir(os.environ), DEFAULT_CONFIG_DIR)
    steps = Installation(root, bin_dir).uninstall(data_dirs, force=force, dry_run=dry_run)
    _tell(steps, dry_run=dry_run, as_json=as_json)
    if any(step.what == "leave" for step in steps):
        context.exit(1)


def _source(directory: str) -> payload.Source:
    found = directory or payload.own_source()
    if not found:
        raise CNIError(
            INSTALLATION,
            f"{sys.argv[0]} does not run from a directory that can be installed",
            "--from=DIR names a directory with kube-node's plugins",
        )
    return payload.Source(os.path.abspath(found))


def _names(text: str) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    unknown = [name for name in names if name not in payload.PLUGINS]
    if unknown or not names:
        raise click.BadParameter(f"{text!r}: some of {', '.join(payload.PLUGINS)}", param_hint="--plugins")
    return names


def _server(url: str) -> str:
    if url:
        return url
    host, port = os.environ.get("KUBERNETES_SERVICE_HOST", ""), os.environ.get("KUBERNETES_SERVICE_PORT", "")
    return "" if not (host and port) else f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"


def _is_there(service_account: str, *, asked: bool) -> bool:
    # Outside of a pod there is none, and none is meant; unless somebody has said where the API server is.
    return asked or service_account != SERVICE_ACCOUNT or os.path.isdir(service_account)


def _distinct(parts: Sequence[Part]) -> list[Part]:
    return list({part.path: part for part in parts}.values())


def _tell(steps: Sequence[Step], *, dry_run: bool, as_json: bool) -> None:
    if as_json:
        changed = any(step.what not in ("keep", "leave") for step in steps)
        told = [{"what": step.what, "path": step.path, **({"why": step.why} if step.why else {})} for step in steps]
        click.echo(json.dumps({"version": VERSION, "dryRun": dry_run, "changed": changed, "steps": told}))
        return
    for step in steps:
        click.echo(f"{step.what:8} {step.path}" + (f"  ({step.why})" if step.why else ""))
    counts = [
        f"{sum(step.what == what for step in steps)} {past}" for what, past in PAST.items() if any(step.what == what for step in steps)
    ]
    click.echo(f"kube-node {VERSION}: {', '.join(counts) or 'nothing is installed'}" + (" (dry run)" if dry_run else ""))
