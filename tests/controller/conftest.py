# SPDX-License-Identifier: Apache-2.0
"""A controller on an API server: on both of `servers.py`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from controllerprocess import IMPATIENT, ControllerProcess
from corner import Corner

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from apiserver import ApiServer


@pytest.fixture
def corner(crds: ApiServer) -> Iterator[Corner]:
    corner = Corner(crds)
    yield corner
    corner.clear()


@pytest.fixture
def admin(crds: ApiServer, tmp_path: Path) -> Path:
    """Return a kubeconfig of a cluster's administrator."""
    return crds.kubeconfig(tmp_path / "admin", crds.certificate_user("controller-admin", "system:masters"))


@pytest.fixture
def controller(admin: Path, tmp_path: Path) -> Iterator[ControllerProcess]:
    """Return a running controller, alone and without a Lease."""
    with ControllerProcess(admin, tmp_path / "controller.log", "--lease=none") as process:
        yield process


@pytest.fixture
def impatient_controller(admin: Path, tmp_path: Path) -> Iterator[ControllerProcess]:
    """Return the same, with which blocks come and go sooner."""
    with ControllerProcess(admin, tmp_path / "controller.log", "--lease=none", wrap=IMPATIENT) as process:
        yield process
