# SPDX-License-Identifier: Apache-2.0
"""DNS settings from the text of a resolv.conf, like host-local reads it (its `dns.go`)."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from kubenode.base.jsontext import JSON

MINIMUM_FIELDS = 2
LARGEST = 64 << 10  # bytes


def parse(text: str) -> dict[str, JSON]:
    """Return a result's `dns`: nameservers, domain, search and options, each only if present."""
    nameservers: list[str] = []
    search: list[str] = []
    options: list[str] = []
    domain = ""
    for line in text.split("\n"):
        fields = line.split()
        if len(fields) < MINIMUM_FIELDS or fields[0][0] in "#;":
            continue
        key, values = fields[0], fields[1:]
        if key == "nameserver":
            nameservers.append(values[0])
        elif key == "domain":
            domain = values[0]
        elif key == "search":
            search += values
        elif key == "options":
            options += values
    dns: dict[str, JSON] = {"nameservers": nameservers, "domain": domain, "search": search, "options": options}
    return {key: value for key, value in dns.items() if value}
