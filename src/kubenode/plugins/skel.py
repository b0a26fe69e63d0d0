"""The frame of a command: environment and stdin in, an exit code and stdout out, whatever goes wrong between.

The order is libcni's: environment, stdin, network configuration, version, command. Nothing here or below ends the process.
"""

from __future__ import annotations

from kubenode.base.jsontext import dumps
from kubenode.base.record import NamedTuple
from kubenode.cni import netconf, request, versions
from kubenode.cni.errors import INTERNAL, IO_FAILURE, CNIError, OutOfReachError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Protocol, TypeVar

    from kubenode.base.log import Log
    from kubenode.cni.netconf import NetConf
    from kubenode.cni.request import Request
    from kubenode.host.attachments import Attachments
    from kubenode.host.permitted import Permitted
    from kubenode.host.sources import Sources
    from kubenode.ipam.store import Store
    from kubenode.nodes.node import Node
    from kubenode.plugins.standalone import NodeOptions

    Command = Callable[["Call"], bytes]
    T = TypeVar("T")

    class Host(Protocol):
        """The host that a command acts on, as it is reached from this process. `Standalone` is one, the agent has another."""

        @property
        def execs(self) -> bool:
            """Whether other plugins can be run from here."""

        @property
        def permitted(self) -> Permitted:
            """Paths that a network configuration may name on the host, and where they are found from here."""

        def path(self, path: str) -> str:
            """Return where a path of the host is found from here."""

        def store(self, data_dir: str, network: str) -> Store:
            """Return a network's reservations in a data directory; "" is the default one."""

        def attachments(self, network: str) -> Attachments:
            """Return the records of a network's attachments."""

        def sources(self) -> Sources:
            """Return which network has which source of addresses."""

        def may_have(self, netns: str) -> bool:
            """Say whether a network namespace is there, or cannot be seen from here."""

        def ipv4_label(self, namespace: str, log: Log) -> bool | None:
            """Say whether a namespace's label gives its pods IPv4; None where no label does, or none is known here. Asks nobody."""

        def node(self, options: NodeOptions, choose: Callable[[Node], T], log: Log) -> T:
            """Return what `choose` finds in our Node. Raises CNIError."""


LONGEST = 1 << 20  # bytes of a network configuration
NOT_HERE = 2  # the exit code of a call that has to be made in the runtime's own environment; stdout: the error where it cannot be


class NotHereError(Exception):
    """Only the runtime's own environment can do this: a plugin that is to be run there. The agent hands it back."""


class Call(NamedTuple):
    """One call of a plugin, parsed."""

    request: Request
    netconf: NetConf
    environ: Mapping[str, str]
    log: Log
    host: Host


def as_it_is(error: CNIError) -> CNIError:
    """Return an error as it was raised, which is how most plugins answer."""
    return error


def run(
    commands: Mapping[str, Command],
    environ: Mapping[str, str],
    stdin: bytes,
    log: Log,
    host: Host,
    wording: Callable[[CNIError], CNIError] = as_it_is,
) -> tuple[int, bytes]:
    """Carry out one call: return its exit code and what belongs on stdout. Raises nothing but what ends a process.

    `wording` makes of an error what the plugin answers; the log has it as it is.
    """
    cni_version = versions.LATEST
    data_dir = ""
    try:
        try:
            asked = request.parse(environ)
        except CNIError:
            cni_version = _version_in(stdin)
            raise
        if asked.command == "VERSION":
            # Old runtimes send nothing here.
            raw = netconf.decode(stdin) if stdin.strip() else {}
            return 0, answer(versions.answer(netconf.cni_version(raw) if raw.get("cniVersion") else versions.LATEST))
        raw = netconf.decode(stdin)
        log.bind(network=name if isinstance(name := raw.get("name"), str) else "")
        cni_version = netconf.cni_version(raw)
        if asked.command == "ADD":  # GC lists all attachments, and a DEL is never refused
            _require_bounds(stdin)
        conf = netconf.parse(raw)
        data_dir = str(conf.ipam.get("dataDir") or "")
        versions.require(cni_version, asked.command)
        return 0, commands[asked.command](Call(asked, conf, environ, log, host))
    except NotHereError:
        return NOT_HERE, b""
    except CNIError as error:
        log.error(error.msg, code=error.code, details=error.details)
        return _failed(host, error, wording(error).as_object(cni_version))
    except OSError as error:
        # A system that is read-only to an agent, or closed, or that gives it no more files, need not be so to the runtime's plugin. What an
        # ADD has reserved is released by now, or it is an ADD twice to whoever comes next, which gives nothing.
        text = f"{error.strerror or error}: {error.filename}" if error.filename else str(error)
        failure = OutOfReachError(IO_FAILURE, text, _advice(error, host, data_dir))
        log.error(failure.msg, code=failure.code, details=failure.details)
        return _failed(host, failure, failure.as_object(cni_version))
    except Exception as error:  # noqa: BLE001 -- the runtime needs an error object, also for our own faults
        import traceback  # only ever needed here

        log.error("internal error", error=repr(error), traceback=traceback.format_exc())
        return 1, answer(
            CNIError(INTERNAL, f"internal error: {error!r}", "a fault in the plugin: please report it with its log").as_object(cni_version)
        )


def _version_in(stdin: bytes) -> str:
    """Return the version that an error has which comes before stdin is looked at."""
    try:
        return netconf.cni_version(netconf.decode(stdin))
    except CNIError:
        return versions.LATEST


def _require_bounds(stdin: bytes) -> None:
    if len(stdin) > LONGEST:
        raise netconf.invalid([f"the network configuration has {len(stdin)} bytes, more than {LONGEST}"])


def _failed(host: Host, error: CNIError, shown: Mapping[str, object]) -> tuple[int, bytes]:
    """Return a failed call's exit code and stdout. An agent leaves to others what it cannot reach."""
    here = host.execs or not isinstance(error, OutOfReachError)
    return 1 if here else NOT_HERE, answer(shown)


def answer(value: Mapping[str, object]) -> bytes:
    """Return a result or an error object as it goes to stdout."""
    return dumps(value).encode() + b"\n"


def _advice(error: OSError, host: Host, data_dir: str) -> str:
    """Return what to do about a file: another dataDir is a way out only of what is wrong there."""
    import errno
    import os

    from kubenode.ipam.store import DEFAULT_DATA_DIR

    path, directory = os.fsdecode(error.filename or "") + "/", host.path(data_dir or DEFAULT_DATA_DIR) + "/"
    within = path == "/" or path.startswith(directory) or directory.startswith(path)
    elsewhere = ", or set dataDir to another" if within else ""
    return {
        errno.ENOSPC: f"the disk is full: make room{elsewhere}",
        errno.EROFS: f"the file system is read-only: {'set dataDir to a directory that can be written' if within else 'mount it writable'}",
        errno.EACCES: "no permission: the plugin runs as root in a cluster",
        errno.ENOTDIR: f"there is a file where a directory should be: remove it{elsewhere}",
        errno.EISDIR: "there is a directory where a file should be: remove it",
    }.get(error.errno or 0, "check dataDir" if within else "check that file")
