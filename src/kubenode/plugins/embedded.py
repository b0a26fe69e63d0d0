"""The embedded allocator as commands: addresses from a host-local configuration, over host-local's files."""

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
from kubenode.cni.request import pod_of
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
    """All that an ADD goes by: reservations, configuration, dns."""

    store: Store
    conf: config.IPAMConfig
    dns: dict[str, object]


def ready(call: Call) -> Ready:
    """Read all that an ADD goes by. Makes nothing. Raises CNIError where there is none."""
    if call.request.container_id.startswith(RESTING):
        problem = f"container ID {call.request.container_id} begins as that of an address that rests"
        raise CNIError(INVALID_ENVIRONMENT, problem, f"no container may be called {RESTING}…")
    store = require_place(call)
    conf = config.load(call.netconf, call.request.pod_args)
    return Ready(store, conf, _dns(call, conf.resolv_conf))


def allocate(call: Call, ready: Ready) -> Addition:
    """Reserve one address of each range set, with the lock held. Raises CNIError."""
    conf = ready.conf
    try:
        return allocator.allocate(ready.store, conf.sets, owner(call.request), conf.requested, conf.exclude, pod_of(call.environ))
    except CNIError as error:
        if error.code != RANGE_FULL:
            raise
        # `msg` stays as the reference has it.
        raise CNIError(error.code, error.msg, f"network {call.netconf.name} is full on this node: {error.details}") from None


def result(call: Call, ready: Ready, added: Addition) -> bytes:
    """Return an ADD's result as it goes to stdout."""
    log_released(call, "without an owner: its file is empty, torn or not host-local's", added.ownerless)
    ips = tuple(IPConfig(a.address.version, f"{a.address}/{a.range.subnet.prefix}", str(a.range.gateway or "")) for a in added.given)
    call.log.info("addresses allocated", ips=[ip.address for ip in ips])
    return answer(Result(ips, ready.conf.routes, ready.dns).render(call.netconf.cni_version))


def require_none(call: Call, store: Store) -> None:
    """Raise CNIError for a second ADD without a DEL between (SPEC.md, "ADD"), with the lock held."""
    attachment = owner(call.request)
    for entry in allocator.find(store, attachment):
        if entry.address:
            raise duplicate(entry.address, attachment)


def release(places: Sequence[Call]) -> None:
    """Release what is reserved for the attachment in each of these calls' directories; nothing is a success too (SPEC.md, "DEL").

    A failure in one stops none of the others. The order is the same for all that do so: an agent keeps each lock until it has answered.
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
    """Return for whom addresses are to rest after this DEL; None where they are not to."""
    sticky_for = call.netconf.ipam.get("stickyFor")
    if not sticky_for:
        return None
    from kubenode.ipam import resting  # few configurations have it

    seconds = resting.seconds(sticky_for)
    return resting.owner_of(pod_of(call.environ), time.time() + seconds, call.request.ifname) if seconds else None


def _inode(call: Call) -> tuple[int, ...]:
    """Return what tells a network's directory from all others; nothing where there is none: ADD has failed. Raises CNIError, OSError."""
    _store(call)  # which has to be within reach
    try:
        status = os.stat(call.host.path(os.path.join(data_dir(call.netconf) or DEFAULT_DATA_DIR, call.netconf.name)))
    except OSError as error:
        if files.is_nowhere(error):
            return ()
        raise
    return status.st_dev, status.st_ino


def cmd_check(call: Call) -> bytes:
    """Compare what is reserved with what the runtime believes (SPEC.md, "CHECK")."""
    attachment = owner(call.request)
    store = _store(call)
    with store.lock():
        mine = {entry.address for entry in allocator.find(store, attachment)}
    if not mine:
        raise CNIError(
            UNKNOWN_CONTAINER,
            f"Failed to find address added by container {attachment.container_id}",
            f"nothing is reserved for its interface {attachment.ifname}: the pod must be created anew",
            f"host-local: Failed to find address added by container {attachment.container_id}",
        )
    if missing := [
        text for text in _previous_addresses(call.netconf, attachment.ifname) if parse_address(text.partition("/")[0]) not in mine
    ]:
        raise CNIError(
            NOT_RESERVED,
            f"{', '.join(missing)} not reserved for container {attachment.container_id}",
            f"reserved for its interface {attachment.ifname}: {', '.join(sorted(map(str, mine)))}; the pod must be created anew",
        )
    return b""


def collect(call: Call, valid: Collection[Attachment], living: Callable[[], Collection[Attachment]]) -> None:
    """Release what is neither valid nor among the living, who are asked for with the lock held."""
    store = _store(call)
    with store.lock():
        released = allocator.collect(store, {*valid, *living()})
    call.log.info("stale addresses released", ips=[entry.name for entry in released])


def cmd_status(call: Call, families: Collection[int] = BOTH) -> bytes:
    """Raise CNIError 50 where every ADD would fail (SPEC.md, "STATUS"). A full range set is only told, unless `statusWhenFull` is "error".

    A runtime makes the node NotReady for a 50, and Kubernetes then evicts the pods that run there, whose addresses are all right.
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
    """Return how many addresses each range set has and how many are taken. Makes nothing. Raises CNIError."""
    return _usage(call, config.load(call.netconf, {}))


def _usage(call: Call, conf: config.IPAMConfig) -> list[Usage]:
    store = _store(call)
    if not store.is_there():
        return allocator.unused(conf.sets, conf.exclude)
    with store.lock():
        return allocator.usage(store, conf.sets, conf.exclude)


def owner(request: Request) -> Attachment:
    """Return the attachment that a request is for."""
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
    """Return where an ADD is to reserve. Raises CNIError 7 where this network's reservations would be among another's."""
    configured, name = data_dir(call.netconf), call.netconf.name
    if configured and not configured.startswith("/"):
        raise invalid([f"dataDir {configured!r} is not an absolute path"])
    if parse_address(name) or name == LOCK or name.startswith(LAST_RESERVED):
        raise invalid([f"network name {name!r} is what a file of a network's directory is called"])
    return _store(call)


def directory(call: Call) -> str:
    """Return the host's path of the directory with this network's reservations."""
    return os.path.normpath(os.path.join(data_dir(call.netconf) or DEFAULT_DATA_DIR, call.netconf.name))


def after_boot(call: Call) -> None:
    """Release what is of an earlier boot, where another plugin is about to use the files."""
    store = _store(call)
    with store.lock():
        dead = allocator.release_from_earlier_boot(store)
    log_released(call, EARLIER_BOOT, dead)


def require_writable(call: Call, *, by_us: bool = True) -> None:
    """Raise CNIError 50 where no file can be made in this network's directory, nor the directory where there is none yet. Makes nothing.

    `by_us`: by this process; else by root, who is kept from it only by a file in the way.
    """
    call.host.store(data_dir(call.netconf), call.netconf.name)  # which has to be within reach
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
    if released:
        call.log.warning("reservations released", why=why, ips=[entry.name for entry in released])


def _store(call: Call) -> Store:
    """Return this network's reservations, of which any command may make the directory. Raises CNIError 7 where that must not be."""
    store = call.host.store(data_dir(call.netconf), call.netconf.name)
    store.require_place()
    return store


def _dns(call: Call, resolv_conf: str) -> dict[str, object]:
    if not resolv_conf:
        return {}
    from kubenode.ipam import resolvconf  # few configurations have it

    try:
        text = files.read_exactly(call.host.permitted.here(resolv_conf), resolvconf.LARGEST)
    except OSError as error:
        problem = f"resolvConf {resolv_conf} cannot be read: {error.strerror}"
        advice = "name a file such as /etc/resolv.conf as resolvConf, or leave it out"
        said = os.strerror(error.errno or 0)
        reference = f"open {resolv_conf}: {said.lower()}" if said == error.strerror else ""  # else it is ours, of what we do not read
        raise OutOfReachError(IO_FAILURE, problem, advice, reference) from None
    return resolvconf.parse(text.decode(errors="replace"))


def _previous_addresses(netconf: NetConf, ifname: str) -> list[str]:
    """Return the addresses of `prevResult`, in any version's shape, but for those that a chained plugin has put on other interfaces."""
    previous = netconf.raw.get("prevResult")
    if not isinstance(previous, dict):
        return []
    interfaces, ips = (found if isinstance(found := previous.get(key), list) else [] for key in ("interfaces", "ips"))
    others = [number for number, interface in enumerate(interfaces) if isinstance(interface, dict) and interface.get("name") != ifname]
    return addresses_in({**previous, "ips": [ip for ip in ips if isinstance(ip, dict) and ip.get("interface") not in others]})
