# SPDX-License-Identifier: Apache-2.0
"""`kube-node gc`: release addresses that no pod has any more."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from kubenode.cli import options
from kubenode.cli.entry import confirm
from kubenode.cli.output import as_objects, with_output

if TYPE_CHECKING:
    from rich.table import Table

    from kubenode.base.problem import Problem
    from kubenode.cli.output import Output
    from kubenode.inspection.locations import Locations
    from kubenode.inspection.stale import Stale


@click.command("gc", short_help="Release addresses that no pod has any more.")
@click.option("--dry-run", is_flag=True, help="Show what would be released, and release nothing.")
@click.option("--network", "names", multiple=True, metavar="NAME", type=options.NetworkName(), help="Only this network. May be repeated.")
@click.option(
    "--from", "source", type=click.Choice(["auto", "cri", "netns"]), default="auto", show_default=True,
    help="The source of the list of pods: the runtime's sandboxes by CRI, or network namespaces. auto: CRI if a socket exists.",
)  # fmt: skip
@click.option(
    "--cri-socket", "sockets", multiple=True, metavar="PATH",
    help="A runtime's socket. May be repeated. [default: the kubelet's, and all well-known ones that exist]",
)  # fmt: skip
@click.option("--all", "doubtful", is_flag=True, help="Also doubtful ones, which may belong to containers other than pods. Asks first.")
@click.option("--yes", "-y", is_flag=True, help="Do not ask. --all with -o json or yaml needs it, or --dry-run.")
@with_output
@options.node_networks
def command(
    names: tuple[str, ...],
    source: str,
    sockets: tuple[str, ...],
    locations: Locations,
    output: Output,
    unread: list[Problem],
    *,
    dry_run: bool,
    doubtful: bool,
    yes: bool,
) -> int:
    r"""Release addresses of deleted pods, from before a reboot, and of torn files.

    A reservation of a pod is stale if no container runtime has its sandbox (and it is older than five minutes, and its network namespace is
    gone); or, without a runtime to ask, if the network namespace that its ADD named is gone. In doubt it stays.

    A runtime does not know the containers of podman, Docker or nerdctl. A container without a record of a pod is doubtful: gc only shows
    it, and releases its addresses with --all.

    \b
    Examples:
      kube-node gc --dry-run
      kube-node gc
      kube-node gc --network=net1 --from=netns
      kube-node gc --cri-socket=/run/crio/crio.sock -o json
    """
    from kubenode.base.problem import Problem
    from kubenode.inspection import cri, stale
    from kubenode.inspection.networks import find
    from kubenode.inspection.records import Records
    from kubenode.inspection.report import require_known, unreadable

    if doubtful and output.is_object and not (yes or dry_run):
        raise click.UsageError(f"--all with -o {output.form} needs --yes: there is nobody to ask")
    asked_at = list(sockets) or (cri.find_sockets(locations.root) if source != "netns" else [])
    if source == "cri" and not asked_at:
        raise Problem(f"there is no runtime's socket: looked for {', '.join(cri.SOCKETS)}", "name one with --cri-socket")
    if source == "netns":
        asked_at = []
    sandboxes = cri.sandboxes_of_all(sockets or map(locations.root.path, asked_at)) if asked_at else None
    records = Records(locations)
    asked = f"the runtime at {', '.join(asked_at)}" if asked_at else "network namespaces"
    try:
        networks = require_known(find(locations, records), names)
        found = [one for network in networks for one in stale.find(locations, network, records, sandboxes)]
        found.sort(key=lambda one: (one.network.name, one.held.address))
        chosen = [one for one in found if doubtful or not one.doubtful]
        left = [one for one in found if one not in chosen]
        if doubtful and not (dry_run or yes) and any(one.doubtful for one in chosen):
            _show(chosen, asked, dry_run=True, wide=output.wide)
            if not confirm("Release them all?"):
                return 1
        done, failures = ([], []) if dry_run or not chosen else stale.release(locations, chosen)
    except OSError as error:
        raise unreadable(error) from None
    listed = chosen if dry_run else done
    if output.is_object:
        result = {"released": [*map(_object, listed)], "doubtful": [*map(_object, left)], "unread": as_objects(unread)}
        output.dump({"dryRun": dry_run, "by": asked, **result})
    else:
        _show(listed, asked, dry_run=dry_run, wide=output.wide, part=bool(unread))
        _show_doubtful(left, wide=output.wide)
    if failures:
        raise unreadable(failures[0])
    return 0


def _show(listed: list[Stale], asked: str, *, dry_run: bool, wide: bool, part: bool = False) -> None:
    """Print stale reservations; `part`: some networks could not be read."""
    from kubenode.cli import screen

    out = screen.console()
    if not listed:
        out.print(f"Nothing is stale{' in the networks that could be read' if part else ''}, by {asked}.")
        return
    out.print(_table(listed, wide=wide))
    count = screen.counted(len(listed), "address")
    out.print(f"{count} would be released, by {asked}." if dry_run else f"{count} released, by {asked}.")


def _show_doubtful(left: list[Stale], *, wide: bool) -> None:
    from kubenode.cli import screen

    if left:
        out = screen.console()
        out.print(_table(left, wide=wide))
        out.print(
            f"[yellow]![/] {screen.counted(len(left), 'address')} may belong to containers other than pods: kept. --all releases them, too."
        )


def _table(listed: list[Stale], *, wide: bool) -> Table:
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", pad_edge=False)
    table.add_column("ADDRESS", no_wrap=True)
    for heading in ("NETWORK", "POD, OR CONTAINER", *(("CONTAINER", "IF") if wide else ()), "WHY"):
        table.add_column(heading, overflow="fold")
    for one in listed:
        container_id, ifname = one.held.attachment or ("-", "")
        more = [container_id, ifname] if wide else []
        table.add_row(str(one.held.address), escape(one.network.name), escape(one.pod or container_id[:12]), *map(escape, more), one.why)
    return table


def _object(one: Stale) -> dict[str, str | None]:
    attachment = one.held.attachment
    ids = {"containerID": attachment.container_id if attachment else None, "ifname": attachment.ifname if attachment else None}
    return {"address": str(one.held.address), "network": one.network.name, **ids, "pod": one.pod or None, "why": one.why}
