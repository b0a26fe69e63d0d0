# SPDX-License-Identifier: Apache-2.0
"""host-local under its own name: the embedded allocator with the reference's error codes and messages (its `main.go`).

docs/reference/host-local.md lists all differences, and the differential tests read that list.
"""

from __future__ import annotations

from kubenode.cni.errors import INCOMPATIBLE_VERSION, IO_FAILURE, NOT_AVAILABLE, TRY_AGAIN_LATER, CNIError
from kubenode.cni.netconf import is_path
from kubenode.plugins import delegation, embedded

TYPE_CHECKING = False
if TYPE_CHECKING:
    from kubenode.plugins.skel import Call, Command

ANY = 999  # the reference's only code for its own errors


def wording(error: CNIError) -> CNIError:
    """Return an error in the reference's words, with ours in `details`: programs and test suites compare them.

    For a wrong version the details are libcni's, too: test suites of the CNI plugins compare both.
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
            if error.code in {NOT_AVAILABLE, IO_FAILURE, TRY_AGAIN_LATER}:  # the reference would wait for ever
                raise
            raise CNIError(ANY, error.msg, error.details, error.reference) from None

    return run


def _status(call: Call) -> bytes:
    """Ignore ranges that come only with a pod in `runtimeConfig` (CONVENTIONS.md, `ipRanges`), as STATUS gets none."""
    has_own = call.netconf.ipam.get("ranges") or call.netconf.ipam.get("subnet") or call.netconf.raw.get("runtimeConfig")
    return embedded.cmd_status(call) if has_own else b""


def _add(call: Call) -> bytes:
    """Accept any path, like the reference: a plugin that delegates to us may use the paths that host-local allows."""
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
