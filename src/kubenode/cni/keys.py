# SPDX-License-Identifier: Apache-2.0
"""Keys of a network configuration, matched like Go's encoding/json: exact first, then ignoring case.

The runtime, host-local and most plugins are written in Go: they and we must take the same key for `dataDir`.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from kubenode.base.jsontext import JSON

    Schema = dict[str, "Schema"] | list["Schema"] | None

RANGE: dict[str, Schema] = {"subnet": None, "rangeStart": None, "rangeEnd": None, "gateway": None, "closing": None}
ROUTE: Schema = dict.fromkeys(("dst", "gw", "mtu", "advmss", "priority", "table", "scope"))
OWN = ("kubeconfig", "annotation", "ipv4-namespaces", "ipv6-namespaces", "delegate", "nodeFile", "refreshAfter", "logfile", "loglevel")
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


def _known(key: str, schema: dict[str, Schema]) -> str:
    folded = _fold(key)
    return next((name for name in schema if len(name) == len(key) and _fold(name) == folded), key)  # names are ASCII


def _fold(key: str) -> str:
    """Return a key for comparison without case: by Unicode's simple folding the long s is an s, and the Kelvin sign a k."""
    return key.lower().replace("\u017f", "s")
