"""kube-node: addresses from the subnets that the Node object gives to this node."""

from __future__ import annotations

from kubenode.cni.errors import NOT_AVAILABLE, CNIError
from kubenode.cni.record import NamedTuple
from kubenode.ipam import families
from kubenode.kube import node
from kubenode.plugins import attached, delegation, nodes
from kubenode.plugins.options import Options
from kubenode.plugins.skel import Call

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from kubenode.cni.jsontext import JSON
    from kubenode.ipam.ranges import Subnet
    from kubenode.kube.node import Node

OWN_KEYS = frozenset(
    ["kubeconfig", "annotation", "ipv4-namespaces", "ipv6-namespaces", "delegate", "nodeFile", "refreshAfter", "logfile", "loglevel"]
)


class KubeNodeConf(NamedTuple):
    """The keys of `ipam` that are kube-node's."""

    node: nodes.NodeOptions
    annotation: str
    limits: dict[int, list[str] | None]
    delegate: str
    excludes: bool
    rest: dict[str, JSON]

    @classmethod
    def parse(cls, call: Call) -> KubeNodeConf:
        """Read the configuration. Raises CNIError 7 with all issues at once."""
        options = Options(call.netconf.ipam)
        call.log.configure(options.text("logfile"), options.level("loglevel"))
        conf = cls(
            nodes.NodeOptions(
                options.text("kubeconfig"), options.text("nodeFile"), options.seconds("refreshAfter", default=nodes.REFRESH_AFTER)
            ),
            options.text("annotation", may_be_empty=False),
            {4: options.names("ipv4-namespaces"), 6: options.names("ipv6-namespaces")},
            options.text("delegate", may_be_empty=False),
            bool(call.netconf.ipam.get("exclude")),
            {key: value for key, value in call.netconf.ipam.items() if key not in OWN_KEYS},
        )
        if conf.excludes and conf.delegate not in {"", delegation.EMBEDDED}:
            options.issue(f"exclude is not known to the delegate {conf.delegate}")
        options.raise_issues()
        return conf

    def subnets_of(self, own: Node) -> tuple[Subnet, ...]:
        return node.annotated_subnets(own, self.annotation) if self.annotation else node.pod_subnets(own)

    def ipam(self, subnets: Iterable[Subnet], wanted: Collection[int]) -> dict[str, JSON]:
        """Return the `ipam` for who gives the addresses: one range set a family, in the order in which the Node has them."""
        by_family: dict[int, list[JSON]] = {}
        for subnet in subnets:
            if subnet.version in wanted:
                by_family.setdefault(subnet.version, []).append({"subnet": str(subnet)})
        return {**self.rest, "ranges": list(by_family.values())}


def cmd_add(call: Call) -> bytes:
    """Give the pod an address of each family that its namespace gets."""
    conf = KubeNodeConf.parse(call)
    to = delegation.choose(call, conf.delegate, needs_embedded=conf.excludes)
    subnets = nodes.select(conf.node, conf.subnets_of, call.environ, call.log)
    wanted = families.select({s.version for s in subnets}, call.request.pod_args.get("K8S_POD_NAMESPACE", ""), conf.limits)
    attached.note(call)
    # The embedded allocator gets both families and is told which: a range set's number, and so its round robin, stays the family's.
    ipam = conf.ipam(subnets, wanted if to.executable else families.BOTH)
    return delegation.add(call, to, ipam, wanted)


def cmd_del(call: Call) -> bytes:
    """Release what the pod has. Neither the Node nor the rest of the configuration need be right for that."""
    ipam = _ipam_without_asking(call)
    result = delegation.delete(call, delegation.choose_for_release(call, call.netconf.ipam.get("delegate")), ipam)
    attached.forget(call)
    return result
