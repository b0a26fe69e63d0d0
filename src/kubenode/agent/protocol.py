# SPDX-License-Identifier: Apache-2.0
"""Protocol between relay and agent (`relay/relay.c` is the other side). No I/O.

A connection carries one call: `kn1`, the plugin's name, `KEY=VALUE` for each variable, an empty text, each followed by a zero byte;
then standard input to the end. The answer is a status byte (the exit code, or 2 for "run it locally") and standard output.

Instead of a plugin's name, a person or a kubelet's probe sends a question about the agent: `healthz`, `readyz`, `problems`.
"""

from __future__ import annotations

from kubenode.base.record import NamedTuple
from kubenode.cni.errors import INVALID_ENVIRONMENT, UNDECODABLE, CNIError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

MAGIC = "kn1"
STDIN_LIMIT = 4 << 20  # bytes, as in the launchers
REQUEST_LIMIT = STDIN_LIMIT + (2 << 20)  # with the environment: by default execve(2) accepts 2 MiB at most
HEALTHZ, READYZ, PROBLEMS = "healthz", "readyz", "problems"
OTHERS = frozenset(["NODE_ANNOTATION_CFG", "TRACEPARENT"])  # that a relay passes on besides: the plugin's, the trace
RECORDS = 3  # at least: version, plugin and empty text


class Asked(NamedTuple):
    """Call as received over the socket."""

    plugin: str
    environ: Mapping[str, str]
    stdin: bytes


def parse(request: bytes) -> Asked:
    """Parse a request. Raises CNIError if no relay sends it like that."""
    head, end, stdin = request.partition(b"\0\0")
    texts = head.decode(errors="surrogateescape").split("\0")
    if not end or len(texts) < RECORDS - 1 or texts[0] != MAGIC:
        raise CNIError(INVALID_ENVIRONMENT, "this is not a request of a relay", "relay and agent differ in version: install both again")
    if len(stdin) > STDIN_LIMIT:
        raise CNIError(UNDECODABLE, f"stdin has more than {STDIN_LIMIT} bytes", "stdin must be one network configuration")
    pairs = (text.partition("=") for text in reversed(texts[2:]))  # the first of two equal names counts, as in os.environ
    return Asked(texts[1], {key: value for key, _, value in pairs if key.startswith("CNI_") or key in OTHERS}, stdin)


def frame(asked: Asked) -> bytes:
    """Return a request as the relay sends it."""
    texts = [MAGIC, asked.plugin, *(f"{key}={value}" for key, value in asked.environ.items()), ""]
    return "".join(text + "\0" for text in texts).encode(errors="surrogateescape") + asked.stdin
