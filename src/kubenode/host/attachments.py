"""Records of attachments, in the run directory: `status` learns from them whose an address is, and DEL, CHECK and GC what was asked for.

One file an attachment, `attachments/NETWORK:CONTAINERID:IFNAME`; none of the three can have a colon. A name that would be too long is `:`
and a digest of it.
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
    """The words of an ADD, "" for what it did not say.

    `ipam` is what it was handed on with, None where that is not known; `delegate` the executable that gave the addresses, "" for the
    embedded allocator.
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
        """The pod as NAMESPACE/NAME, "" where no name was said."""
        return f"{self.pod_namespace or 'default'}/{self.pod_name}" if self.pod_name else ""

    @property
    def given_by(self) -> str:
        """The type of the plugin that has reserved the addresses, "" where that is not known."""
        return str((self.ipam or {}).get("type") or "")

    @classmethod
    def parse(cls, content: JSON) -> Record | None:
        """Read a record's JSON; None for what is none."""
        if not isinstance(content, dict):
            return None
        netns, namespace, name, uid, data_dir, delegate = [str(content.get(key) or "") for key in TEXTS]
        ipam = content.get("ipam")
        return cls(netns, namespace, name, uid, data_dir or DEFAULT_DATA_DIR, delegate, ipam if isinstance(ipam, dict) else None)

    def as_object(self) -> dict[str, JSON]:
        texts = {key: value for key, value in zip(TEXTS, self, strict=False) if value}
        return texts if self.ipam is None else {**texts, "ipam": self.ipam}


TEXTS = ("netns", "podNamespace", "podName", "podUID", "dataDir", "delegate")  # the keys of a record's file, in the order of the fields


class Attachments:
    """The records of one network. Raises OSError where the disk does, and CNIError 7 for a record that is too long."""

    def __init__(self, run_dir: str, network: str) -> None:
        self._directory = f"{run_dir}/attachments"
        self._network = network

    def _path(self, attachment: Attachment) -> str:
        name = f"{self._network}:{attachment.container_id}:{attachment.ifname}"
        short = files.short(name)
        return f"{self._directory}/{name if short is name else DIGEST + short}"

    def write(self, attachment: Attachment, record: Record) -> None:
        whose = {"network": self._network, "containerID": attachment.container_id, "ifname": attachment.ifname}
        content = dumps({**whose, **record.as_object()})
        if len(content) > LONGEST:
            raise invalid([f"ipam and what is said of the pod have {len(content)} bytes, more than the {LONGEST} that are remembered"])
        try:
            self._write(attachment, content.encode())
        except FileNotFoundError:
            os.makedirs(self._directory, 0o700, exist_ok=True)
            self._write(attachment, content.encode())

    def _write(self, attachment: Attachment, content: bytes) -> None:
        # In place: a temporary file of a writer who dies would stay; half a record is none, and goes with the DEL that follows.
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
        """Return a record; None where there is none to be read, as a DEL must go on without. Raises OSError for want of descriptors."""
        try:
            return Record.parse(loads(files.read(self._path(attachment))))
        except JSONTextError:
            return None
        except OSError as error:
            if files.is_passing(error):
                raise
            return None

    def remove(self, attachment: Attachment) -> None:
        files.discard(self._path(attachment))  # what stays, the next boot takes away

    def all(self) -> Iterator[Attachment]:
        """Iterate over what this network has records of."""
        return (attachment for network, attachment in _listed(self._directory) if network == self._network)


def everywhere(run_dir: str) -> Iterator[tuple[str, Attachment]]:
    """Iterate over the records of all networks. Raises OSError."""
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
    """Yield whose record a file is, as its text says: its name does not."""
    try:
        record = loads(files.read(path))
        yield record["network"], Attachment(record["containerID"], record["ifname"])
    except (FileNotFoundError, JSONTextError, TypeError, KeyError):  # gone, or torn by a writer's end
        return
