# SPDX-License-Identifier: Apache-2.0
"""Pod Security of a current API server, and the agent's pods."""

from __future__ import annotations

import re
import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from apiserver import api_server

if TYPE_CHECKING:
    from apiserver import RealApiServer

__all__ = ["api_server"]
ROOT = Path(__file__).resolve().parents[2]


def test_the_label_that_the_page_names(api_server: RealApiServer) -> None:
    """With the label of the page the agent's pod comes into a namespace where it did not with `baseline`."""
    label, level = re.findall(r"label namespace kube-system (pod-security\S+)=(\w+)", (ROOT / "docs/how-to/install.md").read_text())[0]
    manifests = [one for one in yaml.safe_load_all((ROOT / "deploy/kube-node.yaml").read_text()) if one["kind"] == "DaemonSet"]
    template: dict[str, Any] = manifests[0]["spec"]["template"]
    spec = {**template["spec"], "automountServiceAccountToken": False}
    for unwanted in ("serviceAccountName", "priorityClassName"):
        spec.pop(unwanted, None)

    def create(enforced: str) -> None:
        namespace = f"ns-{secrets.token_hex(4)}"
        api_server.request("POST", "/api/v1/namespaces", {"metadata": {"name": namespace, "labels": {label: enforced}}})
        api_server.request("POST", f"/api/v1/namespaces/{namespace}/serviceaccounts", {"metadata": {"name": "default"}})
        api_server.request("POST", f"/api/v1/namespaces/{namespace}/pods", {"metadata": {"name": "agent"}, "spec": spec})

    create(level)
    if api_server.minor >= 25:  # the first with Pod Security for good
        with pytest.raises(RuntimeError, match="violates PodSecurity"):
            create("baseline")
