# SPDX-License-Identifier: Apache-2.0
"""Keys as Go's encoding/json matches them."""

from __future__ import annotations

from typing import Any

import pytest

from kubenode.cni import keys


@pytest.mark.parametrize(
    ("value", "canonical"),
    [
        ({"ipam": {"datadir": "/a"}}, {"ipam": {"dataDir": "/a"}}),
        ({"Name": "n", "CNIVERSION": "1.0.0"}, {"name": "n", "cniVersion": "1.0.0"}),
        ({"ipam": {"dataDir": "/a", "datadir": "/b"}}, {"ipam": {"dataDir": "/b"}}),
        ({"ipam": {"datadir": "/b", "dataDir": "/a"}}, {"ipam": {"dataDir": "/a"}}),
        ({"ipam": {"dataDir": "/a", "DATADIR": None}}, {"ipam": {"dataDir": "/a"}}),
        ({"ipam": {"Ranges": [[{"SUBNET": "x", "rangestart": "y"}]]}}, {"ipam": {"ranges": [[{"subnet": "x", "rangeStart": "y"}]]}}),
        ({"ipam": {"routes": [{"DST": "x", "Gw": "y"}]}}, {"ipam": {"routes": [{"dst": "x", "gw": "y"}]}}),
        ({"ipam": {"a": 1}, "IPAM": {"b": 2}}, {"ipam": {"a": 1, "b": 2}}),
        ({"RuntimeConfig": {"IPs": ["x"]}}, {"runtimeConfig": {"ips": ["x"]}}),
        ({"Args": {"CNI": {"Ips": ["y"]}}}, {"args": {"cni": {"ips": ["y"]}}}),
        ({"CNI.dev/Valid-Attachments": [{"containerid": "c"}]}, {"cni.dev/valid-attachments": [{"containerID": "c"}]}),
        ({"ipam": {"IPv4-Namespaces": [], "Annotation": "a"}}, {"ipam": {"ipv4-namespaces": [], "annotation": "a"}}),
        ({"ipam": {"\u017fubnet": "x", "\u212aubeconfig": "k"}}, {"ipam": {"subnet": "x", "kubeconfig": "k"}}),
        ({"ipam": {"advm\u00df": 1, "Unknown": {"Subnet": 1}}}, {"ipam": {"advm\u00df": 1, "Unknown": {"Subnet": 1}}}),
        ({"ipam": 5, "args": None, "runtimeConfig": []}, {"ipam": 5, "args": None, "runtimeConfig": []}),
    ],
)
def test_canonical(value: Any, canonical: Any) -> None:
    """A key is the schema's that differs from it in case alone; of several the last counts; unknown ones stay as they are."""
    assert keys.canonical(value, keys.NETWORK) == canonical
