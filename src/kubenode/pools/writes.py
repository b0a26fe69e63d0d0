# SPDX-License-Identifier: Apache-2.0
"""PURE. The planned writes of the controller, and the conflicts to report."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kubenode.pools.records import NodeMetadata, NodeSubnet
    from kubenode.pools.reports import AgentReport

OVERLAP, OUTSIDE, FOREIGN, UNREADABLE = "SubnetOverlap", "SubnetOutsidePools", "SubnetNotAdopted", "AnnotationUnreadable"
DIFFERENT, REPORTED = "SubnetDifferent", "SubnetReported"


class CreateClaim(NamedTuple):
    """Create the NodeSubnet."""

    claim: NodeSubnet


class UpdateClaim(NamedTuple):
    """Replace the NodeSubnet, if it still has the claim's version."""

    claim: NodeSubnet


class DeleteClaim(NamedTuple):
    """Delete the NodeSubnet, if it still has that version and its Node does not hold it. `orphan`: only if the Node does not exist.

    `report`: only if this is still the newest report.
    """

    claim: NodeSubnet
    orphan: bool
    report: AgentReport | None = None


class Annotate(NamedTuple):
    """Set annotations of the Node, None to remove one, if it still has the record's version, and `report` is still the newest one."""

    node: NodeMetadata
    values: Mapping[str, str | None]
    report: AgentReport | None = None


class Demand(NamedTuple):
    """Write the free addresses that a Node is to have into its NodeAddresses. `report`: the object's record, None to create it."""

    node: NodeMetadata
    min_free: Mapping[str, int]
    report: AgentReport | None


Write = CreateClaim | UpdateClaim | DeleteClaim | Annotate | Demand


class Conflict(NamedTuple):
    """A fault of a Node's annotation or report, and the pools that it concerns. The controller never changes such an annotation."""

    node: str
    uid: str
    annotation: str
    reason: str
    message: str
    pools: tuple[str, ...]


class Outcome(NamedTuple):
    """The writes for a node that are due now. `again`: the time of the next look, by the steady clock, as no event would cause it."""

    writes: list[Write]
    conflicts: list[Conflict]
    again: float | None = None
