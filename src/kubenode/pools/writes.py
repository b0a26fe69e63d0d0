"""PURE. The writes that make the cluster as it should be, and what there is to say about it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kubenode.pools.records import Node, NodeSubnet

OVERLAP, OUTSIDE, FOREIGN, UNREADABLE = "SubnetOverlap", "SubnetOutsidePools", "SubnetNotAdopted", "AnnotationUnreadable"
DIFFERENT = "SubnetDifferent"


class CreateClaim(NamedTuple):
    claim: NodeSubnet


class UpdateClaim(NamedTuple):
    """Replace the NodeSubnet, if it is still of the version that the claim has."""

    claim: NodeSubnet


class DeleteClaim(NamedTuple):
    """Delete the NodeSubnet, if it is still of that version and its Node does not hold it. `orphan`: and if there is no such Node."""

    claim: NodeSubnet
    orphan: bool


class Annotate(NamedTuple):
    """Set annotations of the Node, None to remove one, if it is still of the version that the record has."""

    node: Node
    values: Mapping[str, str | None]


Write = CreateClaim | UpdateClaim | DeleteClaim | Annotate


class Conflict(NamedTuple):
    """The fault of a Node's annotation, and the pools that it concerns. The controller never changes such a one."""

    node: str
    uid: str
    annotation: str
    reason: str
    message: str
    pools: tuple[str, ...]


class Outcome(NamedTuple):
    """The writes for a node that are due now. `again`: when to look at it again, by the steady clock, as nothing else would cause that."""

    writes: list[Write]
    conflicts: list[Conflict]
    again: float | None = None
