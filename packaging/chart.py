"""Make the Helm chart in deploy/chart out of the kustomization in deploy: one source, so that the two cannot differ.

    packaging/chart.py [--output=deploy/chart]

What a value may change is written down here; everything else is the manifest as kubectl renders it. Needs kubectl.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parent.parent
CHART = {
    "apiVersion": "v2",
    "name": "kube-node",
    "description": "Addresses for pods, taken from the Kubernetes Node object: CNI IPAM plugins and their node agent",
    "type": "application",
    "version": "0.1.0",
    "appVersion": "latest",
    "kubeVersion": ">=1.20.0-0",
}
VALUES = """\
# The image of the agent, which also holds what is installed on the node.
image:
  repository: kube-node
  tag: latest
  pullPolicy: IfNotPresent

# Options of `kube-node install` and `kube-node agent` on top of those that every installation has.
installArgs: []
agentArgs: []

# HOST and PORT of the API server, for nodes where its service has no address yet when this starts. Empty: as in any pod.
apiServer:
  host: ""
  port: "443"

# The host's directories.
paths:
  bin: {bin}
  config: {config}
  run: {run}
  netns: {netns}
  networks: {networks}
  ipamState: {ipam_state}

# The cluster's own network: with `enabled`, this configuration is installed on each node.
network:
  enabled: false
  conflist: |
{conflist}

# The agent's right to get pods, by which it knows that a leaked address can be released. Without it leaks are only reported.
reclaim: false

priorityClassName: {priority}
resources: {resources}
nodeSelector: {selector}
tolerations: {tolerations}

# The controller, which gives every node subnets for secondary networks. Its CustomResourceDefinitions are among the templates, so that an
# upgrade of the chart upgrades them (Helm never touches again what lies in crds/). They stay when the release goes, or this is switched
# off: with them all SubnetPools would be deleted, and what is known of who has which subnet.
controller:
  enabled: false
  replicas: {replicas}
  # Options of `kube-node controller`, such as --service-cidr=10.96.0.0/16
  args: []
  resources: {controller_resources}
  # Policies of the API server, from Kubernetes 1.30 on: pools' annotations are written by the controller and administrators only, and the
  # controller changes nothing of a Node but annotations.
  policy: false
"""
SURGE = 'semverCompare ">=1.22-0" .Capabilities.KubeVersion.Version'
IF, END = "@@if {}@@", "@@end@@"


def rendered(**kustomization: list[str]) -> list[dict[str, Any]]:
    """Return the documents of a kustomization, in kubectl's order."""
    with tempfile.TemporaryDirectory(dir=ROOT / "deploy", prefix=".chart.") as scratch:
        # kustomize takes nothing from outside of the directory that it is pointed to, but by relative paths.
        (Path(scratch) / "kustomization.yaml").write_text(json.dumps(kustomization))
        text = subprocess.run(["kubectl", "kustomize", scratch], check=True, capture_output=True, text=True).stdout
    return [document for document in yaml.safe_load_all(text) if document]


def one(documents: list[dict[str, Any]], kind: str) -> dict[str, Any]:
    (found,) = (document for document in documents if document["kind"] == kind)
    return found


def optional(items: list[Any], condition: str, is_meant: Any) -> list[Any]:
    """Return a list in which the items that are meant are there on a condition only."""
    result = []
    for item in items:
        result += [IF.format(condition), item, END] if is_meant(item) else [item]
    return result


def surging() -> str:
    """Return what the component surge does where the server knows it, and what the base has elsewhere, as the lines of a template."""
    specs = [one(rendered(resources=["../base"], components=which), "DaemonSet")["spec"] for which in (["../components/surge"], [])]
    new, old = (yaml.safe_dump({key: spec[key] for key in ("minReadySeconds", "updateStrategy") if key in spec}) for spec in specs)
    return f"{{{{- if {SURGE} }}}}\n{_indented(new)}{{{{- else }}}}\n{_indented(old)}{{{{- end }}}}\n"


def _indented(text: str) -> str:
    return "".join(f"  {line}\n" for line in text.splitlines())


def templated(documents: list[dict[str, Any]], reclaim: list[dict[str, Any]], controller: list[dict[str, Any]]) -> str:
    """Put values' names where their values stand; return the values."""
    daemonset, network = one(documents, "DaemonSet"), one(documents, "ConfigMap")
    pod = daemonset["spec"]["template"]["spec"]
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    containers = [pod["initContainers"][0], pod["containers"][0]]
    deployment = one(controller, "Deployment")["spec"]
    (conflist,) = network["data"].items()
    values = VALUES.format(
        bin=volumes["cni-bin"]["hostPath"]["path"],
        config=volumes["cni-config"]["hostPath"]["path"],
        run=volumes["run"]["hostPath"]["path"],
        netns=volumes["netns"]["hostPath"]["path"],
        networks=volumes["networks"]["hostPath"]["path"],
        ipam_state=volumes["ipam-state"]["hostPath"]["path"],
        conflist="\n".join(f"    {line}" for line in conflist[1].splitlines()),
        priority=pod["priorityClassName"],
        resources=json.dumps(containers[0]["resources"]),
        selector=json.dumps(pod["nodeSelector"]),
        tolerations=json.dumps(pod["tolerations"]),
        replicas=deployment["replicas"],
        controller_resources=json.dumps(deployment["template"]["spec"]["containers"][0]["resources"]),
    )
    daemonset["spec"]["updateStrategy"] = "@@surging@@"
    paths = {"cni-bin": "bin", "cni-config": "config", "run": "run", "netns": "netns", "networks": "networks", "ipam-state": "ipamState"}
    for name, value in paths.items():
        volumes[name]["hostPath"]["path"] = f"@@.Values.paths.{value}@@"
    for container, more in zip(containers, ("installArgs", "agentArgs"), strict=True):
        container["resources"] = "@@toYaml resources@@"
        valued(container, more)
    install = containers[0]
    install["args"] = optional(install["args"], "network.enabled", lambda item: item.startswith("--conflist=") or item == "--hold")
    (config,) = (mount for mount in containers[1]["volumeMounts"] if mount["mountPath"] == "/host/etc/cni/net.d")
    config["readOnly"] = "@@not network.enabled@@"
    install["volumeMounts"] = optional(install["volumeMounts"], "network.enabled", lambda item: item["name"] == "network")
    pod["volumes"] = optional(pod["volumes"], "network.enabled", lambda item: item["name"] == "network")
    volumes["network"]["configMap"]["name"] = network["metadata"]["name"] = "kube-node-network"  # without the hash of its content
    daemonset["spec"]["template"]["metadata"]["annotations"] = {"checksum/network": "@@checksum@@"}  # which makes a change a rollout
    for key in ("priorityClassName", "nodeSelector", "tolerations"):
        pod[key] = f"@@.Values.{key}@@" if key == "priorityClassName" else f"@@toYaml {key}@@"
    network["data"] = {conflist[0]: "@@conflist@@"}
    (container,) = deployment["template"]["spec"]["containers"]
    deployment["replicas"] = "@@plain controller.replicas@@"
    container["resources"] = "@@toYaml controller.resources@@"
    valued(container, "controller.args")
    for document in (*documents, *reclaim, *controller):
        # In `default` are the Events about what has no namespace.
        for where in (document["metadata"], *document.get("subjects", ())):
            if where.get("namespace", "default") != "default":
                where["namespace"] = "@@.Release.Namespace@@"
        if document["kind"] == "CustomResourceDefinition":
            document["metadata"]["annotations"] = {"helm.sh/resource-policy": "keep"}
    return values


def valued(container: dict[str, Any], more: str) -> None:
    """Put what values say of any of our containers in place; `more`: its options beyond the manifest's."""
    container["image"] = "@@.Values.image.repository@@:@@.Values.image.tag@@"
    container["imagePullPolicy"] = "@@.Values.image.pullPolicy@@"
    container["args"].append(f"@@items {more}@@")
    server = {"KUBERNETES_SERVICE_HOST": "host", "KUBERNETES_SERVICE_PORT": "port"}
    variables = [{"name": name, "value": f"@@.Values.apiServer.{value}@@"} for name, value in server.items()]
    container["env"] += [IF.format("apiServer.host"), *variables, END]


def _block(found: re.Match[str]) -> str:
    indent = len(found[1]) + 2
    return f"{found[1]}{found[2]}:\n{' ' * indent}{{{{- toYaml .Values.{found[3]} | nindent {indent} }}}}\n"


def template(document: dict[str, Any]) -> str:
    """Return a document as a template's text."""
    text = yaml.safe_dump(document, sort_keys=False, width=1000)
    text = re.sub(r"^ *- '?@@if (\S+)@@'?\n", r"{{- if .Values.\1 }}\n", text, flags=re.MULTILINE)
    text = re.sub(r"^ *- '?@@end@@'?\n", "{{- end }}\n", text, flags=re.MULTILINE)
    text = re.sub(
        r"^( *)- '@@items ([\w.]+)@@'\n", r"\1{{- range .Values.\2 }}\n\1- {{ . | quote }}\n\1{{- end }}\n", text, flags=re.MULTILINE
    )
    text = re.sub(r"^( *)(\w+): '@@toYaml ([\w.]+)@@'\n", _block, text, flags=re.MULTILINE)
    text = re.sub(r"'@@plain ([\w.]+)@@'", r"{{ .Values.\1 }}", text)
    text = re.sub(r"'@@not ([\w.]+)@@'", r"{{ not .Values.\1 }}", text)
    if "@@surging@@" in text:
        text = text.replace("  updateStrategy: '@@surging@@'\n", surging())
    text = re.sub(r"'@@conflist@@'", "{{ .Values.network.conflist | toJson }}", text)
    text = re.sub(
        r"^( *)annotations:\n( *checksum/network): '@@checksum@@'\n",
        r"{{- if .Values.network.enabled }}\n\1annotations:\n\2: {{ .Values.network.conflist | sha256sum }}\n{{- end }}\n",
        text,
        flags=re.MULTILINE,
    )
    text = re.sub(r"'@@(\.[\w.]+)@@:@@(\.[\w.]+)@@'", r'"{{ \1 }}:{{ \2 }}"', text)
    text = re.sub(r"'@@(\.[\w.]+)@@'", r"{{ \1 | quote }}", text)
    if document["kind"] == "ConfigMap":
        return f"{{{{- if .Values.network.enabled }}}}\n{text}{{{{- end }}}}\n"
    return text


def files() -> dict[str, str]:
    """Return the chart's files by name."""
    documents = rendered(resources=["../base"], components=["../components/bridge"])
    reclaim = rendered(components=["../components/reclaim"])
    controller = rendered(components=["../controller"])
    policy = rendered(components=["../components/policy"])
    values = templated(documents, reclaim, controller)
    return {
        "Chart.yaml": yaml.safe_dump(CHART, sort_keys=False),
        "values.yaml": values,
        **{f"templates/{document['kind'].lower()}.yaml": template(document) for document in documents},
        "templates/reclaim.yaml": switched(".Values.reclaim", reclaim),
        "templates/controller.yaml": switched(".Values.controller.enabled", controller),
        "templates/policy.yaml": switched("and .Values.controller.enabled .Values.controller.policy", policy),
    }


def switched(condition: str, documents: list[dict[str, Any]]) -> str:
    """Return a template of documents that are there on a condition."""
    text = "---\n".join(map(template, documents))
    return f"{{{{- if {condition} }}}}\n{text}{{{{- end }}}}\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=ROOT / "deploy/chart")
    output = parser.parse_args().output
    made = files()
    shutil.rmtree(output, ignore_errors=True)
    for name, text in made.items():
        (output / name).parent.mkdir(parents=True, exist_ok=True)
        (output / name).write_text(text)
    print(f"chart.py: {len(made)} files in {output}")


if __name__ == "__main__":
    main()
