# SPDX-License-Identifier: Apache-2.0
"""Keys in another case, and several that are one: the reference and ours take them for the same configuration."""

from __future__ import annotations

import json
import random
from typing import TYPE_CHECKING, Any

import pytest
from callplugin import environment, execute

if TYPE_CHECKING:
    from pathlib import Path

SETS = [[{"subnet": "10.0.0.0/29", "rangeStart": "10.0.0.3", "rangeEnd": "10.0.0.5", "gateway": "10.0.0.6"}], [{"subnet": "fd00::/64"}]]
ROUTES = [{"dst": "0.0.0.0/0", "gw": "10.0.0.6", "mtu": 1400, "priority": 5, "table": 7, "scope": 0}]
NETCONF: dict[str, Any] = {
    "cniVersion": "1.0.0",
    "name": "net",
    "ipam": {"type": "host-local", "dataDir": "DIRECTORY", "ranges": SETS, "routes": ROUTES},
    "runtimeConfig": {"ips": ["10.0.0.4"]},
    "args": {"cni": {"ips": ["fd00::9"]}},
}
STRINGS = frozenset(["cniVersion", "name", "type", "dataDir"])
ODD = {"s": "\u017f", "k": "\u212a"}  # which Go's folding takes for the letters


def varied(value: Any, chance: random.Random) -> Any:
    """Return a value with some keys in another case, and some twice, once with null, which changes nothing."""
    if isinstance(value, list):
        return [varied(item, chance) for item in value]
    if not isinstance(value, dict):
        return value
    found: dict[str, Any] = {}
    for key, item in value.items():
        if key in STRINGS and chance.random() < 0.2:  # of the others Go takes null for an empty address
            found[spelt(key, chance)] = None
        found[spelt(key, chance)] = varied(item, chance)
    return found


def spelt(key: str, chance: random.Random) -> str:
    if chance.random() < 0.4:
        return key
    return "".join(chance.choice((c.lower(), c.upper(), c, ODD.get(c, c) if chance.random() < 0.1 else c)) for c in key)


@pytest.mark.parametrize("seed", range(40))
def test_the_same_configuration(built: Path, cni_bin: Path, tmp_path: Path, seed: int) -> None:
    """However keys are spelt, addresses, routes and the directory's content are those that the reference gives."""
    text = json.dumps(varied(NETCONF, random.Random(seed)))
    answers = {}
    for name, executable in (("theirs", cni_bin / "host-local"), ("ours", built / "host-local.standalone")):
        directory = tmp_path / name
        stdin = text.replace("DIRECTORY", str(directory)).encode()
        answer = execute(executable, stdin, environment("ADD", args="IgnoreUnknown=1", path=[cni_bin]))
        answers[name] = (answer.code, answer.json, {path.name for path in (directory / "net").glob("*")})
    assert answers["ours"] == answers["theirs"]
    assert answers["ours"][0] == 0
