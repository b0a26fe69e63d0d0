"""host-local under its own name: the embedded allocator with the reference's error codes and texts (its `main.go`).

docs/reference/host-local.md lists what is different, and the differential tests read that list.
"""

from __future__ import annotations

from kubenode.cni.errors import INCOMPATIBLE_VERSION, IO_FAILURE, NOT_AVAILABLE, TRY_AGAIN_LATER, CNIError
from kubenode.cni.netconf import is_path
from kubenode.plugins import delegation, embedded

TYPE_CHECKING = False
if TYPE_CHECKING:
    from kubenode.plugins.skel import Call, Command

ANY = 999  # the one code that the reference has for errors of its own


def wording(error: CNIError) -> CNIError:
    """Return an error in the reference's words, ours in `details`; programs and test suites compare those.

    A version is refused as libcni does it, details included: the suites of the CNI project's plugins compare all of that.
    """
    if error.code == INCOMPATIBLE_VERSION:
        msg, _, details = error.reference.partition("; ")
        return CNIError(error.code, msg, details)
    if error.reference == error.msg:
        return error
    return CNIError(error.code, error.reference, f"{error.msg}; {error.details}")


def _as_reference(command: Command) -> Command:
    def run(call: Call) -> bytes:
        try:
            return command(call)
        except CNIError as error:
            if error.code in {NOT_AVAILABLE, IO_FAILURE, TRY_AGAIN_LATER}:  # the reference waits for ever
                raise
            raise CNIError(ANY, error.msg, error.details, error.reference) from None

    return run


def _status(call: Call) -> bytes:
    """Say nothing of ranges that only come with a pod, in `runtimeConfig` (CONVENTIONS.md, `ipRanges`): STATUS is asked without."""
    has_own = call.netconf.ipam.get("ranges") or call.netconf.ipam.get("subnet") or call.netconf.raw.get("runtimeConfig")
    return embedded.cmd_status(call) if has_own else b""


def _add(call: Call) -> bytes:
    """Do as the reference does with any path: whoever hands addresses on by us may name what host-local may."""
    ipam = call.netconf.ipam
    path = ipam.get("resolvConf")
    if path and isinstance(path, str) and is_path(path):
        ipam = {**ipam, "resolvConf": call.host.permitted.real(path)}
    return delegation.add(call, OURSELVES, ipam)


OURSELVES = delegation.Delegate(delegation.HOST_LOCAL, "")
COMMANDS = {
    "ADD": _as_reference(_add),
    "DEL": _as_reference(lambda call: delegation.delete(call, delegation.EMBEDDED, call.netconf.ipam)),
    "CHECK": _as_reference(lambda call: delegation.check(call, delegation.EMBEDDED, call.netconf.ipam)),
    "GC": _as_reference(lambda call: delegation.collect(call, delegation.EMBEDDED, call.netconf.ipam)),
    "STATUS": _as_reference(_status),
}
