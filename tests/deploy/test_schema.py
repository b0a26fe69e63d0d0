# SPDX-License-Identifier: Apache-2.0
"""All that is to be applied, against the API's own schemas of an old and a new Kubernetes: no key too many, none of a wrong type."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

pytestmark = pytest.mark.slow

kubernetes_validate = pytest.importorskip("kubernetes_validate", reason="wants kubernetes-validate: ./build.sh check installs it")
DEPLOY = Path(__file__).resolve().parent.parent.parent / "deploy"
FILES = [DEPLOY / "kube-node.yaml", *(DEPLOY / "controller" / name for name in ("rbac.yaml", "deployment.yaml", "crds.yaml"))]


@pytest.mark.parametrize("version", ["1.25", "1.34"])
@pytest.mark.parametrize("path", FILES, ids=[path.name for path in FILES])
def test_schema(path: Path, version: str) -> None:
    """Every document is what the schema of its kind allows, strictly."""
    documents: list[Any] = [document for document in yaml.safe_load_all(path.read_text()) if document]
    assert documents
    for document in documents:
        kubernetes_validate.validate(document, version, strict=True)


@pytest.mark.parametrize("version", ["1.30", "1.37"])
def test_policy(version: str) -> None:
    """The policies are what the schema allows since there are such."""
    for document in yaml.safe_load_all((DEPLOY / "components/policy/policy.yaml").read_text()):
        kubernetes_validate.validate(document, version, strict=True)


def test_a_wrong_key_is_found() -> None:
    """The check finds a key that there is not."""
    (service_account, *_) = yaml.safe_load_all((DEPLOY / "kube-node.yaml").read_text())
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate({**service_account, "notAKey": 1}, "1.34", strict=True)
