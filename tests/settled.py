# SPDX-License-Identifier: Apache-2.0
"""A ledger whose plans are carried out at once, as by an API server that takes everything."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kubenode.pools.timing import Now
from kubenode.pools.writes import Annotate, CreateClaim

if TYPE_CHECKING:
    from kubenode.pools.ledger import Ledger


def pool(name: str, *cidrs: dict[str, Any], **spec: Any) -> dict[str, Any]:
    return {"metadata": {"name": name, "generation": 1}, "spec": {"annotation": name, "cidrs": list(cidrs), **spec}}


def at(seconds: float) -> Now:
    return Now(seconds, seconds)


def settle(ledger: Ledger, now: float = 0.0) -> int:
    """Do what the ledger says until nothing is left; return how many writes that took."""
    count = 0
    while ledger.changed:
        name = min(ledger.changed)
        ledger.changed.discard(name)
        for write in ledger.plan(name, at(now)).writes:
            count += 1
            if isinstance(write, Annotate):
                annotations = {key: value for key, value in {**write.node.annotations, **write.values}.items() if value is not None}
                ledger.set_node(write.node._replace(annotations=annotations))
            else:
                assert isinstance(write, CreateClaim)
                ledger.set_claim(write.claim._replace(uid=f"c{count}", version=str(count)))
                ledger.recent_writes.add(write.claim.subnet, now)
    return count
