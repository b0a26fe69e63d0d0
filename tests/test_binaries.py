# SPDX-License-Identifier: Apache-2.0
"""`./build.sh binaries`: what lies in its directory works on a node, where nothing else of this project is."""

from __future__ import annotations

import ast
import json
import os
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

NAMES = ("kube-node", "node-annotation", "kube-node.standalone", "node-annotation.standalone")


def run(program: str | Path, *arguments: str, stdin: str = "", **environment: str) -> str:
    done = subprocess.run(
        [program, *arguments], input=stdin, env={"PATH": os.defpath, **environment}, check=False, capture_output=True, text=True, cwd="/"
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.fixture(scope="module")
def installed(binaries: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy elsewhere, with new modification times, read-only as on an immutable host."""
    copy = tmp_path_factory.mktemp("opt") / "cni bin"
    shutil.copytree(binaries, copy, symlinks=True, copy_function=shutil.copyfile)
    for name in NAMES:
        (copy / name).chmod(0o555)
    return copy


def files(directory: Path) -> list[Path]:
    return sorted(path for path in directory.rglob("*") if path.is_file())


def test_prints_the_version_it_was_built_with(installed: Path) -> None:
    """--version=V of the build is what the plugin prints."""
    assert "1.2.3-test" in run(installed / "kube-node", "--version")


@pytest.mark.parametrize("name", NAMES)
def test_works_where_it_was_copied_to(installed: Path, tmp_path: Path, name: str) -> None:
    """By its path and through a symbolic link, from any directory, a relay finds its launcher, and that what it imports."""
    (tmp_path / name).symlink_to(installed / name)
    for program in (installed / name, tmp_path / name):
        answer = json.loads(run(program, stdin='{"cniVersion": "1.1.0"}', CNI_COMMAND="VERSION"))
        assert "1.1.0" in answer["supportedVersions"]


def test_runs_in_no_ones_environment(installed: Path, tmp_path: Path) -> None:
    """What root imports is not decided by PYTHON* variables."""
    (tmp_path / "os.py").write_text("raise SystemExit('imported from PYTHONPATH')")
    answer = run(installed / "kube-node", stdin="{}", CNI_COMMAND="VERSION", PYTHONPATH=str(tmp_path), PYTHONHOME=str(tmp_path))
    assert "supportedVersions" in answer


def test_is_compiled_already(installed: Path) -> None:
    """A call writes no compiled file: all are there, and new modification times do not make them stale."""
    before = files(installed)
    run(installed / "kube-node", stdin="{}", CNI_COMMAND="VERSION")
    run(installed / "kube-node", "--version")
    assert files(installed) == before


def test_holds_what_it_needs_and_no_more(binaries: Path) -> None:
    """Run-time packages with their licences; no tools, no tests."""
    library = binaries / "kube-node.lib"
    there = {path.name for path in library.iterdir()}
    assert {"kubenode", "httpx2", "yaml"} <= there
    assert not there & {"pytest", "mypy", "pip", "hypothesis"}
    assert not list(library.rglob("tests"))
    assert all(any("LICEN" in file.name for file in files(metadata)) for metadata in library.glob("*.dist-info"))


def imports(source: Path) -> set[str]:
    """Return the modules that a file imports, wherever in it."""
    found = list(ast.walk(ast.parse(source.read_text())))
    names = {alias.name for node in found if isinstance(node, ast.Import) for alias in node.names}
    return names | {node.module for node in found if isinstance(node, ast.ImportFrom) and node.module}


def test_imports_nothing_from_elsewhere(installed: Path) -> None:
    """With an interpreter's bare standard library, all that any module of ours imports can be imported."""
    library = installed / "kube-node.lib"
    modules = set().union(*(imports(source) for source in (library / "kubenode").rglob("*.py")))
    assert {"rich.table", "yaml", "kubenode.version"} <= modules
    interpreter, *options = (installed / "kube-node.standalone").read_text().splitlines()[0].removeprefix("#!").split()
    program = f"import importlib, sys; sys.path.insert(0, {str(library)!r}); [importlib.import_module(name) for name in {sorted(modules)}]"
    run(interpreter, *options, "-c", program)
