# SPDX-License-Identifier: Apache-2.0
"""Which certificates vouch for an API server: what Go makes of certificate-authority-data, which is what kubectl makes of it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, NamedTuple

import httpx2
import pytest
from apiserver import base64_text, write_kubeconfig
from authority import Authority, KeyPair
from standin import StandInApiServer, answer, node, serve

from kubenode.cni.errors import KUBECONFIG, CNIError
from kubenode.kube.asynctransport import AsyncTransport
from kubenode.kube.client import ApiServer
from kubenode.kube.loadingrules import connection

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Ask = Callable[..., str]

HOST = "127.0.0.1"
BROKEN = b"-----BEGIN CERTIFICATE-----\nMIIBrokenAAAA\n-----END CERTIFICATE-----\n"
CUT = b"-----BEGIN CERTIFICATE-----\nMIIB\n"


class Trust(NamedTuple):
    """A server's certificate with what it sends along, and what the kubeconfig trusts."""

    pair: KeyPair
    bundle: bytes


def root() -> Trust:
    authority = Authority()
    return Trust(authority.server(HOST), authority.certificate)


def intermediate() -> Trust:
    middle = Authority("middle", Authority("root"))
    return Trust(middle.server(HOST), middle.certificate)


def intermediate_that_the_server_sends() -> Trust:
    middle = Authority("middle", Authority("root"))
    pair = middle.server(HOST)
    return Trust(KeyPair(pair.certificate + middle.certificate, pair.key), middle.certificate)


def leaf() -> Trust:
    pair = Authority().server(HOST)
    return Trust(pair, pair.certificate)


def of_one_name(position: int) -> Trust:
    """Return three authorities of one name, of which the one at `position` has signed."""
    authorities = [Authority("kubernetes") for _ in range(3)]
    return Trust(authorities[position].server(HOST), b"".join(authority.certificate for authority in authorities))


def of_one_name_in_a_chain() -> Trust:
    """Return an old and a new root of one name, whose intermediates have one name, too."""
    old, new = (Authority("middle", Authority("root")) for _ in range(2))
    pair = new.server(HOST)
    return Trust(KeyPair(pair.certificate + new.certificate, pair.key), old.certificate + new.certificate)


def broken_within() -> Trust:
    authority = Authority()
    return Trust(authority.server(HOST), b"# the cluster's\n" + CUT + BROKEN + authority.certificate + BROKEN)


def long_lines() -> Trust:
    authority = Authority()
    first, *body, last = authority.certificate.splitlines()
    return Trust(authority.server(HOST), b"\r\n".join([first, b"".join(body), last]))


TRUSTED = {
    "its root": root,
    "an intermediate authority": intermediate,
    "an intermediate authority that comes along": intermediate_that_the_server_sends,
    "its own certificate": leaf,
    "the first of one name": lambda: of_one_name(0),
    "the second of one name": lambda: of_one_name(1),
    "the third of one name": lambda: of_one_name(2),
    "of one name, in a chain": of_one_name_in_a_chain,
    "broken ones beside it": broken_within,
    "lines of any length": long_lines,
}


@pytest.mark.parametrize("make", TRUSTED.values(), ids=TRUSTED.keys())
def test_trusted(ask: Ask, tmp_path: Path, make: Callable[[], Trust]) -> None:
    """Any certificate of the bundle vouches for a server, whatever its place in the chain, and whatever else is there."""
    trust = make()
    with StandInApiServer(tmp_path, then=serve("n1"), pair=trust.pair) as server:
        cluster = {"server": server.url, "certificate-authority-data": base64_text(trust.bundle)}

        assert ask(write_kubeconfig(tmp_path / "kube.conf", cluster, {"token": "t"})) == "n1"


def another() -> Trust:
    return Trust(Authority().server(HOST), Authority("another").certificate)


def others_of_its_name() -> Trust:
    return Trust(Authority("kubernetes").server(HOST), b"".join(Authority("kubernetes").certificate for _ in range(2)))


def another_leaf() -> Trust:
    authority = Authority()
    return Trust(authority.server(HOST), authority.server(HOST).certificate)


NOT_TRUSTED = {"another authority": another, "others of its name": others_of_its_name, "another certificate of its root": another_leaf}


@pytest.mark.parametrize("make", NOT_TRUSTED.values(), ids=NOT_TRUSTED.keys())
def test_not_trusted(ask: Ask, tmp_path: Path, make: Callable[[], Trust]) -> None:
    """A server that none of them has signed gets no request, and the error says what to correct."""
    trust = make()
    with StandInApiServer(tmp_path, then=serve("n1"), pair=trust.pair) as server:
        cluster = {"server": server.url, "certificate-authority-data": base64_text(trust.bundle)}
        kubeconfig = write_kubeconfig(tmp_path / "kube.conf", cluster, {"token": "t"})

        with pytest.raises(CNIError, match=f"certificate of API server {server.url} is not accepted: ") as caught:
            ask(kubeconfig)

        assert caught.value.code == KUBECONFIG
        assert "certificate-authority" in caught.value.details
        assert server.requests == []


def test_another_authority_later(tmp_path: Path) -> None:
    """A server that changes to a certificate by another authority of the bundle is trusted on."""
    authorities = [Authority("kubernetes") for _ in range(3)]
    bundle = b"".join(authority.certificate for authority in authorities)
    once = answer(node("n1"), headers={"Connection": "close"})
    with StandInApiServer(tmp_path, then=once, pair=authorities[0].server(HOST)) as server:
        cluster = {"server": server.url, "certificate-authority-data": base64_text(bundle)}
        asking = ApiServer(str(write_kubeconfig(tmp_path / "kube.conf", cluster, {"token": "t"})), {}, 10)

        for turn in (0, 1, 2, 0, 1):
            server.present(authorities[turn].server(HOST))
            assert asking.node("n1") == node("n1")


def test_many_at_once(tmp_path: Path) -> None:
    """Requests that begin together choose once, and all are answered."""
    trust = of_one_name(2)
    with StandInApiServer(tmp_path, then=serve("n1"), pair=trust.pair) as server:
        cluster = {"server": server.url, "certificate-authority-data": base64_text(trust.bundle)}
        kubeconfig = write_kubeconfig(tmp_path / "kube.conf", cluster, {"token": "t"})

        async def ask_all() -> list[int]:
            transport = AsyncTransport(connection(str(kubeconfig), {}), {}, 10)
            requests = [httpx2.Request("GET", f"{server.url}/api/v1/nodes/n{number}") for number in range(8)]
            answers = await asyncio.gather(*map(transport.send, requests))
            await transport.aclose()
            return [one.status_code for one in answers]

        assert asyncio.run(ask_all()) == [200] * 8
        assert len(server.requests) == 8


@pytest.mark.parametrize("content", [b"", b"\n", b"not a certificate", BROKEN, CUT])
def test_no_certificate(tmp_path: Path, ask: Ask, content: bytes) -> None:
    """A certificate-authority in which no certificate can be read is an error that names the file."""
    (tmp_path / "ca.crt").write_bytes(content)
    kubeconfig = write_kubeconfig(tmp_path / "kube.conf", {"server": "https://127.0.0.1:1", "certificate-authority": "ca.crt"}, {})

    with pytest.raises(CNIError, match=f"certificate-authority {tmp_path}/ca.crt is not a PEM certificate") as caught:
        ask(kubeconfig)

    assert caught.value.code == KUBECONFIG
