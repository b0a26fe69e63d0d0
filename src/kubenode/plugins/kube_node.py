# SPDX-License-Identifier: Apache-2.0
"""kube-node: addresses from the Node's subnets."""

from __future__ import annotations

from kubenode.base.record import NamedTuple
from kubenode.cni import keys
from kubenode.cni.errors import RANGE_FULL, CNIError
from kubenode.ipam import families
from kubenode.nodes import node
from kubenode.plugins import delegation, options

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from kubenode.base.jsontext import JSON
    from kubenode.ipam.ranges import Subnet
    from kubenode.nodes.items import Item
    from kubenode.nodes.node import Node
    from kubenode.plugins.skel import Call, Host


def cmd_add(call: Call) -> bytes:
    """Assign an address of each family that the pod's namespace gets. Wait for more if all are in use and a pool grows."""
    conf = KubeNodeConf.read(call).validated(call.host)
    while True:
        subnets = call.host.node(conf.common.node, conf.subnets_of, call.log)
        try:
            return _add(call, conf, subnets)
        except CNIError as error:
            if error.code != RANGE_FULL or conf.common.node.node_file:
                raise
            call.host.wait_for_more(error, conf.common.annotation, conf.subnets_of, subnets)


def _add(call: Call, conf: KubeNodeConf, subnets: tuple[Item, ...] | tuple[Subnet, ...]) -> bytes:
    have = frozenset(subnet.version for subnet in subnets)
    namespace = call.request.pod_args.get("K8S_POD_NAMESPACE", "")
    # A label counts only if the configuration limits IPv4.
    label = None if conf.limits[4] is None else call.host.ipv4_label(namespace, call.log)
    wanted = families.select(have, namespace, conf.limits, {} if label is None else {4: label})
    ipam = options.permit_resolv_conf(call, conf.ipam(subnets, wanted))
    return delegation.add(call, delegation.choose(call, conf.common.delegate, ipam), ipam, conf.common.source)


def cmd_del(call: Call) -> bytes:
    """Release the pod's addresses. Needs neither the Node nor a valid rest of the configuration."""
    conf = KubeNodeConf.read(call)
    return delegation.delete(call, conf.common.delegate, conf.others)


def cmd_check(call: Call) -> bytes:
    """Check that the pod's addresses are still reserved for it."""
    conf = KubeNodeConf.read(call)
    return delegation.check(call, conf.common.delegate, conf.others)


def cmd_gc(call: Call) -> bytes:
    """Release the addresses of pods that are gone."""
    conf = KubeNodeConf.read(call)
    return delegation.collect(call, conf.common.delegate, conf.others)


def cmd_status(call: Call) -> bytes:
    """Raise CNIError 50 if an ADD would fail now: no subnets, no delegate, or no free address of a family that every pod gets."""
    try:
        conf = KubeNodeConf.read(call).validated(call.host)
        subnets = call.host.node(conf.common.node, conf.subnets_of, call.log)
        ipam = options.permit_resolv_conf(call, conf.ipam(subnets, families.BOTH))
        to = delegation.choose(call, conf.common.delegate, ipam)
        needed = [family for family, namespaces in conf.limits.items() if namespaces is None]
        return delegation.status(call, to, ipam, needed)
    except CNIError as error:
        raise delegation.not_available(error) from None


def resolve(call: Call) -> Call:
    """Return the call with host-local's configuration, with all families. Raises CNIError."""
    conf = KubeNodeConf.read(call).validated(call.host)
    return delegation.resolved(call, conf.ipam(call.host.node(conf.common.node, conf.subnets_of, call.log), families.BOTH))


COMMANDS = {"ADD": cmd_add, "DEL": cmd_del, "CHECK": cmd_check, "GC": cmd_gc, "STATUS": cmd_status}


class KubeNodeConf(NamedTuple):
    """Keys of `ipam` for kube-node, the other keys, and all issues."""

    common: options.Common
    limits: dict[int, tuple[str, ...] | None]
    others: dict[str, JSON]
    issues: list[str]
    refused: CNIError | None

    @classmethod
    def read(cls, call: Call) -> KubeNodeConf:
        """Read the configuration; issues are collected."""
        source = options.Options(call.netconf.ipam)
        common = options.common(call, source)
        limits = {4: source.names("ipv4-namespaces"), 6: source.names("ipv6-namespaces")}
        others = source.others()
        issues = [f"kube-node takes the subnets from the Node; remove {key}" for key in ("ranges", "subnet") if others.pop(key, None)]
        issues += keys.without_effect(call.netconf.raw, others)
        return cls(common, limits, others, [*source.issues, *issues], source.refused)

    def validated(self, host: Host) -> KubeNodeConf:
        """Return the configuration with this process's paths. Raises CNIError 7 with all issues, or 120 for a path that is not allowed."""
        options.raise_issues(self.issues, self.refused)
        return self._replace(common=self.common.permitted(host))

    def subnets_of(self, own: Node) -> tuple[Item, ...] | tuple[Subnet, ...]:
        """Return the Node's subnets for this configuration."""
        return node.annotated_items(own, self.common.annotation) if self.common.annotation else node.pod_subnets(own)

    def ipam(self, subnets: Iterable[Item | Subnet], wanted: Collection[int]) -> dict[str, JSON]:
        """Return the delegate's `ipam`: one range set per family, in the order of the Node's subnets."""
        by_family: dict[int, list[JSON]] = {}
        for subnet in subnets:
            if subnet.version in wanted:
                by_family.setdefault(subnet.version, []).append(subnet.as_range())
        return {**self.others, "ranges": list(by_family.values())}
