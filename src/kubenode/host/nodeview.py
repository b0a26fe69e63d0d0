# SPDX-License-Identifier: Apache-2.0
"""Node view: the Node as last seen, in one file for all plugins of this host. It is the only cache.

The file is a Node manifest with a mark: the time of the request, and the kubeconfig. Without a mark a person wrote it: it always serves and
is never replaced. If many plugins need a new view, one asks; the others wait for its answer or error. Each kubeconfig has its own file, as
another API server's Node must not serve.
"""

from __future__ import annotations

import fcntl
import os
import time

from kubenode.base import files
from kubenode.base.jsontext import JSONTextError, dumps, loads
from kubenode.base.record import NamedTuple
from kubenode.cni.errors import TRY_AGAIN_LATER, CNIError
from kubenode.nodes import node

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeVar

    from kubenode.base.log import Log
    from kubenode.nodes.node import Node

    T = TypeVar("T")

MARK = "kube-node.nordix.org/view"
DEFAULT_RUN_DIR = "/run/kube-node"
ASK_AGAIN = 1.0  # seconds until a view that lacks the wanted subnets is worth another request
YEAR_10000 = 253402300800
RETRY_AFTER = 30.0  # seconds for which an old view serves after a failed request


class View(NamedTuple):
    """A Node, and the time of its request in seconds since 1970; None: written by hand.

    `kubeconfig`: the one of the request, "" for the environment's; None: valid for all.
    """

    node: Node
    fetched: float | None
    kubeconfig: str | None

    def age(self) -> float:
        """Seconds since the request; infinite for a time in the future, as the clock was set back."""
        if self.fetched is None:
            return 0.0
        now = time.time()
        return now - self.fetched if self.fetched <= now else now


class _NotRenewedError(CNIError):
    """Error: there is no newer view, but an old one to use."""


class NodeView:
    """The view's file in the run directory. `owner` names the writer.

    `kubeconfig`: as in `View`; None for a writer of the common view, or for reading.
    """

    def __init__(self, run_dir: str, owner: str, log: Log, kubeconfig: str | None = None) -> None:
        self.path = os.path.join(run_dir, "node.json")
        self._kubeconfig = kubeconfig
        self._run_dir = run_dir
        self._owner = owner
        self._log = log

    def read(self) -> View | None:
        """Return the view, however old, None if missing. Raises CNIError if its file is invalid, OSError if it cannot be read."""
        self.path = os.path.join(self._run_dir, "node.json")
        view = self._read()
        if view is None or self._kubeconfig is None or view.kubeconfig in {None, self._kubeconfig}:
            return view
        self.path = os.path.join(self._run_dir, f"node.{files.name_of(self._kubeconfig)}.json")
        view = self._read()
        return view if view and view.kubeconfig == self._kubeconfig else None

    def _read(self) -> View | None:
        try:
            text = files.read(self.path)
        except FileNotFoundError:
            return None
        manifest = node.decode(text, self.path)
        mark = manifest.get(MARK)
        fetched, kubeconfig = (mark.get(key) for key in ("fetched", "kubeconfig")) if isinstance(mark, dict) else (None, None)
        return View(
            node.parse(manifest, self.path),
            _seconds(fetched) if isinstance(fetched, (int, float)) else None,
            kubeconfig if isinstance(kubeconfig, str) else None,
        )

    def get(self, select: Callable[[Node], T], fetch: Callable[[], Node], refresh_after: float) -> T:
        """Return the result of `select` on the view, after a new request if needed. Raises the errors of `select` and `fetch`."""
        view = self.read()
        if view is None:
            return select(self._renewed(view, fetch))
        try:
            selected = select(view.node)
        except CNIError as error:
            # The Node may have it by now: an operator annotates the Node and expects the pod to start.
            if view.fetched is None or view.age() < ASK_AGAIN:
                raise
            try:
                renewed = self._renewed(view, fetch)
            except CNIError as second:
                raise CNIError(error.code, error.msg, f"{error.details}; as in the last known Node: {second.msg}") from None
            return select(renewed)
        if view.fetched is None or view.age() < refresh_after:
            return selected
        try:
            return select(self._renewed(view, fetch, may_wait=False))
        except _NotRenewedError as error:
            self._log.warning("cannot refresh the Node view: using the old one", error=str(error), age=round(view.age()))
            return selected

    def put(self, own: Node) -> bool:
        """Write the view for all kubeconfigs; False if a person wrote the current one. Raises OSError, CNIError if that one is invalid."""
        lock = self._open_lock()
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            view = self.read()
            if view is not None and view.fetched is None:
                return False
            self._discard_others()
            self._write(own)
            return True
        finally:
            os.close(lock)

    def _discard_others(self) -> None:
        """Remove the views of single kubeconfigs, which this one replaces. Left behind, an old one would serve while the agent is away."""
        for name in os.listdir(self._run_dir):
            if name.startswith("node.") and name.endswith(".json") and name != "node.json":
                files.discard(f"{self._run_dir}/{name}")

    def _open_lock(self) -> int:
        os.makedirs(self._run_dir, 0o755, exist_ok=True)
        return os.open(f"{self.path.removesuffix('.json')}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)

    def _write(self, own: Node) -> None:
        mark = {"fetched": time.time(), "by": f"{self._owner} pid {os.getpid()}"}
        if self._kubeconfig is not None:
            mark["kubeconfig"] = self._kubeconfig
        files.replace(self.path, dumps({**own.manifest(), MARK: mark}).encode() + b"\n", alone=True)

    def _renewed(self, seen: View | None, fetch: Callable[[], Node], *, may_wait: bool = True) -> Node:
        """Ask, or take the answer of the plugin that asks already. Raises CNIError; _NotRenewedError if it may not wait."""
        started = time.time()
        path = self.path
        try:
            lock = self._open_lock()
        except OSError as error:  # full or read-only: each call asks by itself
            self._say_unwritable(error)
            try:
                return fetch()
            except CNIError as refused:
                raise refused if may_wait else _NotRenewedError(refused.code, refused.msg, refused.details) from None
        try:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | (0 if may_wait else fcntl.LOCK_NB))
            except BlockingIOError:
                raise _NotRenewedError(TRY_AGAIN_LATER, "another plugin is asking") from None
            view = self.read()
            if self.path != path:  # a plugin with another kubeconfig was first: ours is another file, with its own lock
                return self._renewed(view, fetch, may_wait=may_wait)
            if view is not None and view != seen:
                return view.node
            if failure := self._failure_since(lock, started - (0 if may_wait else RETRY_AFTER)):
                raise failure if may_wait else _NotRenewedError(failure.code, failure.msg)
            try:
                return self._fetch(lock, fetch)
            except CNIError as error:
                raise error if may_wait else _NotRenewedError(error.code, error.msg, error.details) from None
        finally:
            os.close(lock)

    def _fetch(self, lock: int, fetch: Callable[[], Node]) -> Node:
        """Ask, and write the answer for the plugins that wait: a view, or an error in the lock file."""
        path = self.path
        try:
            fetched = fetch()
        except CNIError as error:
            told = {"at": time.time(), "kubeconfig": self._kubeconfig, "code": error.code, "msg": error.msg, "details": error.details}
            try:
                os.pwrite(lock, dumps(told).encode() + b"\n", 0)
            except OSError as unwritable:
                self._say_unwritable(unwritable)
            raise
        try:
            os.ftruncate(lock, 0)
            self.path = path  # `fetch` may have read another view, which has another lock
            self._write(fetched)
        except OSError as error:
            self._say_unwritable(error)
        return fetched

    def _say_unwritable(self, error: OSError) -> None:
        self._log.warning("the Node view cannot be written: each call asks the API server", error=str(error))

    def _failure_since(self, lock: int, since: float) -> CNIError | None:
        line = os.pread(lock, 65536, 0).partition(b"\n")[0]
        try:
            failure = loads(line) if line else None
        except JSONTextError:  # its writer was killed
            return None
        if not failure or failure.get("kubeconfig") != self._kubeconfig:
            return None
        if not since <= failure["at"] <= time.time():  # in the future: the clock was set back
            return None
        return CNIError(failure["code"], failure["msg"], failure["details"])


def _seconds(number: float) -> float:
    """Return a time in seconds since 1970; 0 for a number out of range, as JSON's numbers are unlimited."""
    return float(number) if 0 <= number < YEAR_10000 else 0.0
