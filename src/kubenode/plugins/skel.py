# SPDX-License-Identifier: Apache-2.0
"""Skeleton of a command: environment and stdin in, exit code and stdout out, after any error.

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
        """Host of a command, as seen from this process. `Standalone` is one, the agent has another."""

        @property
        def execs(self) -> bool:
            """Whether other plugins can run from here."""

        @property
        def permitted(self) -> Permitted:
            """Paths that a network configuration may use on the host, and where to find them here."""

        @property
        def config_dir(self) -> str:
            """The host's directory of the runtime's network configurations; "" for the default one."""

        def path(self, path: str) -> str:
            """Return where to find a path of the host here."""

        def store(self, data_dir: str, network: str) -> Store:
            """Return a network's store in a data directory; "" is the default one."""

        def attachments(self, network: str) -> Attachments:
            """Return a network's records of attachments."""

        def sources(self) -> Sources:
            """Return the sources of addresses and their networks."""

        def may_have(self, netns: str) -> bool:
            """Say whether a network namespace exists, or is not visible from here."""

        def ipv4_label(self, namespace: str, log: Log) -> bool | None:
            """Say whether a namespace's label gives its pods IPv4; None without a label, or if unknown here. Sends no request."""

        def node(self, options: NodeOptions, choose: Callable[[Node], T], log: Log) -> T:
            """Return the result of `choose` on our Node. Raises CNIError."""

        def wait_for_more(self, full: CNIError, annotation: str, choose: Callable[[Node], T], had: T) -> None:
            """Wait until `choose` has another result than `had`: a controller may give the node more. Raises `full` if none comes."""


LONGEST = 1 << 20  # bytes of a network configuration
NOT_HERE = 2  # exit code of a call that must run in the runtime's environment; stdout: the error if it cannot


class NotHereError(Exception):
    """Error: only the runtime's own environment can run a plugin. The agent returns the call."""


class Call(NamedTuple):
    """One call of a plugin, parsed."""

    request: Request
    netconf: NetConf
    environ: Mapping[str, str]
    log: Log
    host: Host


def as_it_is(error: CNIError) -> CNIError:
    """Return an error unchanged, as most plugins answer it."""
    return error


def run(
    commands: Mapping[str, Command],
    environ: Mapping[str, str],
    stdin: bytes,
    log: Log,
    host: Host,
    wording: Callable[[CNIError], CNIError] = as_it_is,
) -> tuple[int, bytes]:
    """Run one call; return exit code and stdout. Raises nothing except what ends a process.

    `wording` turns an error into the plugin's answer; the log has the original one.
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
            # Old runtimes send no stdin.
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
        # The runtime's plugin may succeed where the agent cannot write, has no access or no descriptors. By now the ADD's reservations are
        # released; or the attachment already had an address, and the next plugin refuses a second ADD.
        text = f"{error.strerror or error}: {error.filename}" if error.filename else str(error)
        failure = OutOfReachError(IO_FAILURE, text, _advice(error, host, data_dir))
        log.error(failure.msg, code=failure.code, details=failure.details)
        return _failed(host, failure, failure.as_object(cni_version))
    except Exception as error:  # noqa: BLE001 -- the runtime needs an error object, also for our bugs
        import traceback  # needed only here

        log.error("internal error", error=repr(error), traceback=traceback.format_exc())
        return 1, answer(
            CNIError(INTERNAL, f"internal error: {error!r}", "a fault in the plugin: please report it with its log").as_object(cni_version)
        )


def _version_in(stdin: bytes) -> str:
    """Return the version for an error that occurs before stdin is parsed."""
    try:
        return netconf.cni_version(netconf.decode(stdin))
    except CNIError:
        return versions.LATEST


def _require_bounds(stdin: bytes) -> None:
    if len(stdin) > LONGEST:
        raise netconf.invalid([f"the network configuration has {len(stdin)} bytes, more than {LONGEST}"])


def _failed(host: Host, error: CNIError, shown: Mapping[str, object]) -> tuple[int, bytes]:
    """Return a failed call's exit code and stdout. An agent leaves what it cannot reach to the runtime's plugin."""
    here = host.execs or not isinstance(error, OutOfReachError)
    return 1 if here else NOT_HERE, answer(shown)


def answer(value: Mapping[str, object]) -> bytes:
    """Return a result or an error object as text for stdout."""
    return dumps(value).encode() + b"\n"


def _advice(error: OSError, host: Host, data_dir: str) -> str:
    """Return the advice for a file error; another dataDir helps only against an error in it."""
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
