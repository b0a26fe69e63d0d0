# SPDX-License-Identifier: Apache-2.0
"""`kube-node controller`: the cluster's controller, run by a Deployment or by hand."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

import click

from kubenode.base import log
from kubenode.cli.agent import HostPort

if TYPE_CHECKING:
    from kubenode.ipam.ranges import Subnet

LISTEN = "127.0.0.1:19091"


class CIDR(click.ParamType):  # type: ignore[type-arg] # generic only to type checkers
    """A network in CIDR notation."""

    name = "CIDR"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> Subnet:
        """Return the network."""
        from kubenode.ipam.ranges import RangeError, parse_subnet

        try:
            return parse_subnet(str(value))
        except RangeError as error:
            self.fail(str(error), param, ctx)


@click.command("controller")
@click.option("--kubeconfig", metavar="FILE", default="", help="The kubeconfig for the API server. [default: as the plugins]")
@click.option(
    "--namespace",
    "-n",
    metavar="NAME",
    envvar="POD_NAMESPACE",
    default="kube-system",
    show_default=True,
    help="The namespace of the Lease. [$POD_NAMESPACE]",
)
@click.option(
    "--lease", metavar="NAME", default="kube-node-controller", show_default=True,
    help="The Lease that lets one of several controllers work; none: all work, which is safe but wasteful.",
)  # fmt: skip
@click.option(
    "--service-cidr",
    "service_cidrs",
    type=CIDR(),
    multiple=True,
    help="The services' network: a pool that overlaps it gets a condition.",
)
@click.option("--pod-cidr", "pod_cidrs", type=CIDR(), multiple=True, help="The pods' network: a pool that overlaps it gets a condition.")
@click.option("--listen", type=HostPort(), default=LISTEN, show_default=True, help="Address of /metrics, /healthz and /readyz, or none.")
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
    """Give every node its own subnets for secondary networks.

    It takes the subnets from SubnetPools, writes them to the annotations that the plugin reads, and creates a NodeSubnet for each.
    One controller works for a cluster; others may be on standby. It logs JSON lines to standard error.

    \b
    Examples:
      kube-node controller
      kube-node controller --kubeconfig=admin.conf --lease=none
      kube-node controller --service-cidr=10.96.0.0/16 --pod-cidr=10.0.0.0/9
    """  # noqa: D301 -- click keeps the lines of a paragraph after a backspace
    from kubenode.base.logqueue import LAST_WORDS, LogQueue
    from kubenode.controller.service import Controller, ControllerOptions

    options = ControllerOptions(kubeconfig, namespace, "" if lease == "none" else lease, service_cidrs, pod_cidrs, listen)
    level = {name: number for number, name in log.NAMES.items()}[loglevel]
    lines = LogQueue()
    try:
        asyncio.run(Controller(options, os.environ, log.Log("controller", level, sink=lines)).run())
    finally:
        lines.close(LAST_WORDS)
