# SPDX-License-Identifier: Apache-2.0
"""Records of attachments for DEL, CHECK and GC: the `ipam` passed on by the ADD, and the pod. Also GC's list of attachments.

With a record these commands need neither the Node nor an annotation.
"""

from __future__ import annotations

from kubenode.cni.errors import CNIError
from kubenode.cni.netconf import invalid
from kubenode.host.attachments import Record
from kubenode.ipam.store import DEFAULT_DATA_DIR, Attachment
from kubenode.plugins.embedded import owner

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from kubenode.base.jsontext import JSON
    from kubenode.cni.netconf import NetConf
    from kubenode.host.attachments import Attachments
    from kubenode.plugins.skel import Call

VALID = "cni.dev/valid-attachments"
POD_ARGS = ("K8S_POD_NAMESPACE", "K8S_POD_NAME", "K8S_POD_UID")


def note(call: Call, ipam: dict[str, JSON], executable: str) -> None:
    """Write this ADD's record; `executable` is the delegate, "" for the embedded allocator. Raises OSError if DEL needs the record."""
    args = call.request.pod_args
    namespace, name, uid = [args.get(key, "") for key in POD_ARGS]
    record = Record(call.request.netns, namespace, name, uid, str(ipam.get("dataDir") or DEFAULT_DATA_DIR), executable, ipam)
    try:
        _records(call).write(owner(call.request), record)
    except OSError as error:
        if ipam.get("dataDir") != call.netconf.ipam.get("dataDir"):
            raise  # without the record only the Node's annotation names the place of the reservation
        call.log.warning("cannot write the attachment record", error=str(error))


def noted(call: Call) -> Record | None:
    """Return this attachment's record, None without one."""
    return _records(call).read(owner(call.request))


def forget(call: Call) -> None:
    """Remove this attachment's record."""
    _records(call).remove(owner(call.request))


def put_back(call: Call, before: Record | None) -> None:
    """Undo `note`: restore the record that `noted` returned before. Raises nothing, as the caller already handles an error."""
    if before is None:
        forget(call)
        return
    try:
        _records(call).write(owner(call.request), before)
    except (CNIError, OSError) as error:
        call.log.warning("cannot restore the record of the first ADD", error=str(error))


def handed_on(call: Call) -> tuple[dict[str, JSON], str] | None:
    """Return this attachment's `ipam` and executable from its record; None if unknown."""
    return _said(noted(call))


def all_handed_on(call: Call) -> list[tuple[dict[str, JSON], str]]:
    """Return `ipam` and executable from this network's records, once for each data directory and plugin."""
    records = _records(call)
    found = [said for attachment in records.all() if (said := _said(records.read(attachment)))]
    return list({(str(ipam.get("dataDir")), str(ipam.get("type"))): (ipam, to) for ipam, to in found}.values())


def _said(record: Record | None) -> tuple[dict[str, JSON], str] | None:
    return (record.ipam, record.delegate) if record and record.ipam is not None else None


def parted(call: Call, valid: Collection[Attachment]) -> tuple[list[Attachment], list[Attachment]]:
    """Return this network's attachments that have a record and are not valid: those that are gone, and those that may live.

    A meta-plugin lists the attachments in its own cache, and skips unreadable ones. An existing network namespace is better evidence.
    """
    records = _records(call)
    gone: list[Attachment] = []
    living: list[Attachment] = []
    for attachment in records.all():
        if attachment not in valid:
            record = records.read(attachment)
            if record is not None:  # otherwise an ADD is just writing it
                (living if call.host.may_have(record.netns) else gone).append(attachment)
    return gone, living


def forget_all(call: Call, stale: Iterable[Attachment]) -> None:
    """Remove the records of stale attachments."""
    records = _records(call)
    for attachment in stale:
        records.remove(attachment)


def _records(call: Call) -> Attachments:
    return call.host.attachments(call.netconf.name)


def valid_attachments(netconf: NetConf) -> set[Attachment] | None:
    """Return the attachments that GC must keep; None if the runtime lists none."""
    listed = netconf.raw.get(VALID)
    if listed is None:
        return None
    valid = {_attachment(item) for item in listed} if isinstance(listed, list) else {None}
    if None in valid:  # continuing would release the address of the attachment that was meant
        raise invalid(["cni.dev/valid-attachments is not a list of objects with containerID and ifname"])
    return {attachment for attachment in valid if attachment}


def listing(call: Call, living: Collection[Attachment]) -> Call:
    """Return a GC call whose list also has these attachments."""
    if not living:
        return call
    raw = call.netconf.raw
    more = [{"containerID": attachment.container_id, "ifname": attachment.ifname} for attachment in living]
    return call._replace(netconf=call.netconf._replace(raw={**raw, VALID: [*raw[VALID], *more]}))


def _attachment(item: JSON) -> Attachment | None:
    texts = [item.get(key) for key in ("containerID", "ifname")] if isinstance(item, dict) else [None]
    return Attachment(*texts) if all(text and isinstance(text, str) for text in texts) else None
