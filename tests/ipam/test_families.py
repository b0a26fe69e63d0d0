# SPDX-License-Identifier: Apache-2.0
"""Who gets which family."""

from __future__ import annotations

import pytest

from kubenode.cni.errors import CNIError
from kubenode.ipam.families import select


@pytest.mark.parametrize(
    ("namespace", "limits", "families"),
    [
        ("a", {}, {4, 6}),
        ("a", {4: None, 6: None}, {4, 6}),
        ("a", {4: ["a"]}, {4, 6}),
        ("b", {4: ["a"]}, {6}),
        ("", {4: ["a"]}, {6}),
        ("", {4: ["*"]}, {4, 6}),
        ("kube-x", {4: ["kube-?", "kube-[a-b]"]}, {4, 6}),
        ("kube-xy", {4: ["kube-?", "kube-[a-b]"]}, {6}),
        ("A", {4: ["a"]}, {6}),
        ("a", {4: []}, {6}),
        ("a", {4: [], 6: ["a"]}, {6}),
    ],
)
def test_select(namespace: str, limits: dict[int, list[str] | None], families: set[int]) -> None:
    """No limit is everybody, names and globs are those, an empty list is nobody."""
    assert select([4, 6], namespace, limits) == families


@pytest.mark.parametrize(
    ("limits", "labels", "families"),
    [
        ({4: []}, {4: True}, {4, 6}),
        ({4: ["a"]}, {4: False}, {6}),
        ({4: ["a"]}, {}, {4, 6}),
        ({4: ["b"], 6: ["b"]}, {4: True}, {4}),
    ],
)
def test_a_label(limits: dict[int, list[str] | None], labels: dict[int, bool], families: set[int]) -> None:
    """A namespace's label goes before the list, either way; without one the list decides."""
    assert select([4, 6], "a", limits, labels) == families


def test_a_label_that_leaves_no_family() -> None:
    """A pod that its namespace's label leaves without any address is told of the label."""
    with pytest.raises(CNIError) as error:
        select([4], "a", {4: ["a"]}, {4: False})
    assert "; the namespace's label says no to IPv4: " in error.value.details


def test_no_family_left() -> None:
    """A pod without any address is an error which tells the limits."""
    with pytest.raises(CNIError) as error:
        select([4, 6], "b", {4: ["a"], 6: []})
    assert (error.value.code, error.value.msg) == (
        109,
        "no address for a pod in namespace 'b': the subnets are IPv4 and IPv6, kept for other namespaces",
    )
    assert error.value.details.startswith("ipv4-namespaces is [a]; ipv6-namespaces is []: ")
