# SPDX-License-Identifier: Apache-2.0
"""Credential plugins: what they are told, what of their answers counts, and what happens when they fail."""

from __future__ import annotations

import datetime as dt
import json
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from apiserver import base64_text, write_kubeconfig
from authority import Authority
from patience import PATIENCE, eventually
from standin import StandInApiServer, answer, node, refuse

from kubenode.cni.errors import KUBECONFIG, TRY_AGAIN_LATER, UNAUTHORIZED, CNIError
from kubenode.kube.client import ApiServer
from kubenode.kube.credentials import Credentials, identify
from kubenode.kube.loadingrules import connection

if TYPE_CHECKING:
    from collections.abc import Mapping

V1 = "client.authentication.k8s.io/v1"
ENVIRON = {"PATH": os.environ["PATH"], "CNI_COMMAND": "ADD"}
N1 = node("n1")


def script(directory: Path, text: str) -> str:
    """Write an executable shell script beside the kubeconfig; return its command there."""
    path = directory / "login"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return "./login"


def credential(status: object, api_version: str = V1) -> str:
    return json.dumps({"apiVersion": api_version, "kind": "ExecCredential", "status": status})


def login(directory: Path, exec_: Mapping[str, Any], timeout: float = 10, **cluster: Any) -> Credentials:
    """Return what the exec entry gives for a kubeconfig in `directory`."""
    said = {"server": "https://192.0.2.1:6443", **{key.replace("_", "-"): value for key, value in cluster.items()}}
    kubeconfig = write_kubeconfig(directory / "kube.conf", said, {"exec": {"apiVersion": V1, **exec_}})
    return identify(connection(str(kubeconfig), ENVIRON), ENVIRON, timeout)


def says(directory: Path, output: str, **exec_: Any) -> Credentials:
    (directory / "output").write_text(output)
    return login(directory, {"command": script(directory, 'cat "$(dirname "$0")/output"'), **exec_})


@pytest.mark.parametrize("version", ["v1", "v1beta1"])
def test_token(tmp_path: Path, version: str) -> None:
    """A token that the plugin prints is the bearer token, for ever if it does not say how long."""
    api_version = f"client.authentication.k8s.io/{version}"

    identity = says(tmp_path, credential({"token": "t1"}, api_version), apiVersion=api_version)

    assert identity == Credentials("Bearer t1", None, None, float("inf"))


def test_certificate_and_expiry(tmp_path: Path) -> None:
    """A certificate with its key is a credential, too; expirationTimestamp says how long it is good."""
    status = {"clientCertificateData": "C", "clientKeyData": "K", "expirationTimestamp": "2030-01-31T12:00:00.5Z"}

    identity = says(tmp_path, credential(status))

    assert identity == Credentials(None, b"C", b"K", dt.datetime(2030, 1, 31, 12, 0, 0, 500000, dt.UTC).timestamp())


def test_what_the_plugin_is_told(tmp_path: Path) -> None:
    """The plugin gets its args and env, our environment, an empty stdin, and KUBERNETES_EXEC_INFO without the cluster."""
    text = f"""cat >"$OUT/stdin"; printf '%s|' "$@" "$EXTRA" "$CNI_COMMAND" >"$OUT/told"; printf %s "$KUBERNETES_EXEC_INFO" >"$OUT/info"
echo '{credential({"token": "t"})}'"""
    env = [{"name": "EXTRA", "value": "a b"}, {"name": "OUT", "value": str(tmp_path)}]

    login(tmp_path, {"command": script(tmp_path, text), "args": ["-x", "$HOME;ls"], "env": env})

    assert (tmp_path / "told").read_text() == "-x|$HOME;ls|a b|ADD|"
    assert (tmp_path / "stdin").read_text() == ""
    assert json.loads((tmp_path / "info").read_text()) == {"apiVersion": V1, "kind": "ExecCredential", "spec": {"interactive": False}}


def test_what_the_plugin_is_told_of_the_cluster(tmp_path: Path) -> None:
    """With provideClusterInfo, KUBERNETES_EXEC_INFO says all of the cluster, the CA as data and the extension meant for plugins."""
    (tmp_path / "ca.crt").write_text("PEM")
    extensions = [{"name": "other", "extension": 1}, {"name": "client.authentication.k8s.io/exec", "extension": {"audience": "x", "n": 3}}]
    text = f"""printf %s "$KUBERNETES_EXEC_INFO" >"{tmp_path}/info"; echo '{credential({"token": "t"})}'"""
    cluster: dict[str, Any] = {
        "certificate_authority": "ca.crt",
        "tls_server_name": "k8s",
        "proxy_url": "http://p:1",
        "extensions": extensions,
    }

    login(tmp_path, {"command": script(tmp_path, text), "provideClusterInfo": True}, **cluster)

    assert json.loads((tmp_path / "info").read_text())["spec"]["cluster"] == {
        "server": "https://192.0.2.1:6443",
        "tls-server-name": "k8s",
        "certificate-authority-data": base64_text(b"PEM"),
        "proxy-url": "http://p:1",
        "config": {"audience": "x", "n": 3},
    }


@pytest.mark.parametrize(
    ("output", "complaint"),
    [
        ("", "printed no JSON"),
        ("token", "printed no JSON"),
        ("[]", "printed no ExecCredential"),
        ("{}", "printed no ExecCredential"),
        (credential({"token": "t"}, f"{V1}beta1"), f"answered in apiVersion '{V1}beta1'"),
        (credential(None), "printed no status"),
        (credential({}), "printed neither a token nor a certificate"),
        (credential({"token": ""}), "printed neither a token nor a certificate"),
        (credential({"clientKeyData": "K", "token": "t"}), "printed neither a token nor a certificate"),
        (credential({"token": 5}), "printed a value that is not text"),
        (credential({"token": "two words"}), "is not a bearer token"),
        (credential({"token": "t", "expirationTimestamp": "tomorrow"}), "expirationTimestamp 'tomorrow' is not an RFC 3339 time"),
        (credential({"token": "t", "expirationTimestamp": "2030-01-31T12:00:00"}), "is not an RFC 3339 time"),
    ],
)
def test_broken_answer(tmp_path: Path, output: str, complaint: str) -> None:
    """An answer that is no ExecCredential of the version asked for is an error that names plugin, user and kubeconfig."""
    with pytest.raises(CNIError, match=complaint) as caught:
        says(tmp_path, output)

    assert caught.value.code == KUBECONFIG
    assert f"credential plugin {tmp_path}/./login of user 'test' of kubeconfig {tmp_path}/kube.conf" in caught.value.msg


@pytest.mark.parametrize("command", ["no-such-login", "./no-such-login", "./kube.conf"])
@pytest.mark.parametrize("hint", ["apt install login", None])
def test_missing_command(tmp_path: Path, command: str, hint: str | None) -> None:
    """A command that cannot be run is named, with the kubeconfig's installHint."""
    with pytest.raises(CNIError, match=f"credential plugin .*{command.removeprefix('.')} of user .* cannot be run") as caught:
        login(tmp_path, {"command": command, "installHint": hint})

    assert caught.value.code == KUBECONFIG
    assert (hint or "give its full path") in caught.value.details


def test_failing_plugin(tmp_path: Path) -> None:
    """A plugin that fails is an error with its exit code and the end of what it said on stderr."""
    with pytest.raises(CNIError, match="failed with exit code 3") as caught:
        login(tmp_path, {"command": script(tmp_path, "seq 1 5000 >&2; echo 'no session: log in' >&2; exit 3")})

    assert caught.value.code == UNAUTHORIZED
    assert caught.value.details.endswith("no session: log in")
    assert len(caught.value.details) <= 1000


def test_hanging_plugin(tmp_path: Path) -> None:
    """A plugin that hangs is ended in time, with all that it has started."""
    text = f"sleep 60 & echo $! >{tmp_path}/child; wait"
    began = time.monotonic()

    with pytest.raises(CNIError, match=r"has not answered within 0\.5 s") as caught:
        login(tmp_path, {"command": script(tmp_path, text)}, timeout=0.5)

    assert caught.value.code == TRY_AGAIN_LATER
    assert time.monotonic() - began < PATIENCE
    child = Path("/proc") / (tmp_path / "child").read_text().strip()
    eventually(lambda: _is_gone(child), "it lives")


def _is_gone(process: Path) -> bool:
    try:
        return (process / "stat").read_text().rpartition(")")[2].split()[0] == "Z"  # nobody in this container collects orphans
    except OSError:
        return True


@pytest.mark.parametrize("static", [{"token": "s"}, {"username": "s"}, {"tokenFile": "s"}])
def test_static_credentials_win(tmp_path: Path, static: dict[str, str]) -> None:
    """Where the user has static credentials, too, the plugin is not run, as in client-go."""
    (tmp_path / "s").write_text("s")
    user = {**static, "exec": {"apiVersion": V1, "command": script(tmp_path, f"touch {tmp_path}/ran")}}
    kubeconfig = write_kubeconfig(tmp_path / "kube.conf", {"server": "https://192.0.2.1"}, user)

    assert identify(connection(str(kubeconfig), ENVIRON), ENVIRON, 10).authorization is not None
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("config", ["2020-01-31", ".nan", "&a [*a]"])
def test_extension_that_is_no_json(tmp_path: Path, config: str) -> None:
    """What YAML can say and JSON cannot is an error, not a crash."""
    kubeconfig = tmp_path / "kube.conf"
    kubeconfig.write_text(f"""\
current-context: c
contexts: [{{name: c, context: {{cluster: c, user: u}}}}]
users: [{{name: u, user: {{exec: {{apiVersion: {V1}, command: "true", provideClusterInfo: true}}}}}}]
clusters:
- name: c
  cluster: {{server: "https://192.0.2.1", extensions: [{{name: client.authentication.k8s.io/exec, extension: {config}}}]}}
""")

    with pytest.raises(CNIError, match="extension cannot be written as JSON") as caught:
        identify(connection(str(kubeconfig), ENVIRON), ENVIRON, 10)

    assert caught.value.code == KUBECONFIG


def counting(directory: Path, expires: str = "") -> str:
    """Return a plugin that prints the token t1, then t2, and so on."""
    return script(
        directory,
        f"""echo >>{directory}/runs; n=$(wc -l <{directory}/runs)
echo "{{\\"apiVersion\\": \\"{V1}\\", \\"kind\\": \\"ExecCredential\\", \\"status\\": {{\\"token\\": \\"t$n\\"{expires}}}}}" """,
    )


def client(server: StandInApiServer, directory: Path, command: str) -> ApiServer:
    cluster = {"server": server.url, "certificate-authority-data": base64_text(server.authority.certificate)}
    kubeconfig = write_kubeconfig(directory / "kube.conf", cluster, {"exec": {"apiVersion": V1, "command": command}})
    return ApiServer(str(kubeconfig), ENVIRON, 10)


@pytest.mark.parametrize(("expires", "tokens"), [("2001-01-01", ["t2", "t3"]), ("2999-01-01", ["t1", "t1"])])
def test_expiry(tmp_path: Path, expires: str, tokens: list[str]) -> None:
    """The plugin is run again when its credentials have expired, and only then."""
    command = counting(tmp_path, f', \\"expirationTimestamp\\": \\"{expires}T00:00:00Z\\"')
    with StandInApiServer(tmp_path, answer(N1), answer(N1)) as server:
        asking = client(server, tmp_path, command)
        asking.node("n1")
        asking.node("n1")

        assert [seen.headers["Authorization"] for seen in server.requests] == [f"Bearer {token}" for token in tokens]


def test_plugin_is_run_again_after_401(tmp_path: Path) -> None:
    """After a 401 the plugin is run again, once."""
    with StandInApiServer(tmp_path, refuse(401), answer(N1), refuse(401), refuse(401)) as server:
        asking = client(server, tmp_path, counting(tmp_path))

        assert asking.node("n1") == N1
        with pytest.raises(CNIError) as caught:
            asking.node("n1")

        assert caught.value.code == UNAUTHORIZED
        assert [seen.headers["Authorization"] for seen in server.requests] == ["Bearer t1", "Bearer t2", "Bearer t2", "Bearer t3"]


def test_new_certificate_means_a_new_connection(tmp_path: Path) -> None:
    """A certificate that changes after a 401 is the one that the next connection shows."""
    authority = Authority()
    for number in (1, 2):
        pair = authority.client(f"user{number}")
        status = {"clientCertificateData": pair.certificate.decode(), "clientKeyData": pair.key.decode()}
        (tmp_path / f"answer{number}").write_text(credential(status))
    command = script(tmp_path, f"echo >>{tmp_path}/runs; cat {tmp_path}/answer$(wc -l <{tmp_path}/runs)")
    with StandInApiServer(tmp_path, refuse(401), answer(N1)) as server:
        assert client(server, tmp_path, command).node("n1") == N1

        assert len(server.server_names) == 2  # as many handshakes
