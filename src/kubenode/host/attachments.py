# SPDX-License-Identifier: Apache-2.0
"""Records of attachments in the run directory: `status` learns the pods from them, and DEL, CHECK and GC the configuration of the ADD.

Each attachment has a file, `attachments/NETWORK:CONTAINERID:IFNAME`; none of the three can contain a colon. If that name is too long, it
is `:` and its digest instead.
"""

from __future__ import annotations

import os

from kubenode.base import files
from kubenode.base.jsontext import JSONTextError, dumps, loads
from kubenode.base.record import NamedTuple
from kubenode.cni.netconf import invalid
from kubenode.ipam.store import DEFAULT_DATA_DIR, Attachment

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from kubenode.base.jsontext import JSON

LONGEST = 64 << 10  # bytes of a record
DIGEST = ":"


class Record(NamedTuple):
    """Input of an ADD; "" for anything it lacked.

    `ipam` is the configuration passed to the allocator or delegate, None if unknown; `delegate` is the executable that reserved the
    addresses, "" for the embedded allocator.
    """

    netns: str = ""
    pod_namespace: str = ""
    pod_name: str = ""
    pod_uid: str = ""
    data_dir: str = DEFAULT_DATA_DIR
    delegate: str = ""
    ipam: dict[str, JSON] | None = None

    @property
    def pod(self) -> str:
        """The pod as NAMESPACE/NAME, "" without a pod name."""
        return f"{self.pod_namespace or 'default'}/{self.pod_name}" if self.pod_name else ""

    @property
    def given_by(self) -> str:
        """Type of the plugin that reserved the addresses, "" if unknown."""
        return str((self.ipam or {}).get("type") or "")

    @classmethod
    def parse(cls, content: JSON) -> Record | None:
        """Parse a record's JSON; None if it is not a record."""
        if not isinstance(content, dict):
            return None
        netns, namespace, name, uid, data_dir, delegate = [str(content.get(key) or "") for key in TEXTS]
        ipam = content.get("ipam")
        return cls(netns, namespace, name, uid, data_dir or DEFAULT_DATA_DIR, delegate, ipam if isinstance(ipam, dict) else None)

    def as_object(self) -> dict[str, JSON]:
        """Return the record as an object for JSON; empty texts are left out."""
        texts = {key: value for key, value in zip(TEXTS, self, strict=False) if value}
        return texts if self.ipam is None else {**texts, "ipam": self.ipam}


TEXTS = ("netns", "podNamespace", "podName", "podUID", "dataDir", "delegate")  # keys of a record's file, in the order of the fields


class Attachments:
    """Records of one network. Raises OSError."""

    def __init__(self, run_dir: str, network: str) -> None:
        self._directory = f"{run_dir}/attachments"
        self._network = network

    def _path(self, attachment: Attachment) -> str:
        name = f"{self._network}:{attachment.container_id}:{attachment.ifname}"
        short = files.short(name)
        return f"{self._directory}/{name if short is name else DIGEST + short}"

    def write(self, attachment: Attachment, record: Record) -> None:
        """Write a record. Raises CNIError 7 if it is too long, OSError."""
        whose = {"network": self._network, "containerID": attachment.container_id, "ifname": attachment.ifname}
        content = dumps({**whose, **record.as_object()})
        if len(content) > LONGEST:
            raise invalid([f"the attachment's record (ipam, pod) has {len(content)} bytes, more than {LONGEST}"])
        try:
            self._write(attachment, content.encode())
        except FileNotFoundError:
            os.makedirs(self._directory, 0o700, exist_ok=True)
            self._write(attachment, content.encode())

    def _write(self, attachment: Attachment, content: bytes) -> None:
        # In place: a killed writer would leave a temporary file for ever; half a record is ignored, and the DEL that follows removes it.
        path = self._path(attachment)
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            files.write_all(fd, content)
        except BaseException:
            files.discard(path)
            raise
        finally:
            os.close(fd)

    def read(self, attachment: Attachment) -> Record | None:
        """Return a record, None if it is missing or unreadable: DEL must continue. Raises OSError for lack of descriptors."""
        try:
            return Record.parse(loads(files.read(self._path(attachment))))
        except JSONTextError:
            return None
        except OSError as error:
            if files.is_passing(error):
                raise
            return None

    def remove(self, attachment: Attachment) -> None:
        """Remove a record, ignoring errors."""
        files.discard(self._path(attachment))  # the next boot removes the rest

    def all(self) -> Iterator[Attachment]:
        """Iterate over the attachments of this network that have a record."""
        return (attachment for network, attachment in _listed(self._directory) if network == self._network)


def everywhere(run_dir: str) -> Iterator[tuple[str, Attachment]]:
    """Iterate over the network and attachment of every record. Raises OSError."""
    return _listed(f"{run_dir}/attachments")


def _listed(directory: str) -> Iterator[tuple[str, Attachment]]:
    try:
        listing = os.listdir(directory)
    except FileNotFoundError:
        return
    for name in listing:
        if name.startswith(DIGEST):
            yield from _inside(os.path.join(directory, name))
            continue
        network, _, rest = name.partition(":")
        container_id, colon, ifname = rest.partition(":")
        if colon:
            yield network, Attachment(container_id, ifname)


def _inside(path: str) -> Iterator[tuple[str, Attachment]]:
    """Yield network and attachment from a record's text, if its name is a digest."""
    try:
        record = loads(files.read(path))
        yield record["network"], Attachment(record["containerID"], record["ifname"])
    except (FileNotFoundError, JSONTextError, TypeError, KeyError):  # removed meanwhile, or its writer was killed
        return
