"""The node that has an address which no network here has, where the API server may be asked."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kubenode.inspection.cluster.whose import Whois
    from kubenode.inspection.locations import Locations
    from kubenode.ipam.address import Address

PATIENCE = 8.0  # seconds: a person waits, and has an answer without it


def find(locations: Locations, address: Address) -> Whois | None:
    """Ask by each kubeconfig that there is; None where none of them may see the cluster's nodes."""
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
    """Yield the one that a person names, else what kubectl would take, "", and what this node's networks name."""
    from kubenode.inspection.doctor.facts import Facts

    yield locations.kubeconfig
    if not locations.kubeconfig and not locations.context:
        yield from (locations.root.path(path) for path in Facts(locations).kubeconfigs if path)
