"""`kube-node status`: the networks of this node, how full they are, and whose an address is."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click

from kubenode.cli import where

if TYPE_CHECKING:
    from kubenode.inspection.place import Place

NEWEST = 10  # pods shown of each network unless all are asked for


@click.command("status", short_help="Networks, used and free addresses, whose each is.")
@click.argument("address", required=False, metavar="[ADDRESS]")
@click.option(
    "--network", "-n", "names", multiple=True, metavar="NAME", type=where.NetworkName(), help="Only this network. May come several times."
)
@click.option("--namespace", default="", metavar="NAMESPACE", help="Only pods of this namespace.")
@click.option("--all", "-a", "show_all", is_flag=True, help=f"All pods, not only the {NEWEST} newest of each network.")
@click.option("--output", "-o", type=click.Choice(["table", "wide", "json"]), default="table", help="wide: also what is behind it all.")
@click.option("--json", "as_json", is_flag=True, help="The same as -o json.")
@click.option("--watch", "-w", is_flag=True, help="Look again and again, until Ctrl-C.")
@click.option("--interval", type=click.FloatRange(min=0.2), default=2.0, show_default=True, metavar="SECONDS", help="For --watch.")
@where.place
def command(
    address: str | None,
    names: tuple[str, ...],
    namespace: str,
    output: str,
    interval: float,
    place: Place,
    *,
    show_all: bool,
    as_json: bool,
    watch: bool,
) -> int:
    r"""Show networks, used and free addresses, and who holds which since when.

    With an ADDRESS: whose it is; exit code 1 where nobody has it. Nothing is changed, no lock is taken, and the API server is not asked.

    \b
    Examples:
      kube-node status
      kube-node status 10.1.2.3
      kube-node status --network=net1 --namespace=web --all -o wide
      kube-node status --config=net1.yaml --json
      kube-node status --watch
    """
    from kubenode.cli import screen, statusjson, statusview, whoseview
    from kubenode.inspection.holders import Wanted
    from kubenode.inspection.report import Report, look, look_for

    wide, as_json = output == "wide", as_json or output == "json"
    if address:
        found = look_for(place, address)
        if as_json:
            screen.dump(statusjson.whose(found))
        else:
            whoseview.show(found)
        return 0 if found.holders else 1
    wanted = Wanted(namespace, 0 if show_all or as_json else NEWEST)

    def once() -> Report:
        return look(place, names, wanted)

    if as_json:
        while True:
            screen.dump(statusjson.status(once()))
            if not watch:
                return 0
            time.sleep(interval)
    statusview.show(once, interval if watch else 0.0, wide=wide)
    return 0
