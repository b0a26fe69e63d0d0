# SPDX-License-Identifier: Apache-2.0
"""Items that are closing when growth ends: their pool has no `minFree` any more, is deleted, or serves the node no longer."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest
from controllerprocess import IMPATIENT, ControllerProcess, until
from corner import APIS
from settled import at, pool

from kubenode.base.log import ERROR, INFO, Log
from kubenode.controller.handlers import Claims, Nodes, Pools, Reports
from kubenode.controller.metrics import ControllerMetrics
from kubenode.controller.reconcile import NODES, REPORTS, Handlers, Reconciler
from kubenode.ipam.ranges import parse_subnet
from kubenode.nodes.node import CLOSED
from kubenode.pools.growth import HOLD
from kubenode.pools.ledger import Ledger
from kubenode.pools.purge import purge
from kubenode.pools.records import NodeMetadata, NodeSubnet, parse_pool
from kubenode.pools.reports import parse_report
from kubenode.pools.texts import closed_by_us
from kubenode.pools.writes import Annotate, Demand

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from corner import Corner

    from kubenode.pools.writes import Write

FLAT = {"cidr": "172.20.0.0/24", "nodePrefix": 29, "shared": True}
SIX = {"cidr": "fd00::/120", "nodePrefix": 120, "exclude": ["fd00::/120"]}
FORM = "of 172.20.0.0/24 via 172.20.0.1"
ONE, TWO = f"172.20.0.0/29 {FORM}", f"172.20.0.8/29 {FORM}"
CLOSING = f"{ONE},{TWO} closing"
OPEN = f"{ONE},{TWO}"
SECOND = "172.20.0.8/29"


def grows(name: str = "p", *cidrs: dict[str, Any], **spec: Any) -> dict[str, Any]:
    return pool(name, *(cidrs or (FLAT,)), **{"annotation": "p", "minFree": 1, **spec})


def put_node(ledger: Ledger, text: str, name: str = "a", key: str = "p", *, ours: str = "") -> None:
    """Put a Node; `ours`: the blocks that the controller has closed."""
    ledger.set_node(NodeMetadata(name, f"u{name}", "1", {}, {key: text} | ({CLOSED: ours} if ours else {})))


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
    put_node(found, CLOSING, ours=SECOND)
    put_report(found, FIRST, USED, p=1)
    return found


def writes(ledger: Ledger, now: float = 0.0) -> list[Write]:
    return ledger.plan("a", at(now)).writes


def changes(ledger: Ledger, now: float = 0.0) -> list[Annotate]:
    """Return the writes of annotations."""
    return [write for write in writes(ledger, now) if isinstance(write, Annotate)]


def annotated(ledger: Ledger) -> str | None:
    """Return the new text of the annotation, whose write needs the report to be the newest one."""
    (write,) = changes(ledger)
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
    """The node keeps what it has, as without growth. The same write says that nothing is closed any more."""
    assert [(write.values, write.report) for write in changes(ended)] == [({"p": OPEN, CLOSED: None}, ended.reports["a"])]


def test_its_end(static: Ledger) -> None:
    """The object asks for nothing any more; reports are needed until nothing is closing."""
    assert annotated(static) == OPEN
    assert [write.min_free for write in writes(static) if isinstance(write, Demand)] == [{}]
    put_report(static, FIRST, USED)
    assert annotated(static) == OPEN
    assert static.ending == {"a"}
    put_node(static, OPEN)
    assert writes(static) == []
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
    assert len(changes(static)) == (observed.strip() == CLOSING)
    assert static.ending == {"a"}


def test_a_report_that_lacks_the_item(static: Ledger) -> None:
    """An agent that does not tell of an item has not agreed."""
    put_report(static, FIRST, p=1)
    assert changes(static) == []


def test_no_report(static: Ledger) -> None:
    """A node that does not report keeps what it has, as it is."""
    static.drop_report("a")
    assert writes(static) == []
    assert static.ending == {"a"}


def test_a_word_of_a_person(static: Ledger) -> None:
    """What a person has closed stays closing where nothing grows, whatever grew there before, and needs no report."""
    put_node(static, CLOSING)
    assert changes(static) == []
    put_report(static, FIRST, EMPTY)
    assert writes(static) == []
    assert static.ending == set()


def test_a_word_of_a_person_beside_ours(static: Ledger) -> None:
    """Only what the controller has closed is opened."""
    text = f"{ONE} closing,{TWO} closing"
    put_node(static, text, ours=SECOND)
    put_report(static, {**FIRST, "closing": True}, USED, observed=text)
    assert annotated(static) == f"{ONE} closing,{TWO}"


@pytest.mark.parametrize("used", [0, 1])
def test_a_word_of_a_person_beside_a_pool_that_grows(ledger: Ledger, used: int) -> None:
    """An item of a static pool stays closing, as long as a person wants that, also if a pool grows that has the same annotation."""
    ledger.set_pool(parse_pool(grows("q", {"cidr": "172.21.0.0/24", "nodePrefix": 29}, minFree=0)))
    put_claim(ledger, "172.21.0.0/29", "q")
    text = f"{OPEN},172.21.0.0/29 closing"
    put_node(ledger, text)
    third = {"cidr": "172.21.0.0/29", "used": used, "total": 5, "closing": True}
    put_report(ledger, FIRST, {**USED, "closing": False}, third, observed=text, p=1)
    assert writes(ledger) == []
    of_another(ledger, "172.21.0.1/32")
    assert writes(ledger) == []


def test_a_person_opens_what_the_controller_has_closed(ledger: Ledger) -> None:
    """What that person closes later is that person's: at once nothing says any more that the controller has closed it."""
    ENDS["minFree"](ledger)
    put_node(ledger, OPEN, ours=SECOND)
    (write,) = changes(ledger)
    assert (write.values, write.report) == ({CLOSED: None}, None)
    put_node(ledger, f"{OPEN},172.29.0.0/24", ours=SECOND)
    assert [write.values for write in changes(ledger)] == [{CLOSED: None}]


@pytest.mark.parametrize(
    ("ours", "after"),
    [(f"172.20.0.0/29, {SECOND}", SECOND), (f"{SECOND},", SECOND), ("", None), ("nonsense", None), ("fd00::/64,172.20.0.0/29", None)],
)
def test_a_note_that_somebody_has_edited(ledger: Ledger, ours: str, after: str | None) -> None:
    """The annotation is made right, whatever it has; what is closing beside it is a person's word."""
    ledger.set_node(NodeMetadata("a", "ua", "1", {}, {"p": CLOSING, CLOSED: ours}))
    assert [write.values for write in changes(ledger)] == [{CLOSED: after}]
    ENDS["minFree"](ledger)
    assert [write.values for write in changes(ledger)] == [{"p": OPEN, CLOSED: None} if after else {CLOSED: after}]


def test_a_note_beside_an_unreadable_annotation(ledger: Ledger) -> None:
    """A block that was in a readable one leaves the note with it: else a node would collect all blocks that it ever gave back."""
    ledger.set_pool(parse_pool(grows("q", {"cidr": "172.21.0.0/24", "nodePrefix": 29}, annotation="q", minFree=0)))
    put_report(ledger, FIRST, EMPTY, p=1)
    both = f"172.21.0.0/29,{SECOND}"
    ledger.set_node(NodeMetadata("a", "ua", "1", {}, {"p": CLOSING, "q": "172.21.0.0/29 closed", CLOSED: both}))
    assert [write.values for write in changes(ledger)] == [{"p": ONE, CLOSED: "172.21.0.0/29"}]
    ledger.set_node(NodeMetadata("a", "ua", "1", {}, {"p": OPEN, "q": "172.21.0.0/29 closed", CLOSED: both}))
    assert [write.values for write in changes(ledger)] == [{CLOSED: "172.21.0.0/29"}]


@pytest.mark.parametrize("of", [{"annotation": CLOSED}, {"annotation": CLOSED, "minFree": 0}])
def test_a_pool_that_wants_the_note(of: dict[str, Any]) -> None:
    """It is invalid, and neither a conflict nor a doubt about a node's blocks, as the note may have blocks that are no subnets."""
    blocks = ["172.20.0.2/31", "172.20.0.4/31"]
    one, two = (f"{block} of 172.20.0.0/24 via 172.20.0.1" for block in blocks)
    ledger = Ledger()
    ledger.growth.reporting = True
    ledger.set_pool(parse_pool(grows("p", {**FLAT, "nodePrefix": 31})))
    ledger.set_pool(parse_pool(grows("bad", **of)))
    for block in blocks:
        ledger.set_claim(NodeSubnet(parse_subnet(block, 0), "p", "p", "a", "ua", uid="c", version="1"))
    put_node(ledger, f"{one},{two} closing", ours=blocks[1])
    counts = [{"cidr": block, "used": 0, "total": 2, "closing": block == blocks[1]} for block in blocks]
    put_report(ledger, *counts, observed=f"{one},{two} closing", p=1)
    assert [write.values for write in changes(ledger)] == [{"p": one, CLOSED: None}]
    assert ledger.conflicts == {}


def test_a_claim_of_the_note(static: Ledger) -> None:
    """The note holds no NodeSubnet for a node."""
    put_node(static, OPEN, ours=SECOND)
    claim = NodeSubnet(parse_subnet(SECOND), "p", CLOSED, "a", "ua", uid="c", version="1")
    assert static.holds(claim, static.nodes["a"]._replace(annotations={CLOSED: SECOND})) is False


def test_a_note_without_any_pool() -> None:
    """A controller that knows neither pool nor NodeSubnet may learn of them in a moment: the note stays as long as the word."""
    ledger = Ledger()
    put_node(ledger, CLOSING, ours=f"172.20.0.0/29,{SECOND}")
    assert [write.values for write in changes(ledger)] == [{CLOSED: SECOND}]
    put_node(ledger, CLOSING, ours=SECOND)
    assert writes(ledger) == []
    put_node(ledger, OPEN, ours=SECOND)
    assert [write.values for write in changes(ledger)] == [{CLOSED: None}]


def test_a_controller_that_knows_no_subnet_yet(static: Ledger) -> None:
    """It does not make the controller's word a person's, which would stay for ever."""
    subnets = [claim for _, claim in static.claims]
    for claim in subnets:
        static.drop_claim(claim.subnet)
    static.drop_pool("p")
    assert changes(static) == []
    for claim in subnets:
        static.set_claim(claim)
    assert annotated(static) == OPEN


def test_a_note_of_many_blocks() -> None:
    """As many blocks as a node may have are noted, however long that is, and of one address, too."""
    blocks = [f"2001:db8:aaaa:bbbb:cccc:dddd:eeee:{number:x}/128" for number in range(1, 129)]
    ledger, log = Ledger(), Log("controller", ERROR - 1)
    metadata = {"name": "a", "uid": "ua", "resourceVersion": "1", "annotations": {CLOSED: ",".join(blocks)}}
    Nodes(ledger, lambda: None, log).take_object({"metadata": metadata})
    assert closed_by_us(ledger.nodes["a"]) == {parse_subnet(block, 0) for block in blocks}


@pytest.mark.parametrize("broken", ["", "172.21.0.0/29 closed"])
@pytest.mark.parametrize("form", ["{}", " {} ", "{} closing", "{},{}", ",,{}"])
def test_a_huge_note(static: Ledger, broken: str, form: str) -> None:
    """A note as long as an API server takes one costs at most two writes, also beside an unreadable annotation."""
    static.set_pool(parse_pool(grows("q", {"cidr": "172.21.0.0/24", "nodePrefix": 29}, annotation="q", minFree=0)))
    blocks = [f"10.{number >> 8}.{number & 255}.0/24" for number in range(20_000)]
    text = ",".join(form.format(block, block) for block in [*blocks, SECOND])[:250_000]
    annotations: dict[str, str | None] = {"p": f"{CLOSING},172.29.0.0/24", "q": broken, CLOSED: text}
    handler, count = Nodes(static, lambda: None, Log("controller", ERROR - 1)), 0
    for version in range(2, 9):
        here = {key: value for key, value in annotations.items() if value is not None}
        handler.take_object({"metadata": {"name": "a", "uid": "ua", "resourceVersion": str(version), "annotations": here}})
        for write in changes(static):
            annotations |= write.values
            count += 1
    assert count in {1, 2}
    assert len(annotations[CLOSED] or "") <= len(text)
    assert annotations["p"] == f"{CLOSING},172.29.0.0/24"


def test_what_a_node_has_by_hand(static: Ledger) -> None:
    """Nothing is opened beside what a person wrote, but it stays known whose word that is."""
    put_node(static, f"{CLOSING},172.29.0.0/24", ours=SECOND)
    assert changes(static) == []
    put_node(static, "nothing", ours=SECOND)
    assert changes(static) == []
    put_node(static, CLOSING, ours=SECOND)
    assert annotated(static) == OPEN


def test_two_pools_of_one_annotation(ledger: Ledger) -> None:
    """What a pool gave that grows no more is opened, also where another pool of that annotation grows."""
    ledger.set_pool(parse_pool(grows(minFree=0)))
    ledger.set_pool(parse_pool(grows("q", {"cidr": "172.21.0.0/24", "nodePrefix": 29})))
    assert annotated(ledger) == OPEN
    assert ledger.ending == set(), "a pool grows"


def of_another(ledger: Ledger, cidr: str = "172.20.0.9/32") -> None:
    """Have another node use the closing block, as after a restore."""
    put_node(ledger, "", "b")
    put_report(ledger, {"cidr": cidr, "used": 1, "total": 1, "outside": True}, observed="", node="b")


def test_a_block_that_another_node_uses(ended: Ledger) -> None:
    """It is not opened, and taken out as ever."""
    of_another(ended)
    assert changes(ended) == []
    put_report(ended, FIRST, EMPTY, p=1, q=1)
    (write,) = changes(ended)
    assert (write.values, write.report) == ({"p": ONE, CLOSED: None}, ended.reports["a"])


def test_a_block_that_another_node_used(static: Ledger) -> None:
    """It is opened when the other node needs it no more."""
    of_another(static)
    assert changes(static) == []
    static.changed.clear()
    static.drop_report("b")
    assert "a" in static.changed
    assert annotated(static) == OPEN


@pytest.mark.parametrize("used", [0, 1])
def test_the_first_minute(ended: Ledger, used: int) -> None:
    """Nothing is opened before all agents had the time to tell what they use, and nothing is taken instead."""
    put_report(ended, FIRST, {**USED, "used": used}, p=1)
    ended.growth.open_at = float("inf")  # the reports are being listed
    assert changes(ended) == []
    ended.growth.pause(100.0)
    outcome = ended.plan("a", at(100.0))
    assert not any(isinstance(write, Annotate) for write in outcome.writes)
    assert outcome.again == 100.0 + HOLD
    assert len(changes(ended, 100.0 + HOLD)) == 1


def test_the_first_minute_of_a_pool_that_grows(ledger: Ledger) -> None:
    """A block that the node needs again is not opened in it, either: another node may use it."""
    put_report(ledger, {**FIRST, "used": 6}, USED, p=1)
    ledger.growth.pause(100.0)
    assert writes(ledger, 100.0) == []
    assert [write.values for write in changes(ledger, 100.0 + HOLD)] == [{"p": OPEN, CLOSED: None}]


@pytest.mark.parametrize("text", [CLOSING, OPEN])
def test_too_few_blocks_in_the_first_minute(ledger: Ledger, text: str) -> None:
    """A pool is not said to have too few blocks for a node whose closing one may be opened then."""
    ledger.set_pool(parse_pool(grows(maxBlocks=2)))
    put_node(ledger, text, ours=SECOND if text == CLOSING else "")
    put_report(ledger, {**FIRST, "used": 6}, {**USED, "used": 7, "closing": text == CLOSING}, observed=text, p=1)
    ledger.growth.pause(100.0)
    assert writes(ledger, 100.0) == []
    assert ledger.at_most == ({} if text == CLOSING else {"a": {"p"}})


def test_whose_word_it_is(ledger: Ledger) -> None:
    """The controller's word and the note of it are one write, which comes after what the node should have free."""
    put_node(ledger, OPEN)
    ledger.growth.left("a", ("p", 4), OPEN, 0.0, -1e6)
    put_report(ledger, FIRST, {**EMPTY, "closing": False}, observed=OPEN)
    assert [type(write) for write in writes(ledger)] == [Demand]
    put_report(ledger, FIRST, {**EMPTY, "closing": False}, observed=OPEN, p=1)
    (write,) = writes(ledger)
    assert isinstance(write, Annotate)
    assert write.values == {"p": CLOSING, CLOSED: SECOND}


def test_a_block_that_is_returned(ledger: Ledger) -> None:
    """It leaves the note with the annotation."""
    put_report(ledger, FIRST, EMPTY, p=1)
    assert [write.values for write in changes(ledger)] == [{"p": ONE, CLOSED: None}]


def test_purge(ledger: Ledger) -> None:
    """What a deleted pool has closed leaves the note, too."""
    put_node(ledger, f"{CLOSING},10.0.0.0/24 closing", ours=f"10.0.0.0/24,{SECOND}")
    annotate, _ = purge("p", [claim for _, claim in ledger.claims], ledger.nodes)
    assert [write.values for write in annotate] == [{"p": "10.0.0.0/24 closing", CLOSED: "10.0.0.0/24"}]


class SmallCluster:
    """An API server with a Node and its NodeAddresses. `before_demand` is called once, before a write of `spec.minFree` is done."""

    def __init__(self) -> None:
        self.before_demand: Callable[[], Awaitable[None]] | None = None
        self.objects: dict[str, dict[str, Any]] = {
            f"{NODES}/a": {"metadata": {"name": "a", "uid": "ua", "resourceVersion": "1", "annotations": {"p": OPEN}}},
            f"{REPORTS}/a": {"metadata": {"name": "a", "uid": "ra", "resourceVersion": "1"}, "spec": {"minFree": {"p": 1}}},
        }
        self._version = 1

    async def get(self, path: str, *, metadata: bool = False) -> dict[str, Any]:
        return self.objects[path]

    async def merge(self, path: str, patch: dict[str, Any], *, metadata: bool = False) -> dict[str, Any]:
        hook, self.before_demand = (self.before_demand, None) if path.startswith(REPORTS) else (None, self.before_demand)
        if hook:
            await hook()
        assert patch["metadata"].get("resourceVersion") in (None, self.objects[path]["metadata"]["resourceVersion"])
        self._version += 1
        self.objects[path] = found = merged(self.objects[path], patch)
        found["metadata"]["resourceVersion"] = str(self._version)
        return found

    async def report(self) -> None:
        """Report as the agent, about the present text."""
        text = self.objects[f"{NODES}/a"]["metadata"]["annotations"]["p"]
        items = [FIRST, {**USED, "closing": "closing" in text}]
        networks = [{"name": "net", "annotation": "p", "observed": text, "items": items}]
        self.before_demand, hook = None, self.before_demand
        await self.merge(f"{REPORTS}/a", {"metadata": {}, "status": {"networks": networks}})
        self.before_demand = hook


def merged(old: dict[str, Any], patch: dict[str, Any]) -> dict[str, Any]:
    """Return the result of a merge patch."""
    found = dict(old)
    for key, value in patch.items():
        if value is None:
            found.pop(key, None)
        else:
            found[key] = merged(found.get(key) or {}, value) if isinstance(value, dict) else value
    return found


class SmallLeader:
    """A controller that leads, for a pool `p` with two subnets of node a."""

    def __init__(self, cluster: SmallCluster, *, log: Log | None = None, **spec: Any) -> None:
        self.ledger, log = Ledger(), log or Log("controller", ERROR - 1)
        self.ledger.growth.reporting = True
        self.ledger.set_pool(parse_pool(grows(**spec)))
        for cidr in ("172.20.0.0/29", SECOND):
            put_claim(self.ledger, cidr)
        handlers = Handlers(*(kind(self.ledger, lambda: None, log) for kind in (Nodes, Claims, Pools, Reports)))  # type: ignore[arg-type]
        self._cluster, self._handlers = cluster, handlers
        self._reconciler = Reconciler(cluster, self.ledger, handlers, log, ControllerMetrics())  # type: ignore[arg-type]
        self.hear()

    def hear(self) -> None:
        """Hear of the newest objects."""
        self._handlers.nodes.take_object(self._cluster.objects[f"{NODES}/a"])
        self._handlers.reports.take_object(self._cluster.objects[f"{REPORTS}/a"])

    async def work(self) -> None:
        """Do one plan."""
        await self.write(*writes(self.ledger))

    async def write(self, *due: Write) -> None:
        """Do these writes for node a."""
        self._reconciler.queue.add(("node", "a"))
        key = await self._reconciler.queue.get()
        for write in due:
            await self._reconciler._write(write, key)
        self._reconciler.queue.done(key)


def test_two_leaders() -> None:
    """Where one that knows the pool of a moment ago closes an item while the other ends growth, that one opens it."""

    async def race() -> str:
        cluster = SmallCluster()
        await cluster.report()
        stale, newer = SmallLeader(cluster), SmallLeader(cluster, minFree=0)
        stale.ledger.growth.left("a", ("p", 4), OPEN, 0.0, -1e6)
        cluster.before_demand = stale.work
        await newer.work()
        texts = [cluster.objects[f"{NODES}/a"]["metadata"]["annotations"]["p"]]
        await cluster.report()
        newer.hear()
        await newer.work()
        found = cluster.objects[f"{NODES}/a"]["metadata"]["annotations"]
        assert [*texts, *found] == [CLOSING, "p"]
        return str(found["p"])

    assert asyncio.run(race()) == OPEN


class LogLines:
    """Lines of a log."""

    dropped = 0

    def __init__(self) -> None:
        self.found: list[dict[str, Any]] = []

    def write(self, path: str, text: bytes) -> None:
        self.found.append(json.loads(text))


@pytest.mark.parametrize("name", ["closing", "node", "message", "msg", "level", "self"])
def test_names_of_annotations_in_the_log(name: str) -> None:
    """A pool may have any name, also that of a log's field; then the log still has each annotation that is written."""
    lines = LogLines()

    async def annotate() -> dict[str, str]:
        cluster, key = SmallCluster(), f"kube-node.nordix.org/{name}"
        leader = SmallLeader(cluster, log=Log("controller", INFO, lines))
        await leader.write(Annotate(leader.ledger.nodes["a"], {key: CLOSING, CLOSED: SECOND}))
        return {key: CLOSING, CLOSED: SECOND}

    told = ("Node annotated", "info", "a", asyncio.run(annotate()))
    assert [(line["msg"], line["level"], line["node"], line["annotations"]) for line in lines.found] == [told]


def note(corner: Corner, node: str) -> str | None:
    """Return the blocks of a node that the controller has closed, as the API server has them."""
    annotations: dict[str, str] = corner.server.request("GET", f"/api/v1/nodes/{node}")["metadata"].get("annotations", {})
    return annotations.get(CLOSED)


@pytest.mark.slow
@pytest.mark.servers("real")
def test_a_person_beside_the_controller(corner: Corner, admin: Path, tmp_path: Path) -> None:
    """A person's word on a static pool's block stays while another pool of the annotation grows, and after that; the controller's goes."""
    theirs = "172.21.0.0/29 of 172.21.0.0/24 via 172.21.0.1 closing"
    log = tmp_path / "controller.log"
    with ControllerProcess(admin, log, "--lease=none", wrap=IMPATIENT) as process:
        corner.pool("static", [{**FLAT, "cidr": "172.21.0.0/24"}])
        node = corner.node("a")
        until(lambda: corner.annotation(node) == theirs.removesuffix(" closing"), 20, process.log)
        corner.annotate(node, theirs)
        corner.pool("net", [FLAT], minFree=2, shrinkAfter="1s")
        until(lambda: node in {one["metadata"]["name"] for one in corner.server.request("GET", f"{APIS}/nodeaddresses")["items"]}, 20)
        corner.report(node, {})
        until(lambda: corner.annotation(node) == f"{theirs},{ONE}", HOLD + 40, process.log)
        corner.report(node, {"172.20.0.0/29": 5})
        until(lambda: corner.annotation(node) == f"{theirs},{OPEN}", 20, process.log)
        corner.report(node, {"172.20.0.0/29": 1, SECOND: 1})
        until(lambda: corner.annotation(node) == f"{theirs},{CLOSING}", 20, process.log)
        assert note(corner, node) == SECOND
        corner.pool("net", [FLAT], minFree=0)
        corner.report(node, {"172.20.0.0/29": 1, SECOND: 1})
        until(lambda: corner.annotation(node) == f"{theirs},{OPEN}", 20, process.log)
        assert note(corner, node) is None
        until(lambda: not corner.server.request("GET", f"{APIS}/nodeaddresses/{node}")["spec"].get("minFree"), 20, process.log)
        corner.annotate(node, f"{theirs},{CLOSING}")
        other = corner.node("b", annotation="172.21.0.8/29 of 172.21.0.0/24 via 172.21.0.1")
        until(lambda: "172.21.0.8/29" in corner.claims(), 20, process.log)
        corner.report(node, {"172.20.0.0/29": 1, SECOND: 1})
        corner.annotate(other, None)
        until(lambda: corner.annotation(other), 20, process.log)
        assert corner.annotation(node) == f"{theirs},{CLOSING}"


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
        assert note(corner, node) == SECOND
        assert process.stop() == 0
        corner.pools.discard(pool_name)
        corner.server.request("DELETE", f"{APIS}/subnetpools/{pool_name}")
        process.start()
        corner.report(node, {"172.20.0.0/29": 1, "172.20.0.8/29": 1})
        until(lambda: corner.annotation(node) == OPEN, HOLD + 40, process.log)
        until(lambda: not corner.server.request("GET", f"{asked}/{node}")["spec"].get("minFree"), 20, process.log)
        assert note(corner, node) is None
        assert set(corner.claims()) == {"172.20.0.0/29", "172.20.0.8/29"}
        assert process.stop() == 0
        before = len(corner.server.asked())
        process.start()
        until(lambda: process.get("/readyz")[0] == 200)
        other = corner.pool("other", [{**FLAT, "cidr": "172.21.0.0/24"}])
        until(lambda: corner.condition(other, "Ready")[0] == "True")
        assert not [one for one in corner.server.asked()[before:] if one.resource == "nodeaddresses"]
