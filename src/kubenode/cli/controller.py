"""`kube-node controller`: the cluster's controller, run by a Deployment or by hand."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

import click

from kubenode.base import log
from kubenode.cli.agent import Address

if TYPE_CHECKING:
    from kubenode.ipam.ranges import Subnet

LISTEN = "127.0.0.1:19091"


class Network(click.ParamType):  # type: ignore[type-arg] # generic only to type checkers
    """A network in CIDR notation."""

    name = "CIDR"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> Subnet:
        from kubenode.ipam.ranges import RangeError, parse_subnet

        try:
            return parse_subnet(str(value))
        except RangeError as error:
            self.fail(str(error), param, ctx)


@click.command("controller")
@click.option("--kubeconfig", metavar="FILE", default="", help="How to reach the API server. [default: as the plugins]")
@click.option(
    "--namespace",
    metavar="NAME",
    envvar="POD_NAMESPACE",
    default="kube-system",
    show_default=True,
    help="Where the Lease is. [$POD_NAMESPACE]",
)
@click.option(
    "--lease", metavar="NAME", default="kube-node-controller", show_default=True,
    help="Of several controllers, who holds this Lease works; none for all at once, which is safe and wasteful.",
)  # fmt: skip
@click.option(
    "--service-cidr", "service_cidrs", type=Network(), multiple=True, help="The services' network: pools that overlap it are shown."
)
@click.option("--pod-cidr", "pod_cidrs", type=Network(), multiple=True, help="The pods' network: pools that overlap it are shown.")
@click.option("--listen", type=Address(), default=LISTEN, show_default=True, help="/metrics, /healthz and /readyz; none for nothing.")
@click.option("--loglevel", type=click.Choice(["warning", "info", "debug", "trace"]), default="info", show_default=True)
def command(
    kubeconfig: str,
    namespace: str,
    lease: str,
    service_cidrs: tuple[Subnet, ...],
    pod_cidrs: tuple[Subnet, ...],
    listen: tuple[str, int] | None,
    loglevel: str,
) -> None:
    """Give every node subnets of its own, for secondary networks.

    It writes the annotations that the plugin reads, by the SubnetPools that there are, and notes each subnet that is given as a
    NodeSubnet. One works for a cluster; others may stand by. It logs JSON lines to standard error.

    \b
    Examples:
      kube-node controller
      kube-node controller --kubeconfig=admin.conf --lease=none
      kube-node controller --service-cidr=10.96.0.0/16 --pod-cidr=10.0.0.0/9
    """  # noqa: D301 -- a backspace is how click is told to leave lines as they are
    from kubenode.base.logqueue import LAST_WORDS, LogQueue
    from kubenode.controller.service import Controller, Options

    options = Options(kubeconfig, namespace, "" if lease == "none" else lease, service_cidrs, pod_cidrs, listen)
    level = {name: number for number, name in log.NAMES.items()}[loglevel]
    lines = LogQueue()
    try:
        asyncio.run(Controller(options, os.environ, log.Log("controller", level, sink=lines)).run())
    finally:
        lines.close(LAST_WORDS)
