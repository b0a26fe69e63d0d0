"""A controller on a real API server."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from controllerprocess import ControllerProcess
from corner import Corner, install_crds

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from apiserver import RealApiServer


@pytest.fixture(scope="session")
def crds(api_server: RealApiServer) -> RealApiServer:
    """Return the API server, which knows SubnetPool and NodeSubnet."""
    install_crds(api_server)
    return api_server


@pytest.fixture
def corner(crds: RealApiServer) -> Iterator[Corner]:
    corner = Corner(crds)
    yield corner
    corner.clear()


@pytest.fixture
def admin(crds: RealApiServer, tmp_path: Path) -> Path:
    """Return a kubeconfig of a cluster's administrator."""
    return crds.kubeconfig(tmp_path / "admin", crds.certificate_user("controller-admin", "system:masters"))


@pytest.fixture
def controller(admin: Path, tmp_path: Path) -> Iterator[ControllerProcess]:
    """Return a running controller, alone and without a Lease."""
    with ControllerProcess(admin, tmp_path / "controller.log", "--lease=none") as process:
        yield process
