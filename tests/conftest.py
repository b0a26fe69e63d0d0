# SPDX-License-Identifier: Apache-2.0
"""What every test may use, and where the machine's own state ends: no test sees or changes it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, cast

import bytecode  # noqa: F401 -- before all that is compiled
import once
import pytest
from administrator import allow
from apiserver import api_server
from podnet import PodNet
from servers import crds, pytest_generate_tests, real, stand_in
from wanting import reference, want

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["api_server", "crds", "pytest_generate_tests", "real", "stand_in"]
pytest_plugins = ["running"]


@pytest.fixture(scope="session")
def everything_is_allowed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return an administrator's file with which a configuration may name what it likes on the host."""
    path = tmp_path_factory.mktemp("etc") / "kube-node.conf"
    return allow(path, **{key: ["/"] for key in ("kubeconfig", "nodeFile", "logfile", "resolvConf")})


@pytest.fixture(autouse=True)
def run_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, everything_is_allowed: Path) -> Path:
    """Return the directory that stands for /run/kube-node, empty; the environment says so and says nothing of a cluster.

    What a configuration may name on the host is not limited but in tests of that: all paths are of temporary directories.
    """
    for name in list(os.environ):
        if name.startswith(("CNI_", "KUBERNETES_")) and name != "CNI_TEST_PATH":
            monkeypatch.delenv(name)
    for name in ("KUBECONFIG", "NODE_NAME", "NODE_ANNOTATION_CFG", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)
    directory = tmp_path / "run"
    directory.mkdir()
    monkeypatch.setenv("KUBE_NODE_RUN_DIR", str(directory))
    monkeypatch.setenv("KUBE_NODE_CONF", str(everything_is_allowed))
    return directory


@pytest.fixture(scope="session")
def any_cni_bin() -> Path:
    """Return the directory with the reference plugins, of which Debian's will do: for specifications before 1.1.0."""
    want("the reference CNI plugins")
    return cast("Path", reference())


@pytest.fixture(scope="session")
def cni_bin() -> Path:
    """Return the directory with the reference plugins of today."""
    want("the reference CNI plugins, for 1.1.0")
    return cast("Path", reference("1.1.0"))


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a directory with what `./build.sh binaries` makes; KUBE_NODE_BINARIES names one that is there already."""
    made = os.environ.get("KUBE_NODE_BINARIES")
    return Path(made) if made else once.make(once.shared(tmp_path_factory), "built")


@pytest.fixture(scope="session")
def short_relay(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a relay like the real one, with short seconds."""
    return once.make(once.shared(tmp_path_factory), "short_relay")


@pytest.fixture(scope="session")
def binaries(built: Path) -> Path:
    """Return the same; end-to-end tests have another, for each way of running a plugin (`ways.py`)."""
    return built


@pytest.fixture
def podnet(any_cni_bin: Path, tmp_path: Path) -> Iterator[PodNet]:
    """Return a place where the reference plugins connect network namespaces; all of it is gone after the test."""
    want("network namespaces", "ping")
    with PodNet(any_cni_bin, tmp_path) as net:
        yield net
