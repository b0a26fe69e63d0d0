# SPDX-License-Identifier: Apache-2.0
"""Items that are closing when growth ends: their pool has no `minFree` any more, is deleted, or serves the node no longer."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from controllerprocess import IMPATIENT, ControllerProcess, until
from corner import APIS
from settled import at, pool

from kubenode.base.log import ERROR, Log
from kubenode.controller.handlers import Claims, Nodes, Pools, Reports
from kubenode.controller.metrics import ControllerMetrics
from kubenode.controller.reconcile import Handlers, Reconciler
from kubenode.ipam.ranges import parse_subnet
from kubenode.pools.growth import HOLD
from kubenode.pools.ledger import Ledger
from kubenode.pools.records import NodeMetadata, NodeSubnet, parse_pool
from kubenode.pools.reports import parse_report
from kubenode.pools.writes import Annotate, Demand

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from corner import Corner

    from kubenode.pools.writes import Write

FLAT = {"cidr": "172.20.0.0/24", "nodePrefix": 29, "shared": True}
SIX = {"cidr": "fd00::/120", "nodePrefix": 120, "exclude": ["fd00::/120"]}
FORM = "of 172.20.0.0/24 via 172.20.0.1"
ONE, TWO = f"172.20.0.0/29 {FORM}", f"172.20.0.8/29 {FORM}"
CLOSING = f"{ONE},{TWO} closing"
OPEN = f"{ONE},{TWO}"


def grows(name: str = "p", *cidrs: dict[str, Any], **spec: Any) -> dict[str, Any]:
    return pool(name, *(cidrs or (FLAT,)), **{"annotation": "p", "minFree": 1, **spec})


def put_node(ledger: Ledger, text: str, name: str = "a", key: str = "p") -> None:
    ledger.set_node(NodeMetadata(name, f"u{name}", "1", {}, {key: text}))


def put_claim(ledger: Ledger, cidr: str, of: str = "p", *, adopted: bool = False) -> None:
    ledger.set_claim(NodeSubnet(parse_subnet(cidr), of, "p", "a", "ua", adopted, uid="c", version="1"))


def put_report(ledger: Ledger, *items: dict[str, Any], observed: str = CLOSING, node: str = "a", **spec: int) -> None:
    network = {"name": "net", "annotation": "p", "observed": observed, "items": list(items)}
    metadata = {"name": node, "uid": f"r{node}", "resourceVersion": "1"}
    ledger.set_report(parse_report({"metadata": metadata, "spec": {"minFree": spec}, "status": {"networks": [network]}}))


FIRST = {"cidr": "172.20.0.0/29", "used": 1, "total": 6}
USED = {"cidr": "172.20.0.8/29", "used": 1, "total": 7, "closing": True}
EMPTY = {**USED, "used": 0}


@pytest.fixture
def ledger() -> Ledger:
    """Return a ledger with a growing pool, and a node that gives its second block back, which a pod still uses."""
    found = Ledger()
    found.growth.reporting = True
    found.set_pool(parse_pool(grows()))
    for cidr in ("172.20.0.0/29", "172.20.0.8/29"):
        put_claim(found, cidr)
    put_node(found, CLOSING)
    put_report(found, FIRST, USED, p=1)
    return found


def writes(ledger: Ledger, now: float = 0.0) -> list[Write]:
    return ledger.plan("a", at(now)).writes


def annotated(ledger: Ledger) -> str | None:
    """Return the text that the only write is, which needs the report to be the newest one."""
    (write,) = writes(ledger)
    assert isinstance(write, Annotate)
    assert write.report == ledger.reports["a"]
    return write.values["p"]


ENDS: dict[str, Callable[[Ledger], None]] = {
    "minFree": lambda ledger: ledger.set_pool(parse_pool(grows(minFree=0))),
    "deleted": lambda ledger: ledger.drop_pool("p"),
    "nodeSelector": lambda ledger: ledger.set_pool(parse_pool(grows(nodeSelector={"matchLabels": {"no": "node"}}))),
    "invalid": lambda ledger: ledger.set_pool(parse_pool(grows(maxBlocks=0))),
    "another annotation": lambda ledger: ledger.set_pool(parse_pool(grows(annotation="q"))),
    "another family": lambda ledger: ledger.set_pool(parse_pool(grows("p", SIX))),
}


@pytest.fixture(params=ENDS)
def ended(request: pytest.FixtureRequest, ledger: Ledger) -> Ledger:
    """Return the same, after the pool has ended to grow there."""
    assert writes(ledger) == []
    ENDS[request.param](ledger)
    return ledger


@pytest.fixture
def static(ledger: Ledger) -> Ledger:
    """Return the same, for `minFree: 0`."""
    ENDS["minFree"](ledger)
    return ledger


def test_it_is_opened_again(ended: Ledger) -> None:
    """The node keeps what it has, as without growth; what it should have free is taken from its object after that."""
    found = [write for write in writes(ended) if isinstance(write, Annotate)]
    assert [(write.values["p"], write.report) for write in found] == [(OPEN, ended.reports["a"])]
    assert all("p" in write.min_free for write in writes(ended) if isinstance(write, Demand))


def test_its_end(static: Ledger) -> None:
    """Once nothing is closing the object asks for nothing, and reports are not needed any more."""
    assert annotated(static) == OPEN
    assert static.ending == {"a"}
    put_node(static, OPEN)
    (write,) = writes(static)
    assert isinstance(write, Demand)
    assert not write.min_free
    assert static.ending == set()


def test_a_node_that_goes(static: Ledger) -> None:
    """A node that is deleted needs no report."""
    writes(static)
    static.drop_node("a")
    writes(static)
    assert static.ending == set()


@pytest.mark.parametrize("observed", [OPEN, f"{CLOSING} ", ONE])
def test_a_report_about_another_text(static: Ledger, observed: str) -> None:
    """Without a report about the present text nothing changes: what is opened may be closed again, with the same text."""
    put_report(static, FIRST, USED, observed=observed, p=1)
    assert len(writes(static)) == (observed.strip() == CLOSING)
    assert static.ending == {"a"}


def test_a_report_that_lacks_the_item(static: Ledger) -> None:
    """An agent that does not tell of an item has not agreed."""
    put_report(static, FIRST, p=1)
    assert writes(static) == []


def test_no_report(static: Ledger) -> None:
    """A node that does not report keeps what it has, as it is."""
    static.drop_report("a")
    assert writes(static) == []
    assert static.ending == {"a"}


def test_a_word_of_a_person(static: Ledger) -> None:
    """Where the annotation does not grow, and did not, a person has closed the item, and it stays closing."""
    put_report(static, FIRST, EMPTY)
    assert writes(static) == []


def test_what_a_node_has_by_hand(static: Ledger) -> None:
    """Nothing is opened beside what a person wrote, but the object still tells whose word it is."""
    put_node(static, f"{CLOSING},172.29.0.0/24")
    assert writes(static) == []
    put_node(static, f"{CLOSING},nothing")
    assert writes(static) == []
    put_node(static, CLOSING)
    assert annotated(static) == OPEN


def test_two_pools_of_one_annotation(ledger: Ledger) -> None:
    """What a pool gave that grows no more is opened, also where another pool of that annotation grows."""
    ledger.set_pool(parse_pool(grows(minFree=0)))
    ledger.set_pool(parse_pool(grows("q", {"cidr": "172.21.0.0/24", "nodePrefix": 29})))
    assert annotated(ledger) == OPEN
    assert ledger.ending == set(), "a pool grows"


def of_another(ledger: Ledger) -> None:
    """Have another node use the closing block, as after a restore."""
    put_node(ledger, "", "b")
    put_report(ledger, {"cidr": "172.20.0.9/32", "used": 1, "total": 1, "outside": True}, observed="", node="b")


def test_a_block_that_another_node_uses(ended: Ledger) -> None:
    """It is not opened, and taken out as ever."""
    of_another(ended)
    assert not any(isinstance(write, Annotate) for write in writes(ended))
    put_report(ended, FIRST, EMPTY, p=1, q=1)
    (write,) = [write for write in writes(ended) if isinstance(write, Annotate)]
    assert (write.values["p"], write.report) == (ONE, ended.reports["a"])


def test_a_block_that_another_node_used(static: Ledger) -> None:
    """It is opened when the other node needs it no more."""
    of_another(static)
    assert writes(static) == []
    static.changed.clear()
    static.drop_report("b")
    assert "a" in static.changed
    assert annotated(static) == OPEN


@pytest.mark.parametrize("used", [0, 1])
def test_the_first_minute(ended: Ledger, used: int) -> None:
    """Nothing is opened before all agents had the time to tell what they use, and nothing is taken instead."""
    put_report(ended, FIRST, {**USED, "used": used}, p=1)
    ended.growth.open_at = float("inf")  # the reports are being listed
    assert not any(isinstance(write, Annotate) for write in writes(ended))
    ended.growth.pause(100.0)
    outcome = ended.plan("a", at(100.0))
    assert not any(isinstance(write, Annotate) for write in outcome.writes)
    assert outcome.again == 100.0 + HOLD
    assert any(isinstance(write, Annotate) for write in writes(ended, 100.0 + HOLD))


def test_the_first_minute_of_a_pool_that_grows(ledger: Ledger) -> None:
    """A block that the node needs again is not opened in it, either: another node may use it."""
    put_report(ledger, {**FIRST, "used": 6}, USED, p=1)
    ledger.growth.pause(100.0)
    assert writes(ledger, 100.0) == []
    (write,) = writes(ledger, 100.0 + HOLD)
    assert isinstance(write, Annotate)
    assert write.values == {"p": OPEN}


@pytest.mark.parametrize("text", [CLOSING, OPEN])
def test_too_few_blocks_in_the_first_minute(ledger: Ledger, text: str) -> None:
    """A pool is not said to have too few blocks for a node whose closing one may be opened then."""
    ledger.set_pool(parse_pool(grows(maxBlocks=2)))
    put_node(ledger, text)
    put_report(ledger, {**FIRST, "used": 6}, {**USED, "used": 7, "closing": text == CLOSING}, observed=text, p=1)
    ledger.growth.pause(100.0)
    assert writes(ledger, 100.0) == []
    assert ledger.at_most == ({} if text == CLOSING else {"a": {"p"}})


def test_nothing_is_closed_without_a_note(ledger: Ledger) -> None:
    """No step is taken before the node's object tells that the annotation grows: it tells later whose word it is."""
    put_node(ledger, OPEN)
    ledger.growth.left("a", ("p", 4), OPEN, 0.0, -1e6)
    put_report(ledger, FIRST, {**EMPTY, "closing": False}, observed=OPEN)
    assert [type(write) for write in writes(ledger)] == [Demand]
    put_report(ledger, FIRST, {**EMPTY, "closing": False}, observed=OPEN, p=1)
    assert annotated(ledger) == CLOSING


class NewerCluster:
    """An API server whose Node is newer than what the controller knows."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.patches: list[dict[str, Any]] = []

    async def get(self, path: str, *, metadata: bool = False) -> dict[str, Any]:
        assert metadata
        return {"metadata": {"name": path.rpartition("/")[2], "uid": "ua", "resourceVersion": "9", "annotations": {"p": self.text}}}

    async def merge(self, path: str, patch: dict[str, Any]) -> dict[str, Any]:
        self.patches.append(patch)
        return {"metadata": {"name": path.rpartition("/")[2], "uid": "ra", "resourceVersion": "9"}, "spec": {}}


@pytest.mark.parametrize(("text", "count"), [(CLOSING, 0), (OPEN, 1)])
def test_a_word_that_this_controller_does_not_know(static: Ledger, text: str, count: int) -> None:
    """The note goes only if nothing is closing on the Node as the API server has it: another controller may have led until now."""
    log, cluster = Log("controller", ERROR - 1), NewerCluster(text)
    put_node(static, OPEN)
    (write,) = writes(static)
    handlers = Handlers(*(kind(static, lambda: None, log) for kind in (Nodes, Claims, Pools, Reports)))  # type: ignore[arg-type]
    reconciler = Reconciler(cluster, static, handlers, log, ControllerMetrics())  # type: ignore[arg-type]
    asyncio.run(reconciler._write(write, ("node", "a")))
    assert len(cluster.patches) == count
    assert cluster.patches[:1] == [{"metadata": {"uid": "ra"}, "spec": {"minFree": {"p": None}}}][:count]
    assert static.nodes["a"].annotations == {"p": text}


@pytest.mark.slow
@pytest.mark.servers("real")
def test_a_controller_that_begins_then(corner: Corner, admin: Path, tmp_path: Path) -> None:
    """A controller without a pool that grows asks for NodeAddresses as long as an item is closing that grew, and for no other reason."""
    log = tmp_path / "controller.log"
    asked = f"{APIS}/nodeaddresses"
    with ControllerProcess(admin, log, "--lease=none", wrap=IMPATIENT) as process:
        pool_name = corner.pool("net", [FLAT], minFree=2, shrinkAfter="1s")
        node = corner.node("a")
        until(lambda: corner.annotation(node) == ONE, HOLD + 40, process.log)
        corner.report(node, {"172.20.0.0/29": 5})
        until(lambda: corner.annotation(node) == OPEN, 20, process.log)
        corner.report(node, {"172.20.0.0/29": 1, "172.20.0.8/29": 1})
        until(lambda: corner.annotation(node) == CLOSING, 20, process.log)
        assert process.stop() == 0
        corner.pools.discard(pool_name)
        corner.server.request("DELETE", f"{APIS}/subnetpools/{pool_name}")
        process.start()
        corner.report(node, {"172.20.0.0/29": 1, "172.20.0.8/29": 1})
        until(lambda: corner.annotation(node) == OPEN, HOLD + 40, process.log)
        until(lambda: not corner.server.request("GET", f"{asked}/{node}")["spec"].get("minFree"), 20, process.log)
        assert set(corner.claims()) == {"172.20.0.0/29", "172.20.0.8/29"}
        assert process.stop() == 0
        before = len(corner.server.asked())
        process.start()
        until(lambda: process.get("/readyz")[0] == 200)
        other = corner.pool("other", [{**FLAT, "cidr": "172.21.0.0/24"}])
        until(lambda: corner.condition(other, "Ready")[0] == "True")
        assert not [one for one in corner.server.asked()[before:] if one.resource == "nodeaddresses"]
