# SPDX-License-Identifier: Apache-2.0
"""The agent's count and proof that a closing block is empty, on a node's files."""

from __future__ import annotations

import json
import threading
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest

from kubenode.agent.counting import Counting
from kubenode.agent.host import Stores
from kubenode.agent.networks import Networks
from kubenode.agent.vacancy import Vacancy
from kubenode.base.log import Log
from kubenode.base.workers import Round, Workers
from kubenode.host.datadir import DiskStore
from kubenode.host.root import HostRoot
from kubenode.host.sources import Sources
from kubenode.ipam.address import Address
from kubenode.ipam.ranges import parse_subnet
from kubenode.ipam.store import Attachment
from kubenode.nodes.node import Node
from kubenode.plugins.options import source_of

if TYPE_CHECKING:
    from pathlib import Path

KEY = "example.com/vlan"
A, B = "172.20.0.8/29 of 172.20.0.0/24 via none closing", "172.20.0.16/29 of 172.20.0.0/24 via none"
CLOSING = parse_subnet("172.20.0.8/29")
IN_IT = Address(4, CLOSING.number)
OWN = Node("n", "u", "m", ("10.0.0.0/24",), {KEY: f"{A}, {B}"})


@pytest.mark.parametrize(
    ("plugin", "ipam"),
    [
        ("host-local", {"ranges": [[{"subnet": "10.9.0.0/24"}]]}),
        ("node-annotation", {"annotation": "example.com/other"}),
        ("kube-node", {"nodeFile": "/etc/node.json"}),
        ("kube-node", {"annotation": "example.com/other"}),
        ("kube-node", {}),
    ],
)
def test_a_directory_that_another_configuration_uses_now(plugin: str, ipam: dict[str, Any], run_dir: Path, tmp_path: Path) -> None:
    """Addresses of an annotation count, even if the network of their directory has got another source since."""
    data_dir = tmp_path / "networks"
    store = DiskStore(str(data_dir), "net")
    with store.lock():
        store.reserve(IN_IT, Attachment("c0", "eth0"))
    Sources(str(run_dir)).take(source_of(KEY, ""), f"{data_dir}/net", lambda *_: True)
    networks = Networks(Log("test"))
    conf = {"cniVersion": "1.1.0", "name": "net", "type": "bridge", "ipam": {"type": plugin, "dataDir": str(data_dir), **ipam}}
    networks.met(plugin, json.dumps(conf).encode())

    stores = Stores(HostRoot())
    counting = Counting(networks, stores, Sources(str(run_dir)), Round(Workers(), Log("test"), 10.0))
    places = counting.places(OWN, [KEY])
    counted = counting.count(OWN, places.ours, lambda _: True, {})
    used = [use.used for one in counted.values() if one.annotation == KEY for use in one.uses if use.subnet == CLOSING]
    assert used == [1]
    assert [doubt.block for doubt in Vacancy(HostRoot(), str(run_dir), stores).doubts([CLOSING], KEY, places)] == [CLOSING]


def test_an_answer_that_comes_late(run_dir: Path, tmp_path: Path) -> None:
    """A question that waits for a lock says how it is when it is answered: the wait for a closing block may have begun again meanwhile."""
    store = DiskStore(str(tmp_path), "net")
    Sources(str(run_dir)).take(source_of(KEY, ""), store.directory, lambda *_: True)
    counting = Counting(Networks(Log("test")), Stores(HostRoot()), Sources(str(run_dir)), Round(Workers(), Log("test"), 1.0))
    places = counting.places(OWN, [KEY])
    is_over = True
    with ExitStack() as held:
        held.enter_context(store.lock())
        counting.count(OWN, places.ours, lambda _: is_over, {})
        is_over = False
        threading.Timer(0.2, held.pop_all().close).start()
        (counted,) = [one for one in counting.count(OWN, places.ours, lambda _: is_over, {}).values() if one.annotation == KEY]
    assert [use.settling for use in counted.uses] == [True, False]


def test_a_network_that_cannot_be_read(run_dir: Path, tmp_path: Path) -> None:
    """Its addresses stay in the report, about the text of then, if a person takes their block from the annotation meanwhile."""
    store = DiskStore(str(tmp_path), "net")
    Sources(str(run_dir)).take(source_of(KEY, ""), store.directory, lambda *_: True)
    with store.lock():
        store.reserve(IN_IT, Attachment("c0", "eth0"))
    counting = Counting(Networks(Log("test")), Stores(HostRoot()), Sources(str(run_dir)), Round(Workers(), Log("test"), 0.5))
    places = counting.places(OWN, [KEY]).ours
    before = [*counting.count(OWN, places, lambda _: False, {}).values()]
    with store.lock():
        assert [*counting.count(OWN._replace(annotations={KEY: B}), places, lambda _: False, {}).values()] == before
