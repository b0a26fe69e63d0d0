# SPDX-License-Identifier: Apache-2.0
"""What is read from where: kubeconfigs, lists of them, the service account, and what is wrong with each."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from kubenode.cni.errors import KUBECONFIG, CNIError
from kubenode.kube import loadingrules

if TYPE_CHECKING:
    from pathlib import Path

V1 = "client.authentication.k8s.io/v1"


def write(
    path: Path,
    server: str = "https://192.0.2.1:6443",
    user: dict[str, Any] | None = None,
    cluster: dict[str, Any] | None = None,
    **top: Any,
) -> str:
    """Write a kubeconfig with the context `main`; `top` replaces top-level keys."""
    content = {
        "current-context": "main",
        "contexts": [{"name": "main", "context": {"cluster": "here", "user": "me"}}],
        "clusters": [{"name": "here", "cluster": {"server": server, **(cluster or {})}}],
        "users": [{"name": "me", "user": user or {"token": "secret"}}],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({**content, **{key.replace("_", "-"): value for key, value in top.items()}}))
    return str(path)


def service_account(directory: Path) -> str:
    directory.mkdir()
    (directory / "token").write_text("pod-token\n")
    (directory / "ca.crt").write_text("")
    return str(directory)


IN_CLUSTER = {"KUBERNETES_SERVICE_HOST": "10.96.0.1", "KUBERNETES_SERVICE_PORT": "443"}


def test_places_are_tried_in_their_order(tmp_path: Path) -> None:
    """The configured kubeconfig wins over $KUBECONFIG, that over the service account, that over ~/.kube/config."""
    account = service_account(tmp_path / "account")
    configured = write(tmp_path / "configured", "https://configured")
    environ = {"HOME": str(tmp_path), "KUBECONFIG": write(tmp_path / "listed", "https://listed"), **IN_CLUSTER}
    write(tmp_path / ".kube/config", "https://home")

    servers = [
        loadingrules.connection(configured, environ, account).cluster.server,
        loadingrules.connection(None, environ, account).cluster.server,
    ]
    del environ["KUBECONFIG"]
    servers.append(loadingrules.connection("", environ, account).cluster.server)
    del environ["KUBERNETES_SERVICE_HOST"]
    servers.append(loadingrules.connection(None, environ, account).cluster.server)

    assert servers == ["https://configured", "https://listed", "https://10.96.0.1:443", "https://home"]


@pytest.mark.parametrize("missing", ["token", "KUBERNETES_SERVICE_HOST", "KUBERNETES_SERVICE_PORT"])
def test_half_a_service_account_is_none(tmp_path: Path, missing: str) -> None:
    """Without a token file, or without the API server's address, this is no pod, and the search goes on."""
    account = service_account(tmp_path / "account")
    environ = {"HOME": str(tmp_path), **IN_CLUSTER}
    write(tmp_path / ".kube/config", "https://home")
    if missing == "token":
        (tmp_path / "account/token").unlink()
    else:
        del environ[missing]

    assert loadingrules.connection(None, environ, account).cluster.server == "https://home"


def test_service_account_over_ipv6(tmp_path: Path) -> None:
    """An IPv6 API server's address stands in brackets; token and CA stay files, as they change under us."""
    account = service_account(tmp_path / "account")

    found = loadingrules.connection(None, {**IN_CLUSTER, "KUBERNETES_SERVICE_HOST": "fd00::1"}, account)

    assert found.cluster.server == "https://[fd00::1]:443"
    assert found.user.token_file == f"{account}/token"
    assert found.cluster.certificate_authority is not None
    assert found.cluster.certificate_authority.path == f"{account}/ca.crt"


def test_nothing_anywhere(tmp_path: Path) -> None:
    """With no configuration at all, the error lists every place that was looked at."""
    with pytest.raises(CNIError) as caught:
        loadingrules.connection(None, {"HOME": str(tmp_path)}, str(tmp_path / "account"))

    assert caught.value.code == KUBECONFIG
    places = ("ipam.kubeconfig", "$KUBECONFIG", f"{tmp_path}/account/token", "KUBERNETES_SERVICE_HOST", f"{tmp_path}/.kube/config")
    assert [place for place in places if place not in caught.value.details] == []


def test_home_without_its_variable(tmp_path: Path) -> None:
    """A runtime starts plugins without HOME: the home directory then comes from the user database."""
    with pytest.raises(CNIError, match="no kubeconfig found") as caught:
        loadingrules.connection(None, {}, str(tmp_path))

    assert "/.kube/config" in caught.value.details


def test_tilde(tmp_path: Path) -> None:
    """`~` in the configured path is HOME."""
    write(tmp_path / "kube.conf", "https://tilde")

    assert loadingrules.connection("~/kube.conf", {"HOME": str(tmp_path)}).cluster.server == "https://tilde"


def test_path_relative_to_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A relative configured path starts at the working directory."""
    write(tmp_path / "kube.conf", "https://relative")
    monkeypatch.chdir(tmp_path)

    assert loadingrules.connection("kube.conf", {}).cluster.server == "https://relative"


def test_list_is_merged_and_the_first_file_wins(tmp_path: Path) -> None:
    """Of a list, the first file that sets current-context or a name wins, whole entries at a time; missing files are passed over."""
    first = write(tmp_path / "a/first", "https://first", contexts=[], users=[])
    second = write(tmp_path / "b/second", "https://second", {"client-certificate": "c.crt", "client-key": "c.key"}, current_context="other")

    found = loadingrules.connection(None, {"KUBECONFIG": f":{tmp_path}/missing:{first}:{second}:{first}"})

    assert found.cluster.server == "https://first"
    assert found.origin == f"user 'me' of kubeconfig {second}"
    assert found.user.certificate is not None
    assert found.user.certificate.path == f"{tmp_path}/b/c.crt"
    assert found.user.token is None


def test_list_of_missing_files(tmp_path: Path) -> None:
    """$KUBECONFIG that names only missing files is an error that names the file, not a reason to become somebody else."""
    account = service_account(tmp_path / "account")

    with pytest.raises(CNIError, match=f"kubeconfig {tmp_path}/missing: cannot be read") as caught:
        loadingrules.connection(None, {"KUBECONFIG": f"{tmp_path}/missing:{tmp_path}/too", **IN_CLUSTER}, account)

    assert caught.value.code == KUBECONFIG


def test_relative_paths_start_at_their_file(tmp_path: Path) -> None:
    """Relative paths inside a kubeconfig start where it lies: certificates, keys, CA, tokenFile and a command with a slash."""
    user = {"client-certificate": "x/c.crt", "client-key": "../c.key", "tokenFile": "t", "exec": {"apiVersion": V1, "command": "./login"}}
    kubeconfig = write(tmp_path / "d/kube.conf", user=user, cluster={"certificate-authority": "ca.crt"})

    found = loadingrules.connection(kubeconfig, {})

    paths = [pem and pem.path for pem in (found.user.certificate, found.user.key, found.cluster.certificate_authority)]
    assert paths == [f"{tmp_path}/d/x/c.crt", f"{tmp_path}/d/../c.key", f"{tmp_path}/d/ca.crt"]
    assert found.user.token_file == f"{tmp_path}/d/t"
    assert found.user.exec is not None
    assert found.user.exec.command == f"{tmp_path}/d/./login"


def test_command_without_slash_is_left_to_path(tmp_path: Path) -> None:
    """A bare command name is looked up in PATH."""
    kubeconfig = write(tmp_path / "kube.conf", user={"exec": {"apiVersion": V1, "command": "login", "args": ["-x"]}})

    plugin = loadingrules.connection(kubeconfig, {}).user.exec

    assert plugin is not None
    assert (plugin.command, plugin.args) == ("login", ("-x",))


@pytest.mark.parametrize(
    ("server", "cluster", "expected"),
    [
        ("192.0.2.1:6443", {"insecure-skip-tls-verify": True}, "https://192.0.2.1:6443"),
        ("192.0.2.1:6443", {"certificate-authority": "ca.crt"}, "https://192.0.2.1:6443"),
        ("192.0.2.1:8080", {}, "http://192.0.2.1:8080"),
        ("https://rancher.example/k8s/clusters/c-1", {}, "https://rancher.example/k8s/clusters/c-1"),
    ],
)
def test_server(tmp_path: Path, server: str, cluster: dict[str, Any], expected: str) -> None:
    """A server without a scheme gets https where TLS is configured and http where it is not, as kubectl does."""
    assert loadingrules.connection(write(tmp_path / "kube.conf", server, cluster=cluster), {}).cluster.server == expected


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("", "no current-context"),
        ("a: [}", "not YAML .line 1"),
        ("a: \x00", "not YAML"),
        ("\x80\x81", "not YAML"),
        ("!!python/object:os.system x", "not YAML"),
        ("just text", "it must be a mapping, not str"),
        ("[1]", "it must be a mapping, not list"),
        ("current-context: 3", "current-context must be text"),
        ("current-context: main", "current-context 'main' is not among the contexts"),
        ("contexts: {}", "contexts must be a list"),
        ("contexts: [x]", r"contexts\[0\] must be a mapping"),
        ("kind: Node", "kind is 'Node', not Config"),
        ("apiVersion: v2", "apiVersion is 'v2', not v1"),
        ("users: [{name: a, user: []}]", "user 'a' must be a mapping"),
        ("clusters: [{name: a}, {name: a}]", "two entries named 'a'"),
    ],
)
def test_broken_file(tmp_path: Path, content: str, complaint: str) -> None:
    """A file that is no kubeconfig is an error that names the file and says why."""
    path = tmp_path / "kube.conf"
    path.write_bytes(content.encode("latin-1"))

    with pytest.raises(CNIError, match=f"kubeconfig {path}: .*{complaint}") as caught:
        loadingrules.connection(str(path), {})

    assert caught.value.code == KUBECONFIG
    assert "\n" not in caught.value.msg
    assert caught.value.details


@pytest.mark.parametrize("kind", ["missing", "directory", "NUL", "endless"])
def test_unreadable_file(tmp_path: Path, kind: str) -> None:
    """A kubeconfig that is missing, or no file, or has no end, is an error that names it."""
    path = {"missing": f"{tmp_path}/no", "directory": str(tmp_path), "NUL": "a\0b", "endless": "/dev/zero"}[kind]

    with pytest.raises(CNIError) as caught:
        loadingrules.connection(path, {})

    assert caught.value.code == KUBECONFIG
    assert path in caught.value.msg


@pytest.mark.parametrize(
    ("part", "value", "complaint"),
    [
        ("current_context", "other", "current-context 'other' is not among the contexts"),
        ("contexts", [{"name": "main", "context": {"user": "me"}}], "context 'main': cluster is missing"),
        ("contexts", [{"name": "main", "context": {"cluster": "here"}}], "context 'main': user is missing"),
        ("contexts", [{"name": "main", "context": {"cluster": "there", "user": "me"}}], "cluster 'there', which does not exist"),
        ("contexts", [{"name": "main", "context": {"cluster": "here", "user": "you"}}], "user 'you', which does not exist"),
        ("clusters", [{"name": "here", "cluster": {}}], "cluster 'here': server is missing"),
    ],
)
def test_broken_reference(tmp_path: Path, part: str, value: Any, complaint: str) -> None:
    """A context, cluster or user that is named and not there is named in the error."""
    kubeconfig = write(tmp_path / "kube.conf", **{part: value})

    with pytest.raises(CNIError, match=f"kubeconfig {kubeconfig}: .*{complaint}") as caught:
        loadingrules.connection(kubeconfig, {})

    assert caught.value.code == KUBECONFIG


@pytest.mark.parametrize(
    ("cluster", "complaint"),
    [
        ({"server": "ftp://x"}, "is not an http or https URL"),
        ({"server": "https://"}, "is not an http or https URL"),
        ({"server": "https://x:99999"}, "is not an http or https URL"),
        ({"server": "https://a b"}, "is not an http or https URL"),
        ({"server": "https://¡"}, "is not an http or https URL"),
        ({"server": "https://[::1"}, "is not an http or https URL"),
        ({"server": 6443}, "server must be text, not int"),
        ({"insecure-skip-tls-verify": "yes"}, "insecure-skip-tls-verify must be true or false"),
        ({"insecure-skip-tls-verify": True, "certificate-authority": "ca.crt"}, "exclude each other"),
        ({"insecure-skip-tls-verify": True, "certificate-authority-data": "AAAA"}, "exclude each other"),
        ({"certificate-authority": "ca.crt", "certificate-authority-data": "AAAA"}, "are both set"),
        ({"certificate-authority-data": "n@t base64"}, "certificate-authority-data is not base64"),
        ({"proxy-url": "socks5://127.0.0.1:1080"}, "a SOCKS proxy, and socks5 is not supported"),
        ({"proxy-url": "//"}, "proxy-url is not an http or https URL"),
        ({"extensions": 1}, "extensions must be a list"),
    ],
)
def test_broken_cluster(tmp_path: Path, cluster: dict[str, Any], complaint: str) -> None:
    """What kubectl refuses in a cluster's entry is refused here, and the error names file, entry and key."""
    kubeconfig = write(tmp_path / "kube.conf", cluster=cluster)

    with pytest.raises(CNIError, match=f"kubeconfig {kubeconfig}: cluster 'here': .*{complaint}") as caught:
        loadingrules.connection(kubeconfig, {})

    assert caught.value.code == KUBECONFIG


@pytest.mark.parametrize(
    ("user", "complaint"),
    [
        ({"token": 12345}, "token must be text, not int: put it in quotes"),
        ({"token": "a", "username": "b", "password": "c"}, "token and username/password exclude each other"),
        ({"client-certificate": "c.crt"}, "client-certificate needs a client-key"),
        ({"client-key": "c.key"}, "client-key needs a client-certificate"),
        ({"password": "secret"}, "password needs a username"),
        ({"client-certificate": "c.crt", "client-certificate-data": "AAAA", "client-key": "c.key"}, "are both set"),
        ({"client-certificate-data": "%", "client-key": "c.key"}, "client-certificate-data is not base64"),
        ({"auth-provider": {"name": "gcp"}}, "auth-provider is not supported: use .* exec"),
        ({"as": "root"}, "as is not supported"),
        ({"exec": []}, None),
        ({"exec": ["x"]}, "exec must be a mapping"),
        ({"exec": {"command": "x"}}, "exec: apiVersion is missing"),
        ({"exec": {"apiVersion": V1}}, "exec: command is missing"),
        ({"exec": {"apiVersion": f"{V1}alpha1", "command": "x"}}, f"apiVersion '{V1}alpha1' is not one of {V1}, {V1}beta1"),
        ({"exec": {"apiVersion": V1, "command": "x", "interactiveMode": "Always"}}, "a CNI plugin has no terminal"),
        ({"exec": {"apiVersion": V1, "command": "x", "args": [1]}}, "args must be a list of strings"),
        ({"exec": {"apiVersion": V1, "command": "x", "env": [{"value": "y"}]}}, "env: name is missing"),
        ({"exec": {"apiVersion": V1, "command": "x", "env": [{"name": "a=b", "value": "y"}]}}, "is not valid in an environment"),
    ],
)
def test_broken_user(tmp_path: Path, user: dict[str, Any], complaint: str | None) -> None:
    """What kubectl refuses in a user's entry, or what a plugin cannot do, is refused with the entry's name; no secret is shown."""
    kubeconfig = write(tmp_path / "kube.conf", user=user)

    if complaint is None:
        assert loadingrules.connection(kubeconfig, {}).user.exec is None
        return
    with pytest.raises(CNIError, match=f"kubeconfig {kubeconfig}: user 'me': .*{complaint}") as caught:
        loadingrules.connection(kubeconfig, {})

    assert caught.value.code == KUBECONFIG
    assert "12345" not in str(caught.value)
