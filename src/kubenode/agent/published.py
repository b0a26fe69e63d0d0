"""What the watch of our own Node has published: its reduced manifest, after each change that matters, each with a line in the log."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kubenode.nodes.node import reduce

if TYPE_CHECKING:
    from collections.abc import Callable

    from kubenode.base.log import Log

    Manifest = dict[str, Any]


class Published:
    """Hands our Node to `publish`, None once it is deleted. Raises what that raises; then it counts as not published."""

    def __init__(self, publish: Callable[[Manifest | None], None], log: Log) -> None:
        self._publish = publish
        self._log = log
        self._now: Manifest | None = None
        self._last: Manifest | None = None  # the same, but kept where the Node is deleted

    def show(self, manifest: Manifest) -> None:
        """Publish a Node, unless nothing that matters is new: the kubelet reports its status every now and then."""
        reduced = reduce(manifest)
        if reduced == self._now:
            return
        self._publish(reduced)
        self._now = reduced
        self._tell(self._last, reduced)
        self._last = reduced

    def gone(self) -> None:
        """Publish that our Node is no more, if it was there."""
        if self._now is not None:
            metadata = self._now["metadata"]
            self._publish(None)
            self._now = None
            self._log.warning("the own Node was deleted", node=metadata["name"], uid=metadata["uid"])

    def _tell(self, old: Manifest | None, new: Manifest) -> None:
        name, uid, subnets = new["metadata"]["name"], new["metadata"]["uid"], new["spec"]["podCIDRs"]
        if old is None:
            self._log.info("the own Node is known", node=name, uid=uid, subnets=subnets)
            return
        old_uid, old_subnets = old["metadata"]["uid"], old["spec"]["podCIDRs"]
        if uid != old_uid:
            self._log.warning(
                "the own Node is another one now", node=name, old_uid=old_uid, new_uid=uid, old_subnets=old_subnets, new_subnets=subnets
            )
            return
        before, after = old["metadata"]["annotations"], new["metadata"]["annotations"]
        changed = sorted(key for key in before.keys() | after.keys() if before.get(key) != after.get(key))
        self._log.info("the own Node has changed", node=name, annotations=changed, old_subnets=old_subnets, new_subnets=subnets)
