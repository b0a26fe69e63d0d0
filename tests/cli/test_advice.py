# SPDX-License-Identifier: Apache-2.0
"""Advice names what is there where it is shown."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import kubenode

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.slow

SCRIPTS = Path(sys.executable).parent
DROPPED = {"KUBECONFIG", "KUBERNETES_SERVICE_HOST", "KUBERNETES_SERVICE_PORT", "NODE_ANNOTATION_CFG"}


@pytest.mark.parametrize(
    ("command", "option"),
    [
        ("kube-node pools", "--kubeconfig"),
        ("kube-node map pool/net1", "--kubeconfig"),
        ("kube-node controller --listen=none", "--kubeconfig"),
        ("node-annotation my_node", "kubeconfig in /etc/cni/node-annotation.conf"),
    ],
)
def test_no_kubeconfig(command: str, option: str, tmp_path: Path) -> None:
    """A command that finds no kubeconfig says by which of its own options to name one, and not by a key of the plugin's configuration."""
    program, *arguments = command.split()
    environ = {key: value for key, value in os.environ.items() if key not in DROPPED}
    done = subprocess.run(
        [SCRIPTS / program, *arguments], env={**environ, "HOME": str(tmp_path)}, capture_output=True, text=True, check=False, timeout=60
    )
    said = done.stdout + done.stderr
    assert done.returncode == (1 if program == "node-annotation" else 69)
    assert "no kubeconfig found" in said
    assert f"set {option}" in said
    assert "ipam.kubeconfig" not in said


def texts(tree: ast.AST) -> Iterator[str]:
    """Yield the texts of a module that the program uses: all but docstrings."""
    docs = {
        node.body[0].value
        for node in ast.walk(tree)
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef))
        and isinstance(node.body[0], ast.Expr)
        and isinstance(node.body[0].value, ast.Constant)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in docs:
            yield node.value


def test_no_message_names_the_source_tree() -> None:
    """A node has neither build.sh nor what it writes: no message and no help text names them."""
    sources = Path(str(kubenode.__file__)).parent
    found = {str(path): text for path in sources.rglob("*.py") for text in texts(ast.parse(path.read_text())) if "build.sh" in text}
    assert found == {}
