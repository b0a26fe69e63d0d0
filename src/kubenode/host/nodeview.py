"""The Node as last seen: one file for all plugins of this host, and the only cache.

A Node manifest with a mark of when it was fetched, and by which kubeconfig. Without the mark a person wrote it: it always serves and is
never replaced. One of many plugins that need a new one asks; the others wait and take its answer, also when that is an error. Each
kubeconfig has a file of its own: one API server's Node is no answer to a question to another.
"""

from __future__ import annotations

import fcntl
import os
import time

from kubenode.base import files
from kubenode.base.jsontext import JSONTextError, dumps, loads
from kubenode.base.record import NamedTuple
from kubenode.cni.errors import TRY_AGAIN_LATER, CNIError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, TypeVar

    from kubenode.base.log import Log

    T = TypeVar("T")
    Manifest = dict[str, Any]

MARK = "kube-node.nordix.org/view"
DEFAULT_RUN_DIR = "/run/kube-node"
ASK_AGAIN = 1.0  # seconds until a view that lacks what is wanted is worth another request
YEAR_10000 = 253402300800
RETRY_AFTER = 30.0  # seconds for which an old view serves after a request has failed


class View(NamedTuple):
    """A Node manifest, and when it was fetched, in seconds since 1970; None: written by hand.

    `kubeconfig`: what it was fetched with, "" for what the environment says; None: it is good for everybody.
    """

    manifest: dict[str, Any]
    fetched: float | None
    kubeconfig: str | None

    def age(self) -> float:
        """Seconds since it was fetched; one from the future, for the clock was set back, is as old as can be."""
        if self.fetched is None:
            return 0.0
        now = time.time()
        return now - self.fetched if self.fetched <= now else now


class _NotRenewedError(CNIError):
    """There is no newer view, and an old one to go on with."""


class NodeView:
    """The view's file in the run directory. `decode` reads a manifest from text; `owner` is who writes it.

    `kubeconfig`: as in `View`; None for who writes for everybody, or looks.
    """

    def __init__(self, run_dir: str, decode: Callable[[bytes, str], Manifest], owner: str, log: Log, kubeconfig: str | None = None) -> None:
        self.path = os.path.join(run_dir, "node.json")
        self._kubeconfig = kubeconfig
        self._run_dir = run_dir
        self._decode = decode
        self._owner = owner
        self._log = log

    def read(self) -> View | None:
        """Return the view, of whatever age. Raises CNIError where its file cannot be used, OSError where not read."""
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
        manifest = self._decode(text, self.path)
        mark = manifest.get(MARK)
        fetched, kubeconfig = (mark.get(key) for key in ("fetched", "kubeconfig")) if isinstance(mark, dict) else (None, None)
        return View(
            manifest,
            _seconds(fetched) if isinstance(fetched, (int, float)) else None,
            kubeconfig if isinstance(kubeconfig, str) else None,
        )

    def get(self, select: Callable[[Manifest], T], fetch: Callable[[], Manifest], refresh_after: float) -> T:
        """Return what `select` finds in the view; ask for a new one where that is needed. Raises what either raises."""
        view = self.read()
        if view is None:
            return select(self._renewed(view, fetch))
        try:
            selected = select(view.manifest)
        except CNIError as error:
            # What is wanted may be there by now: an operator annotates the Node and looks whether the pod starts.
            if view.fetched is None or view.age() < ASK_AGAIN:
                raise
            try:
                manifest = self._renewed(view, fetch)
            except CNIError as second:
                raise CNIError(error.code, error.msg, f"{error.details}; as last seen, and now: {second.msg}") from None
            return select(manifest)
        if view.fetched is None or view.age() < refresh_after:
            return selected
        try:
            return select(self._renewed(view, fetch, may_wait=False))
        except _NotRenewedError as error:
            self._log.warning("cannot refresh the Node view: using the old one", error=str(error), age=round(view.age()))
            return selected

    def put(self, manifest: Manifest) -> bool:
        """Make this the view, unless a person has written one: then say no. Raises OSError, and CNIError where that is broken."""
        lock = self._open_lock()
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            view = self.read()
            if view is not None and view.fetched is None:
                return False
            self._write(manifest)
            return True
        finally:
            os.close(lock)

    def _open_lock(self) -> int:
        os.makedirs(self._run_dir, 0o755, exist_ok=True)
        return os.open(f"{self.path.removesuffix('.json')}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)

    def _write(self, manifest: Manifest) -> None:
        mark = {"fetched": time.time(), "by": f"{self._owner} pid {os.getpid()}"}
        if self._kubeconfig is not None:
            mark["kubeconfig"] = self._kubeconfig
        files.replace(self.path, dumps({**manifest, MARK: mark}).encode() + b"\n", alone=True)

    def _renewed(self, seen: View | None, fetch: Callable[[], Manifest], *, may_wait: bool = True) -> Manifest:
        """Ask, or take the answer of who asks at this moment. Raises CNIError; _NotRenewedError where waiting was not wanted."""
        started = time.time()
        path = self.path
        try:
            lock = self._open_lock()
        except OSError as error:  # full, or read-only: each call asks for itself
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
            if self.path != path:  # somebody with another kubeconfig was first: ours is another file, with a lock of its own
                return self._renewed(view, fetch, may_wait=may_wait)
            if view is not None and view != seen:
                return view.manifest
            if failure := self._failure_since(lock, started - (0 if may_wait else RETRY_AFTER)):
                raise failure if may_wait else _NotRenewedError(failure.code, failure.msg)
            try:
                return self._fetch(lock, fetch)
            except CNIError as error:
                raise error if may_wait else _NotRenewedError(error.code, error.msg, error.details) from None
        finally:
            os.close(lock)

    def _fetch(self, lock: int, fetch: Callable[[], Manifest]) -> Manifest:
        """Ask, and leave the answer for those who wait: the view, or in the lock file the error."""
        try:
            manifest = fetch()
        except CNIError as error:
            told = {"at": time.time(), "kubeconfig": self._kubeconfig, "code": error.code, "msg": error.msg, "details": error.details}
            try:
                os.pwrite(lock, dumps(told).encode() + b"\n", 0)
            except OSError as unwritable:
                self._say_unwritable(unwritable)
            raise
        try:
            os.ftruncate(lock, 0)
            self._write(manifest)
        except OSError as error:
            self._say_unwritable(error)
        return manifest

    def _say_unwritable(self, error: OSError) -> None:
        self._log.warning("the Node view cannot be written: each call asks the API server", error=str(error))

    def _failure_since(self, lock: int, since: float) -> CNIError | None:
        line = os.pread(lock, 65536, 0).partition(b"\n")[0]
        try:
            failure = loads(line) if line else None
        except JSONTextError:  # torn: its writer died
            return None
        if not failure or failure.get("kubeconfig") != self._kubeconfig:
            return None
        if not since <= failure["at"] <= time.time():  # one that is still to come: the clock was set back
            return None
        return CNIError(failure["code"], failure["msg"], failure["details"])


def _seconds(number: float) -> float:
    """Return a time in seconds since 1970; 0 for a number that is no date, as JSON's have no end."""
    return float(number) if 0 <= number < YEAR_10000 else 0.0
