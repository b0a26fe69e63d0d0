# SPDX-License-Identifier: Apache-2.0
"""Two API servers that know SubnetPool and NodeSubnet: a real one, and a stand-in on which the same tests pass.

Each test with the fixture `crds` runs on both. `@pytest.mark.servers(...)` names those that it is about, where it is not about both, or
`best`: the real one where there is one, for what takes long and shows nothing new of the stand-in.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from corner import install_crds
from objectserver import ObjectServer
from wanting import has

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from apiserver import ApiServer, RealApiServer

SERVERS: dict[str, Collection[pytest.MarkDecorator] | pytest.MarkDecorator] = {"stand_in": (), "real": pytest.mark.custom_resources}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Let a test run on the servers that it is marked with, or both."""
    if "crds" in metafunc.fixturenames:
        named = [_found(mark.args) for mark in metafunc.definition.iter_markers("servers")]
        wanted = [pytest.param(name, marks=marks) for name, marks in SERVERS.items() if not named or name in named[0]]
        metafunc.parametrize("crds", wanted, indirect=True, scope="session")


def _found(names: tuple[str, ...]) -> tuple[str, ...]:
    return ("real" if has("kube-apiserver") else "stand_in",) if names == ("best",) else names


@pytest.fixture(scope="session")
def stand_in(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectServer]:
    server = ObjectServer(tmp_path_factory.mktemp("stand-in"))
    server.start()
    install_crds(server)
    yield server
    server.close()


@pytest.fixture(scope="session")
def real(api_server: RealApiServer) -> RealApiServer:
    install_crds(api_server)
    return api_server


@pytest.fixture(scope="session")
def crds(request: pytest.FixtureRequest) -> ApiServer:
    """Return the API server, which knows SubnetPool and NodeSubnet."""
    found: ApiServer = request.getfixturevalue(request.param)
    return found
