"""`kube-node status`: the networks of this node, how full they are, and whose an address is."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click

from kubenode.cli import options
from kubenode.cli.output import with_output

if TYPE_CHECKING:
    from kubenode.cli.output import Output
    from kubenode.inspection.locations import Locations

NEWEST = 10  # pods shown of each network unless all are asked for


@click.command("status", short_help="Networks, used and free addresses, whose each is.")
@click.argument("address", required=False, metavar="[ADDRESS]")
@click.option(
    "--network", "-n", "names", multiple=True, metavar="NAME", type=options.NetworkName(), help="Only this network. May come several times."
)
@click.option("--namespace", default="", metavar="NAMESPACE", help="Only pods of this namespace.")
@click.option("--all", "-a", "show_all", is_flag=True, help=f"All pods, not only the {NEWEST} newest of each network.")
@click.option("--watch", "-w", is_flag=True, help="Look again and again, until Ctrl-C.")
@click.option("--interval", type=click.FloatRange(min=0.2), default=2.0, show_default=True, metavar="SECONDS", help="For --watch.")
@with_output
@options.KUBECONFIG
@options.CONTEXT
@options.locations
def command(
    address: str | None,
    names: tuple[str, ...],
    namespace: str,
    interval: float,
    locations: Locations,
    output: Output,
    *,
    show_all: bool,
    watch: bool,
) -> int:
    r"""Show networks, used and free addresses, and who holds which since when.

    With an ADDRESS: whose it is; exit code 1 where nobody has it here. Nothing is changed, no lock is taken, and the API server is asked
    only for the node of an address that no subnet here has.

    \b
    Examples:
      kube-node status
      kube-node status 10.1.2.3
      kube-node status --network=net1 --namespace=web --all -o wide
      kube-node status --config=net1.yaml -o json
      kube-node status --watch
    """
    from kubenode.cli import statusjson, statusview
    from kubenode.inspection.holders import Wanted
    from kubenode.inspection.report import Report, look, look_for, read_address

    if address:
        from kubenode.inspection.cluster import elsewhere

        found = look_for(locations, read_address(address))
        known = elsewhere.find(locations, found.address) if not found.holders and not found.networks else None
        if output.is_object:
            output.dump(statusjson.whose(found, known))
        else:
            statusview.show_whose(found, known)
        return 0 if found.holders else 1
    wanted = Wanted(namespace, 0 if show_all or output.is_object else NEWEST)

    def once() -> Report:
        return look(locations, names, wanted)

    if output.is_object:
        while True:
            output.dump(statusjson.status(once()))
            if not watch:
                return 0
            output.separate()
            time.sleep(interval)
    statusview.show(once, interval if watch else 0.0, wide=output.wide)
    return 0
