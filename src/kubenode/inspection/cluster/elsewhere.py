# SPDX-License-Identifier: Apache-2.0
"""The owner of an address that no network of this node has, by the API server if that may be asked."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kubenode.inspection.cluster.whose import Whois
    from kubenode.inspection.locations import Locations
    from kubenode.ipam.address import Address

PATIENCE = 8.0  # seconds: a person waits, and the answer is only an addition


def find(locations: Locations, address: Address) -> Whois | None:
    """Ask with each known kubeconfig; None if none of them may list the cluster's nodes."""
    from kubenode.cni.errors import CNIError
    from kubenode.inspection.cluster import whose
    from kubenode.inspection.cluster.reading import ClusterReader
    from kubenode.kube.client import within

    def ask(kubeconfig: str) -> Whois:
        reader = ClusterReader(locations._replace(kubeconfig=kubeconfig))
        try:
            return whose.find(reader, address, everywhere=False)
        finally:
            reader.close()

    for kubeconfig in _kubeconfigs(locations):
        try:
            found = within(PATIENCE, lambda: ask(kubeconfig))  # noqa: B023 -- it is called at once
        except CNIError:
            continue
        if found.sees_nodes:
            return found
    return None


def _kubeconfigs(locations: Locations) -> Iterator[str]:
    """Yield the one that a person names; else kubectl's, "", and those that this node's networks name."""
    from kubenode.inspection.doctor.facts import Facts

    yield locations.kubeconfig
    if not locations.kubeconfig and not locations.context:
        yield from (locations.root.path(path) for path in Facts(locations).kubeconfigs if path)
