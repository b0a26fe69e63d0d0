# SPDX-License-Identifier: Apache-2.0
"""Options of both plugins in `ipam`, read once; issues are collected, so that the operator sees all of them."""

from __future__ import annotations

from kubenode.base.log import STREAMS
from kubenode.base.record import NamedTuple
from kubenode.cni.errors import CNIError
from kubenode.cni.netconf import invalid, is_path, json_type
from kubenode.ipam import config
from kubenode.plugins.standalone import REFRESH_AFTER, NodeOptions

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from kubenode.base.jsontext import JSON
    from kubenode.plugins.skel import Call, Host


LONGEST = 1e9  # seconds, more than anybody needs


class Options:
    """Typed values from an object. A value of a wrong type, or one that is not allowed, counts as absent and adds an issue.

    `administrators`: keys from the administrator's own file, which may name any path.
    """

    def __init__(self, source: Mapping[str, JSON], administrators: Collection[str] = ()) -> None:
        self._source = source
        self._administrators = administrators
        self.issues: list[str] = []
        self.refused: CNIError | None = None
        self._read: set[str] = set()

    def text(self, key: str, *, may_be_empty: bool = True, for_others: bool = False) -> str:
        """Return a string, "" if absent; `for_others` leaves a valid one among the other keys."""
        value = self._source.get(key)
        if value is None:
            issue = ""
        elif not isinstance(value, str):
            issue = f"{key} is a JSON {json_type(value)}, not a string"
        elif not is_path(value):
            issue = f"{key} {value!r} has a control character, or half a character"
        else:
            issue = "" if value or may_be_empty else f"{key} is empty"
        if issue and issue not in self.issues:
            self.issues.append(issue)
        if issue or not for_others:
            self._read.add(key)
        return "" if issue else value or ""

    def path(self, key: str, host: Host) -> str:
        """Return where to find a path of the host here, with its links resolved; "" if absent or not allowed."""
        path = self.text(key)
        if not path:
            return ""
        permitted = host.permitted
        try:
            return permitted.here(permitted.real(path) if key in self._administrators else permitted.require(key, path))
        except CNIError as error:  # it must not stop a release
            self.refused = self.refused or error
            return ""

    def is_administrators(self, key: str) -> bool:
        """Say whether a key comes from the administrator's own file."""
        return key in self._administrators

    def plugin(self, key: str) -> str:
        """Return the name of a plugin. Only the last part of a path counts: a configuration must not choose what runs on the host."""
        name = self.text(key, may_be_empty=False)
        if "/" in name:
            self.issues.append(f"{key} {name!r} is a path: give the name of a plugin in CNI_PATH")
        return name.rpartition("/")[2]

    def seconds(self, key: str, default: float) -> float:
        """Return a number of seconds."""
        value = self._take(key)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= LONGEST:
            self.issues.append(f"{key} is {value!r}, not a number of seconds")
            return default
        return float(value)

    def names(self, key: str) -> tuple[str, ...] | None:
        """Return a list of strings, None if absent."""
        value = self._take(key)
        if value is None:
            return None
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            self.issues.append(f"{key} is {value!r}, not a list of strings")
            return ()
        if len(value) > config.MOST:
            self.issues.append(f"{key} has {len(value)} names, more than {config.MOST}")
            return ()
        return tuple(value)

    def level(self, key: str) -> str:
        """Return a log level, a name or a number."""
        value = self._take(key)
        if isinstance(value, bool) or not isinstance(value, (str, int, type(None))):
            self.issues.append(f"{key} is {value!r}, neither info, debug, trace nor a number")
            return ""
        return "" if value is None else str(value)

    def others(self) -> dict[str, JSON]:
        """Return the keys that nobody read: they are for the delegate."""
        return {key: value for key, value in self._source.items() if key not in self._read}

    def _take(self, key: str) -> JSON:
        self._read.add(key)
        return self._source.get(key)


class Common(NamedTuple):
    """Keys of `ipam` that both plugins have; `trusted`: the administrator's own file names the kubeconfig."""

    node: NodeOptions
    annotation: str
    delegate: str
    trusted: bool

    @property
    def source(self) -> str:
        """The source of the addresses, which no other network may use."""
        return source_of(self.annotation, self.node.node_file_label)

    def permitted(self, host: Host) -> Common:
        """Return the same with this process's paths. Raises CNIError for a path that the administrator does not allow."""
        kubeconfig, node_file = self.node.kubeconfig, self.node.node_file_label
        if kubeconfig and not self.trusted:
            host.permitted.require("kubeconfig", kubeconfig)  # used as written: its files are relative to its links, too
        if not node_file:
            return self
        here = host.permitted.here(host.permitted.require("nodeFile", node_file))
        return self._replace(node=self.node._replace(node_file=here))


def source_of(annotation: str, node_file: str) -> str:
    """Return the source of addresses for these keys."""
    source = f"annotation {annotation}" if annotation else "spec.podCIDRs"
    return f"{source} of {node_file}" if node_file else source


def common(call: Call, options: Options) -> Common:
    """Read the keys of both plugins, and configure the log."""
    log = options.text("logfile")
    call.log.configure(log if log in STREAMS else options.path("logfile", call.host), options.level("loglevel"))
    options.text("type")
    options.text("dataDir", for_others=True)
    return Common(
        NodeOptions(options.text("kubeconfig"), "", options.text("nodeFile"), options.seconds("refreshAfter", REFRESH_AFTER)),
        options.text("annotation", may_be_empty=False),
        options.plugin("delegate"),
        options.is_administrators("kubeconfig"),
    )


def raise_issues(issues: list[str], refused: CNIError | None) -> None:
    """Raise CNIError 7 with all issues, or the error for a path that is not allowed, if any."""
    if issues:
        raise invalid(issues)
    if refused:
        raise refused


def permit_resolv_conf(call: Call, ipam: dict[str, JSON]) -> dict[str, JSON]:
    """Return an `ipam` with resolvConf checked against the allowed paths, its links resolved. Raises CNIError."""
    path = ipam.get("resolvConf")
    if not path or not isinstance(path, str) or not is_path(path):
        return ipam
    return {**ipam, "resolvConf": call.host.permitted.require("resolvConf", path)}
