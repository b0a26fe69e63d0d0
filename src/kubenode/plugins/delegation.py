"""Who gives the addresses once the ranges are known: the embedded allocator, or another IPAM plugin over the same files."""

from __future__ import annotations

from kubenode.cni.errors import CNIError
from kubenode.cni.record import NamedTuple
from kubenode.plugins import host_local

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from kubenode.cni.jsontext import JSON
    from kubenode.plugins.skel import Call

EMBEDDED = "embedded"
HOST_LOCAL = "host-local"
# Commands that need no range still need a valid one in the configuration: host-local validates it. It releases by container, so these
# (RFC 5737, RFC 3849) are never looked at.
ANY_RANGES: list[JSON] = [[{"subnet": "192.0.2.0/24"}], [{"subnet": "2001:db8::/64"}]]


class Delegate(NamedTuple):
    """The plugin that a call is handed on to: its type, and its executable or "" for the embedded allocator."""

    type: str
    executable: str

    @property
    def keeps_our_files(self) -> bool:
        return self.type in {EMBEDDED, HOST_LOCAL}


def choose(call: Call, name: str, *, needs_embedded: bool = False) -> Delegate:
    """Return the delegate of this name, which may be a path; "" for host-local where it is, else embedded. Raises CNIError."""
    from os.path import basename

    if name == EMBEDDED or (not name and (needs_embedded or not call.request.path)):
        return Delegate(EMBEDDED, "")
    from kubenode.host import delegate  # brings subprocess

    if not name:
        executable = delegate.find(HOST_LOCAL, call.request.path)
        return Delegate(HOST_LOCAL, executable) if executable else Delegate(EMBEDDED, "")
    return Delegate(basename(name), delegate.require(name, call.request.path))


def add(call: Call, to: Delegate, ipam: Mapping[str, JSON], families: Collection[int] = host_local.BOTH) -> bytes:
    """Get addresses with this `ipam`, and return the result as it goes to stdout. Raises CNIError, and then nothing stays reserved."""
    handed_on = _with_ipam(call, to, ipam)
    if not to.executable:
        return host_local.cmd_add(handed_on, families)
    try:
        return _run(handed_on, to)
    except CNIError:
        # SPEC.md, "Delegated Plugin Execution Procedure": a failed ADD is followed by a DEL.
        try:
            _run(handed_on, to, command="DEL")
        except CNIError as error:
            call.log.warning("DEL after the failed ADD failed too", delegate=to.executable, error=str(error))
        raise


def delete(call: Call, to: Delegate, ipam: Mapping[str, JSON]) -> bytes:
    """Release what the attachment has. host-local's files can be released without host-local."""
    handed_on = _with_ipam(call, to, ipam)
    if not to.executable:
        return host_local.cmd_del(handed_on)
    try:
        return _run(handed_on, to)
    except CNIError as error:
        if not to.keeps_our_files:
            raise
        call.log.warning("the delegate's DEL failed; releasing without it", delegate=to.executable, error=str(error))
        return host_local.cmd_del(handed_on)


def other(call: Call, to: Delegate, ipam: Mapping[str, JSON], families: Collection[int] = host_local.BOTH) -> bytes:
    """Hand on CHECK, GC or STATUS."""
    handed_on = _with_ipam(call, to, ipam)
    if to.executable:
        return _run(handed_on, to)
    command = call.request.command
    return host_local.cmd_status(handed_on, families) if command == "STATUS" else host_local.COMMANDS[command](handed_on)


def _with_ipam(call: Call, to: Delegate, ipam: Mapping[str, JSON]) -> Call:
    complete = {**ipam, "type": to.type if to.executable else HOST_LOCAL}
    return call._replace(netconf=call.netconf._replace(ipam=complete, raw=call.netconf.with_ipam(complete)))


def _run(call: Call, to: Delegate, command: str = "") -> bytes:
    from kubenode.host import delegate

    environ = {**call.environ, "CNI_COMMAND": command} if command else call.environ
    call.log.debug("handing on", delegate=to.executable, netconf=call.netconf.raw)
    return delegate.run(to.executable, call.netconf.raw, environ)
