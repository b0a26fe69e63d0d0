# SPDX-License-Identifier: Apache-2.0
"""The Helm chart: written by hand, and what it renders is what kustomize makes, object for object."""

from __future__ import annotations

import json
import os
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from rendered import DEPLOY, documents, kustomized, pod_of, run
from wanting import want

if TYPE_CHECKING:
    from pathlib import Path

CHART = DEPLOY / "chart"
OLD, NEW = "1.20.2", "1.36.2"
TEST = "Pod/kube-node-test"
DIGEST = "sha256:" + "0123456789abcdef" * 4
# Values, the version of Kubernetes, and the components that do the same. --quick leaves out those of which two others have a half each.
SAME: list[tuple[dict[str, Any], str, list[str]]] = [
    ({}, OLD, []),
    ({}, "1.21.14-gke.700", []),
    ({}, "1.22.0-rc.0", ["surge"]),
    ({}, NEW, ["surge"]),
    ({"network": {"enabled": True}}, OLD, ["bridge"]),
    ({"scrape": True}, OLD, ["scrape"]),
    ({"scrape": True, "podMonitor": {"enabled": True}}, OLD, ["scrape", "monitor"]),
    ({"reclaim": True}, OLD, ["reclaim"]),
    ({"events": True}, OLD, ["events"]),
    ({"ipv4Label": "kube-node.nordix.org/ipv4"}, OLD, ["ipv4-label"]),
    ({"nodeAddresses": True}, NEW, ["node-addresses", "surge"]),
    ({"network": {"enabled": True}, "scrape": True, "reclaim": True}, NEW, ["bridge", "scrape", "reclaim", "surge"]),
    ({"controller": {"enabled": True}}, OLD, ["../controller"]),
    ({"controller": {"enabled": True}}, "1.26.15", ["../controller", "surge"]),
    ({"controller": {"enabled": True}}, "1.27.0", ["../controller", "surge"]),
    ({"controller": {"enabled": True}}, "1.30.14", ["../controller", "surge"]),
    ({"controller": {"enabled": True}}, "1.31.0-rc.1", ["../controller", "cel", "surge"]),
    ({"controller": {"enabled": True}}, "1.31.6-gke.1020000", ["../controller", "cel", "surge"]),
    ({"controller": {"enabled": True}}, NEW, ["../controller", "cel", "surge"]),
    ({"controller": {"enabled": True, "policy": True}}, NEW, ["../controller", "cel", "policy", "surge"]),
    ({"controller": {"enabled": True, "podMonitor": {"enabled": True}}}, OLD, ["../controller", "controller-monitor"]),
    ({"controller": {"policy": True}}, NEW, ["surge"]),  # the policies need the controller's CRDs
    ({"controller": {"podMonitor": {"enabled": True}, "prometheusRule": {"enabled": True}}}, OLD, []),  # and these what they are about
]
CONTROLLER = {"controller": {"enabled": True}}
HALVED: list[tuple[dict[str, Any], str, list[str]]] = [
    ({}, OLD, []),
    ({}, NEW, ["surge"]),
    ({"scrape": True}, OLD, ["scrape"]),
    (CONTROLLER, OLD, ["../controller"]),
    (CONTROLLER, "1.31.6-gke.1020000", ["../controller", "cel", "surge"]),
    (CONTROLLER, NEW, ["../controller", "cel", "surge"]),
]


@pytest.fixture(scope="module", autouse=True)
def helm() -> str:
    """Return the helm command; $HELM may name it."""
    want("helm")
    return os.environ.get("HELM") or "helm"


def rendered(helm: str, values: dict[str, Any], version: str = OLD, namespace: str = "kube-system") -> str:
    options = [f"--namespace={namespace}", f"--kube-version={version}", "--values=-"]
    return run(helm, "template", "kube-node", CHART, *options, stdin=json.dumps(values))


@pytest.mark.parametrize(
    ("values", "version", "components"),
    [pytest.param(*same, id=f"{same[0]}-{same[1]}", marks=[pytest.mark.slow] if same in HALVED else []) for same in SAME],
)
def test_helm_renders_what_kustomize_does(helm: str, overlay: Path, values: dict[str, Any], version: str, components: list[str]) -> None:
    """Helm renders the base and each component as kustomize does, but for its test, for what is kept at the end of a release, and for what
    depends on the version of Kubernetes.
    """
    ours, theirs = documents(kustomized(overlay, components)), documents(rendered(helm, values, version))
    del theirs[TEST]
    daemonset = ours["DaemonSet/kube-node"]["spec"]["template"]
    for key in [key for key in ours if key.startswith("ConfigMap/")]:  # kustomize's name has a hash of the content
        (volume,) = (volume for volume in daemonset["spec"]["volumes"] if "configMap" in volume)
        ours["ConfigMap/kube-node-network"] = config_map = ours.pop(key)
        config_map["metadata"]["name"] = volume["configMap"]["name"] = "kube-node-network"
        annotations = theirs["DaemonSet/kube-node"]["spec"]["template"]["metadata"]["annotations"]
        daemonset["metadata"].setdefault("annotations", {})["checksum/network"] = annotations["checksum/network"]
    if budget := ours.get("PodDisruptionBudget/kube-node-controller"):
        minor = int(version.split(".")[1])
        budget["apiVersion"] = "policy/v1beta1" if minor < 21 else "policy/v1"
        if minor >= 27:
            budget["spec"]["unhealthyPodEvictionPolicy"] = "AlwaysAllow"
    for key in [key for key in ours if key.startswith("CustomResourceDefinition/")]:  # with them all pools would go
        ours[key]["metadata"]["annotations"] = {"helm.sh/resource-policy": "keep"}
    assert theirs.keys() == ours.keys()
    assert theirs == ours


def test_before_1_30_there_is_no_policy_of_reports(helm: str) -> None:
    """An API server that does not know policies gets none: the agents' rights alone are there."""
    found = documents(rendered(helm, {"nodeAddresses": True}, "1.29.14"))
    assert "ClusterRole/kube-node-addresses" in found
    assert not [key for key in found if key.startswith("ValidatingAdmissionPolicy")]
    assert "ValidatingAdmissionPolicy/kube-node-addresses" in documents(rendered(helm, {"nodeAddresses": True}, "1.30.0-gke.1"))


def test_the_operators_rules_are_prometheus(helm: str) -> None:
    """The PrometheusRules have the rules of deploy/monitoring, word for word; all has the labels that a Prometheus selects by."""
    chosen = {"enabled": True, "labels": {"release": "prom"}}
    monitoring = {"podMonitor": chosen, "prometheusRule": chosen}
    controller = {"enabled": True, "podMonitor": chosen, "prometheusRule": chosen}
    found = documents(rendered(helm, {"scrape": True, **monitoring, "controller": controller}))
    rules = {"PrometheusRule/kube-node": "rules.yaml", "PrometheusRule/kube-node-controller": "controller-rules.yaml"}
    for key, name in rules.items():
        assert found[key]["spec"] == yaml.safe_load((DEPLOY / "monitoring" / name).read_text())
    for key in (*rules, "PodMonitor/kube-node", "PodMonitor/kube-node-controller"):
        assert found[key]["metadata"]["labels"]["release"] == "prom"


def test_a_monitor_needs_metrics_to_be_there(helm: str) -> None:
    """Where no metrics are on the nodes' addresses a PodMonitor is refused, as it would find nothing."""
    template = [helm, "template", "kube-node", str(CHART), "--set=podMonitor.enabled=true"]
    done = subprocess.run(template, check=False, capture_output=True, text=True)
    assert done.returncode != 0
    assert "podMonitor.enabled needs scrape=true" in done.stderr


def test_helms_test_asks_the_agent(helm: str) -> None:
    """`helm test` asks as the agent's probe does, over the node's own socket, with an agent's rights and no more."""
    values = {"paths": {"run": "/p/run"}, "imagePullSecrets": [{"name": "registry"}], **POD}
    objects = documents(rendered(helm, values))
    test, agent = objects[TEST]["spec"], objects["DaemonSet/kube-node"]["spec"]["template"]["spec"]
    (container,), (asked,) = test["containers"], agent["containers"]
    assert objects[TEST]["metadata"]["annotations"]["helm.sh/hook"] == "test"
    assert container["command"] == asked["readinessProbe"]["exec"]["command"]
    for key in ("image", "imagePullPolicy", "securityContext"):
        assert container[key] == asked[key]
    assert test["volumes"] == [{"name": "run", "hostPath": {"path": "/p/run", "type": "Directory"}}]
    for key in ("securityContext", "imagePullSecrets", "nodeSelector", "tolerations", "affinity"):
        assert test[key] == agent[key]
    assert "hostNetwork" not in documents(rendered(helm, {"network": {"enabled": True}}))[TEST]["spec"]


def test_each_component_is_in_the_chart() -> None:
    """A new component comes with a value, or with a version of Kubernetes, and is compared above."""
    assert {name for _, _, components in SAME for name in components} == {
        "../controller",
        *(path.name for path in (DEPLOY / "components").iterdir()),
    }


def test_lint(helm: str) -> None:
    """`helm lint` has nothing to say; an icon it only recommends."""
    told = run(helm, "lint", "--strict", CHART).splitlines()
    assert [line for line in told if line.startswith("[") and "icon" not in line] == []
    assert "1 chart(s) linted, 0 chart(s) failed" in told


def test_a_changed_network_is_a_rollout(helm: str) -> None:
    """Another conflist is installed, as the pods' annotations differ."""
    found = []
    for name in ("a", "b"):
        values = {"network": {"enabled": True, "conflist": json.dumps({"name": name, "plugins": []})}}
        objects = documents(rendered(helm, values))
        assert json.loads(objects["ConfigMap/kube-node-network"]["data"]["10-kube-node.conflist"])["name"] == name
        found.append(objects["DaemonSet/kube-node"]["spec"]["template"]["metadata"]["annotations"])
    assert found[0] != found[1]


def test_an_image_by_digest(helm: str, overlay: Path) -> None:
    """With a digest the tag does not count, as in kustomize."""
    values = {"image": {"repository": "registry.example/kn", "tag": "v9", "digest": DIGEST}, "controller": {"enabled": True}}
    ours = kustomized(overlay, ["../controller"], newName="registry.example/kn", digest=DIGEST)
    assert images(rendered(helm, values)) == images(ours) == {f"registry.example/kn@{DIGEST}"}


def images(text: str) -> set[str]:
    pods = [
        document["spec"]["template"]["spec"] for key, document in documents(text).items() if key.startswith(("DaemonSet/", "Deployment/"))
    ]
    return {container["image"] for pod in pods for container in (*pod.get("initContainers", ()), *pod["containers"])}


POD: dict[str, Any] = {
    "priorityClassName": "high",
    "nodeSelector": {"pool": "a"},
    "tolerations": [{"key": "k", "operator": "Exists"}],
    "affinity": {"nodeAffinity": {}},
}


def test_values_reach_the_agent(helm: str) -> None:
    """Each value is where it belongs."""
    paths = {key: f"/p/{key}" for key in ("bin", "config", "run", "netns", "networks", "ipamState")}
    values = {
        "image": {"repository": "registry.example/kn", "tag": "v9", "pullPolicy": "Never"},
        "imagePullSecrets": [{"name": "registry"}],
        "installArgs": ["--standalone=no"],
        "agentArgs": ["--grace=90", "--loglevel=debug"],
        "apiServer": {"host": "192.0.2.1", "port": "6443"},
        "paths": paths,
        "resources": {"limits": {"memory": "1Gi"}},
        "updateStrategy": {"rollingUpdate": {"maxUnavailable": 1}},
        **POD,
    }
    text = rendered(helm, values)
    pod = pod_of(text)
    (install,), (agent,) = pod["initContainers"], pod["containers"]
    for container in (install, agent):
        assert (container["image"], container["imagePullPolicy"]) == ("registry.example/kn:v9", "Never")
        assert container["resources"]["limits"] == {"memory": "1Gi"}
        assert {"name": "KUBERNETES_SERVICE_HOST", "value": "192.0.2.1"} in container["env"]
        assert {"name": "KUBERNETES_SERVICE_PORT", "value": "6443"} in container["env"]
    assert install["args"][-1] == "--standalone=no"
    assert agent["args"][-2:] == ["--grace=90", "--loglevel=debug"]
    assert {volume["hostPath"]["path"] for volume in pod["volumes"]} == {"/etc/cni", *paths.values()}
    assert pod["imagePullSecrets"] == [{"name": "registry"}]
    assert {key: pod[key] for key in POD} == POD | {"nodeSelector": {"kubernetes.io/os": "linux", "pool": "a"}}
    assert documents(text)["DaemonSet/kube-node"]["spec"]["updateStrategy"]["rollingUpdate"] == {"maxUnavailable": 1}


def test_values_reach_the_controller(helm: str) -> None:
    """Each value is where it belongs; only the Events' role is in another namespace than the release."""
    values = {
        "image": {"repository": "registry.example/kn", "tag": "v9", "pullPolicy": "Never"},
        "imagePullSecrets": [{"name": "registry"}],
        "apiServer": {"host": "192.0.2.1", "port": "6443"},
        "controller": {
            "enabled": True,
            "replicas": 3,
            "args": ["--loglevel=debug"],
            "resources": {"limits": {"memory": "1Gi"}},
            **POD,
            "affinity": {"podAntiAffinity": None, **POD["affinity"]},
        },
    }
    found = documents(rendered(helm, values, namespace="net"))
    deployment = found["Deployment/kube-node-controller"]["spec"]
    pod = deployment["template"]["spec"]
    (container,) = pod["containers"]
    assert (deployment["replicas"], container["image"], container["imagePullPolicy"]) == (3, "registry.example/kn:v9", "Never")
    assert container["args"][-1] == "--loglevel=debug"
    assert container["resources"]["limits"] == {"memory": "1Gi"}
    assert {"name": "KUBERNETES_SERVICE_HOST", "value": "192.0.2.1"} in container["env"]
    assert pod["imagePullSecrets"] == [{"name": "registry"}]
    assert {key: pod[key] for key in POD} == POD
    places = {key: document["metadata"].get("namespace") for key, document in found.items()}
    elsewhere = {key for key, place in places.items() if place not in (None, "net")}
    assert elsewhere == {"Role/kube-node-controller-events", "RoleBinding/kube-node-controller-events"}
    subjects = [subject["namespace"] for document in found.values() for subject in document.get("subjects", ())]
    assert set(subjects) == {"net"}


def test_wrong_values_are_refused(helm: str) -> None:
    """A value that there is not, or of a wrong type, is an error that names it, and nothing is installed."""
    wrong = {
        "imagePulSecrets": [],
        "image": {"digest": "v9", "tag": 1.10},
        "network": {"enabled": "yes", "conflist": {"name": "an object"}},
        "agentArgs": "--loglevel=debug",
        "paths": {"bin": "opt/cni/bin"},
        "tolerations": {"operator": "Exists"},
        "apiServer": {"port": "https"},
        "controller": {"replica": 3},
    }
    template = [helm, "template", "kube-node", str(CHART), "--values=-"]
    done = subprocess.run(template, input=json.dumps(wrong), check=False, capture_output=True, text=True)
    assert (done.returncode != 0, done.stdout) == (True, "")
    refused = [line.removeprefix("- ").partition(": ") for line in done.stderr.splitlines() if line.startswith("- ")]
    assert sorted(what.split()[-4] if name == "(root)" else name for name, _, what in refused) == [
        "agentArgs", "apiServer.port", "controller", "image.digest", "image.tag", "imagePulSecrets", "network.conflist", "network.enabled",
        "paths.bin", "tolerations",
    ]  # fmt: skip
    assert "controller: Additional property replica is not allowed" in done.stderr


def test_the_schema_has_each_value() -> None:
    """values.yaml and values.schema.json have the same keys."""
    schema = json.loads((CHART / "values.schema.json").read_text())
    ours = schema["properties"].keys() - {"global"}
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    assert ours == values.keys()
    for key, value in values.items():
        properties = schema["properties"][key].get("properties")
        if properties and key != "updateStrategy":
            assert properties.keys() == value.keys(), key
