"""The protocol between relay and agent (`relay/relay.c` is the other side). No I/O.

A connection carries one call: `kn1`, the plugin's name, `KEY=VALUE` for each variable, an empty text, each with a zero byte behind;
then standard input to the end. The answer is a status byte, the exit code or 2 for "not mine", and standard output.

In a plugin's place stands what a person, or a kubelet's probe, asks of the agent itself: `healthz`, `readyz`, `problems`.
"""

from __future__ import annotations

from kubenode.base.record import NamedTuple
from kubenode.cni.errors import INVALID_ENVIRONMENT, UNDECODABLE, CNIError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

MAGIC = "kn1"
STDIN_LIMIT = 4 << 20  # bytes, as in the launchers
REQUEST_LIMIT = STDIN_LIMIT + (2 << 20)  # with the environment, of which execve(2) takes 2 MiB at the most by default
HEALTHZ, READYZ, PROBLEMS = "healthz", "readyz", "problems"
OTHERS = frozenset(["NODE_ANNOTATION_CFG", "TRACEPARENT"])  # what a relay passes on of a plugin's own, and of a runtime that traces
RECORDS = 3  # the version, the plugin and the empty text, however few the variables


class Asked(NamedTuple):
    """A call as it came over the socket."""

    plugin: str
    environ: Mapping[str, str]
    stdin: bytes


def parse(request: bytes) -> Asked:
    """Take a request apart. Raises CNIError for what no relay sends."""
    head, end, stdin = request.partition(b"\0\0")
    texts = head.decode(errors="surrogateescape").split("\0")
    if not end or len(texts) < RECORDS - 1 or texts[0] != MAGIC:
        raise CNIError(INVALID_ENVIRONMENT, "this is no request of a relay", "relay and agent are of different versions: install both anew")
    if len(stdin) > STDIN_LIMIT:
        raise CNIError(UNDECODABLE, f"stdin has more than {STDIN_LIMIT} bytes", "stdin must be one network configuration")
    pairs = (text.partition("=") for text in reversed(texts[2:]))  # of a name that comes twice the first counts, as in os.environ
    return Asked(texts[1], {key: value for key, _, value in pairs if key.startswith("CNI_") or key in OTHERS}, stdin)


def frame(asked: Asked) -> bytes:
    """Return a request as the relay sends it."""
    texts = [MAGIC, asked.plugin, *(f"{key}={value}" for key, value in asked.environ.items()), ""]
    return "".join(text + "\0" for text in texts).encode(errors="surrogateescape") + asked.stdin
