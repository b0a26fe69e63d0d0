# SPDX-License-Identifier: Apache-2.0
"""SubnetPools that mean nothing: what the controller's condition says, an API server from 1.31 on says before, with the component `cel`."""

from __future__ import annotations

import json
import os
import subprocess
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
import yaml
from controllerprocess import until
from corner import ROOT
from wanting import want

from kubenode.nodes.node import CLOSED
from kubenode.pools.records import parse_pool

if TYPE_CHECKING:
    from pathlib import Path

    from apiserver import RealApiServer

NET = {"cidr": "172.20.0.0/16", "nodePrefix": 24}
NET6 = {"cidr": "fd00:20::/64", "nodePrefix": 80}
SHARED = {**NET, "shared": True}
BROADCAST = "172.20.255.255"
MAPPED = "::ffff:172.20.0.0/112"
TOO_LONG = "p" * 64


class Bad(NamedTuple):
    """A pool that means nothing, and what the condition says of it."""

    spec: dict[str, Any]
    says: str
    name: str = "p"


def selector(**expression: Any) -> dict[str, Any]:
    return {"cidrs": [NET], "nodeSelector": {"matchExpressions": [{"key": "a", **expression}]}}


BAD = [
    Bad({"cidrs": [{**NET, "nodePrefix": 12}]}, "nodePrefix of 172.20.0.0/16 has to be from 16 to 30"),
    Bad({"cidrs": [{**NET, "nodePrefix": 31}]}, "nodePrefix of 172.20.0.0/16 has to be from 16 to 30"),
    Bad({"cidrs": [{"cidr": "FD00::/64", "nodePrefix": 63}]}, "nodePrefix of fd00::/64 has to be from 64 to 126"),
    Bad(
        {"cidrs": [{**NET, "cidr": "172.20.0.1/16"}]},
        "Network has host bits set. For a subnet mask of length 16 the network address is 172.20.0.0",
    ),
    Bad(
        {"cidrs": [{**NET6, "cidr": "fd00:0:0:0:1::/64"}]},
        "Network has host bits set. For a subnet mask of length 64 the network address is fd00::",
    ),
    Bad({"cidrs": [{**NET6, "cidr": "fd00::1::/64"}]}, "invalid CIDR address: fd00::1::/64"),
    Bad(
        {"cidrs": [{"cidr": MAPPED, "nodePrefix": 120}]},
        f"IPNet IP and Mask version mismatch: {MAPPED} is an IPv4-mapped IPv6 network (::ffff:0:0/96); write it as IPv4",
    ),
    Bad({"cidrs": [NET, {"cidr": "172.20.4.0/24", "nodePrefix": 26}]}, "172.20.4.0/24 and 172.20.0.0/16 of the same pool overlap"),
    Bad({"cidrs": [{"cidr": "172.20.4.0/24", "nodePrefix": 26}, NET]}, "172.20.0.0/16 and 172.20.4.0/24 of the same pool overlap"),
    Bad({"cidrs": [NET, {**NET6, "cidr": "fd00::/64"}, {**NET6, "cidr": "FD00::/64"}]}, "fd00::/64 and fd00::/64 of the same pool overlap"),
    Bad({"cidrs": [{**NET, "exclude": ["172.20.0.1", "172.21.0.1"]}]}, "exclude 172.21.0.1/32 is not in 172.20.0.0/16"),
    Bad({"cidrs": [{**NET, "exclude": ["172.21.0.0/24"]}]}, "exclude 172.21.0.0/24 is not in 172.20.0.0/16"),
    Bad({"cidrs": [{**NET6, "exclude": ["FD00:21::1"]}]}, "exclude fd00:21::1/128 is not in fd00:20::/64"),
    Bad({"cidrs": [{**NET, "exclude": ["fd00:20::/64"]}]}, "exclude fd00:20::/64 is not in 172.20.0.0/16"),
    Bad({"cidrs": [{**NET, "exclude": ["172.20.0.1/24"]}]}, "172.20.0.1/24 has host bits set; the network is 172.20.0.0/24"),
    Bad({"cidrs": [{**NET, "exclude": ["172.20.0.300"]}]}, "'172.20.0.300' is neither an address nor a network"),
    Bad({"cidrs": [{**NET, "exclude": ["172.20.0.0/33"]}]}, "'172.20.0.0/33' is neither an address nor a network"),
    Bad({"cidrs": [{**NET, "nodePrefix": 33, "shared": True}]}, "nodePrefix of 172.20.0.0/16 has to be from 16 to 32"),
    Bad({"cidrs": [{**NET6, "nodePrefix": 127, "shared": False}]}, "nodePrefix of fd00:20::/64 has to be from 64 to 126"),
    Bad(
        {"cidrs": [{**SHARED, "gateway": "172.20.0.300"}]},
        "gateway '172.20.0.300' of 172.20.0.0/16 is neither an address, first, last nor none",
    ),
    Bad(
        {"cidrs": [{**NET, "gateway": "172.20.0.1"}]},
        "gateway 172.20.0.1 of 172.20.0.0/16 is one address: where the network is not shared it has to be first, last or none",
    ),
    Bad({"cidrs": [{**SHARED, "gateway": "172.21.0.1"}]}, "gateway 172.21.0.1 is not in 172.20.0.0/16"),
    Bad({"cidrs": [{**SHARED, "gateway": "FD00:20::1"}]}, "gateway fd00:20::1 is not in 172.20.0.0/16"),
    Bad({"cidrs": [{**SHARED, "gateway": "fe80::1"}]}, "gateway fe80::1 is not of the family of 172.20.0.0/16"),
    Bad({"cidrs": [{**SHARED, "gateway": "172.20.0.0"}]}, "gateway 172.20.0.0 is the first or the broadcast address of 172.20.0.0/16"),
    Bad(selector(operator="In"), "nodeSelector: In of label a needs values"),
    Bad(selector(operator="NotIn", values=[]), "nodeSelector: NotIn of label a needs values"),
    Bad(selector(operator="Exists", values=["b"]), "nodeSelector: Exists of label a takes no values"),
    Bad(selector(operator="DoesNotExist", values=["b"]), "nodeSelector: DoesNotExist of label a takes no values"),
    Bad({"cidrs": [NET], "annotation": CLOSED}, f"annotation {CLOSED} is the controller's own"),
    Bad({"cidrs": [NET]}, "no annotation has a name of more than 63 characters, as the pool has: set annotation", name=TOO_LONG),
]
GOOD: list[dict[str, Any]] = [
    {"cidrs": [NET]},
    {"cidrs": [NET, {**NET, "cidr": "172.21.0.0/16"}, NET6]},
    {"cidrs": [{"cidr": "0.0.0.0/0", "nodePrefix": 30}, {"cidr": "::/0", "nodePrefix": 126}]},
    {"cidrs": [{**NET, "nodePrefix": 16}, {**NET6, "nodePrefix": 126}]},
    {"cidrs": [{"cidr": "::1.2.0.0/112", "nodePrefix": 120}]},
    {"cidrs": [{**NET, "exclude": ["172.20.0.0/24", "172.20.1.7", "172.0.0.0/8"]}, {**NET6, "exclude": ["fd00:20::", "fd00::/16"]}]},
    {"cidrs": [{**SHARED, "nodePrefix": 32, "gateway": "172.20.9.9"}, {**NET6, "nodePrefix": 128, "shared": True, "gateway": "fe80::1"}]},
    {"cidrs": [{**SHARED, "gateway": "none"}, {**NET6, "gateway": "last"}, {**NET, "cidr": "172.21.0.0/16", "gateway": "first"}]},
    {**selector(operator="In", values=["b"]), "annotation": "example.com/net", "reclaimAfter": "1h30m"},
    selector(operator="DoesNotExist"),
    # What costs the rules most.
    {
        "cidrs": [
            {"cidr": f"fd00:{number:x}::/64", "nodePrefix": 80, "exclude": [f"fd00:{number:x}:0:0:ffff:{one:x}::/96" for one in range(256)]}
            for number in range(64)
        ]
    },
]
# What the server's functions for networks do not read as the controller does: the entry, what the controller says, what the server says.
DIFFERENT: list[tuple[dict[str, Any], tuple[str, ...], str]] = [
    ({**NET, "exclude": ["172.20.0.0/024"]}, (), "'172.20.0.0/024' is neither an address nor a network"),
    ({**NET, "exclude": ["::ffff:172.20.0.1"]}, (), "'::ffff:172.20.0.1' is neither an address nor a network"),
    ({**SHARED, "gateway": "::ffff:172.20.0.1"}, (), "gateway '::ffff:172.20.0.1' of 172.20.0.0/16 is neither an address"),
    ({**SHARED, "gateway": BROADCAST}, (f"gateway {BROADCAST} is the first or the broadcast address of 172.20.0.0/16",), ""),
    (
        {"cidr": f"0{MAPPED}", "nodePrefix": 120},
        (f"IPNet IP and Mask version mismatch: 0{MAPPED} is an IPv4-mapped IPv6 network (::ffff:0:0/96); write it as IPv4",),
        f"invalid CIDR address: 0{MAPPED}",
    ),
]


@pytest.mark.parametrize("bad", BAD, ids=lambda bad: bad.says[:50])
def test_the_condition(bad: Bad) -> None:
    """The controller says of each what is wrong and what would be right."""
    assert parse_pool({"metadata": {"name": bad.name}, "spec": bad.spec}).problems == (bad.says,)


@pytest.mark.parametrize("spec", GOOD)
def test_a_good_one(spec: dict[str, Any]) -> None:
    """The controller has nothing to say of a pool that means something."""
    assert parse_pool({"metadata": {"name": "p"}, "spec": spec}).problems == ()


class Checked:
    """Pools of another name, so that other tests' pools have no rules; `rules`: whether the server knows them."""

    DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
    POOLS = "/apis/kube-node.nordix.org/v1alpha1/checkedpools"

    def __init__(self, server: RealApiServer) -> None:
        self.server = server
        self.rules = server.minor >= 31

    def define(self, definition: dict[str, Any]) -> None:
        self.server.request("POST", self.DEFINITIONS, definition)
        until(self._is_served, 20)

    def define_again(self, definition: dict[str, Any]) -> None:
        """Change the definition, and wait until it counts."""
        path = f"{self.DEFINITIONS}/{definition['metadata']['name']}"
        self.server.request("PATCH", path, {"spec": definition["spec"]}, "application/merge-patch+json")
        until(lambda: not self.rules or bool(self.refusal("probe", BAD[0].spec)), 20)

    def create(self, name: str, spec: dict[str, Any]) -> None:
        self.server.request("POST", self.POOLS, pool(name, spec))

    def refusal(self, name: str, spec: dict[str, Any]) -> str:
        """Create a pool and delete it, or return why it was refused."""
        try:
            self.create(name, spec)
        except RuntimeError as error:
            return str(error)
        self.server.request("DELETE", f"{self.POOLS}/{name}")
        return ""

    def _is_served(self) -> bool:
        try:
            self.server.request("GET", self.POOLS)
        except RuntimeError:
            return False
        return True


def pool(name: str, spec: dict[str, Any]) -> dict[str, Any]:
    return {"apiVersion": "kube-node.nordix.org/v1alpha1", "kind": "CheckedPool", "metadata": {"name": name}, "spec": spec}


def definition(directory: Path, *components: str) -> dict[str, Any]:
    """Return the definition of pools with another name, as kubectl makes it with these components."""
    directory.mkdir()
    kustomization = {
        "resources": [os.path.relpath(ROOT / "deploy/controller/crds.yaml", directory)],
        "components": [os.path.relpath(ROOT / "deploy/components" / name, directory) for name in components],
    }
    (directory / "kustomization.yaml").write_text(json.dumps(kustomization))
    kustomize = ["kubectl", "kustomize", "--load-restrictor=LoadRestrictionsNone", str(directory)]
    text = subprocess.run(kustomize, check=True, capture_output=True, text=True).stdout
    for old, new in (("subnetpool", "checkedpool"), ("SubnetPool", "CheckedPool")):
        text = text.replace(old, new)
    (found,) = [one for one in yaml.safe_load_all(text) if one["spec"]["names"]["kind"] == "CheckedPool"]
    return dict(found)


@pytest.fixture(scope="module")
def checked(api_server: RealApiServer, tmp_path_factory: pytest.TempPathFactory) -> Checked:
    """Define the pools, and let each bad one be there before the rules are. A server before CEL drops the rules."""
    want("kubectl", "kube-apiserver whose rules know networks")
    directory = tmp_path_factory.mktemp("cel")
    checked = Checked(api_server)
    checked.define(definition(directory / "plain"))
    for number, bad in enumerate(BAD):
        checked.create(bad.name if bad.name != "p" else f"old-{number}", bad.spec)
    checked.define_again(definition(directory / "rules", "cel"))
    return checked


@pytest.mark.custom_resources
@pytest.mark.parametrize("bad", BAD, ids=lambda bad: bad.says[:50])
def test_the_server_refuses(checked: Checked, bad: Bad) -> None:
    """The API server refuses each with the words of the condition."""
    told = checked.refusal(bad.name.replace("p", "n"), bad.spec)
    assert bad.says in told if checked.rules else not told


@pytest.mark.custom_resources
@pytest.mark.parametrize("spec", GOOD)
def test_the_server_takes(checked: Checked, spec: dict[str, Any]) -> None:
    """What means something is taken, also at the most that a list may have."""
    assert checked.refusal("good", spec) == ""


@pytest.mark.custom_resources
@pytest.mark.parametrize(("entry", "says", "server"), DIFFERENT)
def test_the_differences(checked: Checked, entry: dict[str, Any], says: tuple[str, ...], server: str) -> None:
    """Where the server with the rules is stricter, or says it in other words, docs/reference/controller.md tells so."""
    spec = {"cidrs": [entry]}
    assert parse_pool({"metadata": {"name": "p"}, "spec": spec}).problems == says
    told = checked.refusal("different", spec)
    assert server in told if checked.rules else not told


@pytest.mark.custom_resources
def test_the_last_of_many_is_found(checked: Checked) -> None:
    """What is wrong at the end of the longest lists is told in the same words: the rules may cost that much."""
    cidrs = [{**net, "exclude": list(net["exclude"])} for net in GOOD[-1]["cidrs"]]
    cidrs[-1]["exclude"][-1] = "fe80::1"
    cidrs[-2]["cidr"] = "fd00:3d::/48"
    told = checked.refusal("many", {"cidrs": cidrs})
    says = ["fd00:3d::/48 and fd00:3d::/64 of the same pool overlap", f"exclude fe80::1/128 is not in {cidrs[-1]['cidr']}"]
    assert [each in told for each in says] == [checked.rules] * 2, told


@pytest.mark.custom_resources
@pytest.mark.parametrize("number", range(len(BAD)))
def test_a_pool_from_before(checked: Checked, number: int) -> None:
    """A bad pool that was there before the rules gets its condition, and can be corrected."""
    bad = BAD[number]
    path = f"{checked.POOLS}/{bad.name if bad.name != 'p' else f'old-{number}'}"
    for where, body in ((f"{path}/status", {"status": {"allocated": 1}}), (path, {"spec": {**GOOD[0], "annotation": "a"}})):
        checked.server.request("PATCH", where, body, "application/merge-patch+json")


@pytest.mark.custom_resources
def test_kubectl_apply(checked: Checked, tmp_path: Path) -> None:
    """`kubectl apply` of a bad pool fails, and says why."""
    admin = checked.server.kubeconfig(tmp_path / "admin", checked.server.certificate_user("admin", "system:masters"))
    apply = ["kubectl", f"--kubeconfig={admin}", "apply", "--filename=-"]
    told = subprocess.run(apply, input=json.dumps(pool("applied", BAD[0].spec)), check=False, capture_output=True, text=True)
    assert (told.returncode, BAD[0].says in told.stderr) == ((1, True) if checked.rules else (0, False)), told
