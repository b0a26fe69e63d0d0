"""Options of both plugins in `ipam`, read once; faults are collected, for the operator to see all of them at once."""

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


LONGEST = 1e9  # seconds that can be meant


class Options:
    """Typed values out of an object. A value of a wrong type, or one that is not allowed, counts as left out, and its issue is kept.

    `administrators`: the keys that are of the host's administrator, who may name what there is.
    """

    def __init__(self, source: Mapping[str, JSON], administrators: Collection[str] = ()) -> None:
        self._source = source
        self._administrators = administrators
        self.issues: list[str] = []
        self.refused: CNIError | None = None
        self._read: set[str] = set()

    def text(self, key: str, *, may_be_empty: bool = True, for_others: bool = False) -> str:
        """Return a string, "" where there is none; `for_others` leaves a good one among the others."""
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
        """Return where a path of the host is found, its links followed; "" where there is none, or the administrator does not allow it."""
        path = self.text(key)
        if not path:
            return ""
        permitted = host.permitted
        try:
            return permitted.here(permitted.real(path) if key in self._administrators else permitted.require(key, path))
        except CNIError as error:  # it must not keep an address from being released
            self.refused = self.refused or error
            return ""

    def is_administrators(self, key: str) -> bool:
        return key in self._administrators

    def plugin(self, key: str) -> str:
        """Return the name of a plugin. A configuration does not say what runs on the host: the last part of a path counts."""
        name = self.text(key, may_be_empty=False)
        if "/" in name:
            self.issues.append(f"{key} {name!r} is a path: give the name of a plugin in CNI_PATH")
        return name.rpartition("/")[2]

    def seconds(self, key: str, default: float) -> float:
        value = self._take(key)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= LONGEST:
            self.issues.append(f"{key} is {value!r}, not a number of seconds")
            return default
        return float(value)

    def names(self, key: str) -> tuple[str, ...] | None:
        """Return a list of strings; None where there is none."""
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
        """Return a log level, which may be written as a number."""
        value = self._take(key)
        if isinstance(value, bool) or not isinstance(value, (str, int, type(None))):
            self.issues.append(f"{key} is {value!r}, neither info, debug, trace nor a number")
            return ""
        return "" if value is None else str(value)

    def others(self) -> dict[str, JSON]:
        """Return what nobody has read: it is for who gives the addresses."""
        return {key: value for key, value in self._source.items() if key not in self._read}

    def _take(self, key: str) -> JSON:
        self._read.add(key)
        return self._source.get(key)


class Common(NamedTuple):
    """The keys of `ipam` that both plugins have; `trusted`: the administrator's own file names the kubeconfig."""

    node: NodeOptions
    annotation: str
    delegate: str
    trusted: bool

    @property
    def source(self) -> str:
        """The source of the addresses, of which no other network may give any."""
        return source_of(self.annotation, self.node.node_file_label)

    def permitted(self, host: Host) -> Common:
        """Return the same with the paths of this process, which are what the administrator allows. Raises CNIError for others."""
        kubeconfig, node_file = self.node.kubeconfig, self.node.node_file_label
        if kubeconfig and not self.trusted:
            host.permitted.require("kubeconfig", kubeconfig)  # and taken as it is written: its links, too, say where its files are
        if not node_file:
            return self
        here = host.permitted.here(host.permitted.require("nodeFile", node_file))
        return self._replace(node=self.node._replace(node_file=here))


def source_of(annotation: str, node_file: str) -> str:
    """Return where addresses are from by these keys."""
    source = f"annotation {annotation}" if annotation else "spec.podCIDRs"
    return f"{source} of {node_file}" if node_file else source


def common(call: Call, options: Options) -> Common:
    """Read what both plugins have, and let the log go where it is to go."""
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
    """Raise CNIError 7 with all issues, or why something is not allowed; nothing where all is well."""
    if issues:
        raise invalid(issues)
    if refused:
        raise refused


def permit_resolv_conf(call: Call, ipam: dict[str, JSON]) -> dict[str, JSON]:
    """Return an `ipam` whose resolvConf is one that the administrator allows, its links followed. Raises CNIError."""
    path = ipam.get("resolvConf")
    if not path or not isinstance(path, str) or not is_path(path):
        return ipam
    return {**ipam, "resolvConf": call.host.permitted.require("resolvConf", path)}
