# SPDX-License-Identifier: Apache-2.0
"""Embedded allocator as commands: addresses by a host-local configuration, in host-local's files."""

from __future__ import annotations

import os
import time

from kubenode.base import files
from kubenode.base.record import NamedTuple
from kubenode.cni.errors import (
    INVALID_ENVIRONMENT,
    INVALID_NETWORK_CONFIG,
    IO_FAILURE,
    NOT_AVAILABLE,
    NOT_RESERVED,
    RANGE_FULL,
    UNKNOWN_CONTAINER,
    CNIError,
    OutOfReachError,
)
from kubenode.cni.netconf import NetConf, invalid, is_path
from kubenode.cni.result import IPConfig, Result, addresses_in
from kubenode.host.datadir import LAST_RESERVED, LOCK
from kubenode.ipam import allocator, config
from kubenode.ipam.address import parse_address
from kubenode.ipam.families import BOTH
from kubenode.ipam.search import duplicate
from kubenode.ipam.store import DEFAULT_DATA_DIR, RESTING, Attachment
from kubenode.plugins.skel import answer

EARLIER_BOOT = "of an earlier boot"

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from kubenode.cni.request import Request
    from kubenode.ipam.allocator import Addition, Usage
    from kubenode.ipam.store import Reservation, Store
    from kubenode.plugins.skel import Call


class Ready(NamedTuple):
    """Input of an ADD: store, configuration, dns."""

    store: Store
    conf: config.IPAMConfig
    dns: dict[str, object]


def ready(call: Call) -> Ready:
    """Read the input of an ADD. Changes nothing. Raises CNIError if it is invalid."""
    if call.request.container_id.startswith(RESTING):
        problem = f"container ID {call.request.container_id} has the prefix of resting addresses"
        raise CNIError(INVALID_ENVIRONMENT, problem, f"no container ID may begin with {RESTING}")
    store = require_place(call)
    conf = config.load(call.netconf, call.request.pod_args)
    return Ready(store, conf, _dns(call, conf.resolv_conf))


def allocate(call: Call, ready: Ready) -> Addition:
    """Reserve one address of each range set, with the lock held. Raises CNIError."""
    conf = ready.conf
    try:
        return allocator.allocate(ready.store, conf.sets, owner(call.request), conf.requested, conf.exclude, call.request.pod)
    except CNIError as error:
        if error.code != RANGE_FULL:
            raise
        # `msg` stays the reference's.
        raise CNIError(error.code, error.msg, f"network {call.netconf.name} is full on this node: {error.details}") from None


def result(call: Call, ready: Ready, added: Addition) -> bytes:
    """Return an ADD's result for stdout."""
    log_released(call, "without an owner: its file is empty, torn or not host-local's", added.ownerless)
    ips = tuple(IPConfig(a.address.version, f"{a.address}/{a.range.subnet.prefix}", str(a.range.gateway or "")) for a in added.given)
    call.log.info("addresses allocated", ips=[ip.address for ip in ips])
    return answer(Result(ips, ready.conf.routes, ready.dns).render(call.netconf.cni_version))


def require_none(call: Call, store: Store) -> None:
    """Raise CNIError for a second ADD without a DEL (SPEC.md, "ADD"), with the lock held."""
    attachment = owner(call.request)
    for entry in allocator.find(store, attachment):
        if entry.address:
            raise duplicate(entry.address, attachment)


def release(places: Sequence[Call]) -> None:
    """Release the attachment's reservations in each call's directory; none is also a success (SPEC.md, "DEL").

    An error in one does not stop the others. The order is the same in all calls: an agent keeps each lock until its answer.
    """
    by_path = {str(call.netconf.ipam.get("dataDir") or DEFAULT_DATA_DIR): call for call in reversed(places)}
    by_inode: dict[tuple[int, ...], Call] = {}
    for call in by_path.values():
        try:
            by_inode[_inode(call)] = call
        except CNIError as error:
            if error.code != INVALID_NETWORK_CONFIG:
                raise
            call.log.warning("nothing to release: no address can have been allocated there", why=error.msg)
    failure: CNIError | OSError | None = None
    for inode in filter(None, sorted(by_inode)):
        call = by_inode[inode]
        try:
            store = _store(call)
            with store.lock():
                released = allocator.release(store, owner(call.request), _rest(call))
        except (CNIError, OSError) as error:
            failure = failure or error
        else:
            call.log.info("addresses released", ips=[entry.name for entry in released], stickyFor=call.netconf.ipam.get("stickyFor"))
    if failure:
        raise failure


def _rest(call: Call) -> Attachment | None:
    """Return the owner of addresses that rest after this DEL; None if they do not rest."""
    sticky_for = call.netconf.ipam.get("stickyFor")
    if not sticky_for:
        return None
    from kubenode.ipam import resting  # few configurations have it

    seconds = resting.seconds(sticky_for)
    return resting.owner_of(call.request.pod, time.time() + seconds, call.request.ifname) if seconds else None


def _inode(call: Call) -> tuple[int, ...]:
    """Return the identity of a network's directory; () without one, as ADD failed then. Raises CNIError, OSError."""
    _store(call)  # it must be within reach
    try:
        status = os.stat(call.host.path(os.path.join(data_dir(call.netconf) or DEFAULT_DATA_DIR, call.netconf.name)))
    except OSError as error:
        if files.is_nowhere(error):
            return ()
        raise
    return status.st_dev, status.st_ino


def cmd_check(call: Call) -> bytes:
    """Compare the reservations with `prevResult` (SPEC.md, "CHECK")."""
    attachment = owner(call.request)
    store = _store(call)
    with store.lock():
        mine = {entry.address for entry in allocator.find(store, attachment)}
    if not mine:
        raise CNIError(
            UNKNOWN_CONTAINER,
            f"Failed to find address added by container {attachment.container_id}",
            f"nothing is reserved for its interface {attachment.ifname}: the pod must be created again",
            f"host-local: Failed to find address added by container {attachment.container_id}",
        )
    if missing := [
        text for text in _previous_addresses(call.netconf, attachment.ifname) if parse_address(text.partition("/")[0]) not in mine
    ]:
        raise CNIError(
            NOT_RESERVED,
            f"{', '.join(missing)} not reserved for container {attachment.container_id}",
            f"reserved for its interface {attachment.ifname}: {', '.join(sorted(map(str, mine)))}; the pod must be created again",
        )
    return b""


def collect(call: Call, valid: Collection[Attachment], living: Callable[[], Collection[Attachment]]) -> None:
    """Release reservations that are neither valid nor living; `living` is called with the lock held."""
    store = _store(call)
    with store.lock():
        released = allocator.collect(store, {*valid, *living()})
    call.log.info("stale addresses released", ips=[entry.name for entry in released])


def cmd_status(call: Call, families: Collection[int] = BOTH) -> bytes:
    """Raise CNIError 50 if every ADD would fail (SPEC.md, "STATUS"). A full range set is only logged unless `statusWhenFull` is "error".

    A 50 makes the node NotReady, and Kubernetes then evicts its running pods, whose addresses are fine.
    """
    conf = config.load(call.netconf, {})
    require_writable(call)
    require_place(call)
    for one in _usage(call, conf):
        if one.range_set.version in families and one.used >= one.total:
            why = f"all {one.total} are reserved" if one.total else "all of it is closing or excluded"
            full = f"network {call.netconf.name} has no free address in range set {one.range_set}: {why}"
            advice = "delete pods of this node, or give it another subnet"
            if conf.full_is_error:
                raise CNIError(NOT_AVAILABLE, full, advice)
            call.log.warning(full, details=advice)
    return b""


def usage(call: Call) -> list[Usage]:
    """Return the usage of each range set. Changes nothing. Raises CNIError."""
    return _usage(call, config.load(call.netconf, {}))


def _usage(call: Call, conf: config.IPAMConfig) -> list[Usage]:
    store = _store(call)
    if not store.is_there():
        return allocator.unused(conf.sets, conf.exclude)
    with store.lock():
        return allocator.usage(store, conf.sets, conf.exclude)


def owner(request: Request) -> Attachment:
    """Return a request's attachment."""
    return Attachment(request.container_id, request.ifname)


def data_dir(netconf: NetConf) -> str:
    """Return the configured data directory, "" for the default. Raises CNIError 7."""
    configured = netconf.ipam.get("dataDir")
    if configured is None:
        return ""
    if not isinstance(configured, str) or not is_path(configured):
        raise invalid([f"dataDir {configured!r} is not a path"])
    return configured


def require_place(call: Call) -> Store:
    """Return the store for an ADD. Raises CNIError 7 if its directory would be among another network's reservations."""
    configured, name = data_dir(call.netconf), call.netconf.name
    if configured and not configured.startswith("/"):
        raise invalid([f"dataDir {configured!r} is not an absolute path"])
    if parse_address(name) or name == LOCK or name.startswith(LAST_RESERVED):
        raise invalid([f"network name {name!r} is the name of a file in networks' directories"])
    return _store(call)


def directory(call: Call) -> str:
    """Return the host's path of this network's directory."""
    return os.path.normpath(os.path.join(data_dir(call.netconf) or DEFAULT_DATA_DIR, call.netconf.name))


def after_boot(call: Call) -> None:
    """Release reservations of an earlier boot before another plugin uses the files."""
    store = _store(call)
    with store.lock():
        dead = allocator.release_from_earlier_boot(store)
    log_released(call, EARLIER_BOOT, dead)


def require_writable(call: Call, *, by_us: bool = True) -> None:
    """Raise CNIError 50 if no file can be created in this network's directory, or the directory itself. Changes nothing.

    `by_us`: by this process; otherwise by root, which only a file in its place can stop.
    """
    call.host.store(data_dir(call.netconf), call.netconf.name)  # it must be within reach
    path = os.path.abspath(call.host.path(directory(call)))
    while not os.path.lexists(path):
        path = os.path.dirname(path)
    shown = data_dir(call.netconf) or DEFAULT_DATA_DIR
    if not os.path.isdir(path):
        advice = "remove that file, or set dataDir to another directory"
        raise CNIError(NOT_AVAILABLE, f"dataDir {shown} of network {call.netconf.name} is below a file, {path}", advice)
    if by_us and not os.access(path, os.W_OK | os.X_OK):
        advice = "is its file system read-only? Make it writable, or set dataDir to another directory"
        raise OutOfReachError(NOT_AVAILABLE, f"dataDir {shown} of network {call.netconf.name} cannot be written", advice)


def log_released(call: Call, why: str, released: Collection[Reservation]) -> None:
    """Log released reservations, if any."""
    if released:
        call.log.warning("reservations released", why=why, ips=[entry.name for entry in released])


def _store(call: Call) -> Store:
    """Return this network's store; any command may create its directory. Raises CNIError 7 if it must not be there."""
    store = call.host.store(data_dir(call.netconf), call.netconf.name)
    store.require_place()
    return store


def _dns(call: Call, resolv_conf: str) -> dict[str, object]:
    if not resolv_conf:
        return {}
    from kubenode.ipam import resolvconf  # few configurations need it

    try:
        text = files.read_exactly(call.host.permitted.here(resolv_conf), resolvconf.LARGEST)
    except OSError as error:
        problem = f"resolvConf {resolv_conf} cannot be read: {error.strerror}"
        advice = "name a file such as /etc/resolv.conf as resolvConf, or leave it out"
        said = os.strerror(error.errno or 0)
        reference = f"open {resolv_conf}: {said.lower()}" if said == error.strerror else ""  # otherwise our own message
        raise OutOfReachError(IO_FAILURE, problem, advice, reference) from None
    return resolvconf.parse(text.decode(errors="replace"))


def _previous_addresses(netconf: NetConf, ifname: str) -> list[str]:
    """Return the addresses in `prevResult`, of any version, except those that a chained plugin put on other interfaces."""
    previous = netconf.raw.get("prevResult")
    if not isinstance(previous, dict):
        return []
    interfaces, ips = (found if isinstance(found := previous.get(key), list) else [] for key in ("interfaces", "ips"))
    others = [number for number, interface in enumerate(interfaces) if isinstance(interface, dict) and interface.get("name") != ifname]
    return addresses_in({**previous, "ips": [ip for ip in ips if isinstance(ip, dict) and ip.get("interface") not in others]})
