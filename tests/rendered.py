# SPDX-License-Identifier: Apache-2.0
"""What kubectl and Helm make of deploy/."""

from __future__ import annotations

import functools
import json
import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING:
    from collections.abc import Iterable

LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times as fast as yaml.safe_load
ROOT = Path(__file__).resolve().parent.parent
DEPLOY = ROOT / "deploy"


def run(*command: str | Path, stdin: str = "") -> str:
    environ = {**os.environ, "GOGC": "off"}  # they end before it pays to collect their garbage
    done = subprocess.run(command, input=stdin, check=False, capture_output=True, text=True, timeout=120, env=environ)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def documents(text: str) -> dict[str, Any]:
    """Return manifests by kind and name."""
    found = [document for document in yaml.load_all(text, Loader=LOADER) if document]
    return {f"{document['kind']}/{document['metadata']['name']}": document for document in found}


def kustomized(overlay: Path, components: Iterable[str], **image: str) -> str:
    """Return the base with components of deploy/components, or by a path from there; `image` as kustomize has it."""
    return _kustomized(overlay, tuple(components), tuple(image.items()))


@functools.cache
def _kustomized(overlay: Path, components: tuple[str, ...], image: tuple[tuple[str, str], ...]) -> str:
    kustomization = {
        "resources": ["../base"],
        "components": [f"../components/{name}" for name in components],
        "images": [{"name": "kube-node", **dict(image or [("newTag", "latest")])}],
    }
    (overlay / "kustomization.yaml").write_text(json.dumps(kustomization))
    return run("kubectl", "kustomize", overlay)


def pod_of(text: str) -> dict[str, Any]:
    spec: dict[str, Any] = documents(text)["DaemonSet/kube-node"]["spec"]["template"]["spec"]
    return spec
