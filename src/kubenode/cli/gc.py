"""`kube-node gc`: release what no pod has any more."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from kubenode.cli import where

if TYPE_CHECKING:
    from kubenode.inspection.place import Place
    from kubenode.inspection.stale import Stale


@click.command("gc", short_help="Release what no pod has any more.")
@click.option("--dry-run", is_flag=True, help="Show what would be released, and release nothing.")
@click.option(
    "--network", "-n", "names", multiple=True, metavar="NAME", type=where.NetworkName(), help="Only this network. May come several times."
)
@click.option(
    "--from", "source", type=click.Choice(["auto", "cri", "netns"]), default="auto", show_default=True,
    help="Who says which pods there are: the runtime's sandboxes by CRI, or network namespaces. auto: CRI where a socket is there.",
)  # fmt: skip
@click.option("--cri-socket", default="", metavar="PATH", help="The runtime's socket. [default: the first of those known that is there]")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
@where.place
def command(names: tuple[str, ...], source: str, cri_socket: str, place: Place, *, dry_run: bool, as_json: bool) -> int:
    r"""Release addresses of pods that are gone, of before a reboot, and of torn files.

    A reservation counts as stale when the container runtime has no such sandbox (and it is older than five minutes, and no network
    namespace of it is there), or, where no runtime can be asked, when the network namespace that its ADD named is gone. In doubt it stays.

    \b
    Examples:
      kube-node gc --dry-run
      kube-node gc
      kube-node gc --network=net1 --from=netns
      kube-node gc --cri-socket=/run/crio/crio.sock --json
    """
    from kubenode.cli import screen
    from kubenode.inspection import cri, stale
    from kubenode.inspection.networks import find
    from kubenode.inspection.records import Records
    from kubenode.inspection.report import require_known, unreadable

    socket = cri_socket or (cri.find_socket(place.root) if source != "netns" else "")
    if source == "cri" and not socket:
        raise click.UsageError(f"no runtime's socket is there: looked for {', '.join(cri.SOCKETS)}; name one by --cri-socket")
    sandboxes = cri.sandboxes(place.root.path(socket) if not cri_socket else socket) if socket and source != "netns" else None
    records = Records(place)
    try:
        networks = require_known(find(place, records), names)
        found = [one for network in networks for one in stale.find(place, network, records, sandboxes)]
        found.sort(key=lambda one: (one.network.name, one.held.address))
        done = [] if dry_run or not found else stale.release(place, found)
    except OSError as error:
        raise unreadable(error) from None
    asked = f"the runtime at {socket}" if sandboxes is not None else "network namespaces"
    if as_json:
        listed = [_json(one) for one in (found if dry_run else done)]
        screen.dump({"dryRun": dry_run, "by": asked, "would release" if dry_run else "released": listed})
    else:
        _show(found if dry_run else done, asked, dry_run=dry_run)
    return 0


def _show(listed: list[Stale], asked: str, *, dry_run: bool) -> None:
    from rich.markup import escape
    from rich.table import Table

    from kubenode.cli import screen

    out = screen.console()
    if not listed:
        out.print(f"Nothing is stale, by {asked}.")
        return
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", pad_edge=False)
    table.add_column("ADDRESS", no_wrap=True)
    for heading in ("NETWORK", "POD, OR CONTAINER", "WHY"):
        table.add_column(heading, overflow="fold")
    for one in listed:
        who = one.pod or (one.held.attachment.container_id[:12] if one.held.attachment else "-")
        table.add_row(str(one.held.address), escape(one.network.name), escape(who), one.why)
    out.print(table)
    count = screen.counted(len(listed), "address")
    out.print(f"{count} would be released, by {asked}." if dry_run else f"{count} released, by {asked}.")


def _json(one: Stale) -> dict[str, str | None]:
    attachment = one.held.attachment
    ids = {"containerID": attachment.container_id if attachment else None, "ifname": attachment.ifname if attachment else None}
    return {"address": str(one.held.address), "network": one.network.name, **ids, "pod": one.pod or None, "why": one.why}
