"""What every test may use, and where the machine's own state ends: no test sees or changes it."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from administrator import allow
from apiserver import api_server
from podnet import PodNet, ping_command
from servers import crds, pytest_generate_tests, real, stand_in

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

__all__ = ["api_server", "crds", "pytest_generate_tests", "real", "stand_in"]

ROOT = Path(__file__).resolve().parent.parent
NO_SKIP = os.environ.get("KUBE_NODE_NO_SKIP") == "1"


def _refuse_skip(report: pytest.TestReport | pytest.CollectReport) -> None:
    # An expected failure is reported as skipped, too.
    if NO_SKIP and report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome = "failed"
        report.longrepr = f"{reason}\nKUBE_NODE_NO_SKIP=1 makes this a failure: here everything that a test needs has to be present."


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    _refuse_skip(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    _refuse_skip(report)
    return report


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
def cni_bin() -> Path:
    """Return the directory with the reference plugins."""
    if "CNI_TEST_PATH" not in os.environ:
        pytest.skip("set CNI_TEST_PATH to a directory with the reference CNI plugins (bridge, host-local, ...)")
    return Path(os.environ["CNI_TEST_PATH"])


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a directory with what `./build.sh binaries` makes; KUBE_NODE_BINARIES names one that is there already."""
    if made := os.environ.get("KUBE_NODE_BINARIES"):
        return Path(made)
    directory = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        directory = directory.parent  # all workers'
    output = directory / "built/bin"
    with (directory / "built.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not output.exists():
            subprocess.run([sys.executable, ROOT / "packaging/binaries.py", f"--output={output}", "--version=1.2.3-test"], check=True)
    return output


@pytest.fixture(scope="session")
def binaries(built: Path) -> Path:
    """Return the same; end-to-end tests have another, for each way of running a plugin (`ways.py`)."""
    return built


@pytest.fixture
def podnet(cni_bin: Path, tmp_path: Path) -> Iterator[PodNet]:
    """Return a place where the reference plugins connect network namespaces; all of it is gone after the test."""
    if os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("network namespaces need root and the ip command (Debian: iproute2)")
    if not ping_command():
        pytest.skip("no ping command (Debian: iputils-ping)")
    with PodNet(cni_bin, tmp_path) as net:
        yield net
