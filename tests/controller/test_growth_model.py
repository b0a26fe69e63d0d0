# SPDX-License-Identifier: Apache-2.0
"""Growth as a whole, as a Hypothesis model: two controllers, agents, calls, messages that are late or lost, crashes, an etcd restore.

After a restore two controllers and all agents are back within the times that docs/explanation/growing-blocks.md names; all else may take
any time, and happen in any order.
"""

from __future__ import annotations

import os
import secrets
from typing import TYPE_CHECKING, Any

import pytest
from effort import examples
from hypothesis import seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule, run_state_machine_as_test
from modelagent import CALL, QUARANTINE, Agent, Message, address_subnet, addresses

from kubenode.controller.reconcile import ROUNDS
from kubenode.ipam.ranges import Subnet, parse_subnet
from kubenode.nodes.node import CLOSED
from kubenode.pools.blocks import Block
from kubenode.pools.growth import HOLD
from kubenode.pools.ledger import Ledger
from kubenode.pools.records import EXISTS, STATIC, Growth, NodeMetadata, NodeSubnet, Requirement, Selector, SubnetPool
from kubenode.pools.reports import AgentReport
from kubenode.pools.texts import closed_by_us, read
from kubenode.pools.timing import GOOD_FOR, RETURNED_AFTER, Now
from kubenode.pools.writes import Annotate, CreateClaim, DeleteClaim, Demand, UpdateClaim

if TYPE_CHECKING:
    from kubenode.ipam.address import Address
    from kubenode.nodes.items import Item
    from kubenode.pools.writes import Write

pytestmark = pytest.mark.slow

RECLAIM, SHRINK = 60.0, 1.0
NAMES = ["n0", "n1", "n2"]
FLAT, ROUTED = "flat", "routed"
KEYS = [FLAT, ROUTED]
MIN_FREE = 1
POOLS = [
    # Eight blocks of one or two addresses, of which three nodes may have nine.
    SubnetPool(
        "flat", FLAT, (Block(parse_subnet("10.0.0.0/28"), 31, shared=True, gateway="none").without_empty(),), Selector(), RECLAIM, (),
        Growth(MIN_FREE, 3, SHRINK),
    ),
    SubnetPool("routed", ROUTED, (Block(parse_subnet("fd00::/124"), 126),), Selector(), RECLAIM, (), Growth(MIN_FREE, 2, SHRINK)),
]  # fmt: skip
# Each node has one of its blocks, in an annotation that a growing pool writes, too; the growing ones come later.
STATICS = Block(parse_subnet("10.0.1.0/29"), 31, shared=True, gateway="none").without_empty()
BESIDE = SubnetPool("static", FLAT, (STATICS,), Selector(), RECLAIM)
# What somebody may write as the blocks that the controller has closed; the last one is cut within a block.
EACH = ",".join(
    [*(f"10.0.{net}.{number}/31" for net in (0, 1) for number in range(0, 16, 2)), *(f"fd00::{number:x}/126" for number in (0, 4, 8, 12))]
)
NOTES = ["", EACH, "10.0.0.4/31", "0.0.0.0/0,::/0", f" {EACH} ,, nonsense,{EACH}", f"{EACH},10.0.0.2/3"]
AT_MOST = {FLAT: 3, ROUTED: 2}
ENDS = ["delete", "minFree: 0", "nodeSelector"]  # of a pool's growth
NO_NODE = Selector((Requirement("no-node-has-it", EXISTS, frozenset()),))


class Api:
    """The objects of the API server, and what a backup has of them."""

    def __init__(self) -> None:
        self.nodes: dict[str, NodeMetadata] = {}
        self.claims: dict[Subnet, NodeSubnet] = {}
        self.reports: dict[str, AgentReport] = {}
        self.pools = {pool.name: pool for pool in POOLS}
        self.backup: tuple[Any, ...] | None = None
        self._version = 0

    def next(self) -> str:
        self._version += 1
        return str(self._version)


class View:
    """A controller: its ledger, and what it has not heard yet, by kind."""

    def __init__(self, api: Api, now: float) -> None:
        self.ledger = Ledger()
        self.untold: dict[str, list[tuple[str, Any]]] = {}
        self.again: dict[str, float] = {}  # when to look at a node, though nothing has changed
        self.list_all(api, now)

    def list_all(self, api: Api, now: float) -> None:
        """List all again, as after a start, or after etcd went back in time."""
        ledger = self.ledger
        self.untold = {"pool": [], "node": [], "claim": [], "report": []}
        ledger.growth.reporting = True
        ledger.growth.pause(now)
        for subnet in [claim.subnet for _, claim in ledger.claims if claim.uid and claim.subnet not in api.claims]:
            ledger.drop_claim(subnet)
        for name in ledger.reports.keys() - api.reports:
            ledger.drop_report(name)
        for name in ledger.pools.keys() - api.pools:
            ledger.drop_pool(name)
        for pool in api.pools.values():
            ledger.set_pool(pool)
        for node in api.nodes.values():
            ledger.set_node(node)
        for claim in api.claims.values():
            ledger.set_claim(claim)
        for report in api.reports.values():
            ledger.set_report(report)

    def hear(self, kind: str, count: int) -> None:
        for name, value in self.untold[kind][:count]:
            getattr(self.ledger, name)(value)
        del self.untold[kind][:count]


class Growing(RuleBasedStateMachine):
    @initialize(people=st.booleans(), restores=st.booleans(), pools=st.booleans(), beside=st.booleans(), end=st.sampled_from(ENDS))
    def begin(self, *, people: bool, restores: bool, pools: bool, beside: bool = False, end: str = ENDS[0]) -> None:
        self.people, self.restores, self.pools_change, self.beside, self.end = people, restores, pools, beside, end
        self.now = 1000.0
        self.api = Api()
        if beside:
            self.api.pools = {BESIDE.name: BESIDE}
        self.agents = {name: Agent(name, KEYS) for name in NAMES}
        for name in NAMES:
            self.api.nodes[name] = NodeMetadata(name, f"uid-{name}", self.api.next(), {}, {})
        self.views = [View(self.api, self.now - 2 * HOLD), View(self.api, self.now - 2 * HOLD)]
        self.behind: set[object] = set()  # agents and controllers that have not listed anything since the restore
        self.late: list[tuple[float, View, DeleteClaim]] = []  # requests that have not arrived yet
        self.restored = -1000.0
        self.disturbed = False  # by a person's edit, or a restore
        self.by_people: set[tuple[str, str, Subnet]] = set()  # closing items
        self.everything()
        if beside:
            for pool in POOLS:
                self.change_pool(pool.name, "back")
            self.everything()

    def tell(self, kind: str, how: str, value: object) -> None:
        for view in self.views:
            if view not in self.behind:
                view.untold[kind].append((how, value))

    def put_node(self, node: NodeMetadata) -> NodeMetadata:
        node = node._replace(version=self.api.next())
        self.api.nodes[node.name] = node
        self.by_people -= {
            (node.name, key, item.block) for key in KEYS for item in read(node.annotations.get(key)).items if not item.closing
        }
        self.tell("node", "set_node", node)
        if (agent := self.agents[node.name]) not in self.behind:
            agent.news.append(node)
        return node

    def put_claim(self, claim: NodeSubnet) -> NodeSubnet:
        if claim == self.api.claims.get(claim.subnet):
            return claim  # the API server keeps the version of an object that a write does not change
        claim = self.api.claims[claim.subnet] = claim._replace(version=self.api.next())
        self.tell("claim", "set_claim", claim)
        return claim

    def put_report(self, report: AgentReport) -> AgentReport:
        report = self.api.reports[report.node] = report._replace(version=self.api.next())
        self.tell("report", "set_report", report)
        return report

    # Pods.

    @rule(name=st.sampled_from(NAMES), key=st.sampled_from(KEYS), count=st.integers(1, 5))
    def start_pods(self, name: str, key: str, count: int) -> None:
        for _ in range(count):
            self.agents[name].begin(key, self.now)
            self.agents[name].end(self.agents[name].calls[-1])

    @rule(name=st.sampled_from(NAMES), key=st.sampled_from(KEYS))
    def begin_a_call(self, name: str, key: str) -> None:
        self.agents[name].begin(key, self.now)

    @rule(name=st.sampled_from(NAMES))
    def end_a_call(self, name: str) -> None:
        if calls := self.agents[name].calls:
            self.agents[name].end(calls[0])

    @rule(name=st.sampled_from(NAMES), keep=st.integers(0, 9), newest=st.booleans())
    def stop_pods(self, name: str, keep: int, *, newest: bool) -> None:
        used = self.agents[name].used
        used -= set(sorted(used, reverse=newest)[keep:])

    # Agents.

    @rule(name=st.sampled_from(NAMES), count=st.integers(1, 3))
    def see(self, name: str, count: int) -> None:
        agent = self.agents[name]
        for node in agent.news[:count]:
            agent.see(node, self.now)
        del agent.news[:count]
        if agent in self.behind:
            self.behind.discard(agent)
            agent.see(self.api.nodes[name], self.now, past=True)

    @rule(name=st.sampled_from(NAMES))
    def ask_for_the_version(self, name: str) -> None:
        if report := self.api.reports.get(name):
            self.agents[name].known = report.version

    @rule(name=st.sampled_from(NAMES))
    def write_a_report(self, name: str) -> None:
        self.agents[name].write_report(self.now)

    @rule(name=st.sampled_from(NAMES), which=st.integers(0, 5), answered=st.booleans(), again=st.booleans())
    def deliver(self, name: str, which: int, *, answered: bool, again: bool) -> None:
        """Let a message arrive, in any order; `again`: it will arrive once more."""
        agent = self.agents[name]
        if agent.outbox:
            index = which % len(agent.outbox)
            message = agent.outbox[index] if again else agent.outbox.pop(index)
            self.patch(agent, message, answered=answered)

    def patch(self, agent: Agent, message: Message, *, answered: bool) -> None:
        report = self.api.reports.get(agent.name)
        if report is not None and report.version == message.version:
            report = self.put_report(report._replace(uses=message.uses))
            if answered:
                agent.known = report.version

    @rule(name=st.sampled_from(NAMES))
    def lose_messages(self, name: str) -> None:
        self.agents[name].outbox.clear()

    @rule(name=st.sampled_from(NAMES))
    def restart_an_agent(self, name: str) -> None:
        self.agents[name].restart(self.now)

    @rule(name=st.sampled_from(NAMES))
    def let_an_agent_work(self, name: str) -> None:
        """Let it see all, and report that at once."""
        self.see(name, 1000)
        self.ask_for_the_version(name)
        agent = self.agents[name]
        agent.write_report(self.now)
        self.patch(agent, agent.outbox.pop(), answered=True)

    # People.

    @precondition(lambda self: hasattr(self, "api") and self.people)
    @rule(name=st.sampled_from(NAMES), key=st.sampled_from(KEYS), what=st.sampled_from(["remove all", "remove", "close", "open"]))
    def edit(self, name: str, key: str, what: str) -> None:
        node = self.api.nodes[name]
        self.disturbed |= what != "close"
        items = list(read(node.annotations.get(key)).items)
        if not items:
            return
        if what in ("remove", "remove all"):
            if self.pools_change or self.beside:
                return  # where a pool does not grow, nodes have `reclaimAfter` to learn of it, and no longer
            del items[-1 if what == "remove" else 0 :]
        else:
            items[-1] = self.word(name, key, items[-1], closing=what == "close")
        annotations = {each: text for each, text in node.annotations.items() if each != key}
        self.put_node(node._replace(annotations=annotations | ({key: ",".join(map(str, items))} if items else {})))

    def word(self, name: str, key: str, item: Item, *, closing: bool) -> Item:
        """Return an item that a person closes, or opens."""
        if closing and not item.closing:
            self.by_people.add((name, key, item.block))
        return item._replace(closing=closing)

    @precondition(lambda self: hasattr(self, "api") and self.people)
    @rule(name=st.sampled_from(NAMES), text=st.sampled_from(NOTES))
    def edit_the_note(self, name: str, text: str) -> None:
        """Write anything as the blocks that the controller has closed, as a kubelet may. What is closing beside them is a person's then."""
        node = self.api.nodes[name]
        annotations = {key: value for key, value in node.annotations.items() if key != CLOSED}
        node = self.put_node(node._replace(annotations=annotations | ({CLOSED: text} if text else {})))
        shut = [(name, key, item.block) for key in KEYS for item in read(node.annotations.get(key)).items if item.closing]
        self.by_people.update(one for one in shut if one[2] not in closed_by_us(node))

    @precondition(lambda self: hasattr(self, "api") and self.beside)
    @rule(name=st.sampled_from(NAMES), closing=st.booleans())
    def edit_the_static_block(self, name: str, *, closing: bool) -> None:
        """Close or open the block of the pool that never grows."""
        node = self.api.nodes[name]
        items = read(node.annotations.get(FLAT)).items
        items = tuple(self.word(name, FLAT, item, closing=closing) if is_static(item) else item for item in items)
        self.put_node(node._replace(annotations={**node.annotations, FLAT: ",".join(map(str, items))}))

    @precondition(lambda self: hasattr(self, "api") and self.pools_change and self.now > self.restored + QUARANTINE)
    @rule(name=st.sampled_from(sorted(KEYS)), what=st.sampled_from([*ENDS, "back"]))
    def change_pool(self, name: str, what: str) -> None:
        """Let a pool not grow, or not grow on any node, or be as it was at first."""
        pool = next(pool for pool in POOLS if pool.name == name)
        if what == "delete":
            if self.api.pools.pop(name, None):
                self.tell("pool", "drop_pool", name)
            return
        changes: dict[str, Any] = {"minFree: 0": {"growth": STATIC}, "nodeSelector": {"selector": NO_NODE}, "back": {}}
        self.api.pools[name] = pool._replace(**changes[what])
        self.tell("pool", "set_pool", self.api.pools[name])

    # Time.

    @rule(seconds=st.sampled_from([1.0, 10.0, 21.0, 31.0, 61.0]))
    def wait(self, seconds: float) -> None:
        for limit in (HOLD, QUARANTINE):
            if self.now < self.restored + limit <= self.now + seconds:
                self.everything()
        self.now += seconds
        for agent in self.agents.values():
            for call in [call for call in agent.calls if self.now >= call.began + CALL]:
                agent.end(call)

    # etcd.

    @rule()
    def back_up(self) -> None:
        api = self.api
        api.backup = (dict(api.nodes), dict(api.claims), dict(api.reports), dict(api.pools), set(self.by_people))

    @precondition(lambda self: hasattr(self, "api") and self.restores and self.api.backup and self.now > self.restored + QUARANTINE)
    @rule()
    def restore(self) -> None:
        """Set all objects back; connections end, and what is on its way is lost."""
        assert self.api.backup is not None
        nodes, claims, reports, pools, by_people = self.api.backup
        self.api.nodes, self.api.claims, self.api.reports = dict(nodes), dict(claims), dict(reports)
        self.api.pools, self.by_people = dict(pools), set(by_people)
        self.restored, self.disturbed = self.now, True
        for view in self.views:
            view.untold = {kind: [] for kind in view.untold}
        for agent in self.agents.values():
            agent.news.clear()
            agent.outbox.clear()
        self.late.clear()
        self.behind = {*self.views, *self.agents.values()}

    # Controllers.

    @rule(which=st.integers(0, 1), kind=st.sampled_from(["pool", "node", "claim", "report"]), count=st.integers(1, 9))
    def hear(self, which: int, kind: str, count: int) -> None:
        view = self.views[which]
        if view in self.behind:
            self.behind.discard(view)
            view.list_all(self.api, self.now)
        view.hear(kind, count)

    @rule(which=st.integers(0, 1))
    def crash(self, which: int) -> None:
        self.behind.discard(self.views[which])
        self.views[which] = View(self.api, self.now)

    @rule(which=st.integers(0, 1), name=st.sampled_from(NAMES), done=st.integers(0, 9))
    def work(self, which: int, name: str, done: int) -> None:
        """Do the first `done` writes of a plan; where that is not all of them, the controller has crashed."""
        view = self.views[which]
        outcome = view.ledger.plan(name, Now(self.now, self.now))
        writes = outcome.writes
        view.again[name] = outcome.again or self.now
        for write in writes[:done]:
            self.write(view, write)
        if len(writes) > done:
            self.crash(which)

    @rule(which=st.integers(0, 1), name=st.sampled_from(NAMES))
    def ask_for_deletions(self, which: int, name: str) -> None:
        """Let requests begin that arrive later."""
        view = self.views[which]
        for write in view.ledger.plan(name, Now(self.now, self.now)).writes:
            if isinstance(write, DeleteClaim) and self.may_delete(view, write):
                self.late.append((self.now, view, write))
            elif isinstance(write, CreateClaim):
                view.ledger.withdraw(write.claim)

    @precondition(lambda self: hasattr(self, "api") and self.late)
    @rule()
    def let_a_deletion_arrive(self) -> None:
        asked, view, write = self.late.pop(0)
        if self.now < asked + GOOD_FOR:
            self.delete(view, write)

    @rule(which=st.integers(0, 1))
    def work_on_all(self, which: int) -> None:
        view = self.views[which]
        for _ in range(30):
            for kind in view.untold:
                self.hear(which, kind, 1000)
            names = sorted(view.ledger.changed | {name for name, when in view.again.items() if when <= self.now})
            view.ledger.changed.clear()
            for name in names:
                view.again.pop(name, None)
                for _ in range(ROUNDS):
                    outcome = view.ledger.plan(name, Now(self.now, self.now))
                    for write in outcome.writes:
                        self.write(view, write)
                    if not outcome.writes:
                        break
                if outcome.again is not None:
                    view.again[name] = outcome.again
            if not view.ledger.changed and not any(view.untold.values()):
                return
        raise AssertionError("the controller never comes to rest")

    def is_newest(self, view: View, report: AgentReport | None) -> bool:
        if report is None:
            return True
        newest = self.api.reports.get(report.node)
        if newest is not None:
            view.ledger.set_report(newest)
        return newest is not None and newest.version == report.version

    def write(self, view: View, write: Write) -> None:
        api, ledger = self.api, view.ledger
        if isinstance(write, CreateClaim):
            there = api.claims.get(write.claim.subnet)
            ledger.set_claim(there or self.put_claim(write.claim._replace(uid=f"c{api.next()}")))
            if there is None:
                ledger.recent_writes.add(write.claim.subnet, self.now)
        elif isinstance(write, UpdateClaim):
            if (there := api.claims.get(write.claim.subnet)) and there.version == write.claim.version:
                ledger.set_claim(self.put_claim(write.claim))
                ledger.recent_writes.add(write.claim.subnet, self.now)
        elif isinstance(write, DeleteClaim):
            if self.may_delete(view, write):
                self.delete(view, write)
        elif isinstance(write, Demand):
            self.demand(view, write)
        else:
            self.annotate(view, write)

    def may_delete(self, view: View, write: DeleteClaim) -> bool:
        """Say whether a controller asks for the deletion. Others may write before that request arrives."""
        node = self.api.nodes[write.claim.node]
        view.ledger.set_node(node)
        return not view.ledger.holds(write.claim, node) and self.is_newest(view, write.report)

    def delete(self, view: View, write: DeleteClaim) -> None:
        there = self.api.claims.get(write.claim.subnet)
        if there and there.version == write.claim.version:
            self.check_delete(there, grows=(pool := view.ledger.pools.get(there.pool)) is not None and pool.growth != STATIC)
            del self.api.claims[there.subnet]
            self.tell("claim", "drop_claim", there.subnet)
            view.ledger.drop_claim(there.subnet)

    def annotate(self, view: View, write: Annotate) -> None:
        node = self.api.nodes[write.node.name]
        if self.is_newest(view, write.report) and node.version == write.node.version:
            self.check_annotate(node, write)
            self.check_words(view, node, write)
            annotations = {key: value for key, value in {**node.annotations, **write.values}.items() if value is not None}
            view.ledger.set_node(self.put_node(node._replace(annotations=annotations)))
        else:
            view.ledger.set_node(node)

    def demand(self, view: View, write: Demand) -> None:
        name, known = write.node.name, write.report
        there = self.api.reports.get(name)
        if there is None and known is None:
            there = self.put_report(AgentReport(name, write.node.uid, write.min_free, (), f"r{self.api.next()}"))
        elif there is not None and known is not None and there.uid == known.uid:
            left = {key: value for key, value in there.min_free.items() if key not in known.min_free}
            there = self.put_report(there._replace(min_free={**left, **write.min_free}))
        if there is not None:
            view.ledger.set_report(there)

    @rule()
    def everything(self) -> None:
        """Let all parts work until nothing changes."""
        for _ in range(4):
            for which in (0, 1):
                self.work_on_all(which)
            for name in NAMES:
                self.let_an_agent_work(name)

    @rule(which=st.integers(0, 1))
    def together(self, which: int) -> None:
        """Let one controller and all agents work, while the other controller hears nothing."""
        for _ in range(2):
            self.work_on_all(which)
            for name in NAMES:
                self.let_an_agent_work(name)

    # What has to hold.

    def check_annotate(self, node: NodeMetadata, write: Annotate) -> None:
        """Check that what is taken is not in use by the node, and what is given by no other."""
        for key, text in write.values.items() - {(CLOSED, write.values.get(CLOSED))}:
            before = {item.block for item in read(node.annotations.get(key)).items}
            after = {item.block for item in read(text).items}
            for block in before - after:
                assert self.disturbed or not self.uses(self.agents[node.name], key, block), (
                    f"{block} is taken from {node.name}, which uses it"
                )
            for block in after - before:
                users = [agent.name for agent in self.agents.values() if agent.name != node.name and self.uses(agent, key, block)]
                assert not users, f"{block} is given to {node.name}, and {users} use it"

    def check_words(self, view: View, node: NodeMetadata, write: Annotate) -> None:
        """Check that a person's word stays where no pool grows, as far as the controller knows."""
        for key in write.values.keys() & KEYS:
            after = {item.block: item.closing for item in read(write.values[key]).items}
            for item in read(node.annotations.get(key)).items:
                if is_static(item) and item.block not in closed_by_us(node):
                    assert after[item.block] == item.closing, f"{item.block} of the static pool is {write.values[key]}"
                if item.closing and not after.get(item.block, True) and (node.name, key, item.block) in self.by_people:
                    claim = view.ledger.claims.get(item.block)
                    pool = view.ledger.pools.get(claim.pool) if claim else None
                    is_ours = item.block in closed_by_us(node) or (pool and pool.growth.min_free and pool.serves(node))
                    assert is_ours, f"{item.block} was a person's"

    def check_delete(self, claim: NodeSubnet, *, grows: bool) -> None:
        """Check that the node's agent knows that the subnet is gone. A restored report may tell of another time.

        Where a pool does not grow it knows at least that the subnet is closing.
        """
        agent, key = self.agents[claim.node], claim.annotation
        has = any(item.block == claim.subnet and (grows or not item.closing) for item in agent.items(key))
        knows = not has and not self.uses(agent, key, claim.subnet)
        assert knows or self.now <= self.restored + HOLD, f"{claim.subnet} is released, and {claim.node} uses it"

    def uses(self, agent: Agent, key: str, block: Subnet) -> bool:
        """Say whether a node has addresses of a block, or a call in progress may take one."""
        return any(of == key and block.holds(address) for of, address in agent.used) or any(
            call.key == key and any(item.block == block for item in call.items) for call in agent.calls
        )

    @invariant()
    def no_address_of_two_nodes(self) -> None:
        if hasattr(self, "api"):
            whose: dict[tuple[str, Address], str] = {}
            for agent in self.agents.values():
                for one in agent.used:
                    assert one not in whose, f"{one} of {agent.name} and {whose[one]}"
                    whose[one] = agent.name

    @invariant()
    def every_text_is_readable(self) -> None:
        if hasattr(self, "api"):
            assert not any(read(node.annotations.get(key)).problem for node in self.api.nodes.values() for key in KEYS)

    @invariant()
    def every_word_is_of_somebody(self) -> None:
        for node in self.api.nodes.values() if hasattr(self, "api") else ():
            for key in KEYS:
                shut = {item.block for item in read(node.annotations.get(key)).items if item.closing}
                assert all((node.name, key, block) in self.by_people for block in shut - closed_by_us(node)), f"{node.annotations}"

    def let_time_pass(self, rounds: int) -> None:
        for _ in range(rounds):
            self.wait(31.0)
            self.everything()

    def teardown(self) -> None:
        if not hasattr(self, "api"):
            return
        self.let_time_pass(12)
        self.check_open()
        for pool in POOLS:
            self.change_pool(pool.name, "back")
        self.let_time_pass(12)
        self.check_served()
        self.let_time_pass(2)
        for agent in self.agents.values():
            agent.used.clear()
        for name in NAMES if self.beside else ():
            self.edit_the_static_block(name, closing=False)
        if self.pools_change:
            self.let_time_pass(2)  # what no pod needs is closing now, and not taken yet
            for pool in POOLS:
                self.change_pool(pool.name, self.end)
            self.let_time_pass(4)
            self.check_open()
            for pool in POOLS:
                self.change_pool(pool.name, "back")
        self.let_time_pass(12)
        self.check_rest()

    def check_rest(self) -> None:
        """Check that without pods no node has more than it needs, that nothing is lost, and that nothing is written."""
        for name, node in self.api.nodes.items():
            for key in KEYS:
                items = read(node.annotations.get(key)).items
                free = {item: len(list(addresses(item))) for item in items}
                needed = [sum(free.values()) - free[item] < 2 * MIN_FREE for item in items if not is_static(item)]
                assert len(items) == 1 or all(needed), f"{name} keeps {node.annotations}"
                assert not any(item.closing for item in items)
            assert CLOSED not in node.annotations
        blocks = {item.block for node in self.api.nodes.values() for key in KEYS for item in read(node.annotations.get(key)).items}
        assert set(self.api.claims) == blocks, "a subnet is lost to the pool"
        for view in self.views:
            assert not any(view.ledger.plan(name, Now(self.now, self.now)).writes for name in NAMES), "a controller at rest writes"

    def check_open(self) -> None:
        """Check that nothing stays closed that only growth would open, or take, except what a person has closed."""
        for name, node in self.api.nodes.items():
            for key in KEYS:
                grows = self.api.pools.get(key) in POOLS
                shut = {item.block for item in read(node.annotations.get(key)).items if item.closing}
                assert grows or all((name, key, block) in self.by_people for block in shut), f"{name}: {node.annotations} is stuck"
            shut = {item.block for key in KEYS for item in read(node.annotations.get(key)).items if item.closing}
            assert closed_by_us(node) <= shut, f"{name}: {node.annotations} has a note too many"

    def check_served(self) -> None:
        """Check that who needs a block has one, or the pool has none, and that nothing stays closed that is empty."""
        held = [address_subnet(address) for agent in self.agents.values() for _, address in agent.used]
        for pool in POOLS:
            key, (block,) = pool.annotation, pool.blocks
            left = [one for one in parts(block) if one not in self.api.claims and not any(one.overlaps(other) for other in held)]
            for name, agent in self.agents.items():
                items = read(self.api.nodes[name].annotations.get(key)).items
                stuck = [item for item in items if item.closing and not is_static(item) and agent_has_none(agent, item.block)]
                assert not stuck, f"{name}: {items} is stuck"
                lacks = agent.lacks(key, block.cidr.version, pool.growth.min_free)
                assert not lacks or not left or len(items) >= AT_MOST[key], f"{name} has {items}, and {left} are left"


def is_static(item: Item) -> bool:
    return BESIDE.item(item.block) is not None


def agent_has_none(agent: Agent, block: Subnet) -> bool:
    return not any(block.holds(address) for _, address in agent.used)


def parts(block: Block) -> list[Subnet]:
    size = 1 << (32 if block.cidr.version == 4 else 128) - block.node_prefix
    cut = [Subnet(block.cidr.version, number, block.node_prefix) for number in range(block.cidr.number, block.cidr.last + 1, size)]
    return [one for one in cut if block.offers(one)]


def begun() -> Growing:
    machine = Growing()
    machine.begin(people=True, restores=True, pools=True)
    return machine


def close(machine: Growing) -> None:
    """Have the first controller close the block that n0 does not need; its agent has not seen that."""
    machine.wait(31.0)
    for _ in range(2):
        machine.views[0].ledger.changed.update(NAMES)
        machine.work_on_all(0)
        machine.now += SHRINK
    assert "closing" in machine.api.nodes["n0"].annotations[FLAT]


def closed() -> Growing:
    """Return a machine whose n0 had a second block, and has a closing one now."""
    machine = begun()
    machine.start_pods("n0", FLAT, 1)
    machine.together(0)
    machine.stop_pods("n0", 0, newest=True)
    machine.let_an_agent_work("n0")
    close(machine)
    return machine


def opened_and_closed(machine: Growing) -> None:
    """Have n0 need its closing block again, use it no more, and lose it again; then let a call begin that has not seen that."""
    machine.start_pods("n0", FLAT, 2)
    machine.let_an_agent_work("n0")
    machine.work_on_all(0)
    assert "closing" not in machine.api.nodes["n0"].annotations[FLAT]
    machine.let_an_agent_work("n0")
    machine.stop_pods("n0", 0, newest=True)
    machine.let_an_agent_work("n0")
    close(machine)
    machine.begin_a_call("n0", FLAT)


def needs_a_block(machine: Growing, name: str) -> None:
    machine.start_pods(name, FLAT, 9)
    machine.let_an_agent_work(name)
    machine.work_on_all(0)


def test_a_call_in_progress() -> None:
    """A block is not taken as long as a call may live that began before it was closed."""
    machine = closed()
    machine.begin_a_call("n0", FLAT)
    machine.let_an_agent_work("n0")
    machine.work_on_all(0)
    machine.end_a_call("n0")
    machine.no_address_of_two_nodes()
    assert "closing" in machine.api.nodes["n0"].annotations[FLAT]


@pytest.mark.parametrize("what", ENDS)
def test_a_pool_that_grows_no_more(what: str) -> None:
    """What is closing then is opened again: the node keeps what it has, as without growth, and nothing more is written."""
    machine = closed()
    machine.start_pods("n1", FLAT, 2)
    machine.change_pool(FLAT, what)
    machine.let_time_pass(3)
    blocks = read(machine.api.nodes["n0"].annotations[FLAT]).items
    assert len(blocks) == 2
    assert not any(item.closing for item in blocks)
    machine.teardown()


def test_a_word_of_a_person_beside_a_growing_pool() -> None:
    """A block of a static pool stays as a person wants it, while another pool of the annotation grows, and after that."""
    machine = Growing()
    machine.begin(people=False, restores=False, pools=True, beside=True)
    machine.edit_the_static_block("n0", closing=True)
    machine.let_time_pass(2)
    machine.start_pods("n0", FLAT, 3)
    machine.let_time_pass(2)
    kept = read(machine.api.nodes["n0"].annotations[FLAT]).items
    assert [item.closing for item in kept] == [True, *[False] * (len(kept) - 1)]
    assert len(kept) > 1
    machine.change_pool(FLAT, "minFree: 0")
    machine.let_time_pass(3)
    assert read(machine.api.nodes["n0"].annotations[FLAT]).items == kept
    machine.teardown()


def test_a_report_about_an_earlier_text() -> None:
    """A controller that has an old report, about the same text as now, asks the API server before it writes."""
    machine = closed()
    machine.let_an_agent_work("n0")
    machine.wait(21.0)
    machine.let_an_agent_work("n0")
    machine.hear(1, "report", 1000)
    opened_and_closed(machine)
    machine.hear(1, "node", 1000)
    machine.hear(1, "claim", 1000)
    machine.work(1, "n0", 9)


def test_a_report_about_another_text() -> None:
    """A report is no agreement while the agent acts on another text: it would count for the next one that reads the same."""
    machine = closed()
    machine.let_an_agent_work("n0")
    machine.wait(21.0)
    machine.start_pods("n0", FLAT, 2)
    machine.let_an_agent_work("n0")
    machine.work_on_all(0)
    assert "closing" not in machine.api.nodes["n0"].annotations[FLAT]
    machine.stop_pods("n0", 0, newest=True)
    machine.ask_for_the_version("n0")
    machine.write_a_report("n0")  # its Node is still the one before
    machine.deliver("n0", 0, answered=True, again=False)
    machine.wait(31.0)
    machine.see("n0", 1)
    machine.begin_a_call("n0", FLAT)
    for _ in range(3):
        machine.work_on_all(0)
        machine.views[0].ledger.changed.update(NAMES)
        machine.now += SHRINK


def test_a_report_that_comes_late() -> None:
    """A report that was written before the block was opened again is refused, however late it comes."""
    machine = closed()
    machine.see("n0", 1000)
    machine.wait(21.0)
    machine.ask_for_the_version("n0")
    machine.write_a_report("n0")
    late = machine.agents["n0"].outbox.pop()
    opened_and_closed(machine)
    machine.patch(machine.agents["n0"], late, answered=False)
    machine.work_on_all(0)


def test_an_agent_that_does_not_know_yet() -> None:
    """A claim stays until the agent has the annotation without it."""
    machine = closed()
    machine.let_an_agent_work("n0")
    machine.wait(21.0)
    machine.let_an_agent_work("n0")
    machine.work_on_all(0)
    assert "closing" not in machine.api.nodes["n0"].annotations[FLAT]
    count = len(machine.api.claims)
    for _ in range(3):
        machine.wait(61.0)
        machine.views[0].ledger.changed.update(NAMES)
        machine.work_on_all(0)
    assert len(machine.api.claims) == count
    machine.let_an_agent_work("n0")
    machine.work_on_all(0)
    assert len(machine.api.claims) == count, "another controller may just give it to n0 again"
    machine.wait(RETURNED_AFTER)
    machine.views[0].ledger.changed.update(NAMES)
    machine.work_on_all(0)
    assert len(machine.api.claims) == count - 1


def test_a_claim_that_two_controllers_want() -> None:
    """A block that one controller is about to give back, and another gives to the same node again, stays that node's."""
    machine = closed()
    one = machine.views[0]
    machine.let_an_agent_work("n0")
    machine.wait(21.0)
    machine.let_an_agent_work("n0")
    machine.work_on_all(0)
    machine.let_an_agent_work("n0")
    for kind in one.untold:
        machine.hear(0, kind, 1000)
    for _ in range(30):
        writes = one.ledger.plan("n0", Now(machine.now, machine.now)).writes
        if due := [write for write in writes if isinstance(write, DeleteClaim)]:
            break
        for write in writes:
            machine.write(one, write)
        machine.now += 1.0
    (late,) = due
    assert machine.may_delete(one, late)
    machine.start_pods("n0", FLAT, 2)
    machine.let_an_agent_work("n0")
    machine.work_on_all(1)
    assert late.claim.subnet in read(machine.api.nodes["n0"].annotations[FLAT]).subnets
    machine.let_an_agent_work("n0")
    machine.start_pods("n0", FLAT, 2)
    machine.delete(one, late)
    machine.start_pods("n1", FLAT, 9)
    machine.let_an_agent_work("n1")
    machine.hear(0, "report", 1000)
    for _ in range(ROUNDS):
        machine.work(0, "n1", 9)
        machine.let_an_agent_work("n1")
        machine.start_pods("n1", FLAT, 9)
    machine.no_address_of_two_nodes()


def test_a_person_takes_a_block_in_use() -> None:
    """What pods of a node use stays its node's, whatever a person does with the annotation."""
    machine = begun()
    machine.start_pods("n0", FLAT, 1)
    machine.together(0)
    machine.start_pods("n0", FLAT, 2)
    machine.stop_pods("n0", 1, newest=True)  # in the last block
    machine.edit("n0", FLAT, "remove")
    machine.let_an_agent_work("n0")
    for _ in range(3):
        machine.wait(61.0)
        machine.views[0].ledger.changed.update(NAMES)
        machine.work_on_all(0)
    machine.no_address_of_two_nodes()


@pytest.mark.parametrize("seconds", [1.0, 61.0])
def test_a_block_that_no_backup_has(seconds: float) -> None:
    """What a node got after the backup is given to no other after the restore: first nothing is, then agents have reported."""
    machine = begun()
    machine.back_up()
    machine.start_pods("n0", FLAT, 1)
    machine.together(0)
    machine.start_pods("n0", FLAT, 2)
    machine.restore()
    machine.wait(seconds)
    machine.see("n1", 1)
    machine.hear(0, "node", 1)
    needs_a_block(machine, "n1")
    machine.no_address_of_two_nodes()


def test_a_block_that_is_another_nodes_now() -> None:
    """After a restore a node may have in its annotation what another one has got since; it gives nothing of that, and loses it."""
    machine = begun()
    machine.start_pods("n1", FLAT, 2)
    machine.together(0)
    had = set(read(machine.api.nodes["n1"].annotations[FLAT]).subnets)
    machine.back_up()
    machine.stop_pods("n1", 0, newest=True)
    machine.let_time_pass(6)
    lost = had - set(read(machine.api.nodes["n1"].annotations[FLAT]).subnets)
    assert lost
    for _ in range(3):
        needs_a_block(machine, "n0")
        machine.let_an_agent_work("n0")
    assert lost & set(read(machine.api.nodes["n0"].annotations[FLAT]).subnets)
    machine.start_pods("n0", FLAT, 9)
    machine.restore()
    machine.see("n0", 1)
    machine.see("n1", 1)
    for _ in range(20):
        machine.wait(31.0)
        machine.start_pods("n1", FLAT, 9)
        machine.no_address_of_two_nodes()


def lost_by_restore() -> tuple[Growing, Subnet]:
    """Return a machine after a restore, and a block that n0 has as closing in the backup, and n1 uses."""
    machine = closed()
    (block,) = (item.block for item in read(machine.api.nodes["n0"].annotations[FLAT]).items if item.closing)
    machine.back_up()
    machine.let_time_pass(3)
    for _ in range(4):
        needs_a_block(machine, "n1")
        machine.let_an_agent_work("n1")
    machine.start_pods("n1", FLAT, 9)
    assert machine.uses(machine.agents["n1"], FLAT, block)
    machine.restore()
    return machine, block


def test_a_closing_block_that_another_node_uses() -> None:
    """A block that is closing in the backup is not opened before all agents had the time to report."""
    machine, block = lost_by_restore()
    machine.hear(0, "node", 1)
    machine.let_an_agent_work("n0")
    needs_a_block(machine, "n0")
    machine.let_an_agent_work("n0")
    machine.start_pods("n0", FLAT, 9)
    machine.no_address_of_two_nodes()
    machine.let_time_pass(6)
    machine.start_pods("n0", FLAT, 9)
    machine.no_address_of_two_nodes()
    assert machine.uses(machine.agents["n1"], FLAT, block)


@pytest.mark.parametrize("what", ENDS)
def test_a_block_that_another_node_uses_as_the_pool_grows_no_more(what: str) -> None:
    """A closing block that another node uses is not opened, at no time, whatever becomes of its pool."""
    machine, block = lost_by_restore()
    machine.hear(0, "node", 1)
    machine.change_pool(FLAT, what)
    machine.let_an_agent_work("n0")
    machine.work_on_all(0)
    machine.start_pods("n0", FLAT, 9)
    machine.let_an_agent_work("n0")
    machine.start_pods("n0", FLAT, 9)
    machine.no_address_of_two_nodes()
    for _ in range(12):
        machine.let_time_pass(1)
        machine.start_pods("n0", FLAT, 9)
        machine.no_address_of_two_nodes()
    assert machine.uses(machine.agents["n1"], FLAT, block)


SEED = int(os.environ.get("KUBE_NODE_SEED") or secrets.randbelow(1 << 32))
STEPS = 150
SETTINGS = settings(max_examples=examples(70), stateful_step_count=STEPS, deadline=None, database=None)


@pytest.mark.timeout(1800)  # with the other one 21,000 steps
def test_by_a_fixed_seed() -> None:
    """Whatever happens, in this order: no address of two nodes, nothing is stuck, and every node gets a block while the pool has one."""
    run_state_machine_as_test(seed(20261126)(Growing), settings=SETTINGS)


@pytest.mark.timeout(1800)
def test_by_a_fresh_seed() -> None:
    """The same, in another order each time."""
    try:
        run_state_machine_as_test(seed(SEED)(Growing), settings=SETTINGS)
    except BaseException as error:
        error.add_note(f"again with KUBE_NODE_SEED={SEED}")
        raise
