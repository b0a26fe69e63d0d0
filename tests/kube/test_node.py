# SPDX-License-Identifier: Apache-2.0
"""What a Node object says."""

from __future__ import annotations

import json
from typing import Any

import pytest

from kubenode.cni.errors import CNIError
from kubenode.nodes import node
from kubenode.nodes.node import CLOSED

MANIFEST: dict[str, Any] = {
    "kind": "Node",
    "metadata": {"name": "n", "uid": "u", "resourceVersion": "7", "annotations": {"a": "1", node.LAST_APPLIED: "{}"}, "labels": {"x": "y"}},
    "spec": {"podCIDR": "10.0.0.0/24", "podCIDRs": ["10.0.0.0/24", "fd00::/64"]},
    "status": {"nodeInfo": {"machineID": "m", "bootID": "b"}},
}


def test_a_node() -> None:
    """Of a manifest the part that matters here is taken; as a manifest again, it says the same."""
    found = node.parse(MANIFEST, "x")
    assert tuple(found) == ("n", "u", "m", ("10.0.0.0/24", "fd00::/64"), {"a": "1"}, "7", None)
    assert node.parse(found.manifest(), "x") == found


def test_json_and_yaml() -> None:
    """A manifest may be either."""
    text = "kind: Node\nmetadata:\n  name: n\nspec:\n  podCIDRs: [10.0.0.0/24]\n"
    assert node.decode(text.encode(), "x") == {"kind": "Node", "metadata": {"name": "n"}, "spec": {"podCIDRs": ["10.0.0.0/24"]}}
    assert node.decode(json.dumps(MANIFEST).encode(), "x") == MANIFEST


@pytest.mark.parametrize("text", [b"\xff", b"a: [", b"!!python/object/apply:os.system [id]", b"- a", b"5", b"[" * 5000, b"a: &a [*a]", b""])
def test_what_is_no_manifest(text: bytes) -> None:
    """Anything else is an error with the file's name; YAML makes no objects of ours."""
    try:
        found = node.decode(text, "the file")
    except CNIError as error:
        assert (error.code, "the file" in error.msg) == (106, True)
    else:
        assert isinstance(found, dict)


def test_the_older_field() -> None:
    """Where there is no podCIDRs, podCIDR is it."""
    manifest = {"metadata": {"name": "n"}, "spec": {"podCIDR": "10.0.0.0/24"}}
    assert [str(subnet) for subnet in node.pod_subnets(node.parse(manifest, "x"))] == ["10.0.0.0/24"]


def test_no_pod_cidrs_yet() -> None:
    """None assigned yet is a reason to try again later."""
    with pytest.raises(CNIError) as error:
        node.pod_subnets(node.parse({"metadata": {"name": "n"}}, "x"))
    assert (error.value.code, error.value.msg) == (11, "Node n has no spec.podCIDRs yet")


def test_the_note_of_the_controller() -> None:
    """No network takes its subnets from the annotation in which the controller notes the blocks that it has closed."""
    manifest = {"metadata": {"name": "n", "annotations": {"a": "10.0.0.0/24", CLOSED: "10.0.0.0/29"}}}
    assert node.parse(manifest, "x").annotations == {"a": "10.0.0.0/24"}
