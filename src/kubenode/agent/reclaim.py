"""Taking back what nobody will ever release: addresses of pods that are gone without a DEL.

Nothing is released on one piece of evidence. The attachment's record must say which network namespace and which pod it was; the namespace's
path must be gone, in a directory that we can see, for as long as the grace period; and the API server must say that the pod is gone, too.
Whatever cannot be told is doubt, and in doubt an address stays where it is.
"""

from __future__ import annotations

import time
from enum import Enum
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from kubenode.cni.errors import TRY_AGAIN_LATER, CNIError
from kubenode.host.attachments import Attachments, everywhere
from kubenode.host.namespaces import Namespaces
from kubenode.ipam import allocator

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from kubenode.agent.reach import Stores
    from kubenode.host.log import Log
    from kubenode.host.root import HostRoot
    from kubenode.ipam.store import Attachment

    class Observer(Protocol):
        def reclaimed(self, network: str, count: int) -> None:
            """Take note of leaked addresses that were released."""

        def suspected(self, counts: dict[str, int]) -> None:
            """Take note of how many addresses each network may have leaked at present."""

    class Pods(Protocol):
        def pod(self, namespace: str, name: str) -> dict[str, Any] | None:
            """Return a pod; None where the API server says that there is none. Raises CNIError where it cannot say."""

        def close(self) -> None: ...


GRACE = 60.0  # seconds that a network namespace has to be gone


class Mode(Enum):
    """What becomes of a leak."""

    ON = "on"
    REPORT = "report"
    OFF = "off"


class Leak(NamedTuple):
    """An attachment that may have leaked, and what its ADD said of it."""

    network: str
    attachment: Attachment
    record: dict[str, Any]

    @property
    def data_dir(self) -> str:
        return str(self.record.get("dataDir") or "")

    def told(self) -> dict[str, Any]:
        """Return it as a log line has it."""
        pod = f"{self.record.get('podNamespace', '')}/{self.record.get('podName', '')}"
        return {"network": self.network, "containerID": self.attachment.container_id, "ifname": self.attachment.ifname, "pod": pod}


class Reclaimer:
    """Looks for leaks, a pass at a time. `connect` opens a connection to the API server; None: there is none to ask."""

    def __init__(
        self,
        root: HostRoot,
        run_dir: str,
        stores: Stores,
        connect: Callable[[], Pods] | None,
        log: Log,
        observer: Observer,
        mode: Mode = Mode.ON,
        grace: float = GRACE,
    ) -> None:
        self._root = root
        self._run_dir = run_dir
        self._stores = stores
        self._connect = connect
        self._log = log
        self._observer = observer
        self._mode = mode
        self._grace = grace
        self._since: dict[tuple[str, Attachment], float] = {}
        self._reported: set[tuple[str, Attachment]] = set()

    def look(self) -> list[Leak]:
        """Make one pass. Return those that are suspected and were not released. Raises OSError where the records cannot be read."""
        now = time.monotonic()
        suspects = list(self._without_namespace())
        self._since = {(leak.network, leak.attachment): self._since.get((leak.network, leak.attachment), now) for leak in suspects}
        self._reported &= self._since.keys()
        ripe = [leak for leak in suspects if now - self._since[leak.network, leak.attachment] >= self._grace]
        released = self._judge(ripe) if ripe else []
        left = [leak for leak in suspects if leak not in released]
        counts: dict[str, int] = {}
        for leak in left:
            counts[leak.network] = counts.get(leak.network, 0) + 1
        self._observer.suspected(counts)
        return left

    def _without_namespace(self) -> Iterator[Leak]:
        for network, attachment in everywhere(self._run_dir):
            record = Attachments(self._run_dir, network).read(attachment)
            if self._is_gone(str(record.get("netns") or "")):
                yield Leak(network, attachment, record)

    def _is_gone(self, netns: str) -> bool:
        return Namespaces(self._root).is_gone(netns)

    def _judge(self, ripe: list[Leak]) -> list[Leak]:
        released = []
        pods = None
        try:
            for leak in ripe:
                if not self._reserved(leak):
                    self._forget(leak)  # its ADD failed, or somebody else released it
                    released.append(leak)
                    continue
                if self._connect is None or not leak.record.get("podName"):
                    self._report(leak, "nobody can say whether its pod is gone")
                    continue
                pods = pods or self._connect()
                if self._has_gone(leak, pods) and self._release(leak):
                    released.append(leak)
        except CNIError as error:
            self._log.warning("the API server cannot say which pods are gone: nothing is released", error=str(error))
        finally:
            if pods:
                pods.close()
        return released

    def _reserved(self, leak: Leak) -> bool:
        ipam = leak.record.get("ipam")
        if isinstance(ipam, dict) and ipam.get("type") != "host-local":
            return True  # by another plugin, in its own way
        return bool(allocator.find(self._stores.get(leak.data_dir, leak.network), leak.attachment))

    def _has_gone(self, leak: Leak, pods: Pods) -> bool:
        """Say whether the API server knows the pod no more; another of its name is not it. Raises CNIError."""
        found = pods.pod(str(leak.record.get("podNamespace") or "default"), str(leak.record["podName"]))
        uid, there = str(leak.record.get("podUID") or ""), str(((found or {}).get("metadata") or {}).get("uid") or "")
        gone = found is None or bool(uid and there and uid != there)
        if not gone:
            self._report(leak, "its pod is still there")
        return gone

    def _release(self, leak: Leak) -> bool:
        ipam = leak.record.get("ipam")
        if isinstance(ipam, dict) and ipam.get("type") != "host-local":
            self._report(leak, f"{ipam.get('type')} has its address, and is to release it")
            return False
        if self._mode is not Mode.ON:
            self._report(leak, "it would be released, but for --reclaim=report")
            return False

        def still_gone() -> None:
            if not self._is_gone(str(leak.record.get("netns"))) or self._records(leak).read(leak.attachment) != leak.record:
                raise CNIError(TRY_AGAIN_LATER, "it has come back")

        released = allocator.release(self._stores.get(leak.data_dir, leak.network, still_gone), leak.attachment)
        self._forget(leak)
        self._log.warning("leaked addresses released", ips=[entry.name for entry in released], **leak.told())
        self._observer.reclaimed(leak.network, len(released))
        return True

    def _report(self, leak: Leak, why: str) -> None:
        """Say once that an attachment is suspected, and why it stays."""
        if (leak.network, leak.attachment) not in self._reported:
            self._reported.add((leak.network, leak.attachment))
            self._log.warning("an address may have leaked: its network namespace is gone", why_it_stays=why, **leak.told())

    def _records(self, leak: Leak) -> Attachments:
        return Attachments(self._run_dir, leak.network)

    def _forget(self, leak: Leak) -> None:
        if self._mode is Mode.ON:
            self._records(leak).remove(leak.attachment)
