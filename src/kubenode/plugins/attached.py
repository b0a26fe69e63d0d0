"""What an ADD leaves for DEL, CHECK and GC, which ask nobody: the `ipam` that was handed on, and whose the address is."""

from __future__ import annotations

from kubenode.host.datadir import DEFAULT_DATA_DIR
from kubenode.plugins.embedded import owner

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping
    from typing import Any

    from kubenode.base.jsontext import JSON
    from kubenode.host.attachments import Attachments
    from kubenode.ipam.store import Attachment
    from kubenode.plugins.skel import Call

POD_ARGS = {"podNamespace": "K8S_POD_NAMESPACE", "podName": "K8S_POD_NAME", "podUID": "K8S_POD_UID"}


def note(call: Call, ipam: Mapping[str, JSON], executable: str) -> None:
    """Keep what this ADD is about, and who is to give the address: "" the embedded allocator. Raises OSError where DEL needs it."""
    args = call.request.pod_args
    pod = {key: args[name] for key, name in POD_ARGS.items() if args.get(name)}
    where = {"dataDir": ipam.get("dataDir") or DEFAULT_DATA_DIR, **({"delegate": executable} if executable else {})}
    record = {"netns": call.request.netns, **pod, **where, "ipam": ipam}
    try:
        _records(call).write(owner(call.request), record)
    except OSError as error:
        if ipam.get("dataDir") != call.netconf.ipam.get("dataDir"):
            raise  # only the Node's annotation knows where the reservation is about to be
        call.log.warning("what this ADD is about could not be written", error=str(error))


def forget(call: Call) -> None:
    _records(call).remove(owner(call.request))


def handed_on(call: Call) -> tuple[dict[str, JSON], str] | None:
    """Return the `ipam` that this attachment's ADD handed on, and to which executable; None where nothing is known of it."""
    return _said(_records(call).read(owner(call.request)))


def all_handed_on(call: Call) -> list[tuple[dict[str, JSON], str]]:
    """Return the same once for each data directory and plugin that this network's ADDs have handed on to."""
    records = _records(call)
    found = [said for attachment in records.all() if (said := _said(records.read(attachment)))]
    return list({(str(ipam.get("dataDir")), str(ipam.get("type"))): (ipam, to) for ipam, to in found}.values())


def _said(record: Mapping[str, Any]) -> tuple[dict[str, JSON], str] | None:
    ipam = record.get("ipam")
    return (ipam, str(record.get("delegate") or "")) if isinstance(ipam, dict) else None


def parted(call: Call, valid: Collection[Attachment]) -> tuple[list[Attachment], list[Attachment]]:
    """Return of this network's attachments with a record that are not valid those that are gone, and those that may live all the same.

    A meta-plugin lists what it has in its own cache, and skips what it cannot read. A network namespace that is there is stronger.
    """
    records = _records(call)
    gone: list[Attachment] = []
    living: list[Attachment] = []
    for attachment in records.all():
        if attachment not in valid:
            netns = str(records.read(attachment).get("netns") or "")
            (living if call.host.may_have(netns) else gone).append(attachment)
    return gone, living


def forget_all(call: Call, stale: Iterable[Attachment]) -> None:
    records = _records(call)
    for attachment in stale:
        records.remove(attachment)


def _records(call: Call) -> Attachments:
    return call.host.attachments(call.netconf.name)
