"""A mirror of a collection while the API server does what it should not."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest
from apiserver import base64_text, write_kubeconfig
from standin import StandInApiServer, answer, cut, failure, refuse, stream

from kubenode.controller.feeds import TOO_LONG, Nodes
from kubenode.controller.mirror import Mirror, Pace
from kubenode.controller.pools import Ledger
from kubenode.controller.records import noted
from kubenode.host.log import Log
from kubenode.ipam.ranges import RangeError
from kubenode.kube.collection import Cluster, Collection
from kubenode.kube.node import LAST_APPLIED

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import msgspec
    from standin import Step

PACE = Pace(lifetime=5, grace=1, shortest=0.01, longest=0.1)


class Names:
    """A sink that remembers names."""

    def __init__(self) -> None:
        self.there: set[str] = set()

    def put(self, manifest: msgspec.Raw) -> str:
        name: str = json.loads(bytes(manifest))["metadata"]["name"]
        self.there.add(name)
        return name

    def drop(self, manifest: msgspec.Raw) -> None:
        self.there.discard(json.loads(bytes(manifest))["metadata"]["name"])

    def only(self, names: set[str], version: str) -> None:
        self.there &= names


class Counts:
    def __init__(self) -> None:
        self.reasons: list[str] = []

    def requested(self, verb: str, resource: str, result: str) -> None: ...

    def restarted(self, resource: str, reason: str) -> None:
        self.reasons.append(reason)


def page(version: int, names: list[str], more: str = "") -> Step:
    items = [{"metadata": {"name": name, "resourceVersion": "1"}} for name in names]
    return answer({"metadata": {"resourceVersion": str(version), "continue": more}, "items": items})


def event(kind: str, name: str, version: int) -> dict[str, Any]:
    return {"type": kind, "object": {"metadata": {"name": name, "resourceVersion": str(version)}}}


def mirrored(
    tmp_path: Path, script: list[Step], done: Callable[[Names, Mirror], bool], then: Step | None = None
) -> tuple[StandInApiServer, Counts]:
    """Mirror until `done`, against an API server that answers by `script`."""
    counts, names = Counts(), Names()
    with StandInApiServer(tmp_path, *script, then=then or stream(30.0)) as server:
        cluster = {"server": server.url, "certificate-authority-data": base64_text(server.authority.certificate)}
        kubeconfig = write_kubeconfig(tmp_path / "kubeconfig", cluster, {"token": "t"})

        async def run() -> None:
            api = Cluster(str(kubeconfig), {}, 3, counts)
            log = Log("test")
            log.configure(str(tmp_path / "log"), "debug")
            mirror = Mirror(api, Collection("/api/v1/nodes", metadata=True), names, log, counts, PACE)
            task = asyncio.create_task(mirror.run())
            try:
                async with asyncio.timeout(10):
                    while not done(names, mirror):  # noqa: ASYNC110 (a sink has no event to wait for)
                        await asyncio.sleep(0.01)
            finally:
                task.cancel()
                await asyncio.wait([task])
                await api.aclose()

        asyncio.run(run())
    return server, counts


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
    server, counts = mirrored(tmp_path, script, lambda names, _: names.there == {"a", "b", "c"})
    assert ["resourceVersion=9" in server.requests[2].path, "resourceVersion=12" in server.requests[3].path] == [True, True]
    assert counts.reasons == ["error", "error"]


def test_a_watch_that_ends_within_an_event(tmp_path: Path) -> None:
    """Half an event is not taken for one; the watch goes on from the last whole one."""
    script = [page(7, ["a"]), stream(event("ADDED", "b", 9), b'{"type": "ADDED", "object"'), stream(event("ADDED", "c", 10), 30.0)]
    server, counts = mirrored(tmp_path, script, lambda names, _: names.there == {"a", "b", "c"})
    assert "resourceVersion=9" in server.requests[2].path
    assert counts.reasons == ["error"]


def test_an_expired_version(tmp_path: Path) -> None:
    """After a 410 all is listed anew at once, and what is not there any more is dropped."""
    for name, expired in (("answer", refuse(410, "too old", "Expired")), ("event", stream(failure(410, "too old")))):
        directory = tmp_path / name
        directory.mkdir()
        script = [page(7, ["a", "b"]), expired, page(20, ["b"]), stream(event("ADDED", "c", 21), 30.0)]
        _, counts = mirrored(directory, script, lambda names, _: names.there == {"b", "c"})
        assert counts.reasons == ["expired"]


def test_a_page_that_expires(tmp_path: Path) -> None:
    """A list whose next page has expired begins again."""
    script = [page(7, ["a"], "next"), refuse(410, "too old", "Expired"), page(9, ["b"]), stream(event("ADDED", "c", 10), 30.0)]
    mirrored(tmp_path, script, lambda names, _: names.there == {"b", "c"})


def test_a_busy_server(tmp_path: Path) -> None:
    """An API server that is busy, resets or talks nonsense is asked again, and what failed is told until it works."""
    seen: list[str] = []

    def done(names: Names, mirror: Mirror) -> bool:
        if mirror.failure is not None:
            seen.append(mirror.failure.msg)
        return names.there == {"a", "b"} and mirror.failure is None

    script = [refuse(429, "busy", Retry_After="0"), answer(b"<html>"), page(7, ["a"]), stream(b"nonsense\n", 30.0), page(8, ["a"])]
    mirrored(tmp_path, [*script, stream(event("ADDED", "b", 9), 30.0)], done)
    assert any("429" in text for text in seen)
    assert any("something other than" in text for text in seen)
