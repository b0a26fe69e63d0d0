# SPDX-License-Identifier: Apache-2.0
"""What `kubectl apply` puts into a cluster: rendered from one source, taken by a real API server, with no right too many."""

from __future__ import annotations

import json
import re
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from agentprocess import AgentProcess, pod_args, write_node
from apiserver import api_server
from corner import APIS, GROUP
from patience import eventually
from rendered import DEPLOY, ROOT, documents, kustomized, pod_of, run

from kubenode.agent.protocol import HEALTHZ, READYZ
from kubenode.cli import agent, install
from kubenode.cli.main import kube_node
from kubenode.nodes.node import CLOSED

if TYPE_CHECKING:
    from pathlib import Path

    from apiserver import RealApiServer

__all__ = ["api_server"]
pytestmark = pytest.mark.usefixtures("kubectl")
CONTEXT = kube_node.make_context("kube-node", [], resilient_parsing=True)  # with the names of the help option, which commands keep
COMMANDS = {"install": install.command, "uninstall": install.uninstall, "agent": agent.command}
COMPONENTS = [[], ["bridge"], ["scrape"], ["reclaim"], ["events"], ["ipv4-label"], ["bridge", "scrape", "reclaim", "events"]]


def test_the_rendered_manifest_is_what_kustomize_makes() -> None:
    """deploy/kube-node.yaml: kubectl kustomize deploy >deploy/kube-node.yaml."""
    assert run("kubectl", "kustomize", DEPLOY) == (DEPLOY / "kube-node.yaml").read_text()


def test_no_right_to_pods_unless_it_is_asked_for(overlay: Path) -> None:
    """What is applied as it is gives no right to read pods, with all that their specifications hold; the component does."""

    def resources(text: str) -> set[str]:
        roles = [document for key, document in documents(text).items() if key.startswith("ClusterRole/")]
        return {resource for role in roles for rule in role["rules"] for resource in rule["resources"]}

    assert resources((DEPLOY / "kube-node.yaml").read_text()) == {"nodes"}
    assert resources(kustomized(overlay, ["reclaim"])) == {"nodes", "pods"}


def test_the_new_pod_comes_before_the_old_one_goes(overlay: Path) -> None:
    """With the component no pod goes before its successor has run for a while, which waits for it, and needs no port that it has."""
    spec = documents(kustomized(overlay, ["bridge", "scrape", "reclaim", "surge"]))["DaemonSet/kube-node"]["spec"]
    assert spec["updateStrategy"]["rollingUpdate"] == {"maxUnavailable": 0, "maxSurge": "10%"}
    assert spec["minReadySeconds"] > 0
    pod = spec["template"]["spec"]
    assert "--wait" in pod["containers"][0]["args"]
    # It would be the host's: with the old pod there the new one could not be placed.
    assert not any("ports" in container for container in (*pod["initContainers"], *pod["containers"]))


def test_the_policy_knows_the_controller() -> None:
    """The ServiceAccount that the policy names is the controller's, and who may write pools' annotations is the controller, too."""
    policies = documents((DEPLOY / "components/policy/policy.yaml").read_text())
    rights = documents((DEPLOY / "controller/rbac.yaml").read_text())
    (condition,) = policies["ValidatingAdmissionPolicy/kube-node-controller"]["spec"]["matchConditions"]
    pattern = condition["expression"].partition("matches('")[2].removesuffix("')")
    account = rights["ServiceAccount/kube-node-controller"]["metadata"]
    assert re.match(pattern, f"system:serviceaccount:{account['namespace']}:{account['name']}")
    ours, closed = policies["ValidatingAdmissionPolicy/kube-node-annotations"]["spec"]["validations"]
    asked = re.findall(r"resource\('(\w+)'\)\.check\('(\w+)'\)", ours["expression"])
    assert re.findall(r"resource\('(\w+)'\)\.check\('(\w+)'\)", closed["expression"]) == asked
    assert re.findall(r"'([\w.-]+/\w+)'", closed["expression"]) == [CLOSED, CLOSED]
    granted = {
        (resource, verb)
        for rule in rights["ClusterRole/kube-node-controller"]["rules"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }
    assert asked[0] in granted


def test_a_monitor_finds_what_it_is_about(overlay: Path) -> None:
    """The labels and the port by which Prometheus looks for pods are those of the pods, and the job is called what the rules call it."""
    found = documents(kustomized(overlay, ["scrape", "monitor", "../controller", "controller-monitor"]))
    scraped = yaml.safe_load((DEPLOY / "monitoring/scrape.yaml").read_text())["scrape_configs"]
    pods = [found[key]["spec"]["template"] for key in ("DaemonSet/kube-node", "Deployment/kube-node-controller")]
    assert [pod["metadata"]["labels"]["app.kubernetes.io/name"] for pod in pods] == [job["job_name"] for job in scraped]
    monitor, pod = found["PodMonitor/kube-node"]["spec"], pods[0]
    assert monitor["jobLabel"] == "app.kubernetes.io/name"
    assert monitor["selector"]["matchLabels"].items() <= pod["metadata"]["labels"].items()
    monitor, pod = found["PodMonitor/kube-node-controller"]["spec"], found["Deployment/kube-node-controller"]["spec"]["template"]
    assert monitor["selector"]["matchLabels"].items() <= pod["metadata"]["labels"].items()
    assert [endpoint["port"] for endpoint in monitor["podMetricsEndpoints"]] == [
        port["name"] for port in pod["spec"]["containers"][0]["ports"]
    ]


def test_every_node_is_scraped(overlay: Path) -> None:
    """Nothing that Kubernetes cuts at 1,000 addresses is between Prometheus and the agents, and an operator makes of the monitor what
    scrape.yaml has: no port is declared in the pods, and none is asked for.
    """
    found = documents(kustomized(overlay, ["scrape", "monitor"]))
    assert not [key for key in found if key.startswith(("Service/", "ServiceMonitor/"))]
    (endpoint,) = found["PodMonitor/kube-node"]["spec"]["podMetricsEndpoints"]
    assert list(endpoint) == ["relabelings"]
    job = yaml.safe_load((DEPLOY / "monitoring/scrape.yaml").read_text())["scrape_configs"][0]
    snake = {"sourceLabels": "source_labels", "targetLabel": "target_label"}
    assert [{snake.get(key, key): value for key, value in one.items()} for one in endpoint["relabelings"]] == job["relabel_configs"]


def test_a_drain_ends(overlay: Path) -> None:
    """The controller's budget lets go of a pod however many there are: with minAvailable 1 the only one would stay for ever."""
    found = documents(kustomized(overlay, ["../controller"]))
    budget = found["PodDisruptionBudget/kube-node-controller"]["spec"]
    assert (budget["maxUnavailable"], "minAvailable" in budget) == (1, False)
    assert budget["selector"] == found["Deployment/kube-node-controller"]["spec"]["selector"]


@pytest.mark.parametrize("components", COMPONENTS, ids="+".join)
def test_the_api_server_takes_it(api_server: RealApiServer, overlay: Path, tmp_path: Path, components: list[str]) -> None:
    """A server-side dry run, which knows each field's type and each kind's rules, finds nothing wrong."""
    admin = api_server.kubeconfig(tmp_path / "admin", api_server.certificate_user("admin", "system:masters"))
    told = run("kubectl", f"--kubeconfig={admin}", "apply", "--dry-run=server", "--filename=-", stdin=kustomized(overlay, components))
    assert "daemonset.apps/kube-node created (server dry run)" in told


def test_the_commands_know_their_options(overlay: Path) -> None:
    """What the containers are given the commands take; a file in install's way is a warning, so that the node has its agent."""
    for text in (
        kustomized(overlay, ["bridge", "scrape", "ipv4-label", "node-addresses"]),
        run("kubectl", "kustomize", DEPLOY / "uninstall"),
    ):
        pod = pod_of(text)
        for container in (*pod["initContainers"], *pod["containers"]):
            name, *options = container.get("args") or ["agent"]
            given = [option.replace("$(HOST_IP)", "192.0.2.1") for option in options]
            found = COMMANDS[name].make_context(name, given, parent=CONTEXT)
            assert name != "install" or found.params["leave"]


@pytest.mark.parametrize("components", COMPONENTS, ids="+".join)
def test_no_container_may_more_than_it_needs(overlay: Path, components: list[str]) -> None:
    """No privilege, no capability, a read-only root, limits; nothing of the host but the directories that are written down."""
    pod = pod_of(kustomized(overlay, components))
    assert not {"hostPID", "hostIPC"} & pod.keys()
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    for container in (*pod["initContainers"], *pod["containers"]):
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert "memory" in container["resources"]["limits"]
        assert "livenessProbe" in container or container["name"] == "install"
    host_paths = {volume["hostPath"]["path"] for volume in pod["volumes"] if "hostPath" in volume}
    assert host_paths == {
        "/opt/cni/bin",
        "/etc/cni",
        "/etc/cni/net.d",
        "/run/kube-node",
        "/run/netns",
        "/var/lib/cni/networks",
        "/run/container-ipam-state",
    }
    writable = {mount["mountPath"] for mount in pod["containers"][0]["volumeMounts"] if not mount.get("readOnly")}
    assert writable == {
        "/host/run/kube-node",
        "/host/var/lib/cni/networks",
        "/host/run/container-ipam-state",
        "/host/etc/cni/net.d/kube-node.d",
        *(["/host/etc/cni/net.d"] if "bridge" in components else []),  # a network that waits for the agent gets its name there
    }


def test_the_rights_suffice_and_none_is_too_many(api_server: RealApiServer, overlay: Path, tmp_path: Path, run_dir: Path) -> None:
    """An agent with the service account's token, which watches its Node and takes back a leak, uses each right that it has, no other."""
    admin = api_server.kubeconfig(tmp_path / "admin", api_server.certificate_user("admin", "system:masters"))
    accounts = [text for key, text in documents(kustomized(overlay, ["reclaim"])).items() if not key.startswith("DaemonSet")]
    run("kubectl", f"--kubeconfig={admin}", "apply", "--filename=-", stdin=yaml.safe_dump_all(accounts))
    roles = [document for document in accounts if document["kind"] == "ClusterRole"]
    given = {(verb, resource) for role in roles for rule in role["rules"] for verb in rule["verbs"] for resource in rule["resources"]}

    user, before = "system:serviceaccount:kube-system:kube-node", len(api_server.asked(""))
    api_server.create_node("deploy-1", ["10.7.0.0/24"])
    token: dict[str, Any] = {"token": api_server.token("kube-node")}
    kubeconfig = api_server.kubeconfig(tmp_path / "kubeconfig", token)
    namespaces = tmp_path / "netns"
    namespaces.mkdir()
    (namespaces / "gone").write_bytes(b"")
    node_file = write_node(tmp_path / "node.yaml", "10.8.0.0/24")
    ipam = {"type": "kube-node", "dataDir": str(tmp_path / "networks"), "nodeFile": str(node_file)}
    conf = {"cniVersion": "1.0.0", "name": "net", "type": "bridge", "ipam": ipam}
    with AgentProcess(run_dir, f"--kubeconfig={kubeconfig}", "--grace=0", env={"NODE_NAME": "deploy-1"}) as agent:
        eventually(lambda: agent.get("/readyz")[0] == 200, "the agent does not get ready")
        agent.add(conf, "leaked", netns=str(namespaces / "gone"), args=pod_args("never-was"))
        (namespaces / "gone").unlink()
        agent.said("leaked addresses released")
        eventually(lambda: used(api_server, user, before) == given, lambda: f"used: {used(api_server, user, before)}, given: {given}")


@pytest.mark.custom_resources
def test_an_agent_writes_its_own_report_alone(real: RealApiServer, overlay: Path, tmp_path: Path, run_dir: Path) -> None:
    """The component's rights suffice and none is too many; from 1.30 on an agent writes no other node's report, and none what it needs."""
    admin = real.kubeconfig(tmp_path / "admin", real.certificate_user("admin", "system:masters"))
    has_policies = real.minor >= 30
    found = documents(kustomized(overlay, ["node-addresses"]))
    kinds = ("ServiceAccount", "ClusterRole", *(["ValidatingAdmission"] if has_policies else []))
    wanted = [document for key, document in found.items() if key.startswith(kinds)]
    run("kubectl", f"--kubeconfig={admin}", "apply", "--filename=-", stdin=yaml.safe_dump_all(wanted))
    rules = found["ClusterRole/kube-node-addresses"]["rules"]
    given = {(verb, resource) for rule in rules for verb in rule["verbs"] for resource in rule["resources"]}
    user, name, other = "system:serviceaccount:kube-system:kube-node", "reports-1", "reports-2"
    for node in (name, other):
        real.create_node(node, ["10.7.0.0/24"])
    token = real.token_on("kube-node", name, "agent-on-reports-1")
    agents = real.kubeconfig(tmp_path / "kubeconfig", {"token": token})
    with AgentProcess(run_dir, f"--kubeconfig={agents}", "--node-addresses", env={"NODE_NAME": name}) as agent:
        eventually(lambda: reported(real, name), agent.log)
        real.delete_node(name)
        real.create_node(name, ["10.7.0.0/24"])
        eventually(lambda: given <= used(real, user), lambda: given - used(real, user))

    def write(node: str, patch: dict[str, Any], *options: str) -> str:
        command = ["kubectl", f"--kubeconfig={agents}", "patch", "nodeaddresses", node, "--type=merge", f"--patch={json.dumps(patch)}"]
        done = subprocess.run([*command, *options], check=False, capture_output=True, text=True, timeout=60)
        return done.stderr

    manifest = {"apiVersion": f"{GROUP}/v1alpha1", "kind": "NodeAddresses", "metadata": {"name": other}}
    real.request("POST", f"{APIS}/nodeaddresses", manifest)
    annotate = {"metadata": {"annotations": {"x": "y"}}}
    assert write(name, annotate) == ""
    assert ("may not write the addresses of reports-2" in write(other, annotate)) is has_policies
    assert ("written by the controller" in write(name, {"spec": {"minFree": {"a": 1}}})) is has_policies


def reported(server: RealApiServer, node: str) -> bool:
    items = server.request("GET", f"{APIS}/nodeaddresses?fieldSelector=metadata.name={node}")["items"]
    return any(item.get("status") for item in items)


def used(server: RealApiServer, user: str, before: int = 0) -> set[tuple[str, str]]:
    mine = [asked for asked in server.asked("")[before:] if asked.user == user]
    return {(asked.verb, asked.resource + ("/status" if asked.uri.endswith("/status") else "")) for asked in mine}


def test_the_bridge_components_network_is_complete() -> None:
    """Its configuration names the kubeconfig that install writes, and is JSON that a runtime loads."""
    conflist = json.loads((DEPLOY / "components/bridge/10-kube-node.conflist").read_text())
    bridge = conflist["plugins"][0]
    assert (bridge["type"], bridge["ipam"]["type"]) == ("bridge", "kube-node")
    assert bridge["ipam"]["kubeconfig"] == "/etc/cni/net.d/kube-node.d/kubeconfig"


def test_the_probes_ask_over_the_socket() -> None:
    """A kubelet's probes need no port: they run the image's relay, which finds the agent's socket where it looks for it anyway."""
    pod = pod_of((DEPLOY / "kube-node.yaml").read_text())
    (agent_container,) = pod["containers"]
    relay = (ROOT / "Dockerfile").read_text().partition('ENTRYPOINT ["')[2].partition(".standalone")[0]
    for probe, question in (("livenessProbe", HEALTHZ), ("readinessProbe", READYZ)):
        assert agent_container[probe]["exec"]["command"] == [relay, question]
    mounts = {mount["mountPath"]: mount["name"] for mount in agent_container["volumeMounts"]}
    assert mounts["/run/kube-node"] == mounts["/host/run/kube-node"]


def test_an_image_is_made_of_what_is_here() -> None:
    """The Dockerfile takes packaging/image.sh's root directory from scratch, and runs what `install` and the manifests count on."""
    steps = (ROOT / "Dockerfile").read_text()
    assert "packaging/image.sh" in steps
    assert steps.rpartition("FROM ")[2].startswith("scratch\n")
    assert 'ENTRYPOINT ["/opt/kube-node/kube-node.standalone"]' in steps


def test_only_who_writes_on_the_node_is_root() -> None:
    """The image's user is nobody's, and the controller's; the DaemonSets say that theirs is root."""
    image = re.findall(r"^USER (\d+):(\d+)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    assert image == [("65532", "65532")]
    users = {}
    for name in (".", "uninstall", "controller"):
        for document in documents(run("kubectl", "kustomize", DEPLOY / name)).values():
            if document["kind"] in {"DaemonSet", "Deployment"}:
                context = document["spec"]["template"]["spec"]["securityContext"]
                users[name] = (context["runAsUser"], context["runAsGroup"])
    assert users == {".": (0, 0), "uninstall": (0, 0), "controller": (65532, 65532)}
