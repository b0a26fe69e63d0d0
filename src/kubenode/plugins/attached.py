"""What an ADD leaves for DEL, CHECK and GC, which ask nobody: the `ipam` that was handed on, and whose the address is."""

from __future__ import annotations

from kubenode.host.datadir import DEFAULT_DATA_DIR
from kubenode.plugins.host_local import owner

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from kubenode.cni.jsontext import JSON
    from kubenode.host.attachments import Attachments
    from kubenode.ipam.store import Attachment
    from kubenode.plugins.skel import Call

POD_ARGS = {"podNamespace": "K8S_POD_NAMESPACE", "podName": "K8S_POD_NAME", "podUID": "K8S_POD_UID"}


def note(call: Call, ipam: Mapping[str, JSON]) -> None:
    """Keep what this ADD is about. Raises OSError where a DEL could not do without it."""
    args = call.request.pod_args
    pod = {key: args[name] for key, name in POD_ARGS.items() if args.get(name)}
    record = {"netns": call.request.netns, **pod, "dataDir": ipam.get("dataDir") or DEFAULT_DATA_DIR, "ipam": ipam}
    try:
        _records(call).write(owner(call.request), record)
    except OSError as error:
        if ipam.get("dataDir") != call.netconf.ipam.get("dataDir"):
            raise  # only the Node's annotation knows where the reservation is about to be
        call.log.warning("what this ADD is about could not be written", error=str(error))


def forget(call: Call) -> None:
    _records(call).remove(owner(call.request))


def handed_on(call: Call) -> dict[str, JSON] | None:
    """Return the `ipam` that this attachment's ADD handed on; None where nothing is known of it."""
    ipam = _records(call).read(owner(call.request)).get("ipam")
    return ipam if isinstance(ipam, dict) else None


def all_handed_on(call: Call) -> list[dict[str, JSON]]:
    """Return one `ipam` for each data directory that this network's ADDs have handed on."""
    records = _records(call)
    found = [records.read(attachment).get("ipam") for attachment in records.all()]
    return list({str(ipam.get("dataDir")): ipam for ipam in found if isinstance(ipam, dict)}.values())


def all_but(call: Call, valid: Collection[Attachment]) -> list[Attachment]:
    """Return those of this network's attachments with a record that are not valid."""
    return [attachment for attachment in _records(call).all() if attachment not in valid]


def forget_all(call: Call, stale: Iterable[Attachment]) -> None:
    records = _records(call)
    for attachment in stale:
        records.remove(attachment)


def _records(call: Call) -> Attachments:
    return call.host.attachments(call.netconf.name)
