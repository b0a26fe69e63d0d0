# SPDX-License-Identifier: Apache-2.0
"""Keys of a network configuration, matched like Go's encoding/json: exact first, then ignoring case.

The runtime, host-local and most plugins are written in Go: they and we must take the same key for `dataDir`.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from kubenode.base.jsontext import JSON

    Schema = dict[str, "Schema"] | list["Schema"] | None

MISSPELT = 0.86  # similarity: one or two letters in ten differ

RANGE: dict[str, Schema] = {"subnet": None, "rangeStart": None, "rangeEnd": None, "gateway": None, "closing": None}
ROUTE: Schema = dict.fromkeys(("dst", "gw", "mtu", "advmss", "priority", "table", "scope"))
OWN = ("kubeconfig", "annotation", "ipv4-namespaces", "ipv6-namespaces", "delegate", "nodeFile", "refreshAfter", "logfile", "loglevel")
# Keys that choose a pod's addresses, and that no other plugin has: without effect, a pod would get others.
CHOOSING = ("annotation", "ipv4-namespaces", "ipv6-namespaces", "nodeFile")
# Keys of the embedded allocator besides ranges and routes.
WHOLE = ("type", "dataDir", "resolvConf", "exclude", "statusWhenFull", "stickyFor")
IPAM: dict[str, Schema] = {
    **dict.fromkeys((*WHOLE, *OWN)),
    **RANGE,
    "ranges": [[RANGE]],
    "routes": [ROUTE],
}
ATTACHMENT: Schema = {"containerID": None, "ifname": None}
NETWORK: Schema = {
    **dict.fromkeys(("cniVersion", "name", "type", "prevResult", "dns", "capabilities")),
    "ipam": IPAM,
    "runtimeConfig": {"ipRanges": [[RANGE]], "ips": None},
    "args": {"cni": {"ips": None}},
    "cni.dev/valid-attachments": [ATTACHMENT],
}


def canonical(value: JSON, schema: Schema) -> JSON:
    """Return a value with its keys spelt as in the schema. The last of duplicate keys counts; unknown keys stay unchanged."""
    if isinstance(value, list) and isinstance(schema, list):
        return [canonical(item, schema[0]) for item in value]
    if not isinstance(value, dict) or not isinstance(schema, dict):
        return value
    found: dict[str, JSON] = {}
    for key, item in value.items():
        name = key if key in schema else _known(key, schema)
        new = canonical(item, schema[name]) if item and name in schema else item
        old = found.get(name)
        if isinstance(old, dict) and isinstance(new, dict):
            new = {**old, **new}
        if new is not None or old is None:  # null changes nothing
            found[name] = new
    return found


def without_effect(raw: Mapping[str, JSON], ipam: Mapping[str, JSON]) -> list[str]:
    """Return an issue for each key that must choose a pod's addresses and does not: it is beside `ipam`, or misspelt in it."""
    misspelt = {key: meant for key in ipam if key not in IPAM and (meant := like(key, CHOOSING, MISSPELT))}
    return [
        *(f"{key} is beside ipam, where it has no effect: move it into ipam" for key in CHOOSING if key in raw),
        *(f"nobody knows {key}, which is like {meant}" for key, meant in misspelt.items()),
    ]


def like(key: str, names: Iterable[str], similarity: float) -> str:
    """Return the name that a key resembles most, "" if none is so similar; 1 is the same, but for case and underscores."""
    from difflib import get_close_matches  # few configurations have unknown keys

    known = {name.lower(): name for name in names}
    return "".join(known[near] for near in get_close_matches(key.lower().replace("_", "-"), known, 1, similarity))


def _known(key: str, schema: dict[str, Schema]) -> str:
    folded = _fold(key)
    return next((name for name in schema if len(name) == len(key) and _fold(name) == folded), key)  # names are ASCII


def _fold(key: str) -> str:
    """Return a key for comparison without case: by Unicode's simple folding the long s is an s, and the Kelvin sign a k."""
    return key.lower().replace("\u017f", "s")
