# SPDX-License-Identifier: Apache-2.0
"""A mirror of a collection while the API server does what it should not."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest
from apiserver import base64_text, write_kubeconfig
from patience import PATIENCE
from standin import StandInApiServer, answer, cut, failure, refuse, reset, stream

from kubenode.base.log import Log
from kubenode.controller.handlers import TOO_LONG, Nodes
from kubenode.ipam.ranges import RangeError
from kubenode.kube.asyncclient import Cluster, Collection
from kubenode.kube.listwatch import ListWatch
from kubenode.kube.reflector import Pace, Reflector
from kubenode.nodes.node import LAST_APPLIED
from kubenode.pools.ledger import Ledger
from kubenode.pools.records import noted

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import msgspec
    from standin import Step

    from kubenode.kube.listwatch import ObjectHandler

PACE = Pace(lifetime=5, settled=0.1, shortest=0.01, longest=0.1)


class Names:
    """A sink that remembers names."""

    def __init__(self) -> None:
        self.there: set[str] = set()

    def put(self, manifest: msgspec.Raw, *, replace: bool = False) -> str:
        name: str = json.loads(bytes(manifest))["metadata"]["name"]
        self.there.add(name)
        return name

    def drop(self, manifest: msgspec.Raw) -> None:
        self.there.discard(json.loads(bytes(manifest))["metadata"]["name"])

    def only(self, names: set[str], version: str) -> None:
        self.there &= names


def page(version: int, names: list[str], more: str = "") -> Step:
    items = [{"metadata": {"name": name, "resourceVersion": "1"}} for name in names]
    return answer({"metadata": {"resourceVersion": str(version), "continue": more}, "items": items})


def event(kind: str, name: str, version: int) -> dict[str, Any]:
    return {"type": kind, "object": {"metadata": {"name": name, "resourceVersion": str(version)}}}


def mirrored(
    tmp_path: Path, script: list[Step], done: Callable[[Names, Reflector], bool], then: Step | None = None, pace: Pace = PACE
) -> tuple[StandInApiServer, list[str]]:
    """ListWatch until `done`, against an API server that answers by `script`."""
    return mirrored_into(names := Names(), tmp_path, script, lambda reflector: done(names, reflector), then, pace)


def mirrored_into(
    sink: ObjectHandler, tmp_path: Path, script: list[Step], done: Callable[[Reflector], bool], then: Step | None = None, pace: Pace = PACE
) -> tuple[StandInApiServer, list[str]]:
    reasons: list[str] = []
    with StandInApiServer(tmp_path, *script, then=then or stream(30.0)) as server:
        cluster = {"server": server.url, "certificate-authority-data": base64_text(server.authority.certificate)}
        kubeconfig = write_kubeconfig(tmp_path / "kubeconfig", cluster, {"token": "t"})

        async def run() -> None:
            api = Cluster(str(kubeconfig), {}, 3, lambda *_: None)
            log = Log("test")
            log.configure(str(tmp_path / "log"), "debug")
            mirror = ListWatch(api, Collection("/api/v1/nodes", metadata=True), sink, log)
            reflector = Reflector(mirror, log, reasons.append, pace)
            task = asyncio.create_task(reflector.run())
            try:
                async with asyncio.timeout(PATIENCE):
                    while not done(reflector):  # noqa: ASYNC110 (a sink has no event to wait for)
                        await asyncio.sleep(0.01)
            finally:
                task.cancel()
                await asyncio.wait([task])
                await api.aclose()

        asyncio.run(run())
    return server, reasons


def test_a_long_annotation() -> None:
    """Of an annotation that is too long for a list of subnets only that is kept: it is no list, so it is never changed."""
    ledger = Ledger()
    metadata = {"name": "n", "uid": "u", "resourceVersion": "1", "annotations": {"k": "x" * 2000, LAST_APPLIED: "{}", "other": "1"}}
    Nodes(ledger, lambda: None, Log("test")).take_object({"metadata": metadata})
    assert ledger.nodes["n"].annotations == {"k": TOO_LONG, "other": "1"}
    with pytest.raises(RangeError):
        noted(TOO_LONG)


def test_pages_then_a_watch(tmp_path: Path) -> None:
    """The list is read in pages, as metadata alone, and watched from its version."""
    script = [page(7, ["a"], "next"), page(7, ["b"]), stream(event("ADDED", "c", 8), event("DELETED", "a", 9), 30.0)]
    server, _ = mirrored(tmp_path, script, lambda names, _: names.there == {"b", "c"})
    assert "continue=next" in server.requests[1].path
    assert "resourceVersion=7" in server.requests[2].path
    assert "PartialObjectMetadataList" in server.requests[0].headers["Accept"]
    assert "PartialObjectMetadata;" in server.requests[2].headers["Accept"]


def test_a_watch_that_ends_is_resumed(tmp_path: Path) -> None:
    """A watch that is cut goes on from the last version that it told, without a list."""
    script = [
        page(7, ["a"]),
        stream(event("ADDED", "b", 9), cut),
        stream(event("BOOKMARK", "", 12), cut),
        stream(event("ADDED", "c", 13), 30.0),
    ]
    server, reasons = mirrored(tmp_path, script, lambda names, _: names.there == {"a", "b", "c"})
    assert ["resourceVersion=9" in server.requests[2].path, "resourceVersion=12" in server.requests[3].path] == [True, True]
    assert reasons == ["error", "error"]


def node(name: str, version: int, text: str) -> dict[str, Any]:
    return {"metadata": {"name": name, "uid": f"u-{name}", "resourceVersion": str(version), "annotations": {"k": text}}}


def test_time_goes_back(tmp_path: Path) -> None:
    """After an etcd restore all is listed, once the API server was away, and the list replaces what is known, though that is newer."""
    ledger, log = Ledger(), Log("test")
    nodes = Nodes(ledger, lambda: None, log)
    lost = [{"type": "MODIFIED", "object": node("a", 103, "lost")}, {"type": "ADDED", "object": node("b", 104, "lost")}]
    restored = answer({"metadata": {"resourceVersion": "60"}, "items": [node("a", 50, "restored")]})
    script = [answer({"metadata": {"resourceVersion": "102"}, "items": [node("a", 101, "old")]}), stream(*lost, cut), reset, restored]
    server, _ = mirrored_into(
        nodes, tmp_path, [*script, stream({"type": "ADDED", "object": node("c", 61, "new")}, 30.0)], lambda _: "c" in ledger.nodes
    )
    assert {node.name: (node.version, node.annotations["k"]) for node in ledger.nodes.values()} == {
        "a": ("50", "restored"),
        "c": ("61", "new"),
    }
    assert [seen.path.partition("resourceVersion=")[2].partition("&")[0] for seen in server.requests] == ["", "102", "104", "", "60"]


@pytest.mark.slow
@pytest.mark.parametrize("silence", [stream(1.2), stream(30.0)])
def test_a_silent_watch(tmp_path: Path, silence: Step) -> None:
    """A watch that tells nothing before it ends, or does not even end, may be from a version that is still to come: all is listed."""
    script = [page(100, ["a", "b"]), silence, page(60, ["a"]), stream(event("ADDED", "c", 61), 30.0)]
    pace = PACE._replace(lifetime=2, first_silence=2.2)
    server, _ = mirrored(tmp_path, script, lambda names, _: names.there == {"a", "c"}, pace=pace)
    assert "resourceVersion=60" in server.requests[3].path


def test_a_watch_that_falls_silent(tmp_path: Path) -> None:
    """A watch that has told a bookmark, and then not the next in time, is given up: all is listed."""
    script = [page(7, ["a", "b"]), stream(event("BOOKMARK", "", 12), 30.0), page(20, ["a"]), stream(event("ADDED", "c", 21), 30.0)]
    pace = PACE._replace(lifetime=1800, silence=0.3)
    _, reasons = mirrored(tmp_path, script, lambda names, _: names.there == {"a", "c"}, pace=pace)
    assert reasons == ["stalled"]


def test_a_watch_that_ends_within_an_event(tmp_path: Path) -> None:
    """Half an event is not taken for one; the watch goes on from the last whole one."""
    script = [page(7, ["a"]), stream(event("ADDED", "b", 9), b'{"type": "ADDED", "object"'), stream(event("ADDED", "c", 10), 30.0)]
    server, reasons = mirrored(tmp_path, script, lambda names, _: names.there == {"a", "b", "c"})
    assert "resourceVersion=9" in server.requests[2].path
    assert reasons == ["error"]


def test_an_expired_version(tmp_path: Path) -> None:
    """After a 410 all is listed anew at once, and what is not there any more is dropped."""
    for name, expired in (("answer", refuse(410, "too old", "Expired")), ("event", stream(failure(410, "too old")))):
        directory = tmp_path / name
        directory.mkdir()
        script = [page(7, ["a", "b"]), expired, page(20, ["b"]), stream(event("ADDED", "c", 21), 30.0)]
        _, reasons = mirrored(directory, script, lambda names, _: names.there == {"b", "c"})
        assert reasons == ["expired"]


def test_a_page_that_expires(tmp_path: Path) -> None:
    """A list whose next page has expired begins again."""
    script = [page(7, ["a"], "next"), refuse(410, "too old", "Expired"), page(9, ["b"]), stream(event("ADDED", "c", 10), 30.0)]
    mirrored(tmp_path, script, lambda names, _: names.there == {"b", "c"})


def test_a_busy_server(tmp_path: Path) -> None:
    """An API server that is busy, resets or talks nonsense is asked again, and what failed is told until it works."""
    script = [refuse(429, "busy", Retry_After="0"), answer(b"<html>"), page(7, ["a"]), stream(b"nonsense\n", 30.0), page(8, ["a"])]
    script.append(stream(event("ADDED", "b", 9), 30.0))
    mirrored(tmp_path, script, lambda names, reflector: names.there == {"a", "b"} and reflector.failure is None)
    failures = [line for line in (tmp_path / "log").read_text().splitlines() if "watch failed" in line]
    assert any("429" in line for line in failures)
    assert any("something other than" in line for line in failures)
