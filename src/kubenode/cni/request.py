# SPDX-License-Identifier: Apache-2.0
"""Request of the runtime, parsed once from the environment (SPEC.md, "Parameters")."""

from __future__ import annotations

from kubenode.base.jsontext import dumps
from kubenode.base.record import NamedTuple
from kubenode.cni.errors import INVALID_ENVIRONMENT, CNIError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

REQUIRED = {
    "ADD": ("CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"),
    "DEL": ("CNI_CONTAINERID", "CNI_IFNAME"),
    "CHECK": ("CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"),
    "GC": (),
    "STATUS": (),
    "VERSION": (),
}

ALPHANUMERIC = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789")
NAME_CHARACTERS = ALPHANUMERIC | frozenset("_.-")
HEXADECIMAL = frozenset("0123456789abcdef")
VERSION_LENGTH, TRACE_LENGTH = 2, 32  # characters of a traceparent's version and trace
NO_VERSION, NO_TRACE = "ff", "0" * TRACE_LENGTH
IFNAME_LENGTH = 15  # the kernel's IFNAMSIZ, less the closing zero


class Request(NamedTuple):
    """One call of a plugin. Variables that are not set are "".

    `args`: the pairs of CNI_ARGS; `no_pair`: the first part of it that is none.
    """

    command: str
    container_id: str
    netns: str
    ifname: str
    args: dict[str, str]
    no_pair: str
    path: tuple[str, ...]

    @property
    def pod_args(self) -> dict[str, str]:
        """The pairs of CNI_ARGS. Raises CNIError 4 if a part is no pair, so only ADD and CHECK may use it."""
        if self.no_pair:
            raise CNIError(
                INVALID_ENVIRONMENT,
                f"CNI_ARGS: invalid pair {self.no_pair!r}",
                "CNI_ARGS is KEY=VALUE pairs with semicolons between",
                f"ARGS: invalid pair {dumps(self.no_pair)}",
            )
        return self.args

    @property
    def pod(self) -> str:
        """The pod that the call is for, as NAMESPACE/NAME; "" if CNI_ARGS name none."""
        return _pod(self.args)


def labels(environ: Mapping[str, str]) -> dict[str, str | None]:
    """Return the log fields of a call: command, containerID, ifname, pod as NAMESPACE/NAME, and traceID. Accepts a wrong environment."""
    return {
        "command": environ.get("CNI_COMMAND"),
        "containerID": environ.get("CNI_CONTAINERID"),
        "ifname": environ.get("CNI_IFNAME"),
        "traceID": trace_id(environ.get("TRACEPARENT", "")),
        "pod": _pod(_pairs(environ.get("CNI_ARGS", ""))[0]) or None,
    }


def trace_id(parent: str) -> str | None:
    """Return the trace of a `traceparent` (W3C Trace Context, 3.2), which a runtime that traces may set; None for what is none."""
    version, _, rest = parent.partition("-")
    trace = rest.partition("-")[0]
    is_one = len(trace) == TRACE_LENGTH and HEXADECIMAL.issuperset(trace) and trace != NO_TRACE
    return trace if is_one and len(version) == VERSION_LENGTH and version != NO_VERSION else None


def is_name(text: str) -> bool:
    """Say whether a text is a valid container ID or network name, and so a file name: [A-Za-z0-9][A-Za-z0-9_.-]*."""
    return bool(text) and text[0] in ALPHANUMERIC and NAME_CHARACTERS.issuperset(text)


def has_control(text: str) -> bool:
    """Say whether a text has control characters, which could manipulate a terminal."""
    return not text.isprintable() and any(character < " " or "\x7f" <= character < "\xa0" for character in text)


def is_ifname(text: str) -> bool:
    """Say whether a text is a valid interface name."""
    return bool(text) and "\0" not in text and not _ifname_problem(text)


def parse(environ: Mapping[str, str]) -> Request:
    """Parse the environment. Raises CNIError 4, which names each missing or wrong variable."""
    command = environ.get("CNI_COMMAND", "")
    if command not in REQUIRED:
        raise CNIError(
            INVALID_ENVIRONMENT,
            f"unknown CNI_COMMAND: {command}" if command else "required env variables [CNI_COMMAND] missing",
            f"CNI_COMMAND must be one of {', '.join(REQUIRED)}",
        )
    container_id, ifname = environ.get("CNI_CONTAINERID", ""), environ.get("CNI_IFNAME", "")
    problems = []
    if container_id and "CNI_CONTAINERID" in REQUIRED[command] and not is_name(container_id):
        problems.append(("CNI_CONTAINERID", "invalid characters in containerID"))
    if ifname and "CNI_IFNAME" in REQUIRED[command] and (problem := _ifname_problem(ifname)):
        problems.append(("CNI_IFNAME", problem))
    if command == "ADD" and has_control(ifname):  # DEL must still work for attachments of older versions
        problems.append(("CNI_IFNAME", "interface name contains control characters"))
    if command == "ADD" and any("\ud800" <= character <= "\udfff" for character in ifname):
        problems.append(("CNI_IFNAME", "interface name is not UTF-8"))
    wrong = [f"{variable} {environ[variable]!r}: {problem}" for variable, problem in problems]
    reference = [problem for _, problem in problems]
    if missing := [name for name in REQUIRED[command] if not environ.get(name)]:
        wrong.append(f"required env variables [{','.join(missing)}] missing")
        needed = missing if environ.get("CNI_PATH") else [*missing, "CNI_PATH"]
        reference.append(f"required env variables [{','.join(needed)}] missing")
    if wrong:
        advice = f"the container runtime must send these to {command}; interface names have {IFNAME_LENGTH} bytes at most"
        raise CNIError(INVALID_ENVIRONMENT, "; ".join(wrong), advice, reference[0])
    path = tuple(directory for directory in environ.get("CNI_PATH", "").split(":") if directory)
    pairs, no_pair = _pairs(environ.get("CNI_ARGS", ""))
    return Request(command, container_id, environ.get("CNI_NETNS", ""), ifname, pairs, no_pair, path)


def _pairs(text: str) -> tuple[dict[str, str], str]:
    """Return the pairs of CNI_ARGS, and the first part that is none."""
    pairs: dict[str, str] = {}
    no_pair = ""
    for pair in text.split(";"):
        key, equals, value = pair.partition("=")
        if equals and key:
            pairs[key] = value
        elif pair.strip():
            no_pair = no_pair or pair
    return pairs, no_pair


def _pod(pairs: Mapping[str, str]) -> str:
    name = pairs.get("K8S_POD_NAME")
    return f"{pairs.get('K8S_POD_NAMESPACE') or 'default'}/{name}" if name else ""


def _ifname_problem(ifname: str) -> str:
    if len(ifname.encode(errors="surrogatepass")) > IFNAME_LENGTH:
        return "interface name is too long"
    if ifname in {".", ".."}:
        return "interface name is . or .."
    if "/" in ifname or ":" in ifname or (ifname and ifname.split() != [ifname]):
        return "interface name contains / or : or whitespace characters"
    return ""
