# SPDX-License-Identifier: Apache-2.0
"""What kubectl and Helm make of deploy/."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING:
    from collections.abc import Iterable

ROOT = Path(__file__).resolve().parent.parent
DEPLOY = ROOT / "deploy"


def run(*command: str | Path, stdin: str = "") -> str:
    done = subprocess.run(command, input=stdin, check=False, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def documents(text: str) -> dict[str, Any]:
    """Return manifests by kind and name."""
    found = [document for document in yaml.safe_load_all(text) if document]
    return {f"{document['kind']}/{document['metadata']['name']}": document for document in found}


def kustomized(overlay: Path, components: Iterable[str], **image: str) -> str:
    """Return the base with components of deploy/components, or by a path from there; `image` as kustomize has it."""
    kustomization = {
        "resources": ["../base"],
        "components": [f"../components/{name}" for name in components],
        "images": [{"name": "kube-node", **(image or {"newTag": "latest"})}],
    }
    (overlay / "kustomization.yaml").write_text(json.dumps(kustomization))
    return run("kubectl", "kustomize", overlay)


def pod_of(text: str) -> dict[str, Any]:
    spec: dict[str, Any] = documents(text)["DaemonSet/kube-node"]["spec"]["template"]["spec"]
    return spec
