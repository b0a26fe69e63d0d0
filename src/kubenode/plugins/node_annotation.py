# SPDX-License-Identifier: Apache-2.0
"""node-annotation: addresses by a host-local configuration in an annotation of the Node.

Annotation and configuration file are data; nothing in them is ever evaluated.
"""

from __future__ import annotations

from kubenode.base import files
from kubenode.base.jsontext import JSONTextError, loads
from kubenode.base.record import NamedTuple
from kubenode.cni.errors import ANNOTATION_INVALID, CONFIG_FILE, INVALID_NETWORK_CONFIG, CNIError
from kubenode.nodes import annotation, node
from kubenode.plugins import delegation, options

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from kubenode.base.jsontext import JSON
    from kubenode.nodes.node import Node
    from kubenode.plugins.skel import Call, Host

CONFIG_PATH = "/etc/cni/node-annotation.conf"
NO_CONTAINER = {"CNI_COMMAND": "ADD", "CNI_CONTAINERID": "none", "CNI_NETNS": "none", "CNI_IFNAME": "none"}


def cmd_add(call: Call) -> bytes:
    """Assign addresses as the annotation says."""
    conf = NodeAnnotationConf.read(call).validated(call.host)
    ipam = options.permit_resolv_conf(call, call.host.node(conf.common.node, conf.ipam_of, call.log))
    gives = any(ipam.get(key) != conf.others.get(key) for key in ("ranges", "subnet"))  # it may contain only other keys, such as routes
    source = conf.common.source if gives else ""
    return conf.advising(lambda: delegation.add(call, delegation.choose(call, conf.delegate, ipam), ipam, source))


def cmd_del(call: Call) -> bytes:
    """Release the pod's addresses with the configuration of its ADD; the annotation may have changed or gone."""
    conf = NodeAnnotationConf.read(call)
    return delegation.delete(call, conf.delegate, conf.others)


def cmd_check(call: Call) -> bytes:
    """Check that the pod's addresses are still reserved for it."""
    conf = NodeAnnotationConf.read(call)
    return delegation.check(call, conf.delegate, conf.others)


def cmd_gc(call: Call) -> bytes:
    """Release the addresses of pods that are gone."""
    conf = NodeAnnotationConf.read(call)
    return delegation.collect(call, conf.delegate, conf.others)


def cmd_status(call: Call) -> bytes:
    """Raise CNIError 50 if an ADD would fail now."""
    try:
        conf = NodeAnnotationConf.read(call).validated(call.host)
        ipam = options.permit_resolv_conf(call, call.host.node(conf.common.node, conf.ipam_of, call.log))
        return conf.advising(lambda: delegation.status(call, delegation.choose(call, conf.delegate, ipam), ipam))
    except CNIError as error:
        raise delegation.not_available(error) from None


def resolve(call: Call) -> Call:
    """Return the call with the annotation's configuration. Raises CNIError."""
    conf = NodeAnnotationConf.read(call).validated(call.host)
    return delegation.resolved(call, call.host.node(conf.common.node, conf.ipam_of, call.log))


def cmd_show(call: Call) -> bytes:
    """Print the configuration that an ADD would pass on."""
    import json  # indented for a person; a plugin's call needs no json

    conf = NodeAnnotationConf.read(call).validated(call.host)
    ipam = call.host.node(conf.common.node, conf.ipam_of, call.log)
    kind = (conf.delegate or delegation.HOST_LOCAL).rpartition("/")[2]
    return json.dumps(call.netconf.with_ipam({"type": kind, **ipam}), indent=2).encode() + b"\n"


COMMANDS = {"ADD": cmd_add, "DEL": cmd_del, "CHECK": cmd_check, "GC": cmd_gc, "STATUS": cmd_status}
DRY_RUN = {"ADD": cmd_show}


class NodeAnnotationConf(NamedTuple):
    """Keys of `ipam` for node-annotation, the file's keys, the other keys, and all issues."""

    common: options.Common
    delegate: str
    others: dict[str, JSON]
    issues: list[str]
    refused: CNIError | None

    @classmethod
    def read(cls, call: Call) -> NodeAnnotationConf:
        """Read the configuration and the file; issues are collected."""
        broken_file = None
        try:
            file = config_file(call.environ, call.host)
        except CNIError as error:  # it must not stop a release
            file, broken_file = {}, error
        said = {"kubeconfig": file.get("kubeconfig"), "logfile": file.get("log")}
        source = options.Options({**said, **call.netconf.ipam}, said.keys() - call.netconf.ipam.keys())
        common = options.common(call, source)
        if not common.annotation:
            source.issues.append("node-annotation needs annotation, the key of an annotation on the Node")
        delegate = common.delegate or _executable(file.get("nextipam", ""), call)
        return cls(common, delegate, source.others(), source.issues, source.refused or broken_file)

    def validated(self, host: Host) -> NodeAnnotationConf:
        """Return the configuration with this process's paths. Raises CNIError if the file is invalid, and as kube-node's."""
        options.raise_issues(self.issues, self.refused)
        return self._replace(common=self.common.permitted(host))

    def advising(self, command: Callable[[], bytes]) -> bytes:
        """Run a command with the annotation as configuration; an error for an invalid one names the annotation. Raises CNIError."""
        try:
            return command()
        except CNIError as error:
            if error.code != INVALID_NETWORK_CONFIG:
                raise
            advice = f"correct annotation {self.common.annotation} of the Node, or what the network configuration has besides"
            raise CNIError(error.code, error.msg, advice) from None

    def ipam_of(self, own: Node) -> dict[str, JSON]:
        """Return the delegate's `ipam`: the annotation's keys, then ours. Raises CNIError."""
        text = node.annotation(own, self.common.annotation)
        try:
            said = annotation.parse(text)
        except annotation.AnnotationTextError as error:
            raise CNIError(
                ANNOTATION_INVALID,
                f"annotation {self.common.annotation} of Node {own.name}: {error}",
                'it must be the inside of host-local\'s ipam object, such as ranges: [[{"subnet": "172.16.5.0/24"}]]',
            ) from None
        said.pop("type", None)  # only the node's configuration chooses the next plugin
        return {**self.others, **said}


def _executable(next_ipam: str, call: Call) -> str:
    """Return `nextipam` with its path in CNI_PATH or PATH: unlike a delegate it need not be a plugin."""
    if not next_ipam or next_ipam == delegation.EMBEDDED or not call.host.execs:
        return next_ipam
    from kubenode.host import delegate  # not on the hot path

    return delegate.find(next_ipam, [*call.request.path, *filter(None, call.environ.get("PATH", "").split(":"))]) or next_ipam


def config_file(environ: Mapping[str, str], host: Host) -> dict[str, str]:
    """Read `kubeconfig`, `nextipam` and `log` from the configuration file. Raises CNIError, which names the file."""
    path = environ.get("NODE_ANNOTATION_CFG") or CONFIG_PATH
    try:
        content = loads(files.read(host.path(path)))
    except FileNotFoundError:
        if path == CONFIG_PATH:
            return {}
        raise CNIError(CONFIG_FILE, f"there is no file {path}", "NODE_ANNOTATION_CFG names it; write it, or unset the variable") from None
    except OSError as error:
        raise CNIError(CONFIG_FILE, f"cannot read {path}: {error.strerror}", "make it readable, or remove it") from None
    except JSONTextError as error:
        raise CNIError(CONFIG_FILE, f"{path} is not JSON: {error}", 'such as {"kubeconfig": "/etc/kubernetes/kubeconfig"}') from None
    known = options.Options(content if isinstance(content, dict) else {"": ""})
    found = {key: known.text(key) for key in ("kubeconfig", "nextipam", "log")}
    if known.issues or not isinstance(content, dict):
        raise CNIError(
            CONFIG_FILE, f"{path}: " + ("; ".join(known.issues) or "not an object"), "its values are strings; see node-annotation.md"
        )
    return found
