# SPDX-License-Identifier: Apache-2.0
"""The watch of the own Node while the API server does all that it should not, at random."""

from __future__ import annotations

import json
import os
import random
import threading
import time
from typing import TYPE_CHECKING, Any

from apiserver import base64_text, write_kubeconfig
from patience import PATIENCE
from standin import StandInApiServer, answer, failure, half, node, refuse, reset, send_chunk
from watching import RunningWatch

from kubenode.kube.reflector import Pace

if TYPE_CHECKING:
    from pathlib import Path

    from standin import Handler

    from kubenode.nodes.node import Node

SECONDS = float(os.environ.get("KUBE_NODE_CHAOS_SECONDS", "8"))
TIMEOUT = 1.0
PACE = Pace(lifetime=5, silence=2, first_silence=2, greeting=1, settled=1)


class Chaos:
    """An API server with one Node that changes, whose history is forgotten now and then, and which is in order only when `over`."""

    def __init__(self, seed: int) -> None:
        self.over = threading.Event()
        self.tried: dict[str, int] = {}
        self._random = random.Random(seed)
        self._changed = threading.Condition()
        self._version = 100
        self._forgotten = 0
        self._history: list[tuple[int, dict[str, Any]]] = []
        self._node: dict[str, Any] | None = None
        self.change()

    @property
    def now(self) -> dict[str, Any] | None:
        return self._node

    def change(self) -> None:
        """Change the Node, delete it or create it anew, and forget what was before, each by chance."""
        with self._changed:
            self._version += self._random.randint(1, 3)
            old = self._node
            uid = f"u{self._version}" if old is None else old["metadata"]["uid"]
            changed = node("n1", self._version, uid, value=str(self._version))
            kind = "ADDED" if old is None else "MODIFIED"
            if old is not None and self._random.random() < 0.1:
                kind, self._node = "DELETED", None
            else:
                self._node = changed
            self._history.append((self._version, {"type": kind, "object": changed}))
            if self._random.random() < 0.1:
                self._forgotten = self._version
            self._changed.notify_all()

    def __call__(self, handler: Handler) -> None:
        """Answer a request: a script's step."""
        if not self.over.is_set() and self._random.random() < 0.6:
            fault = self._random.choice([self._stall, reset, half, *(refuse(status) for status in (410, 429, 500, 503))])
            self._count(getattr(fault, "__name__", "fault"))
            fault(handler)
        elif "watch=" in handler.path:
            self._watch(handler)
        elif self._node is None:
            refuse(404, 'nodes "n1" not found', "NotFound")(handler)
        else:
            answer(self._node)(handler)

    def _watch(self, handler: Handler) -> None:
        self._count("watch")
        version = int(handler.path.partition("resourceVersion=")[2].partition("&")[0])
        handler.send_response(200)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        if version == 0:
            with self._changed:
                told = self._node
                version = self._version
            if told is not None:
                self._send(handler, {"type": "ADDED", "object": told})
        elif version < self._forgotten:
            self._send(handler, failure(410, "too old resource version"))
            send_chunk(handler, b"")
            return
        ends = time.monotonic() + 5
        while not handler.server.stand_in.ended.is_set() and time.monotonic() < ends:
            with self._changed:
                self._changed.wait(0.1)
                events = [(at, event) for at, event in self._history if at > version]
            if not self.over.is_set() and self._random.random() < 0.2 and self._break(handler):
                return
            for at, event in events:
                self._send(handler, event)
                version = at
        send_chunk(handler, b"")

    def _break(self, handler: Handler) -> bool:
        """Break off a watch in one of many ways; False: a bookmark was sent instead, which is in order."""
        way = self._random.choice(["bookmark", "end", "cut", "half", "garbage", "gone", "error", "reset", "stall"])
        self._count(way)
        handler.close_connection = True
        if way == "bookmark":
            handler.close_connection = False
            return False
        if way == "end":
            send_chunk(handler, b"")
        elif way == "half":
            send_chunk(handler, b'{"type": "MODIFIED", "object": {"kind": "No')
        elif way == "garbage":
            send_chunk(handler, b"<html>bad gateway</html>\n")
        elif way in {"gone", "error"}:
            self._send(handler, failure(410 if way == "gone" else 500))
        elif way == "reset":
            reset(handler)
        elif way == "stall":
            self._stall(handler)
        return True

    def _stall(self, handler: Handler) -> None:
        """Say nothing for a while, at most until the trouble is over."""
        self.over.wait(self._random.uniform(0, 4))
        handler.close_connection = True

    def _send(self, handler: Handler, event: dict[str, Any]) -> None:
        send_chunk(handler, json.dumps(event).encode() + b"\n")

    def _count(self, what: str) -> None:
        self.tried[what] = self.tried.get(what, 0) + 1


def test_view_is_right_after_the_trouble(tmp_path: Path) -> None:
    """However an API server misbehaves and the Node changes meanwhile, soon afterwards what is published is the Node as it is."""
    seed = int(os.environ.get("KUBE_NODE_CHAOS_SEED") or time.time())
    chaos = Chaos(seed)
    changes = random.Random(seed + 1)
    with StandInApiServer(tmp_path, then=chaos) as server:
        cluster = {"server": server.url, "certificate-authority-data": base64_text(server.authority.certificate)}
        kubeconfig = write_kubeconfig(tmp_path / "kube.conf", cluster, {"token": "t0"})
        with RunningWatch(kubeconfig, "n1", pace=PACE, timeout=TIMEOUT) as running:
            end = time.monotonic() + SECONDS
            while time.monotonic() < end:
                time.sleep(changes.uniform(0, 0.3))
                chaos.change()
            chaos.over.set()
            took = running.until(lambda: told(running.last) == said(chaos.now))
            print(f"seed {seed}: right after {took:.2f} s; {len(server.requests)} requests, {chaos.tried}")  # noqa: T201 (shown on failure)
            while chaos.now is None:
                chaos.change()
            running.until_watching()
            time.sleep(PACE.settled + 0.5)  # a watch that has settled tells a change at once
            chaos.change()
            running.until(lambda: told(running.last) == said(chaos.now))

    assert running.stop_seconds < PATIENCE
    assert len(chaos.tried) > 3


def told(own: Node | None) -> tuple[str, str] | None:
    return (own.uid, own.annotations["value"]) if own else None


def said(manifest: dict[str, Any] | None) -> tuple[str, str] | None:
    if manifest is None:
        return None
    return manifest["metadata"]["uid"], manifest["metadata"]["annotations"]["value"]
