# SPDX-License-Identifier: Apache-2.0
"""Delegation of a call with known ranges to the embedded allocator, or to another IPAM plugin on the same files.

ADD passes on the ranges that it found. DEL, CHECK and GC pass on those of the ADD: they never need the Node.
"""

from __future__ import annotations

from kubenode.base.jsontext import JSONTextError, loads
from kubenode.base.record import NamedTuple
from kubenode.cni.errors import DELEGATE_MISSING, INVALID_NETWORK_CONFIG, NOT_AVAILABLE, CNIError
from kubenode.cni.netconf import invalid
from kubenode.cni.result import addresses_in
from kubenode.ipam import allocator
from kubenode.ipam.families import BOTH
from kubenode.ipam.ranges import NO_GATEWAY
from kubenode.ipam.search import closing
from kubenode.plugins import attached, embedded
from kubenode.plugins.skel import NotHereError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from kubenode.base.jsontext import JSON
    from kubenode.plugins.skel import Call

EMBEDDED = "embedded"
HOST_LOCAL = "host-local"
NO_CONNECTIVITY = 51  # the specification's second error of STATUS, possible from a delegate
# Without a record of the ADD: host-local needs valid ranges even for commands that use none (RFC 5737, RFC 3849).
NOTHING: Mapping[str, JSON] = {}
ANY_RANGES: list[JSON] = [[{"subnet": "192.0.2.0/24"}], [{"subnet": "2001:db8::/64"}]]


class Delegate(NamedTuple):
    """Plugin that gets a call: its type, and its executable or "" for the embedded allocator."""

    type: str
    executable: str

    @property
    def keeps_our_files(self) -> bool:
        """Say whether the plugin uses host-local's files."""
        return self.type == HOST_LOCAL


def choose(call: Call, name: str, ipam: Mapping[str, JSON] = NOTHING) -> Delegate:
    """Return the delegate with this name, which may be an administrator's path; "" for the embedded allocator.

    The agent runs no other plugins. Raises CNIError, NotHereError.
    """
    if name in {"", EMBEDDED}:
        return Delegate(HOST_LOCAL, "")
    if ours := [key for key in ("exclude", "stickyFor") if ipam.get(key)]:  # no other plugin knows them
        raise invalid([f"{ours[0]} is not known to delegate {name}; it needs embedded"])
    if any(one.get("gateway") == NO_GATEWAY for one in _ranges(ipam)):
        raise invalid([f"a range without a gateway (via none) is not known to delegate {name}; it needs embedded"])
    if not call.host.execs:
        raise NotHereError
    from kubenode.host import delegate  # not on the hot path

    executable = delegate.require(name, call.request.path)
    kind = name.rpartition("/")[2]
    return Delegate(kind, "" if kind == HOST_LOCAL and delegate.is_ours(executable) else executable)


def _choose_for_release(call: Call, name: str) -> Delegate:
    """Do the same for a command that works without host-local's executable. Raises CNIError if another plugin is missing."""
    if not call.host.execs and name.rpartition("/")[2] == HOST_LOCAL:
        return Delegate(HOST_LOCAL, "")
    try:
        return choose(call, name)
    except CNIError as error:
        if error.code != DELEGATE_MISSING or name.rpartition("/")[2] != HOST_LOCAL:
            raise
        return Delegate(HOST_LOCAL, "")


def add(call: Call, to: Delegate, ipam: dict[str, JSON], source: str = "") -> bytes:
    """Add addresses by this `ipam`; return the result for stdout. Raises CNIError, and then nothing stays reserved.

    `source`: the source of the ranges, which no other network may use.
    """
    if to.executable:
        return _add_by_plugin(call, to, _with_ipam(call, to, _without_closing(ipam)), source)
    given_on = _with_ipam(call, to, ipam)
    ready = embedded.ready(given_on)
    # The lock is held during all of it: while an agent is stopped, the pod's DEL may pass before this call continues or is refused.
    with ready.store.lock():
        # Before there is a record, which would make an earlier boot's reservation of the container look current.
        dead = allocator.release_from_earlier_boot(ready.store)
        before = attached.noted(call)  # from a first ADD, whose addresses may be in another dataDir
        has_addresses = before is not None and bool(allocator.find(ready.store, embedded.owner(call.request)))
        try:
            if source:
                _take(call, given_on, source)
            if not has_addresses:
                attached.note(call, given_on.netconf.ipam, "")
            added = embedded.allocate(given_on, ready)
            if has_addresses:  # not before: until this ADD has its addresses, DEL needs the first ADD's record
                attached.note(call, given_on.netconf.ipam, "")
        except BaseException:  # the deadline's signal, too
            if not has_addresses:
                attached.put_back(call, before)
            raise
    embedded.log_released(call, embedded.EARLIER_BOOT, dead)
    return embedded.result(given_on, ready, added)


def _add_by_plugin(call: Call, to: Delegate, given_on: Call, source: str) -> bytes:
    """Let another plugin reserve the addresses; if that fails, undo its work."""
    if to.keeps_our_files:
        embedded.require_place(given_on)
        embedded.after_boot(given_on)  # before there is a record, as in `add`
    before = attached.noted(call)
    if before and to.keeps_our_files:
        store = embedded.require_place(given_on)
        with store.lock():
            embedded.require_none(given_on, store)  # the DEL after a delegate's refusal would release the pod's addresses
    try:
        if source and to.keeps_our_files:
            _take(call, given_on, source)
        attached.note(call, given_on.netconf.ipam, to.executable)
        result = _run(given_on, to)
        if source and to.keeps_our_files:
            _take(call, given_on, source)  # again: another network may have taken it before host-local had the lock
    except (CNIError, OSError):
        _undo(given_on, to)
        attached.put_back(call, before)
        raise
    call.log.info("addresses allocated", ips=_given(result), delegate=to.executable)
    return result


def delete(call: Call, name: str, ipam: Mapping[str, JSON]) -> bytes:
    """Release the attachment's addresses by the plugin of its ADD; without a record, by the delegate `name`.

    Files of host-local can be released without host-local; those in the configured directory are, too.
    """
    configured = {"ranges": ANY_RANGES, **ipam}
    to, known = _given_by(call, attached.handed_on(call), name, configured)
    given_on = _with_ipam(call, to, known)
    if to.executable:
        try:
            _run(given_on, to)
        except CNIError as error:
            if not to.keeps_our_files:
                raise
            call.log.warning("DEL of the delegate failed: releasing without it", delegate=to.executable, error=str(error))
        else:
            call.log.info("addresses released", delegate=to.executable)
    places = [given_on] if to.keeps_our_files else []
    if known is not configured:
        places.append(_with_ipam(call, to, configured))
    embedded.release(places)
    attached.forget(call)
    return b""


def check(call: Call, name: str, ipam: Mapping[str, JSON]) -> bytes:
    """Let the plugin of the ADD check the addresses, and compare them with `prevResult`, which host-local does not."""
    to, known = _given_by(call, attached.handed_on(call), name, {"ranges": ANY_RANGES, **ipam})
    given_on = _with_ipam(call, to, known)
    if to.executable:
        _run(given_on, to)
    return embedded.cmd_check(given_on) if to.keeps_our_files else b""


def collect(call: Call, name: str, ipam: Mapping[str, JSON]) -> bytes:
    """Release stale reservations (SPEC.md, "GC") in all places of this network. host-local itself never does.

    An error in one place does not stop the others, and is raised at the end.
    """
    valid = attached.valid_attachments(call.netconf)
    # Before any release: while an agent is stopped, the runtime's GC passes without it, and new pods start.
    gone, living = attached.parted(call, valid) if valid is not None else ([], [])
    for attachment in living:
        call.log.warning(
            "GC does not list an attachment whose network namespace exists: kept", of=attachment.container_id, its=attachment.ifname
        )
    call = attached.listing(call, living)
    configured = {"ranges": ANY_RANGES, **ipam}
    failure: CNIError | OSError | None = None
    done: list[tuple[str, str]] = []
    for given in (None, *attached.all_handed_on(call)):
        try:
            to, known = _given_by(call, given, name, configured)
            if (place := (to.type, str(known.get("dataDir") or ""))) in done:
                continue
            done.append(place)
            given_on = _with_ipam(call, to, known)
            if to.executable:
                _run(given_on, to)
            if to.keeps_our_files and valid is not None:
                embedded.collect(given_on, {*valid, *living}, lambda listed=valid: attached.parted(call, listed)[1])  # type: ignore[misc]
        except (CNIError, OSError) as error:
            call.log.error("GC failed for one data directory", error=str(error))
            failure = failure or error
    if failure:
        raise failure
    attached.forget_all(call, gone)
    return b""


def status(call: Call, to: Delegate, ipam: Mapping[str, JSON], families: Collection[int] = BOTH) -> bytes:
    """Raise CNIError if an ADD would fail now."""
    given_on = _with_ipam(call, to, ipam)
    if to.executable:
        _run(given_on, to)
    return embedded.cmd_status(given_on, families) if to.keeps_our_files else b""


def resolved(call: Call, ipam: Mapping[str, JSON]) -> Call:
    """Return the call as a plugin with host-local's files would get it."""
    return _with_ipam(call, Delegate(HOST_LOCAL, ""), ipam)


def not_available(error: CNIError) -> CNIError:
    """Turn an ADD's error into an answer to STATUS (SPEC.md, "STATUS")."""
    if error.code in {INVALID_NETWORK_CONFIG, NOT_AVAILABLE, NO_CONNECTIVITY}:
        return error
    return type(error)(NOT_AVAILABLE, error.msg, error.details)


def _take(call: Call, given_on: Call, source: str) -> None:
    """Assign a source of addresses to this network. Raises CNIError if another network has it."""
    mine = embedded.directory(given_on)
    try:
        if call.host.sources().holder(source) != mine:
            from kubenode.plugins import contest  # needed only before a network's first ADD of a boot

            contest.settle(call, source, mine)
    except OSError as error:
        call.log.warning("cannot note the network of an address source", source=source, error=str(error))


def _given_by(
    call: Call, given: tuple[dict[str, JSON], str] | None, name: str, configured: dict[str, JSON]
) -> tuple[Delegate, dict[str, JSON]]:
    """Return the plugin of the ADD and its `ipam`: from the record, or else as configured. Raises CNIError, NotHereError."""
    if given is None:
        return _choose_for_release(call, name), configured
    ipam, executable = given
    kind = str(ipam.get("type") or HOST_LOCAL)
    if kind == HOST_LOCAL:
        return _choose_for_release(call, name if name.rpartition("/")[2] in {"", EMBEDDED, HOST_LOCAL} else EMBEDDED), ipam
    try:
        return _choose_for_release(call, executable or kind), ipam
    except CNIError:  # the executable may have moved
        return _choose_for_release(call, kind), ipam


def _given(stdout: bytes) -> list[str]:
    """Return the addresses of a delegate's result."""
    try:
        return addresses_in(loads(stdout))
    except JSONTextError:
        return []


def _undo(call: Call, to: Delegate) -> None:
    """Call DEL after a failed ADD (SPEC.md, "Delegated Plugin Execution Procedure")."""
    try:
        _run(call, to, command="DEL")
    except CNIError as error:
        call.log.warning("DEL after the failed ADD failed", delegate=to.executable, error=str(error))


def _ranges(ipam: Mapping[str, JSON]) -> list[dict[str, JSON]]:
    """Return the ranges of all range sets, skipping invalid ones."""
    sets = ipam.get("ranges")
    found = [one for ranges in (sets if isinstance(sets, list) else ()) if isinstance(ranges, list) for one in ranges]
    return [one for one in found if isinstance(one, dict)]


def _without_closing(ipam: dict[str, JSON]) -> dict[str, JSON]:
    """Return an `ipam` without closing ranges, as no other plugin knows `closing`. Raises CNIError."""
    if not any(one.get("closing") for one in _ranges(ipam)):
        return ipam
    sets = [([one for one in ranges if not one.get("closing")], ranges) for ranges in ipam["ranges"]]
    for left, ranges in sets:
        if not left:
            raise closing(", ".join(f"{one.get('rangeStart', one['subnet'])} closing" for one in ranges))
    return {**ipam, "ranges": [left for left, _ in sets]}


def _with_ipam(call: Call, to: Delegate, ipam: Mapping[str, JSON]) -> Call:
    complete = {**ipam, "type": to.type}
    return call._replace(netconf=call.netconf._replace(ipam=complete, raw=call.netconf.with_ipam(complete)))


def _run(call: Call, to: Delegate, command: str = "") -> bytes:
    from kubenode.host import delegate

    environ = {**call.environ, "CNI_COMMAND": command} if command else call.environ
    call.log.debug("calling the delegate", delegate=to.executable, netconf=call.netconf.raw)
    return delegate.run(to.executable, call.netconf.raw, environ, call.log.pass_on)
