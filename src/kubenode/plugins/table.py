# SPDX-License-Identifier: Apache-2.0
"""Plugins by name: their commands, and how each turns its configuration into host-local's."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from kubenode.plugins import host_local, kube_node, node_annotation, skel

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from kubenode.cni.errors import CNIError
    from kubenode.plugins.skel import Call, Command


class Plugin(NamedTuple):
    """Plugin; `resolve` returns a call with host-local's configuration, and raises CNIError; `wording` words its errors."""

    commands: Mapping[str, Command]
    resolve: Callable[[Call], Call]
    wording: Callable[[CNIError], CNIError] = skel.as_it_is


PLUGINS = {
    "kube-node": Plugin(kube_node.COMMANDS, kube_node.resolve),
    "node-annotation": Plugin(node_annotation.COMMANDS, node_annotation.resolve),
    "host-local": Plugin(host_local.COMMANDS, lambda call: call, host_local.wording),
}
