"""What both plugins are told in `ipam`, read once; what is wrong is collected, for the operator to see all of it at once."""

from __future__ import annotations

from kubenode.cni.netconf import invalid, is_path, json_type
from kubenode.cni.record import NamedTuple
from kubenode.plugins.nodes import REFRESH_AFTER, NodeOptions

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from kubenode.cni.jsontext import JSON
    from kubenode.plugins.skel import Call


LONGEST = 1e9  # seconds that can be meant


class Options:
    """Typed values out of an object. What is of a wrong type counts as left out, and its issue is kept."""

    def __init__(self, source: Mapping[str, JSON]) -> None:
        self._source = source
        self.issues: list[str] = []
        self._read: set[str] = set()

    def text(self, key: str, *, may_be_empty: bool = True, for_others: bool = False) -> str:
        """Return a string, "" where there is none; `for_others` leaves a good one among the others."""
        value = self._source.get(key)
        if value is None:
            issue = ""
        elif not isinstance(value, str):
            issue = f"{key} is a JSON {json_type(value)}, not a string"
        elif not is_path(value):
            issue = f"{key} {value!r} has a zero byte, or half a character"
        else:
            issue = "" if value or may_be_empty else f"{key} is empty"
        if issue:
            self.issues.append(issue)
        if issue or not for_others:
            self._read.add(key)
        return "" if issue else value or ""

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
    """The keys of `ipam` that both plugins have."""

    node: NodeOptions
    annotation: str
    delegate: str
    excludes: bool


def common(call: Call, options: Options) -> Common:
    """Read what both plugins have, and let the log go where it is to go."""
    call.log.configure(options.text("logfile"), options.level("loglevel"))
    options.text("type")
    options.text("dataDir", for_others=True)
    found = Common(
        NodeOptions(options.text("kubeconfig"), options.text("nodeFile"), options.seconds("refreshAfter", REFRESH_AFTER)),
        options.text("annotation", may_be_empty=False),
        options.text("delegate", may_be_empty=False),
        bool(call.netconf.ipam.get("exclude")),
    )
    if found.excludes and found.delegate not in {"", "embedded"}:
        options.issues.append(f"exclude is not known to delegate {found.delegate}; it needs embedded")
    return found


def raise_issues(issues: list[str]) -> None:
    """Raise CNIError 7 with all of them; nothing where there are none."""
    if issues:
        raise invalid(issues)
