# SPDX-License-Identifier: Apache-2.0
"""`kube-node agent`: the node agent, run by a DaemonSet, by systemd or by hand."""

from __future__ import annotations

import asyncio
import os

import click

from kubenode.base import log
from kubenode.base.problem import Problem
from kubenode.host import cniconfig
from kubenode.host.nodeview import DEFAULT_RUN_DIR

LISTEN = "127.0.0.1:19090"


class HostPort(click.ParamType):  # type: ignore[type-arg] # generic only to type checkers
    """HOST:PORT, or "none"."""

    name = "HOST:PORT"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, int] | None:
        """Return host and port, or None."""
        if value is None or isinstance(value, tuple) or value == "none":
            return value if isinstance(value, tuple) else None
        host, colon, port = str(value).rpartition(":")
        if not colon or not port.isdecimal() or int(port) > 65535:  # noqa: PLR2004 -- the highest port
            self.fail(f"{value!r} is neither HOST:PORT nor none", param, ctx)
        return host.strip("[]"), int(port)


@click.command("agent", short_help="Serve the plugins of this node.")
@click.option("--socket", metavar="PATH", help="The socket for relays. [default: $KUBE_NODE_SOCKET, or agent.sock in --run-dir]")
@click.option(
    "--run-dir", metavar="DIR", envvar="KUBE_NODE_RUN_DIR", default=DEFAULT_RUN_DIR, show_default=True,
    help="The directory of the Node view and the records of attachments. [$KUBE_NODE_RUN_DIR]",
)  # fmt: skip
@click.option("--node-file", metavar="FILE", default="", help="Serve this Node manifest, YAML or JSON, instead of asking the API server.")
@click.option("--kubeconfig", metavar="FILE", default="", help="The kubeconfig for the API server. [default: as the plugins]")
@click.option(
    "--credentials",
    metavar="DIR",
    default="",
    help="Update the copy of the service account that `kube-node install` has put into this directory; none for no copy.",
)
@click.option("--host-root", metavar="DIR", default="", help="The mount point of the host's directories, for an agent in a container.")
@click.option(
    "--cni-config", "config_dir", metavar="DIR", default=cniconfig.DEFAULT_CONFIG_DIR, show_default=True,
    help="The runtime's network configurations: the agent knows their networks before the first call.",
)  # fmt: skip
@click.option(
    "--reclaim",
    type=click.Choice(["on", "report", "off"]),
    default="on",
    show_default=True,
    help="Release leaked addresses, only report them, or neither.",
)
@click.option(
    "--grace", type=click.FloatRange(min=0), default=60.0, show_default=True, metavar="SECONDS",
    help="Time after which an address whose network namespace is gone counts as leaked.",
)  # fmt: skip
@click.option(
    "--every", type=click.FloatRange(min=0.1), default=60.0, show_default=True, metavar="SECONDS",
    help="Interval of the search for leaks, reboots and new networks.",
)  # fmt: skip
@click.option("--listen", type=HostPort(), default=LISTEN, show_default=True, help="Address of /metrics, /healthz and /readyz, or none.")
@click.option("--wait", is_flag=True, help="If another agent has the socket, wait until it ends. [default: an error]")
@click.option(
    "--ipv4-label", metavar="KEY", default="",
    help="The label of namespaces that decides, by true or false, whether their pods get IPv4 if ipv4-namespaces limits it. "
    "[default: none; with the component ipv4-label kube-node.nordix.org/ipv4]",
)  # fmt: skip
@click.option(
    "--node-addresses", is_flag=True,
    help="Report the use of addresses in the status of the Node's NodeAddresses, for kube-node nodes and pools that grow.",
)  # fmt: skip
@click.option("--loglevel", type=click.Choice(["warning", "info", "debug", "trace"]), default="info", show_default=True)
def command(
    socket: str | None,
    run_dir: str,
    node_file: str,
    kubeconfig: str,
    credentials: str,
    host_root: str,
    config_dir: str,
    reclaim: str,
    grace: float,
    every: float,
    listen: tuple[str, int] | None,
    *,
    wait: bool,
    ipv4_label: str,
    node_addresses: bool,
    loglevel: str,
) -> None:
    r"""Serve the plugins of this node.

    Each node runs one agent. It watches the Node object, reserves and releases addresses for the relays, and releases leaked addresses. It
    logs JSON lines to standard error, and ends on SIGTERM after it has answered all calls.

    \b
    Examples:
      kube-node agent --kubeconfig=/etc/kubernetes/kubelet.conf
      kube-node agent --node-file=node.yaml --listen=none
    """
    from kubenode.agent.reclaim import Mode
    from kubenode.agent.service import Agent, AgentOptions
    from kubenode.base.logqueue import LAST_WORDS, LogQueue

    options = AgentOptions(
        run_dir=run_dir,
        socket=socket or os.environ.get("KUBE_NODE_SOCKET") or os.path.join(run_dir, "agent.sock"),
        config_dir=config_dir,
        host_root=host_root,
        kubeconfig=kubeconfig,
        node_file=node_file,
        listen=listen,
        reclaim=Mode(reclaim),
        grace=grace,
        credentials="" if credentials == "none" else credentials,
        every=every,
        wait=wait,
        ipv4_label="" if ipv4_label == "none" else ipv4_label,
        node_addresses=node_addresses,
    )
    level = {name: number for number, name in log.NAMES.items()}[loglevel]
    lines = LogQueue()
    try:
        asyncio.run(Agent(options, os.environ, log.Log("agent", level, sink=lines)).run())
    except OSError as error:
        where = f": {error.filename}" if error.filename else ""
        advice = "run it as root, with the host's directories mounted"
        if isinstance(error, IsADirectoryError):
            advice = f"a container runtime creates a directory if a file to mount is missing: rmdir {error.filename}"
        raise Problem(f"{error.strerror or error}{where}", advice) from None
    finally:
        lines.close(LAST_WORDS)
